"""`DeploymentOrchestrator` over real agents and processes: configs from files and from code, one object for all."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy_code.config import DeploymentConfig, ServiceConfig
from deploy_code.embed import looks
from deploy_code.errors import ConfigError, DeployCodeError, DeploymentError, LockedError
from deploy_code.orchestrator import DeploymentOrchestrator
from deploy_code.plugins import Plugin
from support.embedded import config_of
from support.engine import row, until, until_runs
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import pages, pid_of, pids, program, sleeper, text_at, web, write_program


@pytest.fixture
async def shop(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProjectFolder]:
    """A folder without a config file, which is the current one; what runs there is stopped afterwards."""
    monkeypatch.chdir(project.folder)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    pages(project, "v1", "v2")
    write_program(project)
    yield project
    config = config_of(project)
    if (project.state / "state.db").exists() and not project.config.exists():
        await DeploymentOrchestrator(config, adopt=True).stop(5)


def two(shop: ProjectFolder) -> DeploymentConfig:
    """``db``, and ``api`` that needs it."""
    db, api = free_ports(2)
    return config_of(shop, db=web(db), api=web(api, "db"))


# --------------------------------------------------------------------------- one object for everything


async def test_a_config_built_in_code_goes_through_a_whole_life_without_any_file(shop: ProjectFolder) -> None:
    config = config_of(shop, db=web(free_ports(1)[0]), worker=sleeper())
    async with await DeploymentOrchestrator.new(config) as orchestrator:
        plan = await orchestrator.plan()
        assert "start db r1" in str(plan) and not shop.data_dir.exists()
        report = await orchestrator.deploy()
        assert (report.success, report.deployed_services, report.total_services) == (True, 2, 2)
        await orchestrator.wait_for_healthy(timedelta(seconds=5))
        status = await orchestrator.get_status(detailed=True)
        assert (status.project, status.overall_health) == ("shop", "healthy")
        assert status.services["db"].status == "running"
        assert status.services["db"].instances[0].pid == pid_of(shop, "db")
        assert (await orchestrator.scale({"worker": 2})).success and len(pids(shop)["worker"]) == 2
        before = pids(shop)["db"]
        assert (await orchestrator.restart(["db"])).success and pids(shop)["db"] != before
        assert (await orchestrator.rollback(1)).success and len(pids(shop)["worker"]) == 1
        assert (await orchestrator.stop(timeout=5, services=["worker"])).success and set(pids(shop)) == {"db"}
        assert (await orchestrator.stop(timedelta(seconds=5))).success and pids(shop) == {}
        assert await orchestrator.recover() is None
    assert (await orchestrator.get_status()).overall_health == "stopped"


async def test_services_may_be_changed_between_two_deploys(shop: ProjectFolder) -> None:
    port = free_ports(1)[0]
    config = config_of(shop, db=web(port))
    orchestrator = DeploymentOrchestrator(config)
    await orchestrator.deploy()
    config.services["worker"] = ServiceConfig(**sleeper())
    config.services["db"] = ServiceConfig(**web(port, version="v2"))
    assert (await orchestrator.deploy()).deployed_services == 2
    assert text_at(port, "/index.html") == "v2" and set(pids(shop)) == {"db", "worker"}
    del config.services["worker"]
    await orchestrator.deploy()
    assert set(pids(shop)) == {"db"}


async def test_a_path_is_read_anew_for_each_operation(shop: ProjectFolder) -> None:
    shop.write({"a": sleeper()})
    orchestrator = DeploymentOrchestrator("deploy-code.yaml")
    await orchestrator.deploy()
    shop.write({"a": sleeper(), "b": sleeper()})
    assert (await orchestrator.deploy()).total_services == 2
    assert set(orchestrator.config.services) == {"a", "b"}


async def test_a_config_that_was_loaded_belongs_to_its_file(shop: ProjectFolder, tmp_path: Path) -> None:
    shop.write({"a": sleeper(), "b": sleeper()})
    config = await DeploymentConfig.load("deploy-code.yaml")
    del config.services["b"]
    os.chdir(tmp_path)
    assert (await DeploymentOrchestrator(config).deploy()).total_services == 1
    assert (await DeploymentOrchestrator(shop.config).get_status()).services["a"].status == "running"
    assert shop.cli("status", "--format", "json").ok().json()["running_services"] == 1
    os.chdir(shop.folder)


def test_one_object_serves_under_several_event_loops(project: ProjectFolder) -> None:
    orchestrator = DeploymentOrchestrator(config_of(project, a=sleeper()))
    assert asyncio.run(orchestrator.deploy()).success
    assert asyncio.run(orchestrator.get_status()).running_services == 1
    assert asyncio.run(orchestrator.stop(5)).success


async def test_a_slip_in_a_call_is_told_and_changes_nothing(shop: ProjectFolder) -> None:
    orchestrator: Any = DeploymentOrchestrator(config_of(shop, a=sleeper()))
    await orchestrator.deploy()
    before = pids(shop)
    slips: list[Callable[[], Awaitable[Any]]] = [
        lambda: orchestrator.stop("a"),  # the first argument is the time-out
        lambda: orchestrator.stop(services="a"),
        lambda: orchestrator.deploy("a"),
        lambda: orchestrator.deploy(skip_phases="health"),
        lambda: orchestrator.plan("a"),
        lambda: orchestrator.restart("a"),
        lambda: orchestrator.scale({"a": "2"}),
        lambda: orchestrator.scale(["a"]),
        lambda: orchestrator.rollback("1"),
        lambda: orchestrator.recover("1"),
        lambda: orchestrator.wait_for_healthy("soon"),
        lambda: orchestrator.wait_for_healthy(check_interval="often"),
        lambda: orchestrator.registry.stop_service("a", "soon"),
    ]
    for slip in slips:
        with pytest.raises(TypeError, match=r"list of names|whole number|number of seconds|from names to numbers"):
            await slip()
    with pytest.raises(TypeError, match="limit is a whole number"):
        orchestrator.events(limit="all")
    assert pids(shop) == before
    assert (await orchestrator.get_status()).deployment == 1
    assert (await orchestrator.stop(5)).success


async def test_looking_leaves_the_event_loop_to_others(shop: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    orchestrator = DeploymentOrchestrator(config_of(shop, a=sleeper()))
    go_on = threading.Event()
    slow = looks.status_of

    def held_up(*args: Any, **options: Any) -> dict[str, Any]:
        assert go_on.wait(10), "nobody else got the loop meanwhile"
        return slow(*args, **options)

    monkeypatch.setattr(looks, "status_of", held_up)
    for look in (orchestrator.get_status(), orchestrator.registry.get_status("a")):
        go_on.clear()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await look


async def test_a_dry_run_changes_nothing(shop: ProjectFolder) -> None:
    orchestrator = DeploymentOrchestrator(two(shop), dry_run=True)
    report = await orchestrator.deploy()
    assert report.success and "start db r1" in str(report.plan)
    assert not shop.data_dir.exists()
    assert (await orchestrator.stop()).success, "nothing was ever deployed: nothing to do"
    asked = two(shop).model_copy(update={"dry_run": True})
    assert (await DeploymentOrchestrator(asked).deploy()).plan is not None and not shop.data_dir.exists()


async def test_nothing_stays_open_after_an_operation(shop: ProjectFolder) -> None:
    orchestrator = DeploymentOrchestrator(config_of(shop, a=sleeper()))
    await orchestrator.deploy()
    await orchestrator.stop(5)
    await orchestrator.get_status()  # the loop has its thread for blocking calls from here on
    threads, files = threading.active_count(), open_files()
    await orchestrator.deploy()
    await orchestrator.get_status()
    await orchestrator.stop(5)
    assert threading.active_count() <= threads
    assert open_files() <= files


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --------------------------------------------------------------------------- what is wrong when it is handed over


async def test_all_that_is_wrong_between_values_is_said_by_new_and_by_deploy(shop: ProjectFolder) -> None:
    config = config_of(shop, a=sleeper(dependencies=["nowhere"]), b={"replicas": 1})
    with pytest.raises(ConfigError) as caught:
        await DeploymentOrchestrator.new(config)
    assert [(each.code, each.path, each.line) for each in caught.value.problems] == [
        ("S003", "services.b.command", 0),
        ("E007", "services.a.dependencies[0]", 0),
    ]
    with pytest.raises(ConfigError, match=r"^E002 CONFIG_INVALID: 2 problems") as again:
        await DeploymentOrchestrator(config).deploy()
    assert again.value.problems == caught.value.problems
    assert not shop.data_dir.exists()


async def test_what_was_changed_behind_the_models_is_noticed_when_it_is_handed_over(shop: ProjectFolder) -> None:
    config = config_of(shop, a=sleeper())
    config.services["a"].environment["PORT"] = 80  # type: ignore[assignment]
    config.services["b"] = config.services["a"].model_copy(update={"replicas": -1})
    config.services["c"] = {"command": "x"}  # type: ignore[assignment]
    with pytest.raises(ConfigError) as caught:
        await DeploymentOrchestrator.new(config)
    assert [each.path for each in caught.value.problems] == ["services.b.replicas", "services.c"]


async def test_a_path_that_leads_nowhere_is_e001_at_once(shop: ProjectFolder) -> None:
    with pytest.raises(DeployCodeError, match=r"^E001 CONFIG_NOT_FOUND: no configuration file nowhere.yaml in "):
        DeploymentOrchestrator("nowhere.yaml")
    with pytest.raises(TypeError, match="config is a DeploymentConfig or the path of a file, got dict"):
        DeploymentOrchestrator({})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"derived from deploy_code.plugins.Plugin, got object"):
        DeploymentOrchestrator(config_of(shop), plugins=[object()])  # type: ignore[list-item]


# --------------------------------------------------------------------------- whose project it is


async def test_without_a_name_the_project_is_that_of_the_current_folder(shop: ProjectFolder, tmp_path: Path) -> None:
    storage = {"storage": {"data_dir": str(shop.data_dir), "log_dir": "logs"}}
    config = DeploymentConfig(infrastructure=storage, services={"a": ServiceConfig(**sleeper())})
    orchestrator = DeploymentOrchestrator(config)
    os.chdir(tmp_path)
    await orchestrator.deploy()
    assert (await orchestrator.get_status()).project == "shop"
    assert (shop.folder / "logs" / "shop").is_dir(), "relative paths start where the config was handed over"
    (tmp_path / "elsewhere" / "shop").mkdir(parents=True)
    os.chdir(tmp_path / "elsewhere" / "shop")
    other = DeploymentConfig(infrastructure=storage, services={})
    with pytest.raises(ConfigError, match=r"belongs to a config built in code in .*/shop/, and this is .*/elsewhere/"):
        await DeploymentOrchestrator(other).deploy()
    await orchestrator.stop(5)
    os.chdir(shop.folder)


async def test_a_named_project_is_the_same_wherever_its_config_is_built(shop: ProjectFolder, tmp_path: Path) -> None:
    await DeploymentOrchestrator(config_of(shop, a=sleeper())).deploy()
    os.chdir(tmp_path)
    assert (await DeploymentOrchestrator(config_of(shop, a=sleeper(), b=sleeper())).deploy()).success
    os.chdir(shop.folder)


async def test_a_file_and_a_program_do_not_fight_over_one_project(shop: ProjectFolder) -> None:
    shop.write({"a": sleeper()})
    shop.cli("deploy").ok()
    config = config_of(shop, b=sleeper())
    with pytest.raises(ConfigError, match=r"belongs to .*/deploy-code.yaml, and this is a config built in code"):
        await DeploymentOrchestrator(config).deploy()
    assert set(pids(shop)) == {"a"}
    assert (await DeploymentOrchestrator(config, adopt=True).deploy()).success
    assert set(pids(shop)) == {"b"}
    refused = shop.cli("deploy")
    assert refused.code == 2 and "belongs to a config built in code" in refused.stderr
    shop.cli("deploy", "--adopt").ok()
    assert set(pids(shop)) == {"a"}


# --------------------------------------------------------------------------- waiting


async def test_waiting_ends_at_once_when_it_cannot_help(shop: ProjectFolder) -> None:
    orchestrator = DeploymentOrchestrator(config_of(shop, worker=sleeper(restart="never")))
    with pytest.raises(DeploymentError, match=r"^E006 .*no service of shop is to run.*Deploy first"):
        await orchestrator.wait_for_healthy(60)
    await orchestrator.deploy()
    os.kill(pid_of(shop, "worker"), 9)
    async with asyncio.timeout(15):
        with pytest.raises(DeploymentError, match=r"^E006 .*worker is failed \(killed by SIGKILL") as caught:
            while True:
                await orchestrator.wait_for_healthy(60)
                await asyncio.sleep(0.02)
    assert caught.value.service == "worker"


async def test_waiting_ends_with_its_time(shop: ProjectFolder) -> None:
    config = config_of(shop, sick=program(free_ports(1)[0], "refuse"))
    orchestrator = DeploymentOrchestrator(config, force=True)
    assert (await orchestrator.deploy()).success
    with pytest.raises(DeploymentError, match=r"^E008 .*sick is (unhealthy|starting).*, after 0.3 s"):
        await orchestrator.wait_for_healthy(0.3)


# --------------------------------------------------------------------------- several at once


async def test_a_second_operation_is_refused_or_waits_its_turn(shop: ProjectFolder) -> None:
    config = config_of(shop, slow=program(free_ports(1)[0], "slow", 1))
    orchestrator, patient = DeploymentOrchestrator(config), DeploymentOrchestrator(config, wait=True)
    first = asyncio.create_task(orchestrator.deploy())
    await until_runs(shop, "slow")
    with pytest.raises(LockedError, match=r"^E011 DEPLOYMENT_LOCKED"):
        await orchestrator.deploy()
    second = await patient.deploy()
    assert first.done() and (await first).success and second.success


async def test_an_interrupted_operation_puts_everything_back(shop: ProjectFolder) -> None:
    config = config_of(shop, a=sleeper())
    orchestrator = DeploymentOrchestrator(config)
    orchestrator.interrupt()  # nothing runs: nothing happens
    await orchestrator.deploy()
    before = pids(shop)
    config.services["deaf"] = ServiceConfig(**program(free_ports(1)[0], "deaf"))
    deploying = asyncio.create_task(orchestrator.deploy())
    await until_runs(shop, "deaf")
    orchestrator.interrupt()
    report = await deploying
    assert not report.success and report.errors[0].startswith("E017")
    assert pids(shop) == before


PROGRAM = """
import asyncio, sys
from deploy_code import DeploymentOrchestrator
from deploy_code.config import DeploymentConfig

config = DeploymentConfig.model_validate_json(sys.argv[1])
asyncio.run(DeploymentOrchestrator(config).deploy())
"""


async def test_a_program_that_is_killed_in_the_middle_leaves_what_was_there_before(shop: ProjectFolder) -> None:
    config = config_of(shop, a=sleeper())
    await DeploymentOrchestrator(config).deploy()
    before = pids(shop)
    config.services["deaf"] = ServiceConfig(**program(free_ports(1)[0], "deaf"))
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, config.model_dump_json())
    await until_runs(shop, "deaf")
    killed.kill()
    await killed.wait()
    await until(lambda: pids(shop) == before)
    status = await DeploymentOrchestrator(config).get_status()
    await until(lambda: row(shop).status == "rolled_back")
    assert status.services["a"].status == "running"


# --------------------------------------------------------------------------- listening


async def test_events_are_those_of_this_objects_operations_until_it_is_closed(shop: ProjectFolder) -> None:
    heard: list[str] = []

    async def listen(orchestrator: DeploymentOrchestrator) -> None:
        async for event in orchestrator.events():
            heard.append(f"{event.name} {event.service}".strip())

    async with DeploymentOrchestrator(config_of(shop, a=sleeper())) as orchestrator:
        listening = asyncio.create_task(listen(orchestrator))
        late = orchestrator.events()
        await orchestrator.deploy()
        assert heard[0] == "DeploymentStarted" and "InstanceChanged a" in heard
        await orchestrator.stop(5)
    async with asyncio.timeout(5):
        await listening
        everything = [event async for event in late]
    assert [name for name in heard if name.startswith("Deployment")] == ["DeploymentStarted", "DeploymentFinished"] * 2
    assert [f"{event.name} {event.service}".strip() for event in everything] == heard
    phases = [event.phase for event in everything if event.name == "InstanceChanged"]  # type: ignore[attr-defined]
    assert phases == ["starting", "ready", "stopping", "gone"]


async def test_a_reader_that_is_too_slow_is_told_and_slows_nobody(shop: ProjectFolder) -> None:
    orchestrator = DeploymentOrchestrator(config_of(shop, a=sleeper()))
    stream = orchestrator.events(limit=2)
    await orchestrator.deploy()
    await orchestrator.close()
    names = [event.name async for event in stream]
    assert names == ["DeploymentStarted", "PhaseCompleted", "EventsLost"]


async def test_plugins_hear_of_every_operation_and_may_be_added_later(shop: ProjectFolder) -> None:
    class Notes(Plugin):
        def __init__(self) -> None:
            self.kinds: list[Any] = []

        def on_event(self, event: Any) -> None:
            if event.name == "DeploymentStarted":
                self.kinds.append(event.kind)

    first, second = Notes(), Notes()
    orchestrator = DeploymentOrchestrator(config_of(shop, a=sleeper()), plugins=[first])
    await orchestrator.deploy()
    orchestrator.add_plugin(second)
    await orchestrator.restart()
    assert (first.kinds, second.kinds) == (["deploy", "restart"], ["restart"])


async def test_a_secret_is_in_no_look(shop: ProjectFolder) -> None:
    config = config_of(shop, a=sleeper(env={"API_KEY": "hunter22"}))
    orchestrator = DeploymentOrchestrator(config)
    await orchestrator.deploy()
    shown = [
        repr(orchestrator),
        repr(config),
        str(await orchestrator.plan()),
        repr(await orchestrator.get_status(True)),
    ]
    assert not [text for text in shown if "hunter22" in text]


async def test_status_is_that_of_the_mapping_with_its_names(shop: ProjectFolder) -> None:
    orchestrator = DeploymentOrchestrator(config_of(shop, a=sleeper()))
    empty = await orchestrator.get_status()
    assert (empty.overall_health, empty.total_services, empty.environment) == ("unknown", 0, "development")
    await orchestrator.deploy()
    await until(lambda: pids(shop))
    status = await orchestrator.get_status()
    assert status.to_dict()["services"]["a"]["ready"] == status.services["a"].ready == 1
