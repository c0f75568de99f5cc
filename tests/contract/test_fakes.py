"""The fakes by themselves: what an author can make them do, and that they leave nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_code.config import DeploymentConfig, ServiceConfig
from deploy_code.drivers.base import StartOrder
from deploy_code.errors import CircuitOpenError, ConfigError, DriverError
from deploy_code.events import InstanceChanged
from deploy_code.model import Breaker, Phase
from deploy_code.plan.diff import Change
from deploy_code.plan.plan import Step
from deploy_code.plan.rollouts.recreate import recreate
from deploy_code.reliability.circuit import CircuitBreaker
from deploy_code.services.handler import Service
from deploy_code.services.status import DeploymentStatus
from deploy_code.testing import FakeClock, FakeDriver, FakeMachine, FakePlatform, FakeProgram, FakeProject, Start

SHOP = {"name": "shop", "services": {"db": {"command": "db"}, "api": {"command": "api", "dependencies": ["db"]}}}


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)


def test_the_fakes_need_no_pytest_and_the_suites_no_hypothesis_but_that_of_rollouts() -> None:
    program = """
import sys
import deploy_code.testing
assert "pytest" not in sys.modules
sys.modules["hypothesis"] = None
from deploy_code.testing.contracts import DriverContract, PluginContract, ServiceContract, StrategyContract
try:
    from deploy_code.testing.contracts import RolloutContract
except ImportError:
    print("only this one")
"""
    done = python(program)
    assert (done.stdout, done.stderr) == ("only this one\n", "")


# ------------------------------------------------------------------------------------------------------------ the clock


def test_a_breaker_opens_and_closes_as_the_clock_is_moved() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker("the chat", Breaker(failures=1, cooldown_seconds=30), clock=clock)
    breaker.admit()
    breaker.failed("silence")
    clock.advance(29.9)
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    assert clock.advance(0.1) == clock.now == clock()
    breaker.admit()


def test_the_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back by 1 s"):
        FakeClock().advance(-1)


# ---------------------------------------------------------------------------------------------------------- the machine


async def test_a_machine_runs_the_programs_it_is_given_and_says_which_it_has() -> None:
    machine = FakeMachine({"postgres": FakeProgram(leaves=2)})
    driver = FakeDriver(machine)
    running = await driver.start(StartOrder(uuid="a", service="db", command="postgres"))
    machine.end("a", code=1)
    assert (await driver.wait(running)).code == 1
    assert len(await driver.pids(running)) == 2
    assert [await driver.sweep(running), await driver.sweep(running)] == [2, 0]
    with pytest.raises(DriverError, match="it has deaf, exit, postgres, sleep"):
        await driver.start(StartOrder(uuid="b", service="db", command="mysql"))
    assert [each.uuid for each in machine.orders] == ["a"]


async def test_after_a_reboot_a_machine_is_empty() -> None:
    machine = FakeMachine()
    driver = FakeDriver(machine)
    running = await driver.start(StartOrder(uuid="a", service="db", command="sleep"))
    waiting = asyncio.create_task(driver.wait(running))
    await asyncio.sleep(0)
    machine.reboot()
    assert (await waiting).code is None
    assert machine.alive() == []
    assert not await driver.find(running)


# ---------------------------------------------------------------------------------------------------------- the project


async def test_a_project_is_deployed_scaled_rolled_back_and_stopped() -> None:
    async with FakeProject(SHOP) as project:
        assert (await project.deploy()).success
        assert (await project.scale({"api": 3})).success
        assert project.ready() == {"db": 1, "api": 3}
        assert (await project.rollback(to=1)).success
        assert project.ready() == {"db": 1, "api": 1}
        assert (await project.restart(["api"])).success
        assert await project.stop() is not None
        assert project.ready() == {}


async def test_a_failed_deployment_returns_to_what_was_and_says_why() -> None:
    async with FakeProject(SHOP) as project:
        await project.deploy()
        project.change({**SHOP, "services": {**SHOP["services"], "db": {"command": "db", "args": ["--new"]}}})  # type: ignore[dict-item]
        project.platform.will("db", Start.exits(7), Start.ready())
        report = await project.deploy()
        assert report.status is DeploymentStatus.ROLLED_BACK
        assert [str(each.exit) for each in report.failures] == ["exit code 7"]
        assert {each.service: each.revision for each in project.platform.all()} == {"db": 1, "api": 1}


async def test_one_shots_complete_once() -> None:
    one_shot = {"name": "shop", "services": {"migrate": {"command": "migrate", "one_shot": True}}}
    async with FakeProject(one_shot) as project:
        assert (await project.deploy()).success
        assert (await project.deploy()).success
        assert project.platform.wishes == ["migrate r1 ×1"]


async def test_a_dry_run_shows_the_plan_and_changes_nothing() -> None:
    async with FakeProject(SHOP, dry_run=True) as project:
        report = await project.deploy()
        assert "start api r1" in str(report.plan)
        assert project.platform.wishes == []


async def test_the_events_of_a_project_are_those_of_a_real_one() -> None:
    async with FakeProject(SHOP) as project:
        await project.deploy()
        changed = [(each.service, each.phase) for each in project.events if isinstance(each, InstanceChanged)]
        assert changed == [("db", "starting"), ("db", "ready"), ("api", "starting"), ("api", "ready")]
        assert [project.events[0].name, project.events[-1].name] == ["DeploymentStarted", "DeploymentFinished"]


async def test_what_hangs_gets_ready_when_the_test_says_so() -> None:
    platform = FakePlatform()
    platform.will("db", Start.hangs())
    async with FakeProject(SHOP, platform=platform) as project:
        deploying = asyncio.create_task(project.deploy())
        async with asyncio.timeout(10):
            while not platform.instances("db"):
                await platform.changed("db")
        platform.become("db", Phase.READY)
        assert (await deploying).success


async def test_a_config_may_be_text_a_path_or_built_in_code(tmp_path: Path) -> None:
    text = "name: shop\nservices:\n  db:\n    command: db\n"
    path = tmp_path / "deploy-code.yaml"
    path.write_text(text)
    built = DeploymentConfig(services={"db": ServiceConfig(command="db")})
    for config in (text, path, str(path), built):
        async with FakeProject(config) as project:
            assert (await project.deploy()).success
            assert project.ready() == {"db": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["deploy-code.yaml"], "state does not lie beside the file"


async def test_rollouts_and_types_of_ones_own_are_known_by_their_names() -> None:
    seen: list[str] = []

    def patient(change: Change) -> Iterator[Step]:
        seen.append(change.action)
        yield from recreate(change)

    config = {"services": {"db": {"service_type": "flag", "strategy": "patient", "replicas": 2}}}
    async with FakeProject(config, strategies={"patient": patient}, types={"flag": Service}) as project:
        assert (await project.deploy()).success
        assert project.ready() == {"db": 2}
    assert set(seen) == {"create"}


async def test_what_is_wrong_with_a_config_is_said_as_ever() -> None:
    async with FakeProject("services:\n  db:\n    comand: db\n") as project:
        with pytest.raises(ConfigError, match="comand"):
            await project.deploy()


async def test_what_is_no_config_and_no_start_is_told() -> None:
    with pytest.raises(TypeError, match="plain data only, got a ServiceConfig: build a DeploymentConfig"):
        await FakeProject({"services": {"db": ServiceConfig(command="db")}}).__aenter__()
    with pytest.raises(TypeError, match=r"made by Start.ready\(\) and its like, got 'ready'"):
        FakePlatform().will("db", "ready")  # type: ignore[arg-type]


async def test_nothing_of_it_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with FakeProject(SHOP) as project:
        await project.deploy()
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="a mapping, text or a path, got int"):
        await FakeProject(17).__aenter__()  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="async with FakeProject"):
        await project.deploy()
