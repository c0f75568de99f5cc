"""Text to config: YAML 1.2 scalars, places, overlays, and every way in which a file can be broken."""

from pathlib import Path

import pytest

from config_kit import complaints, load, problems, write
from deploy_code.config import load_config
from deploy_code.config.parse import MAX_DEPTH, MAX_NODES
from deploy_code.config.plain import typed
from deploy_code.errors import ConfigError


def test_yaml_1_2_words_stay_text_and_numbers_become_numbers() -> None:
    texts = ["no", "on", "yes", "off", "22:22", "0755", "1_000", "2024-01-01", "=", "1.2.3", "0x", "+", "-", "1e"]
    assert [typed(text) for text in texts] == texts
    assert [typed(text) for text in ("7", "-3", "+4", "0x1F", "0o17", "0")] == [7, -3, 4, 31, 15, 0]
    assert [typed(text) for text in ("1.5", ".5", "1e3", "-2.", "true", "False", "~", "")] == [
        1.5, 0.5, 1000.0, -2.0, True, False, None, None,
    ]  # fmt: skip


def test_text_keys_keep_what_is_written_to_the_letter(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        version: 1.0
        services:
          api:
            command: true
            args: [1.10, no, 0755, 22:22, 1e3, 'quoted', on]
            env: {A: 1.10, B: yes, C: 0755, D: true, E: , F: 1_000}
            user: 1000
        """,
    )
    api = config.services["api"]
    assert config.version == "1.0"
    assert (api.command, api.user) == ("true", "1000")
    assert api.args == ("1.10", "no", "0755", "22:22", "1e3", "quoted", "on")
    assert api.env == {"A": "1.10", "B": "yes", "C": "0755", "D": "true", "E": "", "F": "1_000"}


def test_a_missing_file_is_e001_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"E001 CONFIG_NOT_FOUND: .*nowhere.yaml does not exist.*deploy-code init"):
        load_config([tmp_path / "nowhere.yaml"])


def test_a_folder_in_place_of_a_file_is_e001(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"E001 .* is a folder"):
        load_config([tmp_path])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1  E002 the file is empty"),
        ("# only a comment\n", "1:1  E002 the file is empty"),
        ("- a\n", "1:1  E002 the file is a list, not a mapping"),
        ("just text\n", "1:1  E002 the file is a single value, not a mapping"),
        ("services: {}\n---\nservices: {}\n", "2:1  E002 a second document begins here"),
        ("services:\n\tapi: x\n", "2:1  E002 a tab where spaces are needed"),
        ("services: [\n", "2:1  E002 not valid YAML"),
        ("services: {a: {replicas: ${N}}}\n", "1:27  E002 not valid YAML"),
        ("a: b: c\n", "1:5  E002 not valid YAML: mapping values are not allowed"),
        ("name: 'open\n", "E002 not valid YAML"),
        ("name: @x\n", "1:7  E002 a value cannot begin with '@'"),
        ("name: *gone\n", "1:7  E002 alias *gone is not defined"),
        ("services: &s {a: *s}\n", "1:18  E002 alias *s is used inside itself"),
        ("? [a, b]\n: c\n", "1:3  E002 a key must be a word"),
        ("name: !secret x\n", "1:7  E002 tag !secret means nothing here"),
        ('name: "a\\0b"\n', "1:7  E002 a NUL character"),
        ("name: a\x07b\n", "E002 not valid YAML: control characters are not allowed"),
    ],
)
def test_broken_text_is_a_problem_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "deploy-code.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    first = caught.value.problems[0]
    assert said in f"{first.line}:{first.column} {first.path} {first.code} {first.message}"


def test_bytes_that_are_not_utf_8_are_named_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "deploy-code.yaml"
    path.write_bytes(b"name: a\nenvironment: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"deploy-code.yaml:2:14: not UTF-8 text: byte 0xff"):
        load_config([path])


def test_a_byte_order_mark_and_dos_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "deploy-code.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: dos\r\nservices:\r\n  a:\r\n    command: x\r\n")
    assert load_config([path]).services["a"].command == "x"


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 100_000, "- " * 100_000, "? " * 50_000])
def test_deep_nesting_is_refused_and_never_crashes_the_parser(tmp_path: Path, text: str) -> None:
    assert f"nested more than {MAX_DEPTH} deep" in problems(tmp_path, text)[0].message


def test_an_alias_bomb_is_counted_not_unfolded(tmp_path: Path) -> None:
    lines = ["x-0: &l0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x-{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert problems(tmp_path, "\n".join(lines))[0].message == f"more than {MAX_NODES} values, aliases unfolded"


def test_duplicate_keys_are_all_reported_with_both_places(tmp_path: Path) -> None:
    text = """\
        name: a
        name: b
        services:
          api: {command: x}
          api: {command: y}
        """
    assert complaints(tmp_path, text) == [
        "2:1  E002 key 'name' is here twice (the first is in line 1; keep one)",
        "5:3  E002 key 'api' is here twice (the first is in line 4; keep one)",
    ]


def test_anchors_aliases_and_merge_keys_work_and_own_keys_win(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        x-base: &base
          command: python
          env: {A: "1"}
          replicas: 3
        x-more: &more {stop_signal: SIGINT, replicas: 9}
        services:
          one: {<<: *base, replicas: 2}
          two:
            <<: [*base, *more]
        """,
    )
    assert (config.services["one"].replicas, config.services["two"].replicas) == (2, 3)
    assert config.services["two"].stop_signal == "SIGINT"
    assert config.services["one"].env == {"A": "1"}


def test_x_keys_are_free_at_every_level_and_never_interpolated(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        x-anything: {deep: ["${NOT_SET}", "${"]}
        services:
          api: {command: x, x-note: "${NOT_SET}", health_check: {x-why: 1}}
        """,
    )
    assert config.services["api"].command == "x"


def test_an_empty_section_means_its_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "infrastructure:\nsecurity:\ndeployment:\nmonitoring:\nhooks:\nservices:\n")
    assert config.services == {}
    assert config.deployment.max_parallel == 10
    assert config.infrastructure.network.port_range.end == 40000


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
        enviroment: production
        deployment: {max_parallel: "3"}
        infrastructure: {network: {cidr: 10.0.0.1/8}}
        services:
          api:
            comand: x
            command: x
            dependencies: [dbb]
          db:
            command: y
            replicas: ${N}
            ports: [{host_port: 70000}]
        """
    assert complaints(tmp_path, text) == [
        "1:1 enviroment E002 unknown key 'enviroment' (did you mean 'environment'?)",
        "2:28 deployment.max_parallel E002 must be a whole number, got text '3' (write it without quotes)",
        "3:34 infrastructure.network.cidr E010 '10.0.0.1/8' is no subnet (did you mean 10.0.0.0/8?)",
        "6:5 services.api.comand S003 unknown key 'comand' (did you mean 'command'?)",
        "8:20 services.api.dependencies[0] E007 no service is called 'dbb' (did you mean 'db'?)",
        "11:15  E002 1 variable is not set: N (used at "
        f"{tmp_path}/deploy-code.yaml:11:15) (set them in the environment or in .env, or give a default: ${{N:-...}})",
        "12:25 services.db.ports[0].host_port S003 must be at most 65535, got 70000",
    ]


def test_the_error_is_one_e002_with_a_heading_and_a_line_for_each_problem(tmp_path: Path) -> None:
    path = write(tmp_path, "nme: x\nservices: {a: {}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"E002 CONFIG_INVALID: 2 problems in {path}:"
    assert lines[1].startswith(f"  {path}:1:1: nme: unknown key 'nme'") and lines[1].endswith("[E002]")
    assert lines[2].endswith("[S003]")


def test_a_mistake_in_one_place_does_not_make_up_others(tmp_path: Path) -> None:
    text = """\
        services:
          db: text
          api: {command: 5.5, dependencies: [db, 7], ports: ["80:80"]}
          web: {command: "${GONE}", dependencies: [api]}
        """
    assert [found.split(" ", 2)[1] for found in complaints(tmp_path, text)] == [
        "services.db",
        "services.api.dependencies[1]",
        "services.api.ports[0]",
        "",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ports: [8080]", "must be a mapping, got 8080 (write {container_port: 8080})"),
        ('ports: ["80:8080"]', "got text '80:8080' (write {container_port: 8080, host_port: 80})"),
        ("ports: [{protocol: tcp}]", "no port is given (write container_port: 8080, or dynamic: true)"),
        ("args: -m app", 'must be a list, got text (write ["-m", "app"])'),
        ("env: [A=1]", "must be a mapping, got a list (write NAME: value, one a line)"),
        ("volumes: [{name: x}]", "'mount_path' is missing (add mount_path: ...)"),
        ("restart: sometimes", "'sometimes' is none of the known names (one of always, on-failure, never)"),
        ("enabled: 'true'", "must be true or false, got text 'true' (write it without quotes)"),
        ("replicas: 1.5", "must be a whole number, got 1.5"),
        ("replicas: -1", "must be at least 0, got -1"),
        ("stop_timeout_seconds: .inf", "must be a finite number"),
        ("health_check: {timeout_seconds: .nan}", "must be"),
        ("image: x\n    container_image: y", "'image' and 'container_image' are the same, both are given (keep one)"),
        ("dependencies: [{service: a, condition: service_healthy}]", "none of the known names"),
        ("env: {'A=B': x}", "'A=B' is no name of a variable (a name is not empty and has no '=')"),
        ("env: {A: [1]}", "must be text, got a list"),
    ],
)
def test_a_wrong_value_says_what_to_write_instead(tmp_path: Path, line: str, said: str) -> None:
    found = complaints(tmp_path, f"services:\n  a:\n    command: x\n    {line}\n")
    assert len(found) == 1 and said in found[0], found
    assert " S003 " in found[0]


def test_overlays_merge_mappings_deep_replace_lists_and_keep_the_place_of_each_value(tmp_path: Path) -> None:
    base = write(
        tmp_path,
        """\
        name: base
        services:
          api:
            command: python
            args: [a, b]
            env: {A: 1, B: 2}
            replicas: 2
        deployment: {strategy: Parallel}
        """,
        "base.yaml",
    )
    over = write(
        tmp_path,
        """\
        deployment:
        services:
          api:
            environment: {B: 3}
            args: [c]
            replicas:
          web: {command: x}
        """,
        "over.yaml",
    )
    config = load_config([base, over], environ={})
    assert config.services["api"].env == {"A": "1", "B": "3"}
    assert config.services["api"].args == ("c",)
    assert config.services["api"].replicas == 1  # taken back to the default
    assert config.deployment.strategy == "Parallel"  # an empty section says nothing
    assert set(config.services) == {"api", "web"}
    bad = write(tmp_path, "services:\n  api:\n    replicas: -4\n", "bad.yaml")
    with pytest.raises(ConfigError, match=rf"{bad}:3:15: services.api.replicas: must be at least 0"):
        load_config([base, bad], environ={})


def test_a_value_from_a_variable_is_never_shown_in_an_error(tmp_path: Path) -> None:
    found = complaints(
        tmp_path,
        'environment: "${STAGE}"\nservices:\n  a: {command: x, image: "", replicas: "${STAGE}"}\n',
        STAGE="hunter22",
    )
    assert len(found) == 3 and "hunter22" not in "".join(found)


def test_ten_thousand_services_in_a_row_are_no_deep_recursion(tmp_path: Path) -> None:
    lines = ["services:"]
    lines += [f"  s{n}: {{command: x, dependencies: [s{n + 1}]}}" for n in range(3000)]
    config = load(tmp_path, "\n".join([*lines, "  s3000: {command: x}"]))
    assert len(config.services) == 3001
