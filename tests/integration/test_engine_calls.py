"""Dry runs, hooks, plugins, names, redaction and the façade: what callers of the engine are promised."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from deploy_code.client import DeployCode
from deploy_code.errors import ConfigError, DeployCodeError, ServiceError
from deploy_code.plugins import Plugin
from deploy_code.services.status import DeploymentStatus
from support.engine import engine, held_at, row, until, until_runs, wanted
from support.project import ProjectFolder
from support.scenarios import agents, one_shot, pids, sleeper

DIES = {"command": "sh", "args": ["-c", "exit 7"], "min_ready_seconds": 0.1}
SECRET = "correct-horse-battery"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and the time of its last change; SQLite's readers mark themselves in ``-shm``."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
    found = (path for path in files if "home" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


# --------------------------------------------------------------------------- dry runs


@pytest.mark.parametrize("how", ["a flag", "the file"])
async def test_a_dry_run_writes_nothing_and_starts_no_agent(project: ProjectFolder, how: str) -> None:
    project.write({"app": sleeper()})
    assert (await engine(project).deploy()).success
    await engine(project).stop()
    await until(lambda: not agents(project))
    project.write({"app": sleeper(env={"V": "2"})}, **({"dry_run": True} if how == "the file" else {}))
    before = tree(project.folder)
    report = await engine(project, dry_run=how == "a flag").deploy()
    assert report.success and report.plan is not None and not report.plan.is_empty
    assert tree(project.folder) == before
    assert not project.leftovers()


async def test_a_file_that_says_dry_run_false_is_deployed(project: ProjectFolder) -> None:
    project.write({"app": sleeper()}, dry_run=False)
    assert (await engine(project).deploy()).success
    assert pids(project).keys() == {"app"}


async def test_a_dry_run_shows_the_one_shots_that_are_to_run_again(project: ProjectFolder) -> None:
    project.write({"migrate": one_shot("pass")})
    assert (await engine(project).deploy()).success
    report = await engine(project, dry_run=True).deploy(rerun=["migrate"])
    assert report.plan is not None and dict(report.plan.actions) == {"migrate": "run"}


async def test_without_validation_a_dry_run_looks_at_the_plan_alone(project: ProjectFolder) -> None:
    project.write({"app": {"command": "no-such-program"}})
    with pytest.raises(DeployCodeError, match=r"^E003"):
        await engine(project, dry_run=True).deploy()
    assert (await engine(project, dry_run=True).deploy(skip_phases=["validation"])).success


async def test_a_dry_run_from_another_file_says_whose_project_it_is(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    assert (await engine(project).deploy()).success
    other = project.folder / "other.yaml"
    other.write_text(project.config.read_text())
    from deploy_code.app import App

    with pytest.raises(ConfigError, match="belongs to"):
        await App([other], environ=project.env, dry_run=True).orchestrator().deploy()


async def test_a_broken_file_leaves_no_agent_that_it_had_started_unheard(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    assert (await engine(project).deploy()).success
    project.config.write_text(project.config.read_text() + "\nnonsense: [")
    with pytest.raises(ConfigError):
        await engine(project).deploy()
    assert len(agents(project)) == 1


# --------------------------------------------------------------------------- names


async def test_an_unknown_name_is_s001_before_anything_is_made(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    with pytest.raises(ServiceError, match=r'^S001.*Did you mean "app"'):
        await engine(project).deploy(["ap"])
    assert not project.data_dir.exists()


async def test_no_services_named_restarts_all_and_an_empty_list_none(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    assert (await engine(project).deploy()).success
    before = pids(project)
    assert (await engine(project).restart([])).success
    assert pids(project) == before
    assert (await engine(project).restart()).success
    assert pids(project) != before


async def test_restarting_a_one_shot_is_s003_that_names_the_way_to_rerun_it(project: ProjectFolder) -> None:
    project.write({"migrate": one_shot("pass"), "app": sleeper()})
    assert (await engine(project).deploy()).success
    with pytest.raises(ServiceError, match=r"^S003.*--rerun migrate"):
        await engine(project).restart(["migrate"])


# --------------------------------------------------------------------------- hooks


async def test_a_hook_that_leaves_something_running_has_ended_when_it_ended(project: ProjectFolder) -> None:
    left = project.folder / "pid"
    hook = ["sh", "-c", f"sleep 600 & echo $! > {left}; setsid sleep 5 &"]
    project.write({"app": sleeper()}, hooks={"pre_deploy": [hook]})
    async with asyncio.timeout(20):
        assert (await engine(project).deploy()).success
    state = Path(f"/proc/{int(left.read_text())}/stat")
    await until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX")


async def test_what_a_failing_hook_prints_is_shown_without_secrets(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder / ".env").write_text(f"DB_PASSWORD={SECRET}\n")
    hook = ["sh", "-c", "echo the password is $DB_PASSWORD; exit 3"]
    project.write({"app": sleeper(env={"DB_PASSWORD": "${DB_PASSWORD}"})}, hooks={"pre_deploy": [hook]})
    with pytest.raises(DeployCodeError, match="the password is") as caught:
        await engine(project).deploy()
    assert SECRET not in str(caught.value)
    assert not pids(project)


# --------------------------------------------------------------------------- secrets


async def test_a_secret_in_a_cause_reaches_neither_plan_nor_trace_nor_plugins(project: ProjectFolder) -> None:
    def app(path: str) -> dict[str, Any]:
        check = {"command": ["true", f"--password={SECRET}", path], "interval_seconds": 1}
        return sleeper(env={"DB_PASSWORD": SECRET}, health_check=check)

    project.write({"app": app("/one")})
    assert (await engine(project).deploy()).success
    project.write({"app": app("/two")})
    heard = Events()
    assert "health.command" in str(await engine(project).plan())
    report = await engine(project, [heard]).deploy()
    assert report.success and report.plan is not None
    shown = [str(report.plan), str(report.plan.to_dict()), str(report.to_dict()), *heard.texts]
    with sqlite3.connect(project.state / "state.db") as db:
        shown += [str(found) for table in ("steps", "events") for found in db.execute(f"SELECT * FROM {table}")]
        shown += [str(found) for found in db.execute("SELECT plan, report, origin FROM deployments")]
    db.close()
    assert not [each for each in shown if SECRET in each]


class Events(Plugin):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_event(self, event: Any) -> None:
        self.texts += [event.text, repr(event)]


# --------------------------------------------------------------------------- plugins


class Quits(Plugin):
    """Does what must not end a deployment."""

    def on_deployment_start(self, services: Any) -> None:
        sys.exit(3)

    async def before_service_rollout(self, service: str, revision: int) -> None:
        raise KeyboardInterrupt

    def after_service_rollout(self, service: str, revision: int) -> None:
        raise StopIteration


async def test_a_plugin_that_tries_to_end_the_program_is_reported_and_ends_nothing(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    report = await engine(project, [Quits()]).deploy()
    assert report.success
    for what in ("SystemExit(3)", "KeyboardInterrupt()", "StopIteration()"):
        assert any("Quits" in each and what in each for each in report.warnings), (what, report.warnings)


async def test_a_listener_on_the_bus_that_raises_is_reported(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    run = engine(project)

    def broken(event: Any) -> None:
        raise ValueError("I cannot listen")

    run.bus.subscribe(broken)
    report = await run.deploy()
    assert report.success
    assert any("I cannot listen" in each for each in report.warnings)


async def test_a_deploy_that_changes_nothing_calls_no_plugin(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    assert (await engine(project).deploy()).success
    heard = Events()
    report = await engine(project, [heard]).deploy()
    assert report.success and report.deployed_services == 1 and not heard.texts


# --------------------------------------------------------------------------- the façade


async def test_a_stop_without_a_timeout_gives_each_service_its_own(project: ProjectFolder) -> None:
    """SIGTERM is ignored: within its own second it is killed, with an explicit time within that."""
    script = "trap '' TERM; while :; do sleep 0.1; done"
    stubborn = {"command": "sh", "args": ["-c", script], "min_ready_seconds": 0.1, "stop_timeout_seconds": 1}
    project.write({"app": stubborn})
    deployer = DeployCode(project.config)
    assert (await deployer.deploy()).success
    async with asyncio.timeout(10):
        await deployer.stop()
    assert not pids(project)


async def test_monitor_sees_a_deployment_that_has_the_lock_and_is_not_recorded_yet(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    assert (await DeployCode(project.config).deploy()).success
    project.write({"app": sleeper(env={"V": "2"})}, hooks={"pre_deploy": [["sleep", "0.5"]]})
    deploying = asyncio.create_task(DeployCode(project.config).deploy())
    await asyncio.sleep(0.2)
    assert row(project).number == 1, "it is still in its hook"
    async with asyncio.timeout(20):
        last = await DeployCode(project.config).monitor_deployment()
    assert (await deploying).success
    assert last["deployment"] == 2 and last["deployment_complete"]


async def test_waiting_for_health_beside_a_deployment_waits_for_what_is_not_there_yet(project: ProjectFolder) -> None:
    project.write({"a": sleeper(), "b": sleeper(dependencies=["a"])})
    async with held_at(lambda step: step.id == "b/start") as reached:
        deploying = asyncio.create_task(engine(project).deploy())
        await reached.wait()
        assert not await DeployCode(project.config).wait_for_healthy(timeout=0.3)
        deploying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploying


async def test_health_knows_three_formats(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    deployer = DeployCode(project.config)
    assert isinstance(await deployer.health(), dict)
    assert isinstance(await deployer.health("text"), str)
    with pytest.raises(ConfigError, match="no format"):
        await deployer.health("xml")


def test_one_object_serves_several_loops_in_several_threads(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    deployer = DeployCode(project.config)
    assert asyncio.run(deployer.deploy()).success
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(deployer.restart())))
    thread.start()
    thread.join()
    assert found[0].success
    asyncio.run(deployer.stop())
    assert not pids(project)


async def test_dry_operations_of_the_facade_change_nothing(project: ProjectFolder) -> None:
    project.write({"app": sleeper()})
    assert (await DeployCode(project.config).deploy()).success
    before = pids(project)
    dry = DeployCode(project.config, dry_run=True)
    report = await dry.restart()
    await dry.stop()
    assert report.plan is not None and dict(report.plan.actions) == {"app": "restart"}
    assert pids(project) == before and row(project).number == 1


# --------------------------------------------------------------------------- services=[…]


async def test_a_partial_deploy_touches_its_services_and_carries_the_others_forward(project: ProjectFolder) -> None:
    project.write({"db": sleeper(), "api": sleeper(dependencies=["db"]), "web": sleeper(), "gone": sleeper()})
    assert (await engine(project).deploy()).success
    before = pids(project)
    changed = {"env": {"V": "2"}}
    project.write({"db": sleeper(**changed), "api": sleeper(dependencies=["db"], **changed), "web": sleeper(**changed)})
    report = await engine(project).deploy(["api"])
    after = pids(project)
    assert report.success and (report.total_services, report.deployed_services) == (1, 1)
    assert {name for name in before if before[name] != after[name]} == {"api"}
    assert {name: each.revision for name, each in wanted(project).items()} == {"db": 1, "api": 2, "web": 1, "gone": 1}
    assert row(project).good


async def test_a_partial_deploy_that_fails_leaves_the_others_alone(project: ProjectFolder) -> None:
    project.write({"web": sleeper(), "api": sleeper()})
    assert (await engine(project).deploy()).success
    before = pids(project)
    project.write({"web": sleeper(env={"V": "2"}), "api": DIES})
    report = await engine(project).deploy(["api"])
    assert report.status is DeploymentStatus.ROLLED_BACK
    assert pids(project)["web"] == before["web"] and pids(project).keys() == before.keys()
    await until_runs(project, "api")
