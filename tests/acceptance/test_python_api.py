"""`DeployCode` as the document has it: every method, its signature, its mapping keys; plugins; errors."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import deploy_code
from deploy_code import (
    DeployCode,
    DeployCodeError,
    DeploymentConfig,
    DeploymentOrchestrator,
    DeploymentReport,
    DeploymentStatus,
    ServiceStatus,
)
from deploy_code.plugins import Plugin
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import (
    agents,
    kill_hard,
    last,
    pages,
    pid_of,
    pids,
    program,
    sleeper,
    text_at,
    until,
    until_gone,
    web,
    write_program,
)


@pytest.fixture
def shop(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProjectFolder]:
    """``db`` and ``api`` that needs it; the current directory is the project's."""
    monkeypatch.chdir(project.folder)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    pages(project, "v1", "v2")
    write_program(project)
    db, api = free_ports(2)
    project.write({"db": web(db), "api": web(api, "db")}, deployment={"timeout_seconds": 10})
    yield project


def add(shop: ProjectFolder, **services: Any) -> None:
    """More services in the file."""
    import yaml

    document = yaml.safe_load(shop.config.read_text())
    document["services"] |= services
    shop.config.write_text(yaml.safe_dump(document))


# --------------------------------------------------------------------------- the shape


def test_the_names_of_the_document_are_there() -> None:
    for name in ("DeployCode", "DeployCodeError", "DeploymentStatus", "ServiceStatus", "DeploymentReport"):
        assert name in deploy_code.__all__
    assert DeploymentOrchestrator and DeploymentConfig
    assert {each.value for each in DeploymentStatus} == {
        "not_started", "in_progress", "completed", "failed", "rolled_back"
    }  # fmt: skip
    assert {each.value for each in ServiceStatus} == {
        "not_started", "starting", "running", "stopping", "stopped", "failed", "unknown"
    }  # fmt: skip
    assert ServiceStatus.RUNNING == "running"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("__init__", {"config_path": "deploy-code.yaml", "dry_run": False, "force": False}),
        ("deploy", {"services": None, "skip_phases": None}),
        ("stop", {"timeout": 30}),
        ("status", {"detailed": False}),
        ("restart", {"services": None}),
        ("validate", {}),
        ("health", {"format": "json"}),
        ("wait_for_healthy", {"timeout": 300, "check_interval": 5}),
        ("monitor_deployment", {"callback": None}),
    ],
)
def test_signatures_are_those_of_the_document(method: str, parameters: dict[str, Any]) -> None:
    found = list(inspect.signature(getattr(DeployCode, method)).parameters.values())[1:]
    assert [each.name for each in found[: len(parameters)]] == list(parameters)
    for each, default in zip(found, parameters.values(), strict=False):
        if method == "stop":  # left out, each service's own time counts, 30 s where it has none
            assert each.default in (None, default)
        else:
            assert each.default == default
    assert all(each.default is not inspect.Parameter.empty for each in found)


# --------------------------------------------------------------------------- deploy


async def test_deploy_reports_what_it_did(shop: ProjectFolder) -> None:
    deployer = DeployCode(config_path="deploy-code.yaml", dry_run=False, force=False)
    report = await deployer.deploy()
    assert isinstance(report, DeploymentReport)
    assert (report.success, report.total_services, report.deployed_services, report.failed_services) == (True, 2, 2, 0)
    assert report.status is DeploymentStatus.COMPLETED
    assert report.errors == []
    assert all(isinstance(each, str) for each in report.warnings)
    assert 0 < report.duration < 10
    assert report.phases_completed == [
        "validation", "resources", "network", "storage", "services", "health", "monitoring", "logging"
    ]  # fmt: skip
    assert report.deployment == last(shop)["number"]
    again = await deployer.deploy()
    assert (again.success, again.deployed_services) == (True, 2), "unchanged ones count as deployed"


async def test_deploy_of_some_services_and_without_some_phases(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    report = await deployer.deploy(services=["db"], skip_phases=["monitoring", "logging"])
    assert (report.total_services, report.deployed_services) == (1, 1)
    assert not {"monitoring", "logging"} & set(report.phases_completed)
    assert set(pids(shop)) == {"db"}


async def test_a_failed_deploy_is_a_report_and_not_an_exception(shop: ProjectFolder) -> None:
    add(shop, bad=program(free_ports(1)[0], "exit", 7, dependencies=["api"]), later=sleeper(dependencies=["bad"]))
    report = await DeployCode().deploy()
    assert not report.success
    assert report.status is DeploymentStatus.ROLLED_BACK
    assert report.errors[0].startswith("E005 SERVICE_START_FAILED") and "cannot open the vault" in report.errors[0]
    assert any(each.startswith("E007") and "later" in each for each in report.errors)
    assert (report.total_services, report.failed_services, report.deployed_services) == (4, 1, 0)
    assert pids(shop) == {}


async def test_a_dry_run_changes_nothing_and_has_a_plan(shop: ProjectFolder) -> None:
    deployer = DeployCode(dry_run=True)
    heard = Listener()
    deployer.add_plugin(heard)
    report = await deployer.deploy()
    assert (report.success, report.deployed_services) == (True, 0)
    assert "start db" in str(report.plan)
    assert heard.calls == []
    assert not shop.data_dir.exists()


async def test_force_is_an_argument_of_the_class(shop: ProjectFolder) -> None:
    add(shop, sick=program(free_ports(1)[0], "refuse"))
    report = await DeployCode(force=True).deploy()
    assert report.success and any("E006" in each for each in report.warnings)
    assert not last(shop)["good"]


def test_one_object_works_under_several_event_loops(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    assert asyncio.run(deployer.deploy()).success
    assert asyncio.run(deployer.status())["running_services"] == 2
    asyncio.run(deployer.stop())
    assert asyncio.run(deployer.status())["overall_health"] == "stopped"


# --------------------------------------------------------------------------- errors


def test_a_missing_file_is_e001_at_construction(shop: ProjectFolder) -> None:
    with pytest.raises(DeployCodeError, match=r"^E001 CONFIG_NOT_FOUND"):
        DeployCode(config_path="nowhere.yaml")


async def test_an_invalid_file_is_no_error_for_validate_and_e002_for_the_rest(shop: ProjectFolder) -> None:
    shop.config.write_text("name: shop\nservices:\n  api:\n    comand: x\n    dependencies: [nowhere]\n")
    deployer = DeployCode()
    validation = await deployer.validate()
    assert validation["is_valid"] is False
    assert all(isinstance(each, str) and each[0] in "ES" for each in validation["errors"])
    assert any(each.startswith("E007") for each in validation["errors"])
    with pytest.raises(DeployCodeError, match=r"^E002 CONFIG_INVALID") as caught:
        await deployer.deploy()
    assert "comand" in str(caught.value) and "nowhere" in str(caught.value)


async def test_what_preflight_finds_is_raised(shop: ProjectFolder) -> None:
    add(shop, ghost={"command": "no-such-program"})
    with pytest.raises(DeployCodeError, match=r"^E003 BINARY_NOT_FOUND"):
        await DeployCode().deploy()
    with pytest.raises(DeployCodeError, match=r"^S001"):
        await DeployCode().deploy(services=["nobody"])
    assert pids(shop) == {}


async def test_a_second_deployment_raises_e011(shop: ProjectFolder) -> None:
    add(shop, slow=program(free_ports(1)[0], "slow", 1))
    first = asyncio.create_task(DeployCode().deploy())
    while "slow" not in pids(shop):
        await asyncio.sleep(0.02)
    with pytest.raises(DeployCodeError, match=r"^E011 DEPLOYMENT_LOCKED"):
        await DeployCode().deploy()
    assert (await first).success


async def test_a_cancelled_deploy_puts_everything_back(shop: ProjectFolder) -> None:
    await DeployCode().deploy()
    before = pids(shop)
    add(shop, slow=program(free_ports(1)[0], "deaf"))
    task = asyncio.create_task(DeployCode().deploy())
    while "slow" not in pids(shop):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pids(shop) == before
    assert last(shop)["status"] == "rolled_back"


# --------------------------------------------------------------------------- looking


STATUS_KEYS = {
    "project", "environment", "overall_health", "total_services", "deployed_services", "running_services",
    "failed_services", "deployment_complete", "services",
}  # fmt: skip


async def test_status_before_during_and_after(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    nothing = await deployer.status()
    assert nothing.keys() >= STATUS_KEYS
    assert nothing["running_services"] == 0
    await deployer.deploy()
    status = await deployer.status()
    assert status.keys() >= STATUS_KEYS
    assert (status["project"], status["environment"], status["overall_health"]) == ("shop", "development", "healthy")
    counts = [status[f"{word}_services"] for word in ("total", "deployed", "running", "failed")]
    assert counts == [2, 2, 2, 0]
    assert status["deployment_complete"] is True
    assert {name: (each["status"], each["health"]) for name, each in status["services"].items()} == {
        "db": ("running", "healthy"),
        "api": ("running", "healthy"),
    }
    detailed = await deployer.status(detailed=True)
    assert detailed["services"]["db"].keys() > status["services"]["db"].keys()
    assert detailed["services"]["db"]["instances"][0]["pid"] == pid_of(shop, "db")
    await deployer.stop(timeout=5)
    assert (await deployer.status())["overall_health"] == "stopped"


async def test_environment_has_the_default_of_the_document(shop: ProjectFolder) -> None:
    shop.config.write_text(shop.config.read_text().replace("environment: development\n", ""))
    await DeployCode().deploy()
    assert (await DeployCode().status())["environment"] == "production"


async def test_validate_of_a_good_file(shop: ProjectFolder) -> None:
    validation = await DeployCode().validate()
    assert (validation["is_valid"], validation["errors"]) == (True, [])
    assert isinstance(validation["warnings"], list)
    assert not shop.data_dir.exists()


async def test_health_has_a_mapping_and_two_texts(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    await deployer.deploy()
    health = await deployer.health()
    assert health.keys() >= {"status", "score", "uptime_hours", "issues"}
    assert (health["status"], health["score"], health["issues"]) == ("healthy", 100, [])
    assert health == await deployer.health(format="json")
    text = await deployer.health(format="text")
    assert "healthy" in text and text.strip() == shop.cli("health").ok().stdout.strip()
    assert "status: healthy" in await deployer.health(format="yaml")


async def test_health_names_what_is_wrong(shop: ProjectFolder) -> None:
    add(shop, worker=sleeper(restart="never"))
    deployer = DeployCode()
    await deployer.deploy()
    kill_hard(pid_of(shop, "worker"))
    async with asyncio.timeout(10):
        while (health := await deployer.health())["status"] == "healthy":
            await asyncio.sleep(0.05)
    assert health["score"] < 100
    [issue] = health["issues"]
    assert issue.keys() >= {"severity", "service", "message"}
    assert issue["service"] == "worker"


async def test_wait_for_healthy_says_yes_when_all_are(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    await deployer.deploy()
    assert await deployer.wait_for_healthy(timeout=5) is True
    assert await deployer.wait_for_healthy(timeout=timedelta(seconds=5), check_interval=timedelta(seconds=1)) is True


async def test_wait_for_healthy_says_no_as_soon_as_it_is_hopeless(shop: ProjectFolder) -> None:
    add(shop, worker=sleeper(restart="never"))
    deployer = DeployCode()
    await deployer.deploy()
    kill_hard(pid_of(shop, "worker"))
    async with asyncio.timeout(10):
        while (await deployer.status())["services"]["worker"]["status"] != "failed":
            await asyncio.sleep(0.05)
    began = time.monotonic()
    assert await deployer.wait_for_healthy(timeout=60) is False
    assert time.monotonic() - began < 15


async def test_wait_for_healthy_says_no_when_its_time_is_up(shop: ProjectFolder) -> None:
    add(shop, sick=program(free_ports(1)[0], "refuse"))
    await DeployCode(force=True).deploy()
    assert await DeployCode().wait_for_healthy(timeout=1) is False


async def test_metrics_and_logs_are_plain_calls_inside_a_running_loop(shop: ProjectFolder) -> None:
    add(shop, app=program(free_ports(1)[0], "flood", 100))
    deployer = DeployCode()
    await deployer.deploy()
    assert 0 <= deployer.get_metrics()["cpu_percent"] <= 100
    lines = deployer.get_service_logs("app", lines=50)
    assert len(lines) == 50
    assert all(isinstance(line, str) for line in lines)
    assert lines[-1].split()[:2] == ["line", "00000099"]
    with pytest.raises(DeployCodeError, match=r"^S001"):
        deployer.get_service_logs("nobody")


# --------------------------------------------------------------------------- steering


async def test_stop_returns_none_and_leaves_nothing(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    await deployer.deploy()
    assert await deployer.stop(timeout=60) is None
    until_gone(shop)


async def test_restart_recreates_what_is_named_and_leaves_the_rest(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    await deployer.deploy()
    before = pids(shop)
    await deployer.restart(services=["api"])
    after = pids(shop)
    assert after["db"] == before["db"] and after["api"] != before["api"]
    await deployer.restart()
    assert pids(shop)["db"] != after["db"] and pids(shop)["api"] != after["api"]
    assert last(shop)["kind"] == "restart"


async def test_monitor_deployment_calls_back_at_once_and_on_changes(shop: ProjectFolder) -> None:
    add(shop, slow=program(free_ports(1)[0], "slow", 0.7))
    seen: list[tuple[int, int]] = []
    deployer = DeployCode()
    deploying = asyncio.create_task(deployer.deploy())
    while "slow" not in pids(shop):
        await asyncio.sleep(0.02)
    final = await DeployCode().monitor_deployment(
        callback=lambda status: seen.append((status["deployed_services"], status["total_services"]))
    )
    assert (await deploying).success
    assert final["deployment_complete"] and final["deployed_services"] == 3
    assert seen[-1] == (3, 3) and len(seen) >= 2
    assert seen[0][0] < 3


async def test_monitor_deployment_returns_at_once_when_none_runs(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    await deployer.deploy()
    seen: list[Any] = []

    async def callback(status: Any) -> None:
        seen.append(status)

    async with asyncio.timeout(3):
        final = await deployer.monitor_deployment(callback)
    assert final["deployed_services"] == 2
    assert len(seen) == 1
    async with asyncio.timeout(3):
        await deployer.monitor_deployment()


# --------------------------------------------------------------------------- plugins


class Listener(Plugin):
    """Writes down what it hears. Has no ``super().__init__()``, as the document's."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.events: list[str] = []

    async def on_deployment_start(self, services: Any) -> None:
        self.calls.append(("start", sorted(services)))

    def on_deployment_complete(self, report: Any) -> None:
        self.calls.append(("complete", report.success))

    def before_service_rollout(self, service: str, revision: int) -> None:
        self.calls.append(("before", service, revision))

    async def after_service_rollout(self, service: str, revision: int) -> None:
        self.calls.append(("after", service, revision))

    def on_failure(self, report: Any) -> None:
        self.calls.append(("failure",))

    async def on_rollback(self, report: Any) -> None:
        self.calls.append(("rollback",))

    def on_event(self, event: Any) -> None:
        self.events.append(event.name)

    @property
    def words(self) -> list[str]:
        return [call[0] for call in self.calls]


async def test_a_plugin_hears_a_deployment_from_beginning_to_end(shop: ProjectFolder) -> None:
    deployer, plugin = DeployCode(), Listener()
    deployer.add_plugin(plugin)
    await deployer.deploy()
    assert plugin.calls == [
        ("start", ["api", "db"]),
        ("before", "db", 1), ("after", "db", 1),
        ("before", "api", 1), ("after", "api", 1),
        ("complete", True),
    ]  # fmt: skip
    assert plugin.events[0] == "DeploymentStarted" and plugin.events[-1] == "DeploymentFinished"


async def test_a_plugin_hears_of_failure_and_rollback_and_of_the_end_exactly_once(shop: ProjectFolder) -> None:
    add(shop, bad=program(free_ports(1)[0], "exit", 7))
    deployer, plugin = DeployCode(), Listener()
    deployer.add_plugin(plugin)
    await deployer.deploy()
    assert plugin.words.count("start") == plugin.words.count("complete") == 1
    assert plugin.words.index("failure") < plugin.words.index("rollback") < plugin.words.index("complete")
    assert plugin.calls[-1] == ("complete", False)


async def test_a_plugin_hears_nothing_of_what_preflight_refuses(shop: ProjectFolder) -> None:
    add(shop, ghost={"command": "no-such-program"})
    deployer, plugin = DeployCode(), Listener()
    deployer.add_plugin(plugin)
    with pytest.raises(DeployCodeError):
        await deployer.deploy()
    assert plugin.calls == []


class Raising(Plugin):
    def on_deployment_start(self, services: Any) -> None:
        raise RuntimeError("I am a bad plugin")

    async def on_deployment_complete(self, report: Any) -> None:
        raise RuntimeError("and stay one")

    def on_event(self, event: Any) -> None:
        raise ValueError("always")


class Hanging(Plugin):
    timeout_seconds = 0.3

    async def on_deployment_start(self, services: Any) -> None:
        await asyncio.sleep(1000)

    def before_service_rollout(self, service: str, revision: int) -> None:
        time.sleep(1.5)


async def test_a_plugin_that_raises_is_reported_and_harms_nothing(shop: ProjectFolder) -> None:
    deployer, other = DeployCode(), Listener()
    deployer.add_plugin(Raising())
    deployer.add_plugin(other)
    report = await deployer.deploy()
    assert report.success
    assert any("Raising" in each and "I am a bad plugin" in each for each in report.warnings), report.warnings
    assert other.words[0] == "start" and other.words[-1] == "complete"


async def test_a_plugin_that_hangs_is_reported_and_harms_nothing(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    deployer.add_plugin(Hanging())
    report = await deployer.deploy()
    assert report.success
    assert any("Hanging" in each for each in report.warnings), report.warnings
    assert report.duration < 10


async def test_plugins_that_the_file_names_are_loaded(
    shop: ProjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "ours" / "shop_plugin.py"
    module.parent.mkdir()
    module.write_text(
        "from deploy_code.plugins import Plugin\n"
        "class Notes(Plugin):\n"
        "    def on_deployment_complete(self, report):\n"
        "        open('notes.txt', 'a').write(f'{report.deployed_services} ')\n"
    )
    shop.config.write_text(shop.config.read_text() + "\nplugins: ['shop_plugin:Notes']\n")
    import os

    paths = os.pathsep.join(filter(None, [str(module.parent), os.environ.get("PYTHONPATH", "")]))
    shop.cli("deploy", env={"PYTHONPATH": paths}).ok()
    assert (shop.folder / "notes.txt").read_text() == "2 "


# --------------------------------------------------------------------------- the orchestrator, and config in code


async def test_deploy_code_is_a_facade_over_the_orchestrator(shop: ProjectFolder) -> None:
    deployer = DeployCode(dry_run=True)
    deployer.force, deployer.dry_run = True, False
    assert (deployer.orchestrator.force, deployer.orchestrator.dry_run) == (True, False)
    await deployer.deploy()
    assert (await deployer.orchestrator.get_status()).to_dict().keys() == (await deployer.status()).keys()
    assert set(deployer.orchestrator.registry.services) == {"db", "api"}


async def test_types_and_strategies_are_registered_once(shop: ProjectFolder) -> None:
    deployer = DeployCode()
    deployer.register_type("mine", lambda config: None)
    deployer.register_strategy("Mine", lambda change: [])
    with pytest.raises(DeployCodeError, match=r"^S002 SERVICE_ALREADY_EXISTS"):
        deployer.register_type("mine", lambda config: None)
    with pytest.raises(DeployCodeError, match=r"^S003 .*is built in"):
        deployer.register_strategy("blue-green", lambda change: [])


async def test_validate_knows_what_is_registered(shop: ProjectFolder) -> None:
    add(shop, worker=sleeper(strategy="rolling"))
    deployer = DeployCode()
    assert "did you mean 'RollingUpdate'" in (await deployer.validate())["errors"][0]
    deployer.register_strategy("rolling", lambda change: [])
    assert (await deployer.validate())["is_valid"]


async def test_an_orchestrator_has_its_resources_and_metrics(shop: ProjectFolder) -> None:
    add(shop, worker=sleeper(resources={"memory_mb": 16}))
    orchestrator = DeploymentOrchestrator("deploy-code.yaml")
    await orchestrator.deploy()
    assert [(each.name, each.memory_mb) for each in orchestrator.resources.allocations() if each.memory_mb] == [
        ("worker", 16)
    ]
    assert 0 <= (await orchestrator.metrics.get_system_metrics()).cpu_usage <= 100
    assert (await orchestrator.metrics.get_service_metrics("worker")).processes == 1
    assert DeployCode().get_metrics()["services"].keys() == {"db", "api", "worker"}


async def test_the_orchestrator_takes_a_config_that_was_loaded(shop: ProjectFolder) -> None:
    config = await DeploymentConfig.load(Path("deploy-code.yaml"))
    assert set(config.services) == {"db", "api"}
    assert config.services["api"].dependencies
    report = await DeployCode().deploy()
    assert report.success


async def test_files_and_processes_of_two_objects_are_one_project(shop: ProjectFolder) -> None:
    await DeployCode().deploy()
    assert (await DeployCode(config_path=str(shop.config)).status())["running_services"] == 2
    assert len(agents(shop)) == 1


def test_a_config_path_may_be_absolute_and_the_current_directory_elsewhere(
    shop: ProjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    deployer = DeployCode(config_path=str(shop.config))
    report = asyncio.run(deployer.deploy())
    assert report.success, report.errors
    port = asyncio.run(deployer.status(detailed=True))["services"]["api"]["ports"][0]
    until(lambda: text_at(port, "/index.html") == "v1", "pages found beside the config")
