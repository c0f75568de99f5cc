"""`to_yaml()` and back: nothing is lost, nothing is read as something else, no variable is filled in that was none."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config_kit import load, write
from deploy_code.config import (
    AlertingConfig,
    AlertRule,
    AuthConfig,
    CircuitBreakerConfig,
    DependencyConfig,
    DeploymentConfig,
    DeploymentSettings,
    GrafanaConfig,
    HealthCheckConfig,
    HooksConfig,
    InfrastructureConfig,
    MonitoringConfig,
    NetworkConfig,
    OvercommitConfig,
    PortConfig,
    PortRange,
    PrometheusConfig,
    RbacConfig,
    ResourceRequirements,
    RestartConfig,
    RoleConfig,
    SecurityConfig,
    ServiceConfig,
    StorageConfig,
    VolumeConfig,
    find_identity,
    load_config,
    load_project,
)
from deploy_code.config.files import Inputs
from deploy_code.config.handed import identity_in, project_in

# --------------------------------------------------------------------------- random configs, built in code

ODD = [
    *["no", "on", "22:22", "1.10", "007", "0x1f", "0o17", "1e5", ".5", "~", "null", "true", ".inf", "", " ", "- a"],
    *["${VAR}", "$${VAR}", "$", "$$", "$$$", "a$b", "${PORT}", "$${PORT}", "${PORT_80}$", "${services.db.port}", "${"],
    *["two\nlines", "ends with a line end\n", " indented\n  lines\n", "a: b", "# no comment", "*a", "&a", "!a", "<<"],
    *[
        "2026-11-23",
        "é",
        "🚀",
        "\u2028",
        "\x85",
        "tab\there",
        "'",
        '"',
        "\\",
        "%",
        "@",
        "`",
        "{a}",
        "[a]",
        "?",
        "=",
        "x-y",
    ],
]
TEXT = st.sampled_from(ODD) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("$\n{}"), max_size=20
)
FILLED = TEXT.filter(bool)
NAME = st.sampled_from(["a", "b-1", "no", "1", "x-web", "007", "null"])
KEY = FILLED.filter(lambda text: "=" not in text)
COUNT = st.integers(0, 10**9)
POSITIVE = st.integers(1, 10**9)
PORT = st.integers(1, 65535)
FLAG = st.booleans()
AMOUNT = st.floats(0, 1e9) | st.integers(0, 10**9)
SECONDS = st.floats(1e-9, 1e9) | st.integers(1, 10**9)
FACTOR = st.floats(0.001, 1000)
DATA = st.recursive(
    st.none() | FLAG | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def some(model: type, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``model`` with any of its fields given."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: model(**given))


def many(one: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(one, max_size=3)


def one_of(*names: str) -> st.SearchStrategy[str]:
    return st.sampled_from(names)


HEALTH = some(
    HealthCheckConfig, endpoint=TEXT, command=many(TEXT), interval_seconds=SECONDS, timeout_seconds=SECONDS,
    retries=POSITIVE, start_period_seconds=AMOUNT,
)  # fmt: skip
PORTS = st.builds(
    PortConfig, container_port=PORT, host_port=st.none() | PORT, protocol=one_of("tcp", "UDP"), dynamic=FLAG
)
VOLUMES = st.builds(VolumeConfig, name=FILLED, mount_path=FILLED, read_only=FLAG, shared=FLAG)
RESTART = one_of("never", "OnFailure") | some(
    RestartConfig, policy=one_of("always", "on_failure"), backoff_seconds=SECONDS, max_exits=POSITIVE
)
DEPENDENCIES = FILLED | st.builds(DependencyConfig, service=FILLED, condition=one_of("healthy", "started", "Completed"))
RESOURCES = some(ResourceRequirements, cpu_cores=AMOUNT, memory_mb=COUNT, storage_gb=COUNT, gpu_count=COUNT)
ENV = st.dictionaries(KEY, TEXT | st.integers() | FLAG, max_size=3)
SERVICE = some(
    ServiceConfig, enabled=FLAG, service_type=FILLED, command=FILLED, args=many(TEXT), image=FILLED, working_dir=FILLED,
    user=FILLED, env=ENV, env_file=FILLED | many(FILLED), inherit_env=FLAG, replicas=COUNT,
    dependencies=many(DEPENDENCIES), health_check=HEALTH, resources=RESOURCES, ports=many(PORTS),
    volumes=many(VOLUMES), strategy=one_of("rolling-update", "Canary") | FILLED, restart=RESTART, stop_signal=FILLED,
    stop_timeout_seconds=AMOUNT, min_ready_seconds=AMOUNT, one_shot=FLAG, exclusive=FLAG, files=many(FILLED),
    release=FILLED, options=st.dictionaries(TEXT, DATA, max_size=3),
)  # fmt: skip
INFRASTRUCTURE = some(
    InfrastructureConfig,
    container_runtime=one_of("docker", "Podman"),
    orchestrator=one_of("DockerCompose", "swarm"),
    network=some(
        NetworkConfig, mode=one_of("host", "Overlay"), cidr=FILLED, dns_servers=many(FILLED),
        port_range=some(PortRange, start=PORT, end=PORT),
    ),
    storage=some(StorageConfig, data_dir=FILLED, log_dir=FILLED, temp_dir=FILLED, backup_dir=FILLED),
    overcommit=some(OvercommitConfig, cpu=FACTOR, memory=FACTOR, storage=FACTOR),
)  # fmt: skip
SECURITY = some(
    SecurityConfig,
    tls_enabled=FLAG,
    cert_path=FILLED,
    auth=some(AuthConfig, enabled=FLAG, method=one_of("jwt", "Basic"), token_expiry_seconds=POSITIVE),
    rbac=some(RbacConfig, roles=many(st.builds(RoleConfig, name=FILLED, permissions=many(FILLED)))),
)
DEPLOYMENT = some(
    DeploymentSettings, strategy=one_of("parallel", "Canary") | FILLED, max_parallel=POSITIVE, timeout_seconds=SECONDS,
    total_timeout_seconds=SECONDS, rollback_on_failure=FLAG, strategy_options=st.dictionaries(TEXT, DATA, max_size=3),
    circuit_breaker=some(CircuitBreakerConfig, failures=POSITIVE, window_seconds=SECONDS),
)  # fmt: skip
ARGV = st.lists(TEXT, min_size=1, max_size=3)
HOOKS = some(HooksConfig, pre_deploy=ARGV, post_deploy=many(ARGV), on_failure=many(ARGV), timeout_seconds=SECONDS)
RULES = many(st.builds(AlertRule, name=FILLED, condition=FILLED, severity=one_of("Info", "critical")))
MONITORING = some(
    MonitoringConfig,
    enabled=FLAG,
    prometheus=some(PrometheusConfig, endpoint=FILLED, scrape_interval=SECONDS),
    grafana=some(GrafanaConfig, endpoint=FILLED, dashboards=many(FILLED)),
    alerting=some(AlertingConfig, enabled=FLAG, webhook_url=FILLED, rules=RULES),
)
CONFIG = some(
    DeploymentConfig, version=one_of("1", "1.0", "1.0.0", "1.x"), name=one_of("shop", "1.10", "no", "007"),
    environment=one_of("staging", "Production"), dry_run=FLAG, infrastructure=INFRASTRUCTURE, security=SECURITY,
    deployment=DEPLOYMENT, monitoring=MONITORING, hooks=HOOKS, plugins=many(FILLED),
    services=st.dictionaries(NAME, SERVICE, max_size=3),
)  # fmt: skip


def read(text: str, **environ: str) -> DeploymentConfig:
    """As a file of this text would be, rules between values aside: the random ones break most of them."""
    from deploy_code.config import loader

    inputs = Inputs(folder="/", texts=(("deploy-code.yaml", text.encode()),), dotenv_path="", dotenv=None)
    source, problems = loader._read(inputs, environ)
    assert source is not None and problems == []
    data = source.plain.walk(source.tree)
    assert source.plain.problems == [] and source.plain.missing == [], source.plain.problems
    config, problems = loader.validated(data, source)
    assert config is not None and problems == [], problems
    config._source = source
    return config


def given_in(config: DeploymentConfig) -> dict[str, Any]:
    """What was given, as opposed to defaults: `replicas: 1` and none are not the same."""
    return config.model_dump(exclude_defaults=False, exclude_unset=True)


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


@settings(max_examples=500, deadline=None, database=None, suppress_health_check=SLOW)
@given(CONFIG)
def test_what_is_built_in_code_is_the_same_after_writing_and_reading(config: DeploymentConfig) -> None:
    text = config.to_yaml()
    again = read(text)
    assert again == config, text
    assert given_in(again) == given_in(config), text
    assert read(again.to_yaml()) == config, again.to_yaml()


def test_services_and_variables_that_were_added_later_are_written_too() -> None:
    config = DeploymentConfig()
    service = ServiceConfig(command="x")
    service.environment["ADDED"] = "later"
    config.services["web"] = service
    assert yaml.safe_load(config.to_yaml()) == {"services": {"web": {"command": "x", "env": {"ADDED": "later"}}}}
    assert read(config.to_yaml()) == config


@pytest.mark.parametrize("text", ODD)
def test_odd_text_stays_what_it_is_wherever_it_stands(text: str) -> None:
    config = DeploymentConfig(
        services={"a": ServiceConfig(command="x", args=[text], env={"A": text}, options={"o": text, "l": [text]})}
    )
    again = read(config.to_yaml()).services["a"]
    assert again.args == (text,) and again.env == {"A": text} and again.options == {"o": text, "l": [text]}


def test_a_dollar_in_code_is_text_and_a_placeholder_stays_one() -> None:
    service = ServiceConfig(command="x", args=["--port", "${PORT}", "${HOME}", "5$"], working_dir="${PORT}")
    text = DeploymentConfig(services={"a": service}).to_yaml()
    written = yaml.safe_load(text)["services"]["a"]
    assert written["args"] == ["--port", "${PORT}", "$${HOME}", "5$"]
    assert written["working_dir"] == "$${PORT}", "known only when an instance starts: no placeholder there"
    assert read(text, HOME="/root").services["a"] == service


# --------------------------------------------------------------------------- from files

FILE = """\
name: ${NAME}
environment: ${STAGE}
plugins: ${PLUGIN}
infrastructure:
  storage: {data_dir: "${DATA}/x"}
  network:
    port_range:
      start: ${LOW}
deployment:
  strategy: "${STRATEGY}"
  strategy_options:
    share: ${SHARE}
    label: "${SHARE}"
    tag: !!str 5
hooks: {pre_deploy: [notify, "--token=${TOKEN}"], on_failure: [[notify, "${TOKEN}"]]}
services:
  api:
    command: python
    environment: {API_KEY: "${TOKEN}", PRICE: "$$5", N: 007, EMPTY: , TEXT: "a$${b}"}
    restart: ${POLICY}
    env_file: ${FILE}
    args:
      - |
        two lines of ${NAME}
        and $${not} this
      - "${services.db.port}"
  db:
    image: "pg:${LOW}"
    env: {PASSWORD: "x${TOKEN}"}
    stop_timeout_seconds: ${LOW}
"""
ENVIRON = {
    "NAME": "demo", "STAGE": "Staging", "PLUGIN": "a.b:C", "DATA": "/d", "LOW": "3000", "STRATEGY": "rolling-update",
    "SHARE": "5", "TOKEN": "hunter22", "POLICY": "on-failure", "FILE": "a.env",
}  # fmt: skip


def test_variables_are_written_as_variables_and_no_secret_is() -> None:
    config = read(FILE, **ENVIRON)
    text = config.to_yaml()
    assert "hunter22" not in text
    for name in ENVIRON:
        assert f"${{{name}}}" in text, name
    again = read(text, **ENVIRON)
    assert again == config and given_in(again) == given_in(config)
    assert again.deployment.strategy_options == {"share": 5, "label": "5", "tag": "5"}
    other = read(text, **{**ENVIRON, "TOKEN": "another1", "LOW": "4000", "POLICY": "never"})
    assert other.services["api"].env["API_KEY"] == "another1"
    assert other.services["db"].stop_timeout_seconds == 4000 and other.services["api"].restart.policy == "never"


def test_the_reference_is_the_same_after_writing_and_reading() -> None:
    from deploy_code.config import editor

    reference = (Path(editor.__file__).parent / "reference.yaml").read_text(encoding="utf-8")
    names = {"DATABASE_URL": "postgres://u:p@h/d", "API_KEY": "k" * 8}
    config = read(reference, **names)
    assert read(config.to_yaml(), **names) == config


def test_a_written_config_is_the_same_project(tmp_path: Path) -> None:
    config = DeploymentConfig(
        name="1.10",
        environment="staging",
        infrastructure={"storage": {"data_dir": str(tmp_path / "a $b ${c} 'd'"), "log_dir": str(tmp_path / "l")}},
    )
    found = find_identity([write(tmp_path, config.to_yaml())])
    mine = identity_in(config)
    assert (found.name, found.environment, found.directories.state) == (mine.name, "staging", mine.directories.state)
    assert found.directories.logs == mine.directories.logs


def test_a_written_config_means_the_same_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("print(1)")
    (tmp_path / "a.env").write_text("A=from a file")
    web = ServiceConfig(
        command="python3",
        args=["app.py", "${PORT}", "$${HOME}"],
        env={"B": "${services.db.port}", "C": 5},
        env_file="a.env",
        ports=[{"dynamic": True}],
        dependencies=["db"],
        health_check={"endpoint": "/", "retries": 5},
        restart="never",
    )
    config = DeploymentConfig(name="shop", services={"db": ServiceConfig(command="./db", replicas=1), "web": web})
    there, here = load_project([write(tmp_path, config.to_yaml())]), project_in(config)
    assert there.services == here.services and there.settings == here.settings and there.root == here.root
    assert there.services["web"].run_hash == here.services["web"].run_hash
    assert here.services["web"].content.files.keys() == {"app.py"}


def test_configs_are_equal_by_value_and_can_be_copied_and_pickled(tmp_path: Path) -> None:
    config = load(tmp_path, "services: {a: {command: x, env: {T: '${TOKEN}'}}}", TOKEN="hunter22", OTHER="unused")
    built = DeploymentConfig(services={"a": ServiceConfig(command="x", env={"T": "hunter22"})})
    assert config == built and built != DeploymentConfig()
    for copied in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert copied == config and copied.to_yaml() == config.to_yaml()
    assert b"unused" not in pickle.dumps(config)
    copied.services["b"] = built.services["a"]
    assert "b" not in config.services
    assert load_config([write(tmp_path, built.to_yaml(), "again.yaml")]) == built
