"""What a deployment strategy promises: all or nothing, in an order that dependencies allow, and an end in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest

from deploy_code.errors import DeployCodeError
from deploy_code.events import InstanceChanged
from deploy_code.model import Phase
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.testing.contracts.calls import bounded
from deploy_code.testing.contracts.loops import in_a_loop, until
from deploy_code.testing.platform import FakePlatform, Start
from deploy_code.testing.project import FakeProject

NAME = "on-trial"
NEEDS: Mapping[str, tuple[str, ...]] = {"db": (), "cache": (), "api": ("db", "cache"), "web": ("api",)}
GATE_SECONDS = 0.5  # what a service that hangs is given


class StrategyContract:
    """Subclass it, and set ``strategy``: the class, or whatever you give to ``register_strategy``.

    ``options``: its ``strategy_options``. ``bound_seconds``: how long one deployment of four services may take, with
    all that the strategy waits for by itself. The engine and the state are real, the machine is a ``FakePlatform``.
    """

    strategy: Callable[..., Any]
    options: Mapping[str, Any] = {}
    bound_seconds: float = 30.0

    # ------------------------------------------------------------------------------------------------- it goes well

    @in_a_loop
    async def test_it_deploys_all_services(self) -> None:
        async with self.project() as it:
            report = await self.deploys(it)
            _succeeded(report)
            assert it.ready() == dict.fromkeys(NEEDS, 1), f"ready: {it.ready()}; all of {', '.join(NEEDS)} are wanted"
            assert report.deployed_services == len(NEEDS), f"the report counts {report.deployed_services}"

    @in_a_loop
    async def test_no_service_starts_before_what_it_needs_is_ready(self) -> None:
        async with self.project() as it:
            _succeeded(await self.deploys(it))
            for service, needed in NEEDS.items():
                for each in needed:
                    early = _first(it, service, Phase.STARTING) < _first(it, each, Phase.READY)
                    assert not early, f"{service} was started before {each}, which it needs, was ready"

    @in_a_loop
    async def test_deploying_again_changes_nothing(self) -> None:
        async with self.project() as it:
            _succeeded(await self.deploys(it))
            before = {each.uuid for each in it.platform.all()}
            _succeeded(await self.deploys(it))
            after = {each.uuid for each in it.platform.all()}
            assert before == after, "nothing had changed, and something was started anew"

    @in_a_loop
    async def test_it_brings_new_revisions_and_takes_removed_services_away(self) -> None:
        async with self.project() as it:
            _succeeded(await self.deploys(it))
            changed = self.config(version=2)
            del changed["services"]["web"]
            it.change(changed)
            _succeeded(await self.deploys(it))
            found = {each.service: each.revision for each in it.platform.all()}
            assert found == {"db": 2, "cache": 2, "api": 2}, f"what runs afterwards, by revision: {found}"

    # -------------------------------------------------------------------------------------------------- it goes wrong

    @pytest.mark.parametrize("service", NEEDS)
    @in_a_loop
    async def test_where_a_service_fails_everything_returns(self, service: str) -> None:
        async with self.project() as it:
            _succeeded(await self.deploys(it))
            before = {each.service: each.revision for each in it.platform.all()}
            it.change(self.config(version=2))
            it.platform.will(service, Start.exits(3), Start.ready())
            report = await self.deploys(it)
            assert not report.success, f"{service} ended with code 3, and the deployment says success"
            after = {each.service: each.revision for each in it.platform.all() if each.phase is Phase.READY}
            assert after == before, f"{service} failed; ready before: {before}, ready now: {after}"

    @pytest.mark.parametrize("service", ["db", "web"])
    @in_a_loop
    async def test_where_a_service_hangs_it_ends_and_everything_returns(self, service: str) -> None:
        async with self.project() as it:
            it.platform.will(service, Start.hangs())
            report = await self.deploys(it)
            assert not report.success, f"{service} never got ready, and the deployment says success"
            assert it.platform.all() == (), f"{service} hung in the first deployment, and {it.ready()} stayed"

    @in_a_loop
    async def test_interrupted_it_returns_to_what_was(self) -> None:
        async with self.project() as it:
            it.platform.will("api", Start.hangs())
            deploying = asyncio.create_task(self.deploys(it), name="deploy")
            await until(lambda: it.platform.instances("api") or deploying.done(), what="a start of api")
            it.engine.interrupt()
            try:
                report = await deploying
            except DeployCodeError:
                report = None
            assert report is None or not report.success, "it was interrupted, and says success"
            assert it.platform.all() == (), f"it was interrupted, and {it.ready()} stayed"

    # ---------------------------------------------------------------------------------------------------------- pieces

    def project(self) -> FakeProject:
        return FakeProject(self.config(), strategies={NAME: type(self).strategy}, platform=FakePlatform())

    def config(self, *, version: int = 1) -> dict[str, Any]:
        """Four services: ``web`` needs ``api``, which needs ``db`` and ``cache``."""
        services = {
            name: {"command": name, "args": [f"v{version}"], "dependencies": list(needed)}
            for name, needed in NEEDS.items()
        }
        how = {"strategy": NAME, "strategy_options": deepcopy(dict(self.options)), "timeout_seconds": GATE_SECONDS}
        return {"name": "trial", "deployment": how, "services": services}

    async def deploys(self, project: FakeProject) -> DeploymentReport:
        async with bounded("the deployment", self.bound_seconds):
            report = await project.deploy()
        kind = type(report).__name__
        assert isinstance(report, DeploymentReport), f"deploy() gives a DeploymentReport, and this is a {kind}"
        return report


def _succeeded(report: DeploymentReport) -> None:
    assert report.success, f"every service is healthy, and the deployment failed: {report.errors}"


def _first(project: FakeProject, service: str, phase: Phase) -> int:
    """Where in the row of events the service first entered a phase."""
    for number, event in enumerate(project.events):
        if isinstance(event, InstanceChanged) and event.service == service and event.phase == phase:
            return number
    raise AssertionError(f"{service} never was {phase}")
