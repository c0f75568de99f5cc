"""The models: defaults, spellings, what can be done with them in code."""

import asyncio
from pathlib import Path

import pytest
import yaml

from config_kit import complaints, load, write
from deploy_code.config import (
    DependencyConfig,
    DeploymentConfig,
    HealthCheckConfig,
    PortConfig,
    ResourceRequirements,
    ServiceConfig,
    load_config,
)
from deploy_code.config.resolve import resolve
from deploy_code.errors import ConfigError


def test_defaults_are_those_of_the_document_but_for_the_stated_exceptions() -> None:
    config = DeploymentConfig()
    assert (config.version, config.environment, config.dry_run) == ("1.0.0", "production", False)
    network, storage = config.infrastructure.network, config.infrastructure.storage
    assert (config.infrastructure.container_runtime, config.infrastructure.orchestrator) == ("Docker", "DockerCompose")
    assert (network.mode, network.cidr, network.dns_servers) == ("Bridge", "172.20.0.0/16", ("8.8.8.8", "1.1.1.1"))
    assert (network.port_range.start, network.port_range.end) == (30000, 40000)
    assert (storage.data_dir, storage.log_dir) == ("/var/lib/deploy-code", "/var/log/deploy-code")
    security, deployment, monitoring = config.security, config.deployment, config.monitoring
    assert not (security.tls_enabled or security.auth.enabled or security.rbac.enabled or monitoring.alerting.enabled)
    assert (security.auth.method, security.auth.token_expiry_seconds, security.rbac.roles) == ("JWT", 3600, ())
    assert (deployment.strategy, deployment.max_parallel, deployment.timeout_seconds) == ("Sequential", 10, 300)
    assert (deployment.health_check_interval, deployment.rollback_on_failure) == (30, True)
    assert (monitoring.enabled, monitoring.prometheus.endpoint, monitoring.alerting.rules) == (True, None, ())
    service = ServiceConfig(command="x")
    assert (service.enabled, service.replicas, service.resources) == (True, 1, ResourceRequirements())
    nothing = {"cpu_cores": 0, "memory_mb": 0, "storage_gb": 0, "gpu_count": 0, "pids": 0}
    assert ResourceRequirements().model_dump() == nothing
    check = HealthCheckConfig()
    assert (check.interval_seconds, check.timeout_seconds, check.retries, check.start_period_seconds) == (30, 10, 3, 0)


@pytest.mark.parametrize(
    "spelling", ["RollingUpdate", "rolling_update", "rolling-update", "ROLLING UPDATE", "rollingupdate"]
)
def test_names_from_a_fixed_set_may_be_spelled_in_any_way(tmp_path: Path, spelling: str) -> None:
    config = load(
        tmp_path,
        f"""
        environment: STAGING
        infrastructure: {{container_runtime: podman, orchestrator: docker-compose, network: {{mode: host}}}}
        security: {{auth: {{method: oauth2}}}}
        deployment: {{strategy: {spelling}}}
        monitoring: {{alerting: {{rules: [{{name: a, condition: "up == 0", severity: CRITICAL}}]}}}}
        services:
          a: {{command: x, restart: OnFailure, ports: [{{container_port: 5, protocol: UDP}}]}}
          b: {{command: x, dependencies: [{{service: a, condition: Started}}], service_type: Process}}
        """,
    )
    assert config.deployment.strategy == "RollingUpdate"
    assert config.environment == "staging" and config.infrastructure.orchestrator == "DockerCompose"
    assert config.security.auth.method == "OAuth2" and config.monitoring.alerting.rules[0].severity == "Critical"
    assert config.services["a"].restart.policy == "on-failure" and config.services["a"].ports[0].protocol == "udp"
    assert resolve(config).services["b"].content.service_type == "process"


def test_both_spellings_of_env_and_image_are_read_and_readable() -> None:
    for service in (
        ServiceConfig(env={"A": "1"}, image="i:1"),
        ServiceConfig(environment={"A": "1"}, container_image="i:1"),
    ):
        assert service.env == service.environment == {"A": "1"}
        assert service.image == service.container_image == "i:1"
        assert set(service.model_dump(exclude_unset=True)) == {"env", "image"}


def test_both_spellings_at_once_are_an_error_in_code_too() -> None:
    with pytest.raises(ConfigError, match="'env' and 'environment' are the same"):
        ServiceConfig(command="x", env={}, environment={})


def test_a_config_is_built_in_code_as_the_document_shows() -> None:
    config = DeploymentConfig()
    config.services["myapp"] = ServiceConfig(
        enabled=True,
        service_type="container",
        container_image="myapp:1",
        replicas=2,
        resources=ResourceRequirements(cpu_cores=1.0, memory_mb=1024, storage_gb=10, gpu_count=0),
        ports=[],
        environment={"N": 1, "B": True},
        dependencies=["database", DependencyConfig(service="cache", condition="started")],
        health_check=HealthCheckConfig(endpoint="/health", interval_seconds=30, timeout_seconds=10, retries=3),
    )
    config.services["database"] = ServiceConfig(
        command="postgres", args=["-D", 5], ports=[PortConfig(container_port=5432)]
    )
    config.services["cache"] = ServiceConfig(command="redis-server")
    spec = resolve(config).services["myapp"]
    assert spec.content.env == {"N": "1", "B": "true"} and spec.content.image == "myapp:1"
    assert [(d.service, str(d.condition)) for d in spec.policy.dependencies] == [
        ("database", "healthy"),
        ("cache", "started"),
    ]
    assert resolve(config).services["database"].content.args == ("-D", "5")


def test_field_errors_come_at_construction_and_cross_field_ones_when_the_config_is_handed_over() -> None:
    with pytest.raises(ConfigError, match="replicas: must be at least 0"):
        ServiceConfig(command="x", replicas=-1)
    config = DeploymentConfig(services={"a": ServiceConfig(command="x", dependencies=["gone"])})
    with pytest.raises(ConfigError, match=r"services.a.dependencies\[0\]: no service is called 'gone'.*\[E007\]"):
        resolve(config)


@pytest.mark.parametrize("value", [{"a": object()}, {"a": {1: 2}}, {"a": [{"b": Path("/")}]}, {1: 2}])
def test_options_are_plain_data(value: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"options: must be plain data, got a .*\[S003\]"):
        ServiceConfig(command="x", options=value)
    assert ServiceConfig(command="x", options={"a": (1, None)}).options == {"a": [1, None]}


def test_what_is_no_service_among_the_services_is_told() -> None:
    config = DeploymentConfig()
    config.services["a"] = {"command": "x"}  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"services\.a: must be a ServiceConfig, got dict"):
        resolve(config)


def test_everything_but_the_mapping_of_services_is_frozen() -> None:
    config = DeploymentConfig(services={"a": ServiceConfig(command="x")})
    with pytest.raises(ConfigError, match="replicas of ServiceConfig cannot be changed"):
        config.services["a"].replicas = 3  # type: ignore[misc]
    with pytest.raises(ConfigError, match="max_parallel of DeploymentSettings cannot be changed"):
        config.deployment.max_parallel = 3  # type: ignore[misc]


@pytest.mark.parametrize("version", ["1", "1.0", "1.0.0", "1.7.x", "1.x"])
def test_versions_of_this_schema_are_accepted(version: str) -> None:
    assert DeploymentConfig(version=version).version == version


@pytest.mark.parametrize("name", ["a/b", "..", "-x", "", "a b", "x" * 64])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    assert "name E002" in complaints(tmp_path, f"name: '{name}'\nservices: {{}}\n")[0]


async def test_load_is_a_coroutine_and_does_not_block_the_loop(tmp_path: Path) -> None:
    path = write(tmp_path, "services: {a: {command: x}}")
    config = await asyncio.wait_for(DeploymentConfig.load(path), 10)
    assert config.services["a"].command == "x"


def test_hooks_are_one_argv_or_several(tmp_path: Path) -> None:
    config = load(tmp_path, "hooks: {pre_deploy: [a, 1], post_deploy: [[a], [b, c]], on_failure: []}")
    assert config.hooks.pre_deploy == (("a", "1"),)
    assert config.hooks.post_deploy == (("a",), ("b", "c"))
    assert config.hooks.on_failure == ()
    assert "hooks.pre_deploy E002 must be a list, got text" in complaints(tmp_path, "hooks: {pre_deploy: ./x.sh a}")[0]


def test_to_yaml_gives_back_what_was_given_with_variables_as_variables(tmp_path: Path) -> None:
    text = """
        name: demo
        services:
          api:
            command: python
            environment: {API_KEY: "${API_KEY}", N: 5}
            replicas: ${N}
            args: [-p, "${services.db.port}", "x${API_KEY}"]
          db: {image: "pg:16"}
        """
    config = load(tmp_path, text, API_KEY="hunter22", N="3")
    config.services["new"] = ServiceConfig(command="x", replicas=1)
    written = config.to_yaml()
    assert "hunter22" not in written
    data = yaml.safe_load(written)
    assert data["services"]["api"]["env"] == {"API_KEY": "${API_KEY}", "N": "5"}
    assert data["services"]["api"]["replicas"] == "${N}" and data["services"]["db"] == {"image": "pg:16"}
    assert data["services"]["new"] == {"command": "x", "replicas": 1}
    again = load_config([write(tmp_path, written, "again.yaml")], environ={"API_KEY": "hunter22", "N": "3"})
    assert again.model_dump() == config.model_dump()
    config.services["api"] = ServiceConfig(command="python", env={"API_KEY": "changed"})
    assert yaml.safe_load(config.to_yaml())["services"]["api"]["env"] == {"API_KEY": "changed"}


def test_the_repr_of_a_config_shows_no_variables_of_services(tmp_path: Path) -> None:
    shown = repr(load(tmp_path, "services: {a: {command: x, env: {TOKEN: hunter22}}}"))
    assert "command='x'" in shown and "hunter22" not in shown
