"""Custom strategies over a real agent: what they may decide, and what becomes of those that go wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from deploy_code.app import App
from deploy_code.errors import ConfigError, DeployCodeError, DeploymentError
from deploy_code.model import StrategyName
from deploy_code.orchestrator import DeploymentReport, DeploymentStrategy
from deploy_code.orchestrator.engine import Engine
from deploy_code.services.status import DeploymentStatus
from deploy_code.state.store import Store
from support.engine import engine, give_up, row, until, until_runs, wanted
from support.project import ProjectFolder
from support.scenarios import one_shot, pids, sleeper

DIES = {"command": "sh", "args": ["-c", "exit 7"], "min_ready_seconds": 0.1}


def by(project: ProjectFolder, factory: Callable[..., Any], **options: Any) -> Engine:
    """An engine for which this program has registered a strategy as "mine"."""
    return App((str(project.config),), environ=project.env, strategies={"mine": factory}, **options).orchestrator()


def shop(project: ProjectFolder, services: dict[str, Any], **deployment: Any) -> None:
    project.write(services, deployment={"strategy": "mine", "timeout_seconds": 20, **deployment})


class InTurn(DeploymentStrategy):
    """One after the other, and remembers what it was given."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    async def deploy(self, services: list[str]) -> DeploymentReport:
        for name in services:
            await self.deploy_services([name])
            assert await self.check_health([name])
        return DeploymentReport.succeeded(warnings=[f"deployed {', '.join(services)}"])


async def test_a_strategy_deploys_the_services_of_the_run_in_dependency_order(project: ProjectFolder) -> None:
    shop(project, {"web": sleeper(dependencies=["api"]), "api": sleeper(dependencies=["db"]), "db": sleeper()})
    report = await by(project, InTurn).deploy()
    assert report.success and report.deployed_services == 3 and row(project).good
    assert "deployed db, api, web" in report.warnings
    assert set(pids(project)) == {"db", "api", "web"}


async def test_its_options_are_the_keyword_arguments_of_its_constructor(project: ProjectFolder) -> None:
    made: list[InTurn] = []

    def factory(**options: Any) -> InTurn:
        made.append(InTurn(**options))
        return made[0]

    shop(project, {"db": sleeper()}, strategy_options={"percentage": 0.5})
    assert (await by(project, factory).deploy()).success
    assert made[0].options == {"percentage": 0.5} and made[0].config.deployment.strategy == "mine"


async def test_its_steps_stand_in_the_trace_one_behind_the_other(project: ProjectFolder) -> None:
    shop(project, {"db": sleeper(), "api": sleeper(dependencies=["db"])})
    number = (await by(project, InTurn).deploy()).deployment
    with Store.open(project.state, read_only=True) as store:
        steps = [(each.position, each.step) for each in store.steps(number)]
    assert [position for position, _ in steps] == [1, 2, 3, 4, 5]
    assert steps[0][1].startswith("strategy mine") and steps[1][1] == "start db r1" and "api" in steps[3][1]


async def test_the_plan_shows_one_step_and_what_will_change(project: ProjectFolder) -> None:
    shop(project, {"db": sleeper(), "api": sleeper(dependencies=["db"])})
    text = str(await by(project, InTurn).plan())
    assert "1. strategy mine over 2 services" in text and "create api r1  new service" in text
    report = await by(project, InTurn, dry_run=True).deploy()
    assert str(report.plan) == text and not project.state.exists()


async def test_a_deploy_that_changes_nothing_asks_no_strategy(project: ProjectFolder) -> None:
    shop(project, {"db": sleeper()})
    assert (await by(project, InTurn).deploy()).success
    report = await by(project, lambda: pytest.fail("asked")).deploy()
    assert report.success and report.deployment == 1


async def test_a_removed_service_goes_when_the_strategy_is_through(project: ProjectFolder) -> None:
    shop(project, {"old": sleeper(), "db": sleeper()})
    assert (await by(project, InTurn).deploy()).success
    seen: list[bool] = []

    class Looks(InTurn):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            report = await super().deploy(services)
            seen.append("old" in pids(project))
            return report

    shop(project, {"db": sleeper(env={"V": "2"})})
    assert (await by(project, Looks).deploy()).success
    assert seen == [True] and set(pids(project)) == {"db"}


async def test_the_same_service_twice_is_free(project: ProjectFolder) -> None:
    class Twice(DeploymentStrategy):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            await self.deploy_services(services)
            before = pids(project)
            await self.deploy_services(services)
            assert pids(project) == before
            return DeploymentReport.succeeded()

    shop(project, {"db": sleeper()})
    assert (await by(project, Twice).deploy()).success


async def test_calls_at_the_same_time_come_one_after_the_other(project: ProjectFolder) -> None:
    class AtOnce(DeploymentStrategy):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            await asyncio.gather(*(self.deploy_services([name]) for name in services), self.deploy_services(services))
            return DeploymentReport.succeeded()

    shop(project, {"a": sleeper(), "b": sleeper(dependencies=["a"]), "c": sleeper()})
    report = await by(project, AtOnce).deploy()
    assert report.success and report.deployed_services == 3


async def test_what_a_service_needs_comes_with_it(project: ProjectFolder) -> None:
    class LastOnly(DeploymentStrategy):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            await self.deploy_services(services[-1:])
            return DeploymentReport.succeeded()

    shop(project, {"db": sleeper(), "job": one_shot("pass"), "api": sleeper(dependencies=["db", "job"])})
    report = await by(project, LastOnly).deploy()
    assert report.success, report.errors


# --------------------------------------------------------------------------- what may go wrong


class Raises(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        raise ValueError("no idea what to do")


class GivesNonsense(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services)
        return {"success": True}  # type: ignore[return-value]


class Forgets(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        return DeploymentReport.succeeded()


class SaysNo(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services)
        return DeploymentReport(success=False, errors=["the numbers look bad"])


class Unknown(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        await self.deploy_services(["nobody"])
        return DeploymentReport.succeeded()


class Plain(DeploymentStrategy):
    def deploy(self, services: list[str]) -> DeploymentReport:  # type: ignore[override]
        return DeploymentReport.succeeded()


class NoWords(Exception):
    def __repr__(self) -> str:
        raise ValueError("no words")


class Unspeakable(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        raise NoWords


class RaisesOurs(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        raise DeploymentError("error rates are up", code="E017")


class NoCode(DeployCodeError):
    def __init__(self) -> None:
        pass


class RaisesBare(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        raise NoCode


class WarnsOfNothing(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services)
        return DeploymentReport.succeeded(warnings=None)


class FailsForNoReason(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services)
        return DeploymentReport(success=False, errors="one text")  # type: ignore[arg-type]


class Quits(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        raise SystemExit(3)


class CancelsItself(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
        return DeploymentReport.succeeded()


class Unbuildable(DeploymentStrategy):
    def __init__(self, needed: int) -> None:
        self.needed = needed


class NoStrategy:
    pass


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (Raises, "ValueError('no idea what to do')"),
        (GivesNonsense, "deploy() gave back dict, not a DeploymentReport"),
        (Forgets, "it ended without deploying b"),
        (SaysNo, "the numbers look bad"),
        (Unknown, '"nobody"'),
        (Unspeakable, "NoWords"),
        (RaisesOurs, "error rates are up"),
        (RaisesBare, "NoCode"),
        (WarnsOfNothing, "`warnings` of its report is no list"),
        (FailsForNoReason, "`errors` of its report is no list"),
        (Plain, "deploy() is no `async def`"),
        (Quits, "SystemExit(3)"),
        (CancelsItself, "it cancelled itself"),
        (Unbuildable, "it cannot be constructed"),
        (NoStrategy, "NoStrategy is no deploy_code.orchestrator.DeploymentStrategy"),
    ],
)
async def test_a_strategy_that_goes_wrong_is_named_and_everything_is_put_back(
    project: ProjectFolder, factory: Callable[..., Any], said: str
) -> None:
    shop(project, {"a": sleeper(), "b": sleeper()})
    assert (await by(project, InTurn).deploy()).success
    before = wanted(project)
    shop(project, {"a": sleeper(env={"V": "2"}), "b": sleeper(env={"V": "2"})})
    report = await by(project, factory).deploy()
    assert not report.success and report.status is DeploymentStatus.ROLLED_BACK, report
    assert any(said in error for error in report.errors), report.errors
    if factory is not Unknown:
        named = 'E005 SERVICE_START_FAILED: strategy "mine" (register_strategy() in code) failed'
        assert report.errors[0].startswith(named), report.errors
    assert wanted(project) == before and set(pids(project)) == {"a", "b"} and not row(project).good


class Hangs(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        await asyncio.sleep(1000)
        return DeploymentReport.succeeded()


class Blocks(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:1])
        time.sleep(8)
        await self.deploy_services(services)  # nobody listens any more
        return DeploymentReport.succeeded()


@pytest.mark.parametrize("factory", [Hangs, Blocks])
async def test_a_strategy_that_hangs_is_given_up_on_when_the_time_of_the_deployment_is_over(
    project: ProjectFolder, factory: type[DeploymentStrategy]
) -> None:
    shop(project, {"a": sleeper(), "b": sleeper()}, total_timeout_seconds=2)
    report = await by(project, factory).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK and not pids(project)
    assert "E008" in report.errors[0] and 'strategy "mine" (register_strategy() in code)' in report.errors[0]


async def test_a_service_that_fails_fails_the_deployment_though_the_strategy_catches_it(project: ProjectFolder) -> None:
    caught: list[DeployCodeError] = []

    class Catches(DeploymentStrategy):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            for name in services:
                try:
                    await self.deploy_services([name])
                except DeploymentError as exc:
                    caught.append(exc)
            return DeploymentReport.succeeded()

    shop(project, {"a": sleeper(), "b": DIES, "c": sleeper()})
    report = await by(project, Catches).deploy()
    assert [each.code for each in caught] == ["E005"] and report.status is DeploymentStatus.ROLLED_BACK
    assert [each.service for each in report.failures] == ["b"] and report.failed_services == 1
    assert not pids(project)


async def test_a_second_try_that_works_is_no_failure(project: ProjectFolder) -> None:
    class TriesAgain(DeploymentStrategy):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            try:
                await self.deploy_services(services)
            except DeploymentError:
                await self.deploy_services(services)
            return DeploymentReport.succeeded()

    flaky = "test -e been || { touch been; exit 9; }; exec sleep 1000"
    shop(project, {"a": {"command": "sh", "args": ["-c", flaky], "min_ready_seconds": 0.1}})
    report = await by(project, TriesAgain).deploy()
    assert report.success and report.failures == [] and report.deployed_services == 1, report


async def test_a_second_try_that_finds_it_up_by_now_is_no_failure(project: ProjectFolder) -> None:
    class Waits(DeploymentStrategy):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            try:
                await self.deploy_services(services)
            except DeploymentError:
                (project.folder / "up").touch()
                while not await self.check_health(services):
                    await asyncio.sleep(0.05)
                await self.deploy_services(services)
            return DeploymentReport.succeeded()

    slow = {"command": ["test", "-e", str(project.folder / "up")], "interval_seconds": 0.1, "retries": 1000}
    shop(project, {"a": sleeper(health_check=slow)}, timeout_seconds=1)
    report = await by(project, Waits).deploy()
    assert report.success and report.failures == [] and report.deployed_services == 1, report


async def test_no_rollback_leaves_what_a_strategy_has_begun(project: ProjectFolder) -> None:
    shop(project, {"a": sleeper(), "b": sleeper()}, rollback_on_failure=False)
    report = await by(project, Raises).deploy()
    assert report.status is DeploymentStatus.FAILED and set(pids(project)) == {"a"}
    assert set(wanted(project)) == {"a"}


async def test_ctrl_c_ends_the_strategy_and_puts_everything_back(project: ProjectFolder) -> None:
    waits, ended = threading.Event(), threading.Event()

    class Waits(DeploymentStrategy):
        async def deploy(self, services: list[str]) -> DeploymentReport:
            await self.deploy_services(services[:1])
            try:
                waits.set()
                await asyncio.sleep(1000)
            finally:
                ended.set()
            return DeploymentReport.succeeded()

    shop(project, {"a": sleeper(), "b": sleeper()})
    run = by(project, Waits)
    task = asyncio.create_task(run.deploy())
    await until(waits.is_set)
    run.interrupt()
    report = await task
    assert report.status is DeploymentStatus.ROLLED_BACK and "E017" in report.errors[0]
    assert ended.is_set() and not pids(project)


@pytest.mark.usefixtures("no_recovery_by_the_agent")
async def test_a_deployment_left_in_the_middle_is_undone_and_never_resumed_in_the_middle(
    project: ProjectFolder,
) -> None:
    shop(project, {"a": sleeper(), "b": sleeper()})
    run = by(project, Hangs)
    task = asyncio.create_task(run.deploy())
    await until_runs(project, "a")
    await give_up(run, task)
    assert row(project).status == "in_progress"
    report = await engine(project).recover()
    assert report is not None and report.status is DeploymentStatus.ROLLED_BACK and not pids(project)


@pytest.mark.usefixtures("no_recovery_by_the_agent")
async def test_a_deployment_that_is_resumed_starts_its_strategy_anew(project: ProjectFolder) -> None:
    shop(project, {"a": sleeper(), "b": sleeper()})
    run = by(project, Hangs)
    task = asyncio.create_task(run.deploy())
    await until_runs(project, "a")
    await give_up(run, task)
    report = await by(project, InTurn).recover(resume=True)
    assert report is not None and report.success and set(pids(project)) == {"a", "b"}
    assert "deployed a, b" in report.warnings


async def test_other_operations_need_no_strategy(project: ProjectFolder) -> None:
    shop(project, {"a": sleeper(), "b": sleeper(dependencies=["a"])})
    assert (await by(project, InTurn).deploy()).success
    assert (await engine(project).restart()).success
    assert (await engine(project).scale({"b": 2})).success
    report = await engine(project).stop()
    assert report is not None and report.success and not pids(project)


# --------------------------------------------------------------------------- names


async def test_a_name_that_nobody_registered_is_an_error_that_lists_what_there_is(project: ProjectFolder) -> None:
    project.write({"a": sleeper(strategy="gently")}, deployment={"strategy": "mein"})
    with pytest.raises(ConfigError) as caught:
        await by(project, InTurn).deploy()
    text = str(caught.value)
    assert 'deployment.strategy: no strategy is registered as "mein" (did you mean "mine"? registered: mine' in text
    assert 'services.a.strategy: no rollout is registered as "gently"' in text
    assert all(name in text for name in StrategyName) and not project.state.exists()


async def test_a_strategy_and_a_rollout_are_not_taken_for_each_other(project: ProjectFolder) -> None:
    plugin = "from deploy_code.orchestrator import DeploymentStrategy\nclass Whole(DeploymentStrategy): pass\n"
    project.program("kinds.py", plugin + "def part(change): return []\n")
    project.write(
        {"a": sleeper(strategy="Whole")},
        deployment={"strategy": "part"},
        plugins=["./kinds.py:Whole", "./kinds.py:part"],
    )
    with pytest.raises(ConfigError) as caught:
        await engine(project).deploy()
    assert '"part" is a rollout, for one service (write services.NAME.strategy: part) [E002]' in str(caught.value)
    assert '"Whole" is a strategy for a whole deployment (write deployment.strategy: Whole) [S003]' in str(caught.value)
