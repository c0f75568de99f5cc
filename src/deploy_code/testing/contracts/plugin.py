"""What a plugin promises: it listens, ends in time, raises nothing but a refusal, and changes nothing."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from deploy_code.events import Event
from deploy_code.orchestrator.report import DeploymentReport, FailureReport
from deploy_code.plugins import AbortDeployment, Plugin
from deploy_code.services.calls import call
from deploy_code.services.status import DeploymentStatus
from deploy_code.testing.contracts.calls import bounded
from deploy_code.testing.contracts.loops import in_a_loop
from deploy_code.testing.platform import FakePlatform, Start
from deploy_code.testing.project import FakeProject

SERVICES = {"db": {"command": "db"}, "api": {"command": "api", "dependencies": ["db"]}}
SAMPLES: Mapping[str, Any] = {"str": "api", "float": 1.5, "int": 1, "bool": True, "tuple[str, ...]": ("api", "db")}
HOOKS = [name for name, value in vars(Plugin).items() if inspect.isfunction(value) and not name.startswith("_")]


def _events() -> list[type[Event]]:
    return list(Event.__subclasses__())


class PluginContract:
    """Subclass it, and supply ``make_plugin``. ``config``: of the project it is tried on, where it needs a certain one.

    Override ``settled`` to say what must be true of the outside after a whole deployment, for instance that a message
    has arrived.
    """

    config: Mapping[str, Any] = {"services": SERVICES}

    def make_plugin(self) -> Plugin:
        raise NotImplementedError(f"{type(self).__name__} does not override make_plugin()")

    def settled(self, plugin: Plugin, report: DeploymentReport) -> None:
        """After a deployment that went well, with the plugin that was told of it."""

    # ------------------------------------------------------------------------------------------------ hook by hook

    def test_it_is_a_plugin(self) -> None:
        plugin = self.make_plugin()
        assert isinstance(plugin, Plugin), f"derive {type(plugin).__name__} from deploy_code.plugins.Plugin"
        assert plugin.timeout_seconds > 0, "timeout_seconds bounds one call of a hook"

    @pytest.mark.parametrize("hook", HOOKS)
    @in_a_loop
    async def test_each_hook_ends_in_time_and_raises_nothing_but_a_refusal(self, hook: str) -> None:
        plugin = self.make_plugin()
        for arguments in _arguments(hook):
            await self._try(plugin, hook, arguments)

    @pytest.mark.parametrize("kind", _events(), ids=lambda kind: kind.__name__)
    @in_a_loop
    async def test_it_takes_every_event(self, kind: type[Event]) -> None:
        await self._try(self.make_plugin(), "on_event", (_sample(kind),))

    async def _try(self, plugin: Plugin, hook: str, arguments: tuple[Any, ...]) -> None:
        method: Callable[..., Any] = getattr(plugin, hook)
        shown = f"{type(plugin).__name__}.{hook}({', '.join(type(each).__name__ for each in arguments)})"
        before = [_plain(each) for each in arguments]
        try:
            async with bounded(shown, plugin.timeout_seconds):
                await call(method, *arguments)
        except AbortDeployment as exc:
            assert hook.startswith("before_"), f"{shown} refuses ({exc}); only a before_ hook may"
        except AssertionError:
            raise
        except Exception as exc:
            raise AssertionError(f"{shown} raised {exc!r}; it would be reported as a warning, and do no good") from exc
        assert [_plain(each) for each in arguments] == before, (
            f"{shown} changed what it was given; a plugin only listens"
        )

    # --------------------------------------------------------------------------------------------- whole deployments

    @in_a_loop
    async def test_a_deployment_goes_well_with_it_and_again(self) -> None:
        plugin = self.make_plugin()
        async with FakeProject(self.config, plugins=[plugin]) as project:
            first = await project.deploy()
            self._went_well(first, await self._warnings_without())
            self.settled(plugin, first)
            restarted = await project.restart()
            assert restarted.success, f"restarting failed with it: {restarted.errors}"
            assert await project.stop() is not None
            assert project.ready() == {}, f"still running after a stop: {project.ready()}"

    @in_a_loop
    async def test_a_failed_deployment_is_rolled_back_with_it_as_without(self) -> None:
        names = list(self.config["services"])
        platform = FakePlatform()
        platform.will(names[-1], Start.exits(3))
        async with FakeProject(self.config, plugins=[self.make_plugin()], platform=platform) as project:
            report = await project.deploy()
            assert not report.success, f"{names[-1]} ended with code 3, and the deployment says success"
            assert report.status is DeploymentStatus.ROLLED_BACK, f"it was not rolled back: {report.errors}"
            assert project.ready() == {}, f"the rollback left {project.ready()}"

    def _went_well(self, report: DeploymentReport, usual: set[str]) -> None:
        assert report.success, (
            f"a deployment of {', '.join(self.config['services'])} failed with this plugin: {report.errors}. "
            "If it refuses services of these names, set `config` to what it accepts"
        )
        more = set(map(_anywhere, report.warnings)) - usual
        assert not more, f"the plugin made the report say: {more}"

    async def _warnings_without(self) -> set[str]:
        async with FakeProject(self.config) as project:
            return set(map(_anywhere, (await project.deploy()).warnings))


def _anywhere(text: str) -> str:
    """Without the folder of this very project."""
    return re.sub(r"\S*deploy-code-fake-\w+", "", text)


def _arguments(hook: str) -> list[tuple[Any, ...]]:
    """What the hook may be called with: one tuple a call."""
    if hook == "on_deployment_start":
        return [(["db", "api"],), ([],)]
    if hook == "on_event":
        return [(_sample(kind),) for kind in _events()]
    if hook == "on_failure":
        return [(_failure(),)]
    if hook in ("on_deployment_complete", "on_rollback"):
        return [(_success(),), (_rolled_back(),)]
    return [("api", 1)]


def _success() -> DeploymentReport:
    return DeploymentReport.succeeded(deployment=1, total_services=2, deployed_services=2, duration=1.5)


def _rolled_back() -> DeploymentReport:
    return DeploymentReport(
        deployment=2,
        status=DeploymentStatus.ROLLED_BACK,
        total_services=2,
        failed_services=1,
        errors=["E005 SERVICE_START_FAILED: api r2 #0 ended before it was ready (exit code 3)"],
        warnings=["something to know"],
        failures=[_failure()],
    )


def _failure() -> FailureReport:
    return FailureReport(service="api", code="E005", message="api r2 #0 ended before it was ready (exit code 3)")


def _sample(kind: type[Event]) -> Event:
    """An event of that kind, with something in each field that must be given."""
    needed = [each for each in dataclasses.fields(kind) if each.default is each.default_factory is dataclasses.MISSING]
    values: dict[str, Any] = {each.name: SAMPLES[str(each.type)] for each in needed}
    return kind(**values)


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, DeploymentReport) else repr(value)
