"""`import compose`, key by key: what is taken over, what is told, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from deploy_code.config import check_files, load_config
from deploy_code.errors import ConfigError
from support.compose_kit import ComposeFolder, meaning_of_compose, meaning_of_ours

UNSAID = ("ready when the first port", "killed 30 seconds", "limits are also set aside")
"""What is told of every file; tests of other things leave it out."""


@pytest.fixture
def folder(tmp_path: Path) -> ComposeFolder:
    return ComposeFolder(tmp_path)


class Import:
    """One import: the ``file`` that came of it, its first service, the ``lines`` that were told."""

    def __init__(self, folder: ComposeFolder, text: str, **more: Any) -> None:
        file = folder.write(dedent(text))
        done = folder.imported(file, **more)
        self.text = done.text
        self.file: dict[str, Any] = yaml.safe_load(done.text)
        self.services: dict[str, Any] = self.file["services"]
        self.service = next(iter(self.services.values()))
        every = [str(line).replace(f"{file}:", "") for line in done.findings]
        self.lines = [line for line in every if not any(words in line for words in UNSAID)]
        self.defaults = [line for line in every if line not in self.lines]
        assert check_files([folder.ours(done.text)], environ=folder.env)[0] == []


def of_service(folder: ComposeFolder, *keys: str, top: str = "") -> Import:
    """Of a file with one service, ``web`` with an image, and ``keys`` of its own."""
    lines = "\n".join(f"    {line}" for key in keys for line in key.splitlines())
    return Import(folder, f"services:\n  web:\n    image: a:1\n{lines}\n{top}")


def refused(folder: ComposeFolder, text: str, **more: Any) -> list[str]:
    """Problems as ``line:column path message``."""
    file = folder.write(dedent(text))
    with pytest.raises(ConfigError) as caught:
        folder.imported(file, **more)
    assert caught.value.code == "E002"
    return [f"{found.line}:{found.column} {found.path} {found.message}" for found in caught.value.problems]


def refused_key(folder: ComposeFolder, *keys: str) -> list[str]:
    lines = "\n".join(f"    {line}" for key in keys for line in key.splitlines())
    return refused(folder, f"services:\n  web:\n    image: a:1\n{lines}\n")


# --------------------------------------------------------------------------- what runs


@pytest.mark.parametrize(
    ("keys", "command", "args"),
    [
        (["command: npm run 'all of it'"], None, ["npm", "run", "all of it"]),
        (['command: ["a", "b c"]'], None, ["a", "b c"]),
        (["entrypoint: /run.sh --fast", "command: [x]"], "/run.sh", ["--fast", "x"]),
        (["entrypoint: [/run.sh]"], "/run.sh", None),
        (["entrypoint: []", "command: a b"], "a", ["b"]),
        (["command: echo $$HOME $${X} $$$$"], None, ["echo", "$HOME", "$${X}", "$$$"]),
    ],
)
def test_entrypoint_and_command_become_command_and_arguments(
    folder: ComposeFolder, keys: list[str], command: str | None, args: list[str] | None
) -> None:
    service = of_service(folder, *keys).service
    assert (service.get("command"), service.get("args")) == (command, args)


def test_a_dollar_that_is_only_text_stays_one(folder: ComposeFolder) -> None:
    done = of_service(folder, "command: echo $$HOME $${X} $$$$ a$$")
    (service,) = load_config([folder.ours(done.text)], environ={}).services.values()
    assert list(service.args) == ["echo", "$HOME", "${X}", "$$", "a$"]


def test_a_command_with_a_variable_is_split_around_it(folder: ComposeFolder) -> None:
    folder.env["DSN"] = "one"
    assert of_service(folder, "command: run --dsn=$DSN '${DSN}'").service["args"] == ["run", "--dsn=${DSN}", "${DSN}"]


def test_a_variable_that_holds_several_words_is_split_as_compose_does_and_told(folder: ComposeFolder) -> None:
    folder.env["OPTIONS"] = "-a -b"
    done = of_service(folder, "command: run $OPTIONS")
    assert done.service["args"] == ["run", "-a", "-b"]
    assert done.lines == [
        "changed: 4:14: services.web.command: what OPTIONS says now is written down: no variable can stand here"
    ]


def test_a_secret_is_never_written_down_even_where_compose_would_split_it(folder: ComposeFolder) -> None:
    folder.env["DB_PASSWORD"] = "two words:2"
    done = of_service(folder, "command: run $DB_PASSWORD", "environment: {A: $DB_PASSWORD}")
    assert done.service["args"] == ["run", "${DB_PASSWORD}"]
    assert "one word here, whatever it holds" in done.lines[0]
    for key in (
        "restart: $DB_PASSWORD",
        "mem_limit: $DB_PASSWORD",
        "ports: ['$DB_PASSWORD']",
        "expose: [$DB_PASSWORD]",
    ):
        assert not any("two words" in problem for problem in refused_key(folder, key))


def test_a_build_keeps_context_file_arguments_and_target(folder: ComposeFolder) -> None:
    folder.env["TOKEN"] = "t"
    build = "build:\n  context: ./app\n  dockerfile: d\n  target: t\n  args: [A=1, TOKEN]"
    done = of_service(folder, build, "  cache_from: [x]\n  network: host")
    assert done.service["build"] == {
        "context": "./app",
        "dockerfile": "d",
        "target": "t",
        "args": {"A": "1", "TOKEN": "${TOKEN}"},
    }
    assert [line.split(": ")[2] for line in done.lines] == [
        "services.web.image",
        "services.web.build.cache_from",
        "services.web.build.network",
    ]


# --------------------------------------------------------------------------- variables


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("$SET", "${SET}"),
        ("${SET}", "${SET}"),
        ("${NO}", "${NO:-}"),
        ("${NO:-a b}", "${NO:-a b}"),
        ("${NO-x}", "${NO-x}"),
        ("${SET:?why}", "${SET:?why}"),
        ("${SET?why}", "${SET?why}"),
        ("${SET:+x}", "${SET:+x}"),
        ("${SET+x}", "${SET+x}"),
        ("${NO:-$SET}", "${NO:-${SET}}"),
        ("a$$b${SET}$$", "a$b${SET}$"),
        ("$$${SET}", "$$${SET}"),
    ],
)
def test_every_form_of_a_variable_is_kept_and_read_alike(folder: ComposeFolder, theirs: str, ours: str) -> None:
    folder.env["SET"] = "value"
    done = of_service(folder, "environment:", f"  X: '{theirs}'", f"  Y: 'a {theirs}'")
    assert done.service["env"] == {"X": ours, "Y": f"a {ours}"}
    (service,) = load_config([folder.ours(done.text)], environ=folder.env).services.values()
    folder.write(f"services: {{web: {{image: a, environment: {{X: '{theirs}'}}}}}}")
    if "+" not in theirs and "$SET}" not in theirs:  # not known to docker-compose 1
        wanted = folder.normalised("docker-compose.yml")["services"]["web"]["environment"]["X"]
        assert service.env["X"] == str(wanted or "").replace("$$", "$")


def test_a_variable_that_is_not_set_is_empty_as_in_compose_and_told_once(folder: ComposeFolder) -> None:
    done = of_service(folder, "environment: [A=$GONE, B=$GONE, BARE]")
    assert done.service["env"] == {"A": "${GONE:-}", "B": "${GONE:-}", "BARE": "${BARE:-}"}
    assert [line.partition(": ")[2].partition(": ")[2] for line in done.lines] == [
        "services.web.environment[0]: variable GONE is not set: empty, as in Compose; ${GONE} would insist on it",
        "services.web.environment.BARE: variable BARE is not set: Compose leaves it out of the container,"
        " here it is empty",
    ]


def test_a_required_variable_that_is_not_set_is_refused_as_by_compose(folder: ComposeFolder) -> None:
    assert refused_key(folder, 'environment: {A: "${KEY:?no key}"}') == [
        "4:22 services.web.environment.A variable KEY is not set: no key"
    ]


def test_variables_of_dotenv_stay_variables_because_deploy_code_reads_it_too(folder: ComposeFolder) -> None:
    folder.write("TAG=3\nWEB=8080\nMEM=64m\n", ".env")
    done = of_service(folder, "environment: {T: $TAG}", 'ports: ["$WEB:80"]', "mem_limit: $MEM")
    assert done.service["env"] == {"T": "${TAG}"}
    assert "host_port: ${WEB}\n" in done.text
    assert done.service["resources"] == {"memory_mb": 64}
    assert done.lines == [
        "changed: 6:16: services.web.mem_limit: what MEM says now is written down: no variable can stand here"
    ]


def test_variables_of_another_env_file_must_move_and_their_values_are_not_written(folder: ComposeFolder) -> None:
    other = folder.write("KEY=hidden\n", "prod.env")
    done = Import(folder, "services: {web: {image: a:1, environment: {A: $KEY}}}", env_files=[other])
    assert "hidden" not in done.text
    assert done.service["env"] == {"A": "${KEY:-}"}
    assert "variable KEY must be set where deploy-code reads it" in done.lines[0]


def test_a_variable_called_port_is_not_taken_for_what_an_instance_is_told(folder: ComposeFolder) -> None:
    folder.env["PORT"] = "9"
    done = of_service(folder, "environment: {A: $PORT}")
    assert done.service["env"] == {"A": "9"}
    assert "PORT is what deploy-code tells an instance" in done.lines[0]


# --------------------------------------------------------------------------- ports


@pytest.mark.parametrize(
    ("port", "ours"),
    [
        ("8080:80", [{"container_port": 80, "host_port": 8080}]),
        ("8080:80/udp", [{"container_port": 80, "host_port": 8080, "protocol": "udp"}]),
        ("80", [{"container_port": 80, "dynamic": True}]),
        ("127.0.0.1::80", [{"container_port": 80, "dynamic": True}]),
        ("0.0.0.0:1:2", [{"container_port": 2, "host_port": 1}]),
        ("[::1]:1:2", [{"container_port": 2, "host_port": 1}]),
        ("10-11:20-21", [{"container_port": 20, "host_port": 10}, {"container_port": 21, "host_port": 11}]),
        ("20-21", [{"container_port": 20, "dynamic": True}, {"container_port": 21, "dynamic": True}]),
        ("8000-8010:80", [{"container_port": 80, "dynamic": True}]),
        ("{target: 80, published: 8080}", [{"container_port": 80, "host_port": 8080}]),
        (
            '{target: 80, published: "8080", protocol: udp, mode: host}',
            [{"container_port": 80, "host_port": 8080, "protocol": "udp"}],
        ),
        ("{target: 80}", [{"container_port": 80, "dynamic": True}]),
    ],
)
def test_every_form_of_a_port_is_read(folder: ComposeFolder, port: str, ours: list[dict[str, Any]]) -> None:
    text = port if port.startswith("{") else f'"{port}"'
    assert of_service(folder, f"ports: [{text}]").service["ports"] == ours


@pytest.mark.parametrize(
    "port", ["", "a:80", "80:b", "1-3:1-2", "0:99999", "1:2:3:4", "80/sctp", "9-8:9-8", "{published: 80}"]
)
def test_what_is_no_port_is_refused_with_its_place(folder: ComposeFolder, port: str) -> None:
    text = port if port.startswith("{") else f'"{port}"'
    assert refused_key(folder, f"ports: [{text}]")[0].startswith("4:13 services.web.ports[0]")


def test_a_port_of_one_address_alone_is_told_to_be_open_to_all(folder: ComposeFolder) -> None:
    assert of_service(folder, 'ports: ["127.0.0.1:8080:80"]').lines == [
        "changed: 4:13: services.web.ports[0]: published on all addresses, not on 127.0.0.1 alone: keep strangers out"
        " by a firewall"
    ]


def test_exposed_ports_follow_the_published_ones(folder: ComposeFolder) -> None:
    ports = of_service(folder, 'expose: [80, "90-91", 53/udp]', 'ports: ["8080:80"]').service["ports"]
    assert ports == [
        {"container_port": 80, "host_port": 8080},
        {"container_port": 90},
        {"container_port": 91},
        {"container_port": 53, "protocol": "udp"},
    ]


def test_a_host_port_that_two_services_have_on_two_addresses_has_one_owner(folder: ComposeFolder) -> None:
    text = """\
        services:
          a: {image: "a:1", ports: ["10.0.0.1:53:53"]}
          b: {image: "a:1", ports: ["10.0.0.2:53:53"]}
    """
    done = Import(folder, text)
    assert done.services["b"]["ports"] == [{"container_port": 53, "dynamic": True}]
    assert "changed: 3:3: services.b: host port 53 is that of 'a'; this one is chosen at start" in done.lines


# --------------------------------------------------------------------------- volumes and files


@pytest.mark.parametrize(
    ("volume", "ours"),
    [
        ("data:/x", {"name": "data", "mount_path": "/x"}),
        ("data:/x:ro", {"name": "data", "mount_path": "/x", "read_only": True}),
        (".:/x", {"name": "x", "mount_path": "/x", "source": "."}),
        ("./home:/x/y:rw", {"name": "x-y", "mount_path": "/x/y", "source": "./home"}),
        ("~:/x", {"name": "x", "mount_path": "/x", "source": "~"}),
        ("'/etc:/x:ro,z'", {"name": "x", "mount_path": "/x", "source": "/etc", "read_only": True}),
        ("/x", {"name": "web-x", "mount_path": "/x"}),
        ("{type: volume, source: data, target: /x}", {"name": "data", "mount_path": "/x"}),
        (
            "{type: bind, source: ./home, target: /x, read_only: true}",
            {"name": "x", "mount_path": "/x", "source": "./home", "read_only": True},
        ),
        (
            "{type: tmpfs, target: /x, tmpfs: {size: 1000000}}",
            {"name": "tmpfs-x", "mount_path": "/x", "tmpfs": True, "size_mb": 1},
        ),
    ],
)
def test_every_form_of_a_volume_is_read(folder: ComposeFolder, volume: str, ours: dict[str, Any]) -> None:
    assert of_service(folder, f"volumes: [{volume}]", top="volumes: {data: }").service["volumes"] == [ours]


def test_a_volume_that_is_not_declared_is_refused(folder: ComposeFolder) -> None:
    assert refused_key(folder, "volumes: [data:/x]") == ["4:15 services.web.volumes[0] no volume is called 'data'"]


def test_volumes_of_others_are_new_ones_here_and_that_is_told(folder: ComposeFolder) -> None:
    top = "volumes:\n  a: {external: true}\n  b: {name: mine}\n  c: {driver: nfs, driver_opts: {o: x}}\n"
    lines = of_service(folder, "volumes: [a:/a, b:/b, c:/c]", top=top).lines
    assert [line.split(": ")[2] for line in lines] == [
        "volumes.a.external",
        "volumes.b.name",
        "volumes.c.driver_opts",
        "volumes.c.driver",
    ]


def test_a_volume_that_is_a_folder_by_its_driver_is_a_bind_mount(folder: ComposeFolder) -> None:
    top = "volumes:\n  a: {driver: local, driver_opts: {type: none, o: bind, device: /etc}}\n"
    done = of_service(folder, "volumes: [a:/x]", top=top)
    assert done.service["volumes"] == [{"name": "a", "mount_path": "/x", "source": "/etc"}]
    assert done.lines == []


def test_secrets_and_configs_are_files_mounted_read_only(folder: ComposeFolder) -> None:
    folder.write("s", "s.txt")
    top = "secrets: {a: {file: s.txt}, b: {external: true}, c: {environment: X}}\nconfigs: {d: {file: ./s.txt}}\n"
    keys = ["secrets: [a, {source: a, target: other, mode: 0400}, b, c]", "configs: [{source: d, target: /etc/d}]"]
    done = of_service(folder, *keys, top=top)
    assert done.service["volumes"] == [
        {"name": "secret-a", "mount_path": "/run/secrets/a", "source": "./s.txt", "read_only": True},
        {"name": "secret-a-2", "mount_path": "/run/secrets/other", "source": "./s.txt", "read_only": True},
        {"name": "config-d", "mount_path": "/etc/d", "source": "./s.txt", "read_only": True},
    ]
    assert [line.split(": ")[2] for line in done.lines] == [
        "services.web.secrets[1].mode",
        "services.web.secrets[2]",
        "services.web.secrets[3]",
    ]


def test_paths_are_written_as_seen_from_where_our_file_will_lie(folder: ComposeFolder, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file = folder.write("services: {web: {build: ./app, volumes: ['./home:/x', '${D:-./home}:/y']}}\n", "deep/c.yml")
    (tmp_path / "deep" / "home").mkdir()
    text = folder.imported(file).text
    assert "build: ./deep/app" in text
    assert "source: ./deep/home" in text


def test_an_env_file_that_is_missing_is_refused_unless_it_need_not_be_there(folder: ComposeFolder) -> None:
    folder.write("A=1", "there.env")
    done = of_service(folder, "env_file: [there.env, {path: gone.env, required: false}]")
    assert done.service["env_file"] == ["./there.env"]
    assert done.lines == ["dropped: 4:34: services.web.env_file[1].path: gone.env is not there"]
    assert refused_key(folder, "env_file: gone.env") == ["4:15 services.web.env_file gone.env is not there"]


# --------------------------------------------------------------------------- health, limits, restarts


@pytest.mark.parametrize(
    ("check", "ours"),
    [
        ("test: [NONE]", {"disabled": True}),
        ("disable: true", {"disabled": True}),
        ("test: [CMD, a, b]", {"command": ["a", "b"], "timeout_seconds": 30}),
        ("test: a | b", {"command": ["/bin/sh", "-c", "a | b"], "timeout_seconds": 30}),
        ("test: [CMD-SHELL, a b]\n  interval: 1m30s\n  timeout: 1.5s\n  start_period: 2h\n  retries: 7",
         {"command": ["/bin/sh", "-c", "a b"], "interval_seconds": 90, "timeout_seconds": 1.5, "retries": 7,
          "start_period_seconds": 7200}),
        ("interval: 5s", {"interval_seconds": 5}),
    ],
)  # fmt: skip
def test_every_form_of_a_health_check_is_read(folder: ComposeFolder, check: str, ours: dict[str, Any]) -> None:
    assert of_service(folder, f"healthcheck:\n  {check}").service["health_check"] == ours


@pytest.mark.parametrize(
    ("keys", "ours"),
    [
        ("restart: 'no'", "never"),
        ("restart: no", "never"),
        ("restart: always", "always"),
        ("restart: unless-stopped", "always"),
        ("restart: on-failure", "on-failure"),
        ("restart: on-failure:3", {"policy": "on-failure", "max_exits": 4}),
        ("deploy: {restart_policy: {}}", "always"),
        (
            "deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 2, window: 2m}}",
            {"policy": "on-failure", "backoff_seconds": 5, "max_exits": 3, "reset_after_seconds": 120},
        ),
        ("hostname: x", "never"),
    ],
)
def test_restarts_are_always_written_because_compose_restarts_nothing_by_itself(
    folder: ComposeFolder, keys: str, ours: Any
) -> None:
    assert of_service(folder, keys).service["restart"] == ours


@pytest.mark.parametrize(
    ("keys", "ours"),
    [
        ("deploy: {resources: {limits: {cpus: '0.5', memory: 50M, pids: 9}}}",
         {"cpu_cores": 0.5, "memory_mb": 50, "pids": 9}),
        ("mem_limit: 1g\ncpus: 2\npids_limit: 5", {"memory_mb": 1024, "cpu_cores": 2, "pids": 5}),
        ("mem_limit: 1000000", {"memory_mb": 1}),
        ("cpu_quota: 50000\ncpu_period: 100000", {"cpu_cores": 0.5}),
        ("deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}",
         {"gpu_count": 2}),
        ("deploy: {resources: {reservations: {devices: [{device_ids: ['0', '3'], capabilities: [gpu]}]}}}",
         {"gpu_count": 2}),
        ("gpus: all", {"gpu_count": 1}),
        ("pids_limit: -1", None),
    ],
)  # fmt: skip
def test_limits_old_and_new_are_read(folder: ComposeFolder, keys: str, ours: dict[str, Any] | None) -> None:
    assert of_service(folder, keys).service.get("resources") == ours


def test_a_reservation_alone_does_not_become_a_limit(folder: ComposeFolder) -> None:
    done = of_service(folder, "deploy: {resources: {reservations: {memory: 20M}}}")
    assert "resources" not in done.service
    assert done.lines == [
        "dropped: 4:41: services.web.deploy.resources.reservations.memory: a reservation would be a limit too;"
        " write resources if it may be one"
    ]


# --------------------------------------------------------------------------- the graph


def test_conditions_of_dependencies_are_kept_and_who_completes_is_a_one_shot(folder: ComposeFolder) -> None:
    text = """\
        services:
          web:
            image: a:1
            depends_on:
              db: {condition: service_healthy}
              cache: {condition: service_started, restart: true}
              migrate: {condition: service_completed_successfully}
              gone: {condition: service_started, required: false}
          db: {image: "a:1"}
          cache: {image: "a:1", links: ["db:database"]}
          migrate: {image: "a:1", scale: 2}
    """
    done = Import(folder, text)
    assert done.service["dependencies"] == ["db", {"service": "cache", "condition": "started"}, "migrate"]
    assert done.services["cache"]["dependencies"] == [{"service": "db", "condition": "started"}]
    assert done.services["migrate"]["one_shot"] is True
    assert "replicas" not in done.services["migrate"]
    assert {line.split(": ")[2] for line in done.lines} == {
        "services.web.depends_on.cache.restart",
        "services.web.depends_on.gone",
        "services.cache.links",
        "services.cache.links[0]",
        "services.migrate",
    }


def test_services_of_profiles_are_disabled_unless_their_profile_is_named(folder: ComposeFolder) -> None:
    text = "services:\n  a: {image: 'a:1'}\n  b: {image: 'a:1', profiles: [x, y]}\n"
    assert Import(folder, text).services["b"]["enabled"] is False
    assert "enabled" not in Import(folder, text, profiles=["y"]).services["b"]
    folder.env["COMPOSE_PROFILES"] = "x"
    assert "enabled" not in Import(folder, text).services["b"]


def test_a_dependency_on_a_service_that_would_not_run_is_refused(folder: ComposeFolder) -> None:
    text = "services:\n  a: {image: 'a:1', depends_on: [b]}\n  b: {image: 'a:1', profiles: [x]}\n"
    assert refused(folder, text) == ["2:34 services.a.depends_on[0] 'b' is not in an active profile"]


def test_a_name_that_is_none_here_is_changed_everywhere(folder: ComposeFolder) -> None:
    text = "services:\n  -web: {image: 'a:1'}\n  other: {image: 'a:1', depends_on: ['-web']}\n"
    done = Import(folder, text)
    assert list(done.services) == ["web", "other"]
    assert done.services["other"]["dependencies"] == [{"service": "web", "condition": "started"}]
    assert "called web here" in done.lines[0]


def test_a_name_of_a_container_that_others_seem_to_use_is_pointed_out(folder: ComposeFolder) -> None:
    text = """\
        services:
          db: {image: "a:1", container_name: mongodb}
          web: {image: "a:1", environment: {URL: "mongodb://mongodb:27017"}}
          idle: {image: "a:1", environment: {URL: "not-mongodb"}}
    """
    assert Import(folder, text).lines[1] == (
        "changed: 2:38: services.db.container_name: web may mean this by 'mongodb': write db there"
    )


def test_a_circle_of_dependencies_is_refused_where_it_is_written(folder: ComposeFolder) -> None:
    text = "services:\n  a: {image: 'a:1', depends_on: [b]}\n  b: {image: 'a:1', depends_on: [a]}\n"
    (problem,) = refused(folder, text)
    assert problem.startswith("2:3 services.a")
    assert "round in a circle" in problem


# --------------------------------------------------------------------------- networks


def test_one_subnet_and_name_servers_are_those_of_the_project(folder: ComposeFolder) -> None:
    top = "networks: {default: {ipam: {config: [{subnet: 172.30.0.0/16}]}}}"
    done = of_service(folder, "dns: 10.0.0.2", top=top)
    assert done.file["infrastructure"]["network"] == {"cidr": "172.30.0.0/16", "dns_servers": ["10.0.0.2"]}
    assert done.lines == []


def test_a_project_in_the_machines_network_is_one_here(folder: ComposeFolder) -> None:
    assert of_service(folder, "network_mode: host").file["infrastructure"]["network"] == {"mode": "Host"}


def test_what_networks_kept_apart_is_told(folder: ComposeFolder) -> None:
    text = """\
        services:
          a: {image: "a:1", networks: [x]}
          b: {image: "a:1", networks: {y: {aliases: [bee], ipv4_address: 10.0.0.9}}}
          c: {image: "a:1", network_mode: "service:a"}
          d: {image: "a:1", network_mode: host}
        networks: {x: {internal: true}, y: {external: true}}
    """
    done = Import(folder, text)
    assert "infrastructure" not in done.file
    told = {line.split(": ")[2] for line in done.lines}
    assert told == {
        "services.b.networks",
        "services.b.networks.y.aliases[0]",
        "services.b.networks.y.ipv4_address",
        "services.c.network_mode",
        "services.d.network_mode",
        "networks.x.internal",
        "networks.y.external",
    }


# --------------------------------------------------------------------------- several files


def test_several_files_are_merged_as_compose_merges_them(folder: ComposeFolder) -> None:
    one = folder.write(
        """\
services:
  web:
    image: a:1
    command: [x, y]
    ports: ["80:80"]
    environment: [A=1, B=2]
    volumes: ["d:/d", "/etc:/x"]
    labels: {l: one, m: one}
    depends_on: [db]
    dns: 10.0.0.1
    cap_add: [NET_ADMIN]
    healthcheck: {test: [CMD, t], interval: 10s}
    logging: {driver: json-file, options: {max-size: 1m}}
    tmpfs: /run
    build: .
  db: {image: "b:1"}
volumes: {d: }
""",
        "one.yml",
    )
    two = folder.write(
        """\
services:
  web:
    command: z
    ports: ["81:81"]
    environment: {B: 3, C: 4, build: no}
    volumes: ["/usr:/x:ro"]
    labels: [m=two]
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}
    dns: [10.0.0.2]
    cap_add: [SYS_TIME]
    healthcheck: {timeout: 5s}
    logging: {options: {max-file: "2"}}
    tmpfs: [/tmp]
    build: {target: t}
  cache: {image: "c:1"}
""".replace("build: no}", 'build: "no"}'),
        "two.yml",
    )
    path = folder.ours(folder.imported(one, two).text)
    assert meaning_of_ours(path, folder.env) == meaning_of_compose(folder.normalised(one, two))


def test_a_service_of_another_file_is_extended_with_its_paths(folder: ComposeFolder) -> None:
    folder.write("A=1", "base/there.env")
    folder.write(
        "services: {base: {image: 'a:1', env_file: there.env, volumes: ['.:/x'], environment: {A: one, B: one}}}",
        "base/c.yml",
    )
    text = "services: {web: {extends: {file: base/c.yml, service: base}, environment: {B: two}}}"
    done = Import(folder, text)
    assert done.service["env_file"] == ["./base/there.env"]
    assert done.service["volumes"][0]["source"] == "./base"
    path = folder.ours(done.text)
    assert meaning_of_ours(path, folder.env) == meaning_of_compose(folder.normalised("docker-compose.yml"))


def test_included_files_bring_their_services(folder: ComposeFolder) -> None:
    folder.write("services: {db: {image: 'b:1', volumes: ['.:/x']}}", "more/c.yml")
    done = Import(folder, "include: [more/c.yml]\nservices: {web: {image: 'a:1', depends_on: [db]}}")
    assert set(done.services) == {"web", "db"}
    assert done.services["db"]["volumes"][0]["source"] == "./more"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("services: {a: {extends: a, image: 'a:1'}}", "1:25 services.a.extends 'a' extends itself"),
        ("services: {a: {extends: b, image: 'a:1'}}", "1:25 services.a.extends no service is called 'b' there"),
        ("include: [docker-compose.yml]\nservices: {a: {image: 'a:1'}}", "includes itself"),
        ("include: [gone.yml]\nservices: {a: {image: 'a:1'}}", "gone.yml does not exist"),
    ],
)
def test_files_that_lead_nowhere_are_refused(folder: ComposeFolder, text: str, problem: str) -> None:
    assert problem in refused(folder, text)[0]


# --------------------------------------------------------------------------- what is wrong, what is not known


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("services: [a]", "1:1 services must be a mapping"),
        ("services: {a: {}}", "1:12 services.a neither image nor build: nothing to run"),
        ("services: {a: {image: b, ports: {}}}", "1:26 services.a.ports must be a list"),
        ("version: '1'\nservices: {}", "1:10  version 1 of Compose files is not read"),
        ("web: {image: a}", "1:1  version 1 of Compose files is not read"),
        ("services:\n  a: {image: 'b:1'}\n  a: {image: 'b:1'}", "3:3  key 'a' is here twice"),
        ("services: {a: {image: '${'}}", "1:23 services.a.image '${' without its '}'"),
        ("services: {a: {image: 'b$'}}", "1:23 services.a.image a '$' that begins no variable"),
        ("services: {a: {image: b, healthcheck: {interval: soon}}}", "must be a duration such as 1m30s, not 'soon'"),
        ("services: {a: {image: b, mem_limit: much}}", "must be a size such as 512m, not 'much'"),
        ("services: {a: {image: b, restart: never}}", "'never' is no restart policy"),
        ("services: {a: {image: b, networks: [x]}}", "no network is called 'x'"),
        ("services: {a: {image: b, secrets: [x]}}", "no secret is called 'x'"),
        ("services: {a: {image: b, depends_on: [x]}}", "no service is called 'x'"),
        ("services: {a: {build: https://github.com/x/y.git}}", "a build needs a folder, not a repository"),
        ("name: ' '\nservices: {a: {image: b}}", "is no name of a project"),
        ("a: b: c", "not valid YAML"),
        ("", "the file is empty"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_line_and_column(folder: ComposeFolder, text: str, problem: str) -> None:
    assert problem in refused(folder, text)[0]


def test_all_that_is_wrong_is_told_at_once(folder: ComposeFolder) -> None:
    assert len(refused(folder, "services: {a: {ports: [x], restart: y}, b: {image: c, volumes: [d:/x]}}")) == 4


def test_keys_without_a_counterpart_are_dropped_with_the_reason(folder: ComposeFolder) -> None:
    done = of_service(folder, "container_name: x", "ulimits: {nofile: 1}", "x-mine: 1", "nonsense: 1")
    assert [line.partition(": services.")[2] for line in done.lines] == [
        "web.container_name: containers are called PROJECT-SERVICE-rREVISION-INDEX; other services use the service's"
        " name",
        "web.ulimits: a setting of the kernel that deploy-code does not touch",
        "web.nonsense: deploy-code knows no such key",
    ]


def test_where_both_are_silent_and_mean_different_things_is_told(folder: ComposeFolder) -> None:
    done = of_service(folder, 'ports: ["80:80"]', "mem_limit: 1m")
    assert [line.partition(": services")[2] for line in done.defaults] == [
        ": without a healthcheck here or in the image, ready when the first port takes a connection: web",
        ": killed 30 seconds after being asked to stop, not 10: web",
        ".web: limits are also set aside: together they must fit on this machine (E004)",
    ]


def test_the_name_of_the_project_is_kept_and_services_start_at_once_as_with_compose(folder: ComposeFolder) -> None:
    done = Import(folder, "name: shop\nservices: {a: {image: 'b:1'}}")
    assert (done.file["name"], done.file["deployment"]) == ("shop", {"strategy": "Parallel"})
