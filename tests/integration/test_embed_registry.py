"""`ServiceRegistry`: alone it knows names; that of an orchestrator acts on the project."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from deploy_code.config import DependencyConfig, DeploymentConfig, PortConfig, ServiceConfig
from deploy_code.errors import ConfigError, ServiceError
from deploy_code.orchestrator import DeploymentOrchestrator
from deploy_code.services import ServiceRegistry, ServiceState, ServiceStatus
from support.embedded import config_of
from support.engine import until
from support.project import ProjectFolder
from support.scenarios import pid_of, pids, sleeper


async def test_alone_it_knows_what_was_registered() -> None:
    registry = ServiceRegistry()
    await registry.register("web", ServiceConfig(command="x", dependencies=["db"]))
    assert set(registry.services) == {"web"}
    status = await registry.get_status("web")
    match status.status:
        case ServiceStatus.RUNNING | ServiceStatus.FAILED:
            pytest.fail("it runs nowhere")
        case ServiceStatus.NOT_STARTED:
            pass
    assert status == ServiceState(status=ServiceStatus.NOT_STARTED, error="", health="none")
    assert await registry.stop_service("web", timedelta(seconds=30)) is None
    with pytest.raises(TypeError, match="timeout is a number of seconds"):
        await registry.stop_service("web", "soon")  # type: ignore[arg-type]


async def test_names_that_are_unknown_or_taken_are_told() -> None:
    registry = ServiceRegistry()
    await registry.register("postgres", ServiceConfig(command="x"))
    with pytest.raises(ServiceError, match=r"^S001 SERVICE_NOT_FOUND: .*'postgers'. Did you mean 'postgres'\?"):
        await registry.get_status("postgers")
    with pytest.raises(ServiceError, match=r"^S001"):
        await registry.stop_service("nobody", 1)
    with pytest.raises(ServiceError, match=r'^S002 SERVICE_ALREADY_EXISTS: .*"postgres"'):
        await registry.register("postgres", ServiceConfig(command="y"))


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("web", {"command": "x"}, "must be a ServiceConfig, got dict"),
        (None, ServiceConfig(command="x"), "the name of a service is text, got None"),
        ("web", ServiceConfig(), "services.web.command: neither command nor image: nothing to run"),
        ("a/b", ServiceConfig(command="x"), "'a/b' is no name of a service"),
        (
            "web",
            ServiceConfig(command="x").model_copy(update={"replicas": -1}),
            "web.replicas: must be at least 0",
        ),
        ("web", ServiceConfig(command="x", stop_signal="SIGNO"), "services.web.stop_signal: 'SIGNO' is no signal"),
        ("web", ServiceConfig(command="x", dependencies=["web"]), "dependencies go round in a circle: web → web"),
        ("web", ServiceConfig(command="x", ports=[PortConfig(host_port=1)] * 2), "host port 1 is taken by 'web' alre"),
    ],
)
async def test_what_is_no_valid_service_is_s003_with_what_a_file_would_be_told(
    name: str, config: ServiceConfig, said: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        await ServiceRegistry().register(name, config)
    assert caught.value.code == "S003" and said in str(caught.value)


async def test_what_a_service_needs_of_others_may_come_later() -> None:
    needs = [DependencyConfig(service="migrate", condition="completed"), "db"]
    await ServiceRegistry().register(
        "web", ServiceConfig(command="x", dependencies=needs, env={"U": "${services.db.port}"})
    )


def test_types_are_registered_by_a_plain_call() -> None:
    registry = ServiceRegistry()
    registry.register_type("custom", lambda config: None)
    with pytest.raises(ServiceError, match=r'^S002 .*"custom" is registered already'):
        registry.register_type("custom", lambda config: None)
    for name in ("process", "Container"):
        with pytest.raises(ServiceError, match=r"^S003 .*is built in"):
            registry.register_type(name, lambda config: None)


# --------------------------------------------------------------------------- that of a project


@pytest.fixture
async def live(project: ProjectFolder) -> AsyncIterator[DeploymentOrchestrator]:
    """``db``, and ``api`` that needs it; not deployed yet."""
    config = config_of(project, db=sleeper(), api=sleeper(dependencies=["db"], restart="never"))
    orchestrator = DeploymentOrchestrator(config)
    yield orchestrator
    await orchestrator.stop(5)


async def test_what_is_registered_is_deployed_next_time(live: DeploymentOrchestrator, project: ProjectFolder) -> None:
    await live.deploy()
    await live.registry.register("worker", ServiceConfig(**sleeper()))
    assert (await live.registry.get_status("worker")).status is ServiceStatus.NOT_STARTED
    assert set(pids(project)) == {"db", "api"} and "worker" in live.config.services
    await live.deploy()
    assert (await live.registry.get_status("worker")).status is ServiceStatus.RUNNING
    with pytest.raises(ServiceError, match=r"^S002"):
        await live.registry.register("db", ServiceConfig(command="x"))
    with pytest.raises(ServiceError, match=r"^S001 .*Did you mean 'worker'"):
        await live.registry.get_status("wroker")


async def test_status_says_why_a_service_failed(live: DeploymentOrchestrator, project: ProjectFolder) -> None:
    await live.deploy()
    os.kill(pid_of(project, "api"), 9)
    async with asyncio.timeout(10):
        while (state := await live.registry.get_status("api")).status is not ServiceStatus.FAILED:
            await asyncio.sleep(0.02)
    assert "killed by SIGKILL" in state.error and state.health == "unhealthy"
    assert (await live.registry.get_status("db")).error == ""


async def test_stopping_a_service_stops_what_depends_on_it(
    live: DeploymentOrchestrator, project: ProjectFolder
) -> None:
    await live.registry.stop_service("db", 5)
    await live.deploy()
    await live.registry.stop_service("api", timedelta(seconds=5))
    assert set(pids(project)) == {"db"}
    await live.deploy()
    await live.registry.stop_service("db")
    await until(lambda: not pids(project))
    assert (await live.registry.get_status("api")).status is ServiceStatus.STOPPED
    with pytest.raises(ServiceError, match=r"^S001"):
        await live.registry.stop_service("nobody", 1)


async def test_services_registered_beside_a_file_stay_when_the_file_is_read_anew(
    project: ProjectFolder, tmp_path: Path
) -> None:
    project.write({"db": sleeper()})
    orchestrator = DeploymentOrchestrator(project.config)
    await orchestrator.registry.register("extra", ServiceConfig(**sleeper(dependencies=["db"])))
    assert (await orchestrator.deploy()).deployed_services == 2
    project.write({"db": sleeper(), "cache": sleeper()})
    assert (await orchestrator.deploy()).deployed_services == 3
    assert set(orchestrator.registry.services) == {"db", "cache", "extra"}
    await orchestrator.stop(5)


async def test_a_service_may_use_what_is_registered_and_only_that(live: DeploymentOrchestrator) -> None:
    for service in (ServiceConfig(service_type="processor"), ServiceConfig(command="x", strategy="rolling")):
        with pytest.raises(ServiceError, match=r"^S003 .*did you mean '(process|RollingUpdate)'"):
            await live.registry.register("extra", service)
    with pytest.raises(ServiceError, match=r"^S003 .*nothing to run"):
        await live.registry.register("extra", ServiceConfig(service_type="custom"))
    live.register_type("processor", lambda config: None)
    live.register_type("custom", lambda config: None)
    live.register_strategy("rolling", lambda change: [])
    await live.registry.register("extra", ServiceConfig(service_type="processor", strategy="rolling"))
    await live.registry.register("more", ServiceConfig(service_type="custom"))


async def test_a_file_may_name_what_code_registers_later(project: ProjectFolder) -> None:
    project.write({"a": {"service_type": "processor"}, "b": sleeper(strategy="rolling")})
    config = await DeploymentConfig.load(project.config)
    for source in (config, project.config):
        orchestrator = DeploymentOrchestrator(source)
        with pytest.raises(ConfigError, match="2 problems in"):
            await orchestrator.plan()
        orchestrator.register_type("processor", lambda config: None)
        orchestrator.register_strategy("rolling", lambda change: [])
        assert set(orchestrator.config.services) == {"a", "b"}
        assert orchestrator.app().load().services["a"].content.service_type == "processor"


async def test_types_of_the_registry_are_those_of_the_orchestrator(live: DeploymentOrchestrator) -> None:
    live.registry.register_type("custom", lambda config: None)
    with pytest.raises(ServiceError, match=r"^S002"):
        live.register_type("custom", lambda config: None)
    with pytest.raises(ServiceError, match=r"^S003"):
        live.register_strategy("Parallel", lambda: None)
