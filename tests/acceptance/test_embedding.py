"""The document's Rust API in Python: a program that decides by itself what runs, with and without a file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_code import DeployCodeError, DeploymentConfig, DeploymentOrchestrator
from deploy_code.config import (
    HealthCheckConfig,
    PortConfig,
    ResourceRequirements,
    ServiceConfig,
    load_config,
)
from deploy_code.errors import ConfigError
from deploy_code.events import DeploymentFinished, DeploymentStarted
from deploy_code.services import ServiceRegistry, ServiceStatus
from support.api_document import blocks, document
from support.embedded import config_of
from support.ports import free_port, free_ports
from support.project import ProjectFolder
from support.scenarios import (
    agents,
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
def shop(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch, busybox: Path) -> ProjectFolder:
    """A folder of pages and programs, which is the current one."""
    monkeypatch.chdir(project.folder)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    pages(project, "v1", "v2")
    write_program(project)
    return project


# --------------------------------------------------------------------------- the orchestrator


async def test_the_complete_example_of_the_document_in_python(
    shop: ProjectFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = free_ports(3)
    services = {"postgresql": web(one), "redis": web(two), "auth_service": web(three, "postgresql", "redis")}
    shop.write(services | {"other": sleeper()})

    config = await DeploymentConfig.load(Path("deploy-code.yaml"))
    orchestrator = await DeploymentOrchestrator.new(config)
    report = await orchestrator.deploy(["postgresql", "redis", "auth_service"], None)
    if report.success:
        print(f"Deployed: {report.deployed_services}/{report.total_services}")
        await orchestrator.wait_for_healthy(timedelta(seconds=30))
        status = await orchestrator.get_status(True)
        print(f"Overall health: {status.overall_health}")
    else:
        print("\n".join(report.errors))
    assert capsys.readouterr().out == "Deployed: 3/3\nOverall health: healthy\n"
    assert pids(shop).keys() == services.keys(), "the one that was not named was not started"
    assert (await orchestrator.registry.get_status("other")).status == ServiceStatus.NOT_STARTED


async def test_a_whole_life_in_one_object_and_its_events(shop: ProjectFolder) -> None:
    port = free_port()
    config = config_of(shop, web=web(port), worker=sleeper())
    async with await DeploymentOrchestrator.new(config) as orchestrator, asyncio.TaskGroup() as group:
        heard: list[Any] = []

        async def listen() -> None:
            async for event in orchestrator.events():
                heard.append(event)

        listening = group.create_task(listen())
        await asyncio.sleep(0)
        first = await orchestrator.deploy()
        assert first.success and text_at(port, "/index.html") == "v1"
        config.services["web"] = ServiceConfig(**web(port, version="v2"))
        assert (await orchestrator.deploy()).success and text_at(port, "/index.html") == "v2"
        assert (await orchestrator.scale({"worker": 2})).success and len(pids(shop)["worker"]) == 2
        assert (await orchestrator.rollback(to=first.deployment)).success
        assert text_at(port, "/index.html") == "v1" and len(pids(shop)["worker"]) == 1
        before = pid_of(shop, "web")
        assert (await orchestrator.restart(["web"])).success and pid_of(shop, "web") != before
        assert (await orchestrator.stop(timedelta(seconds=5))).success
        await orchestrator.close()
        await asyncio.wait_for(listening, 5)
    kinds = [event.kind for event in heard if isinstance(event, DeploymentFinished)]
    assert kinds == ["deploy", "deploy", "scale", "rollback", "restart", "stop"]
    assert isinstance(heard[0], DeploymentStarted) and isinstance(heard[-1], DeploymentFinished)
    assert [event.at for event in heard] == sorted(event.at for event in heard)
    until_gone(shop)


EMBEDS = """
import asyncio, sys
from deploy_code import DeploymentConfig, DeploymentOrchestrator
from deploy_code.config import ServiceConfig

def config(version, slow):
    config = DeploymentConfig(
        name="shop",
        infrastructure={"storage": {"data_dir": sys.argv[1] + "/data", "log_dir": sys.argv[1] + "/logs"}},
        deployment={"timeout_seconds": 60, "strategy": "Parallel"},
    )
    web = ["httpd", "-f", "-p", f"127.0.0.1:{sys.argv[2]}", "-h", f"www/{version}"]
    config.services["web"] = ServiceConfig(
        command="busybox",
        args=web,
        ports=[{"container_port": int(sys.argv[2])}],
        health_check={"endpoint": "/index.html"},
    )
    if slow:
        config.services["slow"] = ServiceConfig(command="sleep", args=["1000"], health_check={"command": ["false"]})
    return config

async def main():
    for version, slow in (("v1", False), ("v2", True)):
        report = await DeploymentOrchestrator(config(version, slow)).deploy()
        print(report.status, flush=True)

asyncio.run(main())
"""


def test_a_program_that_is_killed_in_the_middle_is_undone_by_the_agent_without_any_file(shop: ProjectFolder) -> None:
    port = free_port()
    command = [sys.executable, "-c", EMBEDS, str(shop.folder), str(port)]
    with subprocess.Popen(command, cwd=shop.folder, stdout=subprocess.PIPE, text=True) as embedding:
        assert embedding.stdout and embedding.stdout.readline() == "completed\n"
        until(lambda: text_at(port, "/index.html") == "v2", "the second deployment to be under way")
        embedding.send_signal(signal.SIGKILL)
        embedding.communicate()
    until(lambda: pids(shop).keys() == {"web"} and text_at(port, "/index.html") == "v1", "it to be undone", 30)
    assert len(agents(shop)) == 1
    assert asyncio.run(DeploymentOrchestrator(config_of(shop), wait=True).stop(5)).success


# --------------------------------------------------------------------------- configs


def test_a_service_is_added_as_the_document_adds_it() -> None:
    config = DeploymentConfig()
    service = ServiceConfig(
        enabled=True,
        service_type="container",
        container_image="myapp:latest",
        replicas=2,
        resources=ResourceRequirements(cpu_cores=1.0, memory_mb=1024, storage_gb=10, gpu_count=0),
        ports=[],
        environment={},
        dependencies=["database"],
        health_check=HealthCheckConfig(endpoint="/health", interval_seconds=30, timeout_seconds=10, retries=3),
    )
    config.services["myapp"] = service
    assert config.services["myapp"].resources.memory_mb == 1024
    written = yaml.safe_load(config.to_yaml())["services"]["myapp"]
    assert written["image"] == "myapp:latest" and "container_image" not in written


WRONG: dict[str, dict[str, Any]] = {
    "a negative number": {"command": "sleep", "replicas": -1},
    "a wrong type": {"command": "sleep", "ports": [{"container_port": "http"}]},
    "an unknown key": {"command": "sleep", "comand": "sleep"},
    "both spellings": {"image": "a", "container_image": "b"},
    "nothing to run": {"replicas": 1},
    "an unknown dependency": {"command": "sleep", "dependencies": ["nobody"]},
    "a container without an image": {"command": "sleep", "service_type": "container"},
    "no signal": {"command": "sleep", "stop_signal": "SIGNOTHING"},
    "spaces in a command": {"command": "sleep 1000"},
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_a_mistake_in_code_is_told_as_in_a_file_but_for_the_line(shop: ProjectFolder, mistake: str) -> None:
    fields = WRONG[mistake]
    shop.write({"web": fields})
    with pytest.raises(ConfigError) as in_file:
        load_config([shop.config])
    config = config_of(shop)
    with pytest.raises(ConfigError) as in_code:
        config.services["web"] = ServiceConfig(**fields)
        await DeploymentOrchestrator.new(config)
    assert in_code.value.code == in_file.value.code == "E002"
    told, expected = in_code.value.problems, in_file.value.problems
    assert [(each.code, each.message, each.remedy) for each in told] == [
        (each.code, each.message, each.remedy) for each in expected
    ]
    assert all(each.line for each in expected) and not any(each.line for each in told)
    for mine, theirs in zip(told, expected, strict=True):
        assert theirs.path.endswith(mine.path), (mine.path, theirs.path)
    assert not shop.data_dir.exists()


@pytest.mark.parametrize("number", range(len(blocks(document(), "yaml"))))
def test_every_example_of_the_document_survives_to_yaml(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://shop:s3cr3t@db/shop")
    monkeypatch.setenv("API_KEY", "s3cr3t")
    text = blocks(document(), "yaml")[number]
    data = yaml.safe_load(text)
    for service in (data.get("services") or {}).values():
        service["dependencies"] = []  # of services that the example does not show
    first = tmp_path / "first.yaml"
    first.write_text(yaml.safe_dump(data))
    config = load_config([first])
    second = tmp_path / "second.yaml"
    second.write_text(config.to_yaml())
    assert load_config([second]) == config
    assert "s3cr3t" not in second.read_text()


async def test_what_was_built_in_code_is_the_same_from_its_own_file(shop: ProjectFolder) -> None:
    port = free_port()
    config = config_of(shop, web=web(port), worker=sleeper(env={"ODD": "no", "PRICE": "5 $", "N": "007"}))
    assert (await DeploymentOrchestrator(config).deploy()).success
    before = pids(shop)
    shop.write_text(config.to_yaml())
    refused = shop.cli("deploy").exits(2).stderr
    assert "--adopt" in refused, "the program's project is not taken by accident"
    assert "Nothing to deploy" in shop.cli("deploy", "--adopt").ok().output
    assert pids(shop) == before


# --------------------------------------------------------------------------- the registry


async def test_the_registry_of_the_document_alone() -> None:
    registry = ServiceRegistry()
    await registry.register("myapp", ServiceConfig(command="sleep"))
    state = await registry.get_status("myapp")
    match state.status:
        case ServiceStatus.RUNNING:
            pytest.fail("nobody started it")
        case ServiceStatus.FAILED:
            pytest.fail(state.error)
        case _:
            pass
    await registry.stop_service("myapp", timedelta(seconds=30))
    with pytest.raises(DeployCodeError, match=r"^S002 SERVICE_ALREADY_EXISTS.*myapp"):
        await registry.register("myapp", ServiceConfig(command="sleep"))
    for call in (registry.get_status("myap"), registry.stop_service("myap", 1)):
        with pytest.raises(DeployCodeError, match=r"^S001 SERVICE_NOT_FOUND.*myap"):
            await call
    with pytest.raises(DeployCodeError, match=r"^S003 INVALID_SERVICE_CONFIG"):
        await registry.register("bad", {"replicas": "many"})  # type: ignore[arg-type]


async def test_the_registry_of_a_project_is_its_services(shop: ProjectFolder) -> None:
    port, bad = free_ports(2)
    orchestrator = DeploymentOrchestrator(config_of(shop, web=web(port)))
    registry = orchestrator.registry
    await registry.register("worker", ServiceConfig(command="sleep", args=["1000"], dependencies=["web"]))
    await registry.register("doomed", ServiceConfig(**program(bad, "exit", 7, restart={"policy": "never"})))
    assert not (await orchestrator.deploy()).success
    assert (await registry.get_status("web")).status in (ServiceStatus.NOT_STARTED, ServiceStatus.STOPPED)
    fine = program(bad, "slow", 0.2, restart={"policy": "never"}, health_check={"command": ["true"]})
    orchestrator.config.services["doomed"] = ServiceConfig(**fine)
    assert (await orchestrator.deploy()).success
    os.kill(pid_of(shop, "doomed"), signal.SIGKILL)
    async with asyncio.timeout(15):
        while (state := await registry.get_status("doomed")).status != ServiceStatus.FAILED:
            await asyncio.sleep(0.05)
    assert "SIGKILL" in state.error
    assert (await registry.get_status("worker")).status == ServiceStatus.RUNNING
    await registry.stop_service("web", 5)
    assert (await registry.get_status("worker")).status == ServiceStatus.STOPPED, "it needs what was stopped"
    assert text_at(port) == ""
    await orchestrator.stop(5)


def test_ports_and_sections_may_be_given_as_models_or_mappings() -> None:
    by_model = ServiceConfig(
        command="a", ports=[PortConfig(dynamic=True)], health_check=HealthCheckConfig(endpoint="/")
    )
    assert by_model == ServiceConfig(command="a", ports=[{"dynamic": True}], health_check={"endpoint": "/"})
