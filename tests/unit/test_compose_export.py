"""`export compose`: what a Compose file can say it says, the rest is told; and it comes back as it went."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy_code.config import (
    DependencyConfig,
    DeploymentConfig,
    DeploymentSettings,
    HealthCheckConfig,
    InfrastructureConfig,
    NetworkConfig,
    PortConfig,
    ResourceRequirements,
    RestartConfig,
    ServiceConfig,
    VolumeConfig,
    load_config,
)
from deploy_code.config.compose.amounts import MEGABYTE, duration, megabytes, seconds, size
from deploy_code.config.compose.exporter import export_compose
from deploy_code.config.compose.importer import import_compose
from deploy_code.config.compose.template import in_compose, in_ours, joined, parse_compose, parse_ours, value_of
from deploy_code.config.schema import BuildConfig
from support.compose_kit import ComposeFolder


@pytest.fixture
def folder(tmp_path: Path) -> ComposeFolder:
    return ComposeFolder(tmp_path)


def exported(folder: ComposeFolder, text: str) -> tuple[dict[str, Any], list[str]]:
    """The Compose file as data, which docker-compose takes, and what was told (without the defaults)."""
    done = folder.exported(dedent(text))
    folder.normalised(folder.write(done.text))
    lines = [str(line).replace(f"{folder.folder}/deploy-code.yaml:", "") for line in done.findings]
    return yaml.safe_load(done.text), [line for line in lines if "waits 10 seconds" not in line]


def of_service(folder: ComposeFolder, keys: str) -> tuple[dict[str, Any], list[str]]:
    file, lines = exported(folder, f"services:\n  web:\n    image: a:1\n{indent(dedent(keys), '    ')}\n")
    return file["services"]["web"], lines


# --------------------------------------------------------------------------- what is told


def test_what_compose_cannot_say_is_told_line_by_line(folder: ComposeFolder) -> None:
    file, lines = exported(
        folder,
        """\
        name: shop
        deployment: {strategy: RollingUpdate, max_parallel: 3}
        hooks: {pre_deploy: [/bin/true]}
        services:
          worker: {command: /bin/true}
          web:
            image: a:1
            dependencies: [worker]
            health_check: {endpoint: /health}
            min_ready_seconds: 3
            restart: {policy: always, backoff_seconds: 2}
            resources: {storage_gb: 1}
            ports: [{dynamic: true}]
        """,
    )
    assert file == {"services": {"web": {"image": "a:1", "restart": "always"}}}
    assert [line.split(": ")[2] for line in lines] == [
        "name",
        "deployment.strategy",
        "deployment.max_parallel",
        "hooks",
        "services.worker",
        "services.web.dependencies[0]",
        "services.web.health_check.endpoint",
        "services.web.min_ready_seconds",
        "services.web.restart.backoff_seconds",
        "services.web.resources.storage_gb",
        "services.web.ports[0]",
    ]
    assert lines[4] == "dropped: 5:3: services.worker: a process: Compose runs containers only"


def test_variables_stay_variables_and_no_value_of_one_is_written(folder: ComposeFolder) -> None:
    folder.env["DB_PASSWORD"] = "hunter2"
    web, _ = of_service(
        folder,
        """\
        env: {PASSWORD: "${DB_PASSWORD}", URL: "db://u:${DB_PASSWORD:-x}@h", COST: "$5 and $$6 $${X}"}
        """,
    )
    assert web["environment"] == {
        "PASSWORD": "${DB_PASSWORD}",
        "URL": "db://u:${DB_PASSWORD:-x}@h",
        "COST": "$$5 and $$6 $${X}",
    }


def test_numbers_that_come_from_variables_do_too(folder: ComposeFolder) -> None:
    folder.env |= {"WEB": "8080", "MEM": "64", "WAIT": "3", "COUNT": "2"}
    web, _ = of_service(
        folder,
        """\
        ports:
          - container_port: 80
            host_port: ${WEB}
        resources:
          memory_mb: ${MEM}
        stop_timeout_seconds: ${WAIT}
        replicas: ${COUNT}
        """,
    )
    assert web["ports"] == ["${WEB}:80"]
    assert (web["mem_limit"], web["stop_grace_period"], web["scale"]) == ("${MEM}m", "${WAIT}s", "${COUNT}")


def test_what_is_filled_in_at_start_is_known_beforehand_with_compose(folder: ComposeFolder) -> None:
    file, lines = exported(
        folder,
        """\
        services:
          db: {image: "b:1", ports: [{container_port: 5432, host_port: 15432}]}
          api: {command: /bin/true, ports: [{container_port: 9000}]}
          web:
            image: a:1
            ports: [{container_port: 80, host_port: 8080}]
            args: ["${PORT}", "${PORT_80}"]
            env:
              DB: "${services.db.host}:${services.db.port}"
              API: "http://${services.api.host}:${services.api.port}"
              WHO: "${DEPLOY_CODE_SERVICE}"
        """,
    )
    web = file["services"]["web"]
    assert web["command"] == ["80", "80"]
    assert web["environment"] == {
        "DB": "db:5432",
        "API": "http://host.docker.internal:9000",
        "WHO": "$${DEPLOY_CODE_SERVICE}",
    }
    assert web["extra_hosts"] == {"host.docker.internal": "host-gateway"}
    assert [line.split(": ")[2] for line in lines] == ["services.api", "services.web", "services.web.env.WHO"]


def test_a_dependency_waits_for_health_only_where_compose_can_see_it(folder: ComposeFolder) -> None:
    file, lines = exported(
        folder,
        """\
        services:
          seen: {image: "a:1", health_check: {command: ["true"]}}
          unseen: {image: "a:1"}
          once: {image: "a:1", one_shot: true, restart: never}
          web: {image: "a:1", dependencies: [seen, unseen, once, {service: seen, condition: started}]}
        """,
    )
    assert file["services"]["web"]["depends_on"] == {
        "seen": {"condition": "service_healthy"},
        "unseen": {"condition": "service_started"},
        "once": {"condition": "service_completed_successfully"},
    }
    assert [line.split(": ")[2] for line in lines] == ["services.once.one_shot", "services.web.dependencies[1]"]


def test_a_disabled_service_is_in_a_profile_that_nobody_names(folder: ComposeFolder) -> None:
    file, _ = exported(folder, "services: {web: {image: 'a:1', enabled: false}, other: {image: 'b:1'}}")
    assert file["services"]["web"]["profiles"] == ["disabled"]
    assert "profiles" not in file["services"]["other"]


def test_ports_that_only_neighbours_use_are_exposed(folder: ComposeFolder) -> None:
    ports = "ports: [{container_port: 1}, {container_port: 2, host_port: 3, protocol: udp}, {host_port: 4}]"
    web, _ = of_service(folder, ports)
    assert (web["expose"], web["ports"]) == (["1"], ["3:2/udp", "4:4"])


def test_the_machines_network_name_servers_and_subnet_are_kept(folder: ComposeFolder) -> None:
    network = "infrastructure: {network: {cidr: 172.30.0.0/16, dns_servers: [10.0.0.2]}}\n"
    file, lines = exported(folder, network + "services: {web: {image: 'a:1'}}")
    assert file["networks"] == {"default": {"ipam": {"config": [{"subnet": "172.30.0.0/16"}]}}}
    assert (file["services"]["web"]["dns"], lines) == (["10.0.0.2"], [])
    file, _ = exported(folder, "infrastructure: {network: {mode: host}}\nservices: {web: {image: 'a:1'}}")
    assert file["services"]["web"]["network_mode"] == "host"


def test_paths_are_written_as_seen_from_where_the_compose_file_will_lie(folder: ComposeFolder) -> None:
    text = "services: {web: {build: app, volumes: [{name: a, mount_path: /x, source: ./home}]}}"
    config = load_config([folder.ours(text)], environ={})
    web = yaml.safe_load(export_compose(config, folder=str(folder.folder / "deep")).text)["services"]["web"]
    assert (web["build"], web["volumes"]) == ({"context": "../app"}, ["../home:/x"])


# --------------------------------------------------------------------------- amounts and text, there and back


@given(st.integers(0, 10**6) | st.integers(0, 10**6).map(lambda count: count / 1000))
def test_every_duration_is_read_as_it_was_written(count: float) -> None:
    assert seconds(duration(count)) == pytest.approx(count)


@pytest.mark.parametrize(
    ("text", "count"), [("1m30s", 90), ("2h", 7200), ("1.5s", 1.5), ("500ms", 0.5), ("10", 10), ("1h1ms", 3600.001)]
)
def test_durations_are_read_as_go_reads_them(text: str, count: float) -> None:
    assert seconds(text) == count


@pytest.mark.parametrize("text", ["", "s", "1d", "1m 30s", "-1s", "1m30", "∞"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("2b", 2), ("1k", 1024), ("50M", 50 * MEGABYTE), ("1gb", 1024 * MEGABYTE), ("0.5K", 512)],
)
def test_sizes_are_counted_in_steps_of_1024(text: str, count: int) -> None:
    assert size(text) == count
    assert megabytes(MEGABYTE + 1) == 2


PIECES = st.sampled_from(
    ["$", "$$", "${", "}", "{", "A", "_b", "9", " ", "${A}", "${A:-x}", "${B?y}", "${A:+${B}}", "é"]
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_text_that_our_file_can_hold_is_the_same_in_compose_and_back(text: str) -> None:
    try:
        parts = parse_ours(text)
    except ValueError:
        return
    again = parse_compose(in_compose(parts))
    assert again == parts
    assert parse_ours(in_ours(again)) == parts


@given(st.lists(st.sampled_from(["$", "{", "}", "A", "x", " "]), max_size=10).map("".join))
def test_text_without_variables_survives_both_spellings(text: str) -> None:
    parts = joined(text)
    assert value_of(parse_compose(in_compose(parts)), lambda _: "wrong") == text
    assert value_of(parse_ours(in_ours(parts)), lambda _: "wrong") == text


# --------------------------------------------------------------------------- whole files, there and back

WORD = st.sampled_from(
    ["a", "b c", "$HOME", "${X}", "$$", "yes", "22:22", "1.10", "null", "~", "é", "#", "a: b", "'", '"']
)
LABEL = st.sampled_from(["x", "a.b", "traefik.http.routers.go.rule", "Path(`/`)"])
SECONDS = st.integers(1, 600) | st.sampled_from([0.5, 1.5])
NUMBER = st.integers(1, 4096)
ENV = st.dictionaries(st.sampled_from(["A", "B_C", "no"]), WORD, min_size=1, max_size=3)
COMMAND = st.sampled_from(["/run.sh", "sh", "a b"])


@st.composite
def ports(draw: st.DrawFn) -> list[PortConfig]:
    found = []
    for number in sorted(draw(st.sets(st.integers(1, 50), max_size=3))):
        kind = draw(st.sampled_from(["published", "exposed", "dynamic"]))
        protocol = draw(st.sampled_from([{}, {"protocol": "udp"}]))
        more: dict[str, Any] = {"published": {"host_port": number + 8000}, "dynamic": {"dynamic": True}}.get(kind, {})
        found.append((kind == "exposed", PortConfig(container_port=number, **more, **protocol)))
    return [port for _, port in sorted(found, key=lambda each: each[0])]  # exposed ones are listed last


@st.composite
def volumes(draw: st.DrawFn) -> list[VolumeConfig]:
    found = []
    for path in sorted(draw(st.sets(st.sampled_from(["one", "two", "three"])))):
        kind = draw(st.sampled_from(["named", "bind"]))
        read_only = draw(st.sampled_from([{}, {"read_only": True}]))
        if kind == "named":
            found.append(VolumeConfig(name=f"data-{path}", mount_path=f"/{path}", **read_only))
        else:
            source = draw(st.sampled_from(["/etc", "./here", "../there", "~/x"]))
            found.append(VolumeConfig(name=path, mount_path=f"/{path}", source=source, **read_only))
    if draw(st.booleans()):
        size = draw(st.sampled_from([{}, {"size_mb": 5}]))
        found.append(VolumeConfig(name="tmpfs-tmp", mount_path="/tmp", tmpfs=True, **size))
    return found


@st.composite
def checks(draw: st.DrawFn) -> HealthCheckConfig:
    if draw(st.booleans()):
        return HealthCheckConfig(disabled=True)
    more = draw(st.fixed_dictionaries({}, optional={"interval_seconds": SECONDS, "start_period_seconds": SECONDS}))
    shell = ["/bin/sh", "-c", draw(WORD)]
    command = draw(st.just(shell) | st.lists(WORD, min_size=1, max_size=3))
    return HealthCheckConfig(command=command, timeout_seconds=draw(SECONDS), retries=draw(NUMBER), **more)


LIMITS = {"cpu_cores": st.sampled_from([0.5, 1, 2.25]), "memory_mb": NUMBER, "pids": NUMBER, "gpu_count": NUMBER}
RESOURCES = st.fixed_dictionaries({}, optional=LIMITS).filter(bool).map(lambda found: ResourceRequirements(**found))
RESTARTS = st.sampled_from(["never", "always", "on-failure"]) | st.integers(2, 9).map(
    lambda most: RestartConfig(policy="on-failure", max_exits=most)
)
BUILD = st.fixed_dictionaries(
    {"context": st.sampled_from([".", "./app", "/srv/app"])},
    optional={"dockerfile": st.just("Dockerfile.dev"), "args": ENV, "target": st.just("final")},
)


@st.composite
def services(draw: st.DrawFn, others: dict[str, ServiceConfig]) -> ServiceConfig:
    image = {"image": "a:1"} if draw(st.booleans()) else {"build": BuildConfig(**draw(BUILD))}
    keys: dict[str, st.SearchStrategy[Any]] = {
        "enabled": st.just(False) if not others else st.just(True),
        "command": COMMAND, "args": st.lists(WORD, min_size=1, max_size=3), "user": st.sampled_from(["1000", "a:b"]),
        "working_dir": st.just("/srv"), "env": ENV, "replicas": st.integers(0, 3), "health_check": checks(),
        "resources": RESOURCES, "ports": ports(), "volumes": volumes(), "stop_signal": st.just("SIGINT"),
        "stop_timeout_seconds": SECONDS, "pull": st.sampled_from(["always", "never"]), "extra_hosts":
        st.just({"db.local": "10.0.0.1", "six": "fd00::1"}), "cap_add": st.just(["NET_ADMIN"]),
        "cap_drop": st.just(["ALL"]), "read_only": st.just(True), "privileged": st.just(True), "init": st.just(True),
        "shm_size_mb": NUMBER, "labels": st.dictionaries(LABEL, WORD, min_size=1, max_size=2),
        "log_driver": st.just("json-file"), "log_options": st.just({"max-size": "5m"}),
    }  # fmt: skip
    chosen = draw(st.fixed_dictionaries({}, optional=keys))
    if others:
        chosen.pop("enabled", None)
    needed = [_needed(draw, name, other) for name, other in others.items() if other.enabled and draw(st.booleans())]
    found = {key: value for key, value in chosen.items() if value not in ([], {})}
    return ServiceConfig(**image, **found, restart=draw(RESTARTS), **({"dependencies": needed} if needed else {}))


def _needed(draw: st.DrawFn, name: str, other: ServiceConfig) -> Any:
    seen = other.health_check is not None and other.health_check.command
    return name if seen and draw(st.booleans()) else DependencyConfig(service=name, condition="started")


@st.composite
def configs(draw: st.DrawFn) -> DeploymentConfig:
    found: dict[str, ServiceConfig] = {}
    for name in ("db", "web_1", "x.y-z")[: draw(st.integers(1, 3))]:
        found[name] = draw(services(found))
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more = {"infrastructure": InfrastructureConfig(network=NetworkConfig(cidr="172.30.0.0/16"))}
    taken: set[Any] = set()
    for name, service in found.items():  # a host port has one owner
        own = [port for port in service.ports if (port.host_port, port.protocol) not in taken or not port.host_port]
        taken |= {(port.host_port, port.protocol) for port in own if port.host_port}
        found[name] = service.model_copy(update={"ports": tuple(own)})
    return DeploymentConfig(version="1.0.0", deployment=DeploymentSettings(strategy="Parallel"), services=found, **more)


def there_and_back(config: DeploymentConfig, folder: Path) -> tuple[DeploymentConfig, str]:
    ours = folder / "deploy-code.yaml"
    ours.write_text(config.to_yaml())
    read = load_config([ours], environ={})
    compose = folder / "compose.yml"
    compose.write_text(export_compose(read, folder=str(folder)).text)
    ours.write_text(import_compose([str(compose)], folder=str(folder), environ={}).text)
    return load_config([ours], environ={}), compose.read_text()


def said(config: DeploymentConfig) -> dict[str, Any]:
    """Everything of a config, with the one text that has two spellings in one of them."""
    found = config.model_dump(mode="json")
    for service in found["services"].values():
        for volume in service["volumes"]:
            if volume["source"]:
                volume["source"] = volume["source"].removeprefix("./")
        if service["build"]:
            service["build"]["context"] = service["build"]["context"].removeprefix("./")
    return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(configs())
def test_what_is_exported_and_imported_again_is_what_it_was(tmp_path: Path, config: DeploymentConfig) -> None:
    again, text = there_and_back(config, tmp_path)
    assert said(again) == said(config), text


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(configs().filter(lambda config: any(service.enabled for service in config.services.values())))
def test_docker_compose_takes_every_export(tmp_path: Path, config: DeploymentConfig) -> None:
    for name in ("app", "here"):
        (tmp_path / name).mkdir(exist_ok=True)
    config.services.update({name: _with_folder(service, tmp_path) for name, service in config.services.items()})
    _, text = there_and_back(config, tmp_path)
    folder = ComposeFolder(tmp_path)
    read = folder.normalised(folder.write(text))
    assert set(read["services"]) == set(config.services)


def _with_folder(service: ServiceConfig, folder: Path) -> ServiceConfig:
    """docker-compose looks whether the folder to build is there."""
    if service.build is None:
        return service
    return service.model_copy(update={"build": service.build.model_copy(update={"context": str(folder / "app")})})
