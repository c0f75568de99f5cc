"""Mistakes in a config built in code: told as those of a file are, all at once, without a place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import deploy_code.config as config_package
from config_kit import problems
from deploy_code.config import (
    AlertRule,
    DependencyConfig,
    DeploymentConfig,
    DeploymentSettings,
    HealthCheckConfig,
    HooksConfig,
    NetworkConfig,
    PortConfig,
    PortRange,
    ResourceRequirements,
    RestartConfig,
    ServiceConfig,
    VolumeConfig,
    project_of,
)
from deploy_code.errors import ConfigError
from deploy_code.model import Condition
from deploy_code.services import ServiceRegistry

Build = Callable[[], object]
INF = float("inf")
SERVICE = "services: {web: {%s}}"

# As the file has it, where that stands, and the same in code.
MISTAKES: list[tuple[str, str, Build]] = [
    (SERVICE % "command: x, replicas: -1", "services.web.", lambda: ServiceConfig(command="x", replicas=-1)),
    (SERVICE % "comand: x", "services.web.", lambda: ServiceConfig(comand="x")),  # type: ignore[call-arg]
    (SERVICE % "command: [a, b]", "services.web.", lambda: ServiceConfig(command=["a", "b"])),  # type: ignore[arg-type]
    (SERVICE % "args: a b", "services.web.", lambda: ServiceConfig(args="a b")),  # type: ignore[arg-type]
    (SERVICE % 'replicas: "2"', "services.web.", lambda: ServiceConfig(replicas="2")),  # type: ignore[arg-type]
    (SERVICE % "env: [A]", "services.web.", lambda: ServiceConfig(env=["A"])),  # type: ignore[call-arg]
    (SERVICE % "env: {A: [1]}", "services.web.", lambda: ServiceConfig(env={"A": [1]})),  # type: ignore[call-arg]
    (SERVICE % "env: {}, environment: {}", "services.web.", lambda: ServiceConfig(env={}, environment={})),  # type: ignore[call-arg]
    (SERVICE % "restart: alway", "services.web.", lambda: ServiceConfig(restart="alway")),  # type: ignore[arg-type]
    (SERVICE % "ports: [8080]", "services.web.", lambda: ServiceConfig(ports=[8080])),  # type: ignore[list-item,arg-type]
    (SERVICE % "ports: [{protocol: tcp}]", "services.web.ports[0]", lambda: PortConfig(protocol="tcp")),  # type: ignore[arg-type]
    (SERVICE % "ports: [{container_port: 0}]", "services.web.ports[0].", lambda: PortConfig(container_port=0)),
    (SERVICE % "volumes: [{name: d}]", "services.web.volumes[0].", lambda: VolumeConfig(name="d")),  # type: ignore[call-arg]
    (
        SERVICE % "dependencies: [{service: a, condition: redy}]",
        "services.web.dependencies[0].",
        lambda: DependencyConfig(service="a", condition="redy"),  # type: ignore[arg-type]
    ),
    (SERVICE % "health_check: {retries: 0}", "services.web.health_check.", lambda: HealthCheckConfig(retries=0)),
    (
        SERVICE % "resources: {cpu_cores: .inf}",
        "services.web.resources.",
        lambda: ResourceRequirements(cpu_cores=INF),
    ),
    (SERVICE % "restart: {policy: no-way}", "services.web.restart.", lambda: RestartConfig(policy="no-way")),  # type: ignore[arg-type]
    (
        SERVICE % "replicas: -1",
        "",
        lambda: DeploymentConfig(services={"web": {"replicas": -1}}),
    ),
    ("name: a/b", "", lambda: DeploymentConfig(name="a/b")),
    ("version: 3", "", lambda: DeploymentConfig(version="3")),
    ("environment: prod", "", lambda: DeploymentConfig(environment="prod")),  # type: ignore[arg-type]
    ("deployment: {max_paralel: 1}", "deployment.", lambda: DeploymentSettings(max_paralel=1)),  # type: ignore[call-arg]
    ("hooks: {pre_deploy: ./x y}", "hooks.", lambda: HooksConfig(pre_deploy="./x y")),  # type: ignore[arg-type]
    ("infrastructure: {network: {cidr: ''}}", "infrastructure.network.", lambda: NetworkConfig(cidr="")),
    (
        "infrastructure: {network: {port_range: {start: 0}}}",
        "infrastructure.network.port_range.",
        lambda: PortRange(start=0),
    ),
    (
        "monitoring: {alerting: {rules: [{name: a}]}}",
        "monitoring.alerting.rules[0].",
        lambda: AlertRule(name="a"),  # type: ignore[call-arg]
    ),
]


@pytest.mark.parametrize(("text", "home", "build"), MISTAKES, ids=[text for text, _, _ in MISTAKES])
def test_a_mistake_is_told_in_the_words_that_a_file_would_get(
    tmp_path: Path, text: str, home: str, build: Build
) -> None:
    there = [each for each in problems(tmp_path, text) if "nothing to run" not in each.message]
    with pytest.raises(ConfigError) as caught:
        build()
    here = caught.value.problems
    assert caught.value.code == "E002" and len(here) == len(there) == 1
    assert [(each.code, each.message, each.remedy) for each in here] == [
        (each.code, each.message, each.remedy) for each in there
    ]
    assert there[0].path.startswith(home.rstrip("."))
    assert here[0].path == there[0].path.removeprefix(home.rstrip(".")).lstrip(".")
    assert (here[0].file, here[0].line, here[0].column) == ("", 0, 0)


def test_all_mistakes_come_at_once_with_their_paths() -> None:
    with pytest.raises(ConfigError) as caught:
        DeploymentConfig(
            name="a/b",
            services={
                "web": {"replicas": -1, "env": {"A=": "x"}, "ports": [{"container_port": 1}, {"container_port": 0}]}
            },
        )
    assert str(caught.value).startswith("E002 CONFIG_INVALID: 4 problems in DeploymentConfig:\n")
    assert {each.path for each in caught.value.problems} == {
        "name",
        "services.web.replicas",
        "services.web.env.A=",
        "services.web.ports[1].container_port",
    }


def test_no_variable_of_a_service_is_shown_by_an_error_or_its_cause() -> None:
    with pytest.raises(ConfigError) as caught:
        ServiceConfig(command="x", env={"TOKEN": ["hunter22"]})  # type: ignore[call-arg]
    assert isinstance(caught.value.__cause__, ValidationError)
    assert "hunter22" not in str(caught.value) + str(caught.value.__cause__)


def test_a_class_derived_by_the_user_is_judged_as_its_base() -> None:
    class Web(ServiceConfig):
        """With defaults of its own."""

    with pytest.raises(ConfigError, match=r"1 problem in Web:\n  replicas: must be at least 0, got -1 \[S003\]"):
        Web(replicas=-1)


def test_what_pydantic_calls_itself_raises_what_pydantic_expects() -> None:
    with pytest.raises(ValidationError):
        DeploymentConfig.model_validate({"services": {"web": {"replicas": -1}}})

    class Mine(BaseModel):
        web: ServiceConfig

    with pytest.raises(ValidationError, match="replicas"):
        Mine(web={"replicas": -1})  # type: ignore[arg-type]
    assert Mine(web={"command": "x"}).web == ServiceConfig(command="x")  # type: ignore[arg-type]


def test_a_config_is_frozen_and_says_what_to_do_instead() -> None:
    service = ServiceConfig(command="x")
    with pytest.raises(ConfigError, match=r"replicas of ServiceConfig cannot be changed. Make a new ServiceConfig"):
        service.replicas = 3  # type: ignore[misc]
    with pytest.raises(ConfigError, match="there is no replica here"):
        service.replica = 3  # type: ignore[attr-defined]


def test_every_section_of_the_file_can_be_built_in_code() -> None:
    sections: list[Any] = [getattr(config_package, name) for name in dir(config_package) if name[0].isupper()]
    models = [each for each in sections if isinstance(each, type) and issubclass(each, BaseModel)]
    assert len(models) > 20
    for model in models:
        with pytest.raises(ConfigError, match=f"in {model.__name__}:\n  no_such_key: unknown key 'no_such_key'"):
            model(
                **{"no_such_key": 1, **{name: "a" for name, field in model.model_fields.items() if field.is_required()}}
            )


async def test_the_registry_tells_the_same() -> None:
    with pytest.raises(Exception, match=r"services.web.command: neither command nor image"):
        await ServiceRegistry().register("web", ServiceConfig())


def test_lists_are_kept_as_tuples_and_names_as_members_of_their_set() -> None:
    service = ServiceConfig(command="x", args=["a", "b"], ports=[PortConfig(dynamic=True, protocol="UDP")])
    assert service.args == ("a", "b")
    assert service.ports[0].protocol is config_package.Protocol.UDP
    assert DependencyConfig(service="db", condition="started").condition is Condition.STARTED
    assert DeploymentConfig(environment="Staging").environment is config_package.Environment.STAGING


def test_everything_public_comes_with_a_star() -> None:
    names: dict[str, Any] = {}
    exec("from deploy_code.config import *", names)
    assert names["ServiceConfig"] is ServiceConfig and names["RestartPolicy"] is config_package.RestartPolicy


def test_no_secret_is_in_a_repr_neither_of_the_models_nor_of_what_becomes_of_them() -> None:
    secret = "swordfish-1"
    config = DeploymentConfig(
        deployment=DeploymentSettings(strategy="mine", strategy_options={"token": secret}),
        hooks=HooksConfig(pre_deploy=["notify", secret], post_deploy=["notify", secret], on_failure=["notify", secret]),
        monitoring={
            "prometheus": {"endpoint": f"http://me:{secret}@host"},
            "grafana": {"endpoint": f"http://me:{secret}@host"},
            "alerting": {"webhook_url": f"https://chat/{secret}"},
        },
    )
    config.services["a"] = ServiceConfig(
        service_type="custom",
        command="x",
        args=["--token", secret],
        environment={"TOKEN": secret},
        options={"token": secret},
        health_check=HealthCheckConfig(endpoint=f"http://me:{secret}@host/", command=["ask", secret]),
    )
    assert secret not in repr(config) and secret not in str(config)
    project = project_of(config)
    assert secret in project.services["a"].content.args
    assert secret not in repr(project)
