"""Rules between values, and warnings about what is valid but probably not meant."""

from pathlib import Path

import pytest

from config_kit import complaints, load, warnings, write
from deploy_code.config import check_files
from deploy_code.config.check import require_services
from deploy_code.config.resolve import resolve
from deploy_code.errors import ServiceError


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def test_a_command_with_spaces_is_shown_as_command_and_args(tmp_path: Path) -> None:
    found = only(complaints(tmp_path, "services: {a: {command: python -m 'my app', args: [x]}}"))
    assert found.endswith('(write command: python and args: ["-m", "my app", "x"])') and " S003 " in found


def test_a_command_with_shell_syntax_gets_a_shell_as_the_remedy(tmp_path: Path) -> None:
    found = only(complaints(tmp_path, 'services: {a: {command: "sleep 1 && run | tee x"}}'))
    assert 'command: sh and args: ["-c", "sleep 1 && run | tee x"]' in found


def test_a_command_whose_file_has_a_space_in_its_name_is_fine(tmp_path: Path) -> None:
    (tmp_path / "my program").touch()
    assert load(tmp_path, 'services: {a: {command: "./my program"}}').services["a"].command == "./my program"


def test_a_secret_in_a_wrong_command_is_not_shown(tmp_path: Path) -> None:
    found = only(complaints(tmp_path, 'services: {a: {command: "run --token ${API_TOKEN}"}}', API_TOKEN="hunter22"))
    assert "hunter22" not in found and "***" in found


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("{}", "services.a.command S003 neither command nor image"),
        ("", "services.a.command S003 neither command nor image"),
        ("{service_type: container, command: x}", "services.a.container_image S003 a container needs an image"),
        ("{service_type: process, command: x, image: y}", "services.a.image S003 a process has no image"),
        ("{service_type: proces, command: x}", "S003 'proces' is no type of service (did you mean 'process'?)"),
        ("{command: x, stop_signal: SIGNOPE}", "services.a.stop_signal S003 'SIGNOPE' is no signal"),
        ("{command: x, one_shot: true, replicas: 2}", "services.a.replicas S003 a one-shot runs once"),
        ("{command: x, health_check: {endpoint: localhost}}", "services.a.health_check.endpoint S003 is no address"),
        ("{command: x, health_check: {endpoint: 'tcp://h'}}", "services.a.health_check.endpoint S003 is no address"),
        ("{command: x, strategy: Rolling}", "services.a.strategy S003 'Rolling' is no strategy"),
        ("{command: x, env_file: gone.env}", "services.a.env_file[0] S003 'gone.env' cannot be read"),
        ("{command: x, strategy: canary, exclusive: true}", "side by side, which this service cannot: exclusive: true"),
        (
            "{command: x, strategy: blue_green, ports: [{host_port: 80}]}",
            "BlueGreen runs old and new side by side, which this service cannot: host port 80 is its own",
        ),
        (
            "{command: x, strategy: RollingUpdate, volumes: [{name: d, mount_path: /d}]}",
            "its volume 'd' is writable and not marked shared",
        ),
    ],
)
def test_a_service_that_cannot_be_is_s003_and_says_why(tmp_path: Path, service: str, said: str) -> None:
    assert said in only(complaints(tmp_path, f"services:\n  a: {service}\n"))


@pytest.mark.parametrize(
    "service",
    [
        "{service_type: custom, command: x}",
        "{service_type: my_type}",
        "{image: 'x:1', command: y}",
        "{command: x, strategy: MyOwn}",
        "{command: x, strategy: RollingUpdate, volumes: [{name: d, mount_path: /d, shared: true}]}",
        "{command: x, strategy: RollingUpdate, volumes: [{name: d, mount_path: /d, read_only: true}]}",
        "{command: x, stop_signal: int}",
        "{command: x, health_check: {endpoint: 'http://localhost:${PORT}/'}}",
        "{command: x, health_check: {endpoint: 'tcp://[::1]:80'}}",
        "{command: x, health_check: {interval_seconds: 5}}",
        "{command: x, ports: [{dynamic: true}]}",
    ],
)
def test_a_service_that_can_be_is_accepted(tmp_path: Path, service: str) -> None:
    assert complaints(tmp_path, f"services:\n  a: {service}\n") == []


def test_dependencies_on_nobody_and_on_disabled_services_are_e007(tmp_path: Path) -> None:
    text = """\
        services:
          api: {command: x, dependencies: [database, {service: off}, totally_else]}
          databse: {command: x}
          off: {command: x, enabled: false}
        """
    assert complaints(tmp_path, text) == [
        "2:36 services.api.dependencies[0] E007 no service is called 'database' (did you mean 'databse'?)",
        "2:46 services.api.dependencies[1] E007 'off' is disabled (enable it, or remove the dependency)",
        "2:62 services.api.dependencies[2] E007 no service is called 'totally_else' (services here: api, databse, off)",
    ]


def test_a_cycle_is_named_all_the_way_round(tmp_path: Path) -> None:
    text = """\
        services:
          a: {command: x, dependencies: [b]}
          b: {command: x, dependencies: [c]}
          c: {command: x, dependencies: [d, b]}
          d: {command: x, dependencies: [d]}
        """
    assert complaints(tmp_path, text) == [
        "3:34 services.b.dependencies[0] E002 dependencies go round in a circle: b → c → b (remove one of them)",
        "5:34 services.d.dependencies[0] E002 dependencies go round in a circle: d → d (remove one of them)",
    ]


def test_completed_needs_a_one_shot(tmp_path: Path) -> None:
    text = "services: {a: {command: x, dependencies: [{service: b, condition: completed}]}, b: {command: x}}"
    assert "S003 'b' never completes: it is no one-shot (add one_shot: true to b)" in only(complaints(tmp_path, text))


def test_a_host_port_has_one_owner_and_disabled_services_own_none(tmp_path: Path) -> None:
    text = """\
        services:
          a: {command: x, ports: [{host_port: 80}, {host_port: 81}]}
          b: {command: x, ports: [{host_port: 80, protocol: udp}, {host_port: 81}]}
          c: {command: x, enabled: false, ports: [{host_port: 80}]}
          d: {command: x, ports: [{host_port: 90}, {host_port: 90}]}
        """
    assert complaints(tmp_path, text) == [
        "3:71 services.b.ports[1].host_port S004 host port 81 is taken by 'a' already (give each its own host_port)",
        "5:56 services.d.ports[1].host_port S004 host port 90 is taken by 'd' already (give each its own host_port)",
    ]


def test_the_errors_of_a_disabled_service_are_still_reported(tmp_path: Path) -> None:
    assert complaints(tmp_path, "services: {a: {enabled: false, command: x y}}")


def test_addresses_and_ranges_of_the_network_are_e010(tmp_path: Path) -> None:
    text = "infrastructure: {network: {cidr: x, dns_servers: [1.1.1.1, ns.example], port_range: {start: 9, end: 8}}}"
    found = complaints(tmp_path, text)
    assert [line.split(" ")[1:3] for line in found] == [
        ["infrastructure.network.cidr", "E010"],
        ["infrastructure.network.dns_servers[1]", "E010"],
        ["infrastructure.network.port_range", "E010"],
    ]


def test_a_placeholder_must_name_a_service_that_runs(tmp_path: Path) -> None:
    text = """\
        services:
          db: {command: x}
          a: {command: x, args: ["${services.dbx.port}"], dependencies: [db]}
        """
    assert only(complaints(tmp_path, text)) == (
        "3:26 services.a.args[0] E007 no running service is called 'dbx' (did you mean 'db'?)"
    )


@pytest.mark.parametrize("name", ["a b", "a/b", "-a", "x" * 64, "", "ä"])
def test_names_of_services_are_safe_as_names_of_files(tmp_path: Path, name: str) -> None:
    assert "is no name of a service" in only(complaints(tmp_path, f"services:\n  '{name}': {{command: x}}\n"))


def test_names_given_on_the_command_line_must_be_known() -> None:
    require_services(["a"], {"a": 1})
    with pytest.raises(ServiceError, match=r"S001 SERVICE_NOT_FOUND: no service is called 'postgress'. Did you mean"):
        require_services(["a", "postgress"], ["a", "postgres"])


def test_resolve_refuses_what_check_refuses(tmp_path: Path) -> None:
    config = load(tmp_path, "services: {a: {command: x}}")
    config.services["b"] = config.services["a"].model_copy(update={"dependencies": ("zzz",)})
    with pytest.raises(Exception, match="E007"):
        resolve(config)


# --------------------------------------------------------------------------- warnings

CHECKED = "health_check: {command: ['true']}"


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("{command: x}", "no health check"),
        (f"{{image: 'x:latest', {CHECKED}}}", "image 'x:latest' may be another one tomorrow"),
        (f"{{image: 'host:5000/x', {CHECKED}}}", "image 'host:5000/x' may be another one tomorrow"),
        (f"{{command: docker, args: [run, x], {CHECKED}}}", "the container is hidden from deploy-code"),
        (
            f"{{command: x, replicas: 2, ports: [{{host_port: 8080}}], {CHECKED}}}",
            "services.a.replicas: 2 replicas, and ${PORT} appears nowhere",
        ),
        (f"{{command: x, user: nobody, ports: [{{container_port: 1}}], {CHECKED}}}", "port 1 is not for user nobody"),
        (
            f"{{command: x, env: {{DB_PASSWORD: hunter22}}, {CHECKED}}}",
            "services.a.env.DB_PASSWORD: 'DB_PASSWORD' looks",
        ),
        (f"{{command: x, env: {{U: 'pg://me:hunter22@h/d'}}, {CHECKED}}}", "'U' looks like a secret"),
        (
            f"{{command: x, volumes: [{{name: d, mount_path: /d, read_only: true}}], {CHECKED}}}",
            "read_only is not enforced",
        ),
        (f"{{command: x, strategy: Canary, {CHECKED}}}", "Canary is not acted on by this version"),
        (f"{{command: x, strategy: MyOwn, {CHECKED}}}", "strategy 'MyOwn' is none of ours"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning_with_its_place(tmp_path: Path, service: str, said: str) -> None:
    found = only(warnings(tmp_path, f"services:\n  a: {service}\n"))
    assert said in found and found.startswith(f"warning: {tmp_path}/deploy-code.yaml:2:")
    assert "hunter22" not in found


@pytest.mark.parametrize("plugins", ["", "plugins: ['shop:Flag']\n"])
def test_a_type_that_somebody_else_must_register_is_a_warning_told_once(tmp_path: Path, plugins: str) -> None:
    text = f"{plugins}services:\n  a: {{service_type: flag}}\n  b: {{service_type: flag}}\n"
    found = only(warnings(tmp_path, text))
    assert "services.a.service_type: service_type 'flag' is none of ours (a plugin or your code must" in found


def test_where_plugins_are_listed_a_misspelled_type_of_ours_is_a_warning_too(tmp_path: Path) -> None:
    text = f"plugins: ['shop:Flag']\nservices:\n  a: {{service_type: proces, command: x, {CHECKED}}}\n"
    assert "service_type 'proces' is none of ours" in only(warnings(tmp_path, text))


def test_what_this_program_registered_gets_no_warning(tmp_path: Path) -> None:
    file = tmp_path / "deploy-code.yaml"
    file.write_text("services:\n  a: {service_type: flag, strategy: my-own}\ndeployment: {strategy: Whole}\n")
    assert check_files([file], registered=["flag", "my-own", "Whole"]) == ([], [])


@pytest.mark.parametrize(
    "service",
    [
        f"{{command: x, {CHECKED}}}",
        "{command: x, one_shot: true}",
        f"{{image: 'x@sha256:{'1' * 64}', {CHECKED}}}",
        f"{{image: 'host:5000/x:1.0', {CHECKED}}}",
        f"{{command: x, replicas: 2, args: ['${{PORT}}'], ports: [{{host_port: 8080}}], {CHECKED}}}",
        f"{{command: x, env: {{DB_PASSWORD: '${{P:-x}}', TOKEN_TTL: '30', SECRET_FILE: /x}}, {CHECKED}}}",
        "{enabled: false, image: 'x:latest'}",
    ],
)
def test_what_is_as_it_should_be_gets_no_warning(tmp_path: Path, service: str) -> None:
    assert warnings(tmp_path, f"services:\n  a: {service}\n") == []


def test_sections_for_later_versions_are_named_once_each(tmp_path: Path) -> None:
    text = """\
        infrastructure: {container_runtime: Containerd, network: {port_range: {start: 1000}}}
        security: {tls_enabled: true, auth: {enabled: true}, rbac: {enabled: false}}
        monitoring: {prometheus: {endpoint: "http://x"}, alerting: {enabled: true}}
        """
    path = tmp_path / "deploy-code.yaml"
    assert warnings(tmp_path, text) == [
        f"warning: {path}:1:1: infrastructure: container_runtime: not acted on by this version",
        f"warning: {path}:2:1: security: tls_enabled, auth: not acted on by this version",
        f"warning: {path}:3:1: monitoring: prometheus, alerting: not acted on by this version",
    ]


def test_what_many_services_share_is_said_once(tmp_path: Path) -> None:
    found = only(warnings(tmp_path, "services:\n" + "".join(f"  s{n}: {{command: x}}\n" for n in range(9))))
    assert "no health check: s0, s1, s2, s3, s4 and 4 more" in found


def test_a_reference_without_a_dependency_is_a_warning(tmp_path: Path) -> None:
    db, uses = f"{{command: x, {CHECKED}}}", "env: {U: '${services.db.host}'}"
    text = f"services: {{db: {db}, a: {{command: x, {uses}, {CHECKED}}}}}"
    assert "uses 'db' without depending on it (add db to dependencies)" in only(warnings(tmp_path, text))


def test_a_secret_literal_in_an_overlay_is_placed_in_the_overlay(tmp_path: Path) -> None:
    from deploy_code.config import check_files

    base = write(tmp_path, f"services: {{a: {{command: x, {CHECKED}}}}}", "base.yaml")
    over = write(tmp_path, "services:\n  a:\n    env: {API_KEY: abcdef}\n", "over.yaml")
    _, found = check_files([base, over], environ={})
    assert only(found).startswith(f"warning: {over}:3:20: services.a.env.API_KEY: ")
