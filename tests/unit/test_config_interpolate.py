"""``${VAR}`` and ``.env``: the forms, where they may stand, and what an unset variable looks like."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_kit import complaints, load, project, write
from deploy_code.config.dotenv import parse_dotenv
from deploy_code.config.interpolate import InterpolationError, Scope, interpolate

VALUES = {"SET": "value", "EMPTY": "", "N": "5", "OTHER": "SET"}


def fill(text: str, *, placeholders: bool = False) -> str:
    scope = Scope(lookup=VALUES.get, placeholders=placeholders)
    result = interpolate(text, scope)
    assert scope.missing == []
    return result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${SET}", "value"),
        ("<${SET}-${N}>", "<value-5>"),
        ("${GONE:-word}", "word"),
        ("${EMPTY:-word}", "word"),
        ("${EMPTY-word}", ""),
        ("${GONE-word}", "word"),
        ("${SET:+word}", "word"),
        ("${EMPTY:+word}", ""),
        ("${EMPTY+word}", "word"),
        ("${GONE+word}", ""),
        ("${SET:?text}", "value"),
        ("${EMPTY?text}", ""),
        ("${GONE:-${SET}}", "value"),
        ("${GONE:-a ${ALSO_GONE:-b} c}", "a b c"),
        ("${GONE:-}", ""),
        ("$${SET}", "${SET}"),
        ("$$", "$"),
        ("$SET cost $5 $", "$SET cost $5 $"),
        ("${GONE:-a:b-c?d+e}", "a:b-c?d+e"),
    ],
)
def test_each_form_of_a_variable(text: str, result: str) -> None:
    assert fill(text) == result


@pytest.mark.parametrize(
    "text", ["${", "${}", "${A B}", "${1X}", "${A:-${B}", "${A!x}", "x${", "${A:-" * 40 + "}" * 40]
)
def test_a_malformed_variable_is_an_error_with_a_remedy(text: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, Scope(lookup=VALUES.get))
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["${PORT}", "${PORT_8080}", "${DEPLOY_CODE_SERVICE}", "${services.my-db.port}"])
def test_placeholders_stay_where_they_may_stand_and_are_errors_elsewhere(text: str) -> None:
    assert fill(f"a {text} ${{SET}}", placeholders=True) == f"a {text} value"
    with pytest.raises(InterpolationError, match="known only when an instance starts"):
        fill(text)


def test_port_takes_no_default_since_it_is_always_set(tmp_path: Path) -> None:
    with pytest.raises(InterpolationError, match=r"\$\{PORT\} is set at start and takes no ':-'"):
        fill("${PORT:-80}", placeholders=True)


def test_a_variable_called_port_in_the_environment_is_not_taken(tmp_path: Path) -> None:
    config = load(tmp_path, 'services: {a: {command: x, args: ["${PORT}"]}}', PORT="99")
    assert config.services["a"].args == ("${PORT}",)


@given(st.text())
def test_text_with_doubled_dollars_comes_out_as_it_was(text: str) -> None:
    assert fill(text.replace("$", "$$")) == text


@given(st.text(), st.text())
def test_a_value_is_never_interpolated_again(before: str, value: str) -> None:
    scope = Scope(lookup=lambda name: value)
    assert interpolate(before.replace("$", "$$") + "${A}", scope) == before + value


def test_types_are_decided_after_the_variable_and_quotes_keep_text(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        dry_run: ${DRY:-false}
        services:
          a:
            command: x
            replicas: ${N:-2}
            env: {Q: "${N:-2}"}
            resources:
              cpu_cores: ${CPU}
        """,
        N="7",
        CPU="0.5",
    )
    assert (config.services["a"].replicas, config.services["a"].resources.cpu_cores) == (7, 0.5)
    assert config.services["a"].env == {"Q": "7"} and config.dry_run is False
    assert complaints(tmp_path, 'services: {a: {command: x, replicas: "${N}"}}', N="7")


def test_a_value_cannot_smuggle_yaml_in(tmp_path: Path) -> None:
    config = load(tmp_path, "services: {a: {command: '${X}', env: {A: '${Y}'}}}", X="true", Y="1\nservices: {}\n- [")
    assert config.services["a"].command == "true"
    assert config.services["a"].env["A"] == "1\nservices: {}\n- ["


def test_all_missing_variables_are_one_error_that_lists_every_use(tmp_path: Path) -> None:
    text = """\
        services:
          a: {command: x, env: {A: "${ONE}", B: "${TWO:?ask the team}", C: "${ONE}"}, replicas: "${THREE}"}
        """
    (found,) = complaints(tmp_path, text)
    file = tmp_path / "deploy-code.yaml"
    assert "3 variables are not set: " in found and found.startswith("2:28  E002")
    assert f"ONE (used at {file}:2:28, 2:68)" in found
    assert f"TWO (ask the team; used at {file}:2:41)" in found


def test_keys_are_not_interpolated(tmp_path: Path) -> None:
    config = load(tmp_path, 'services: {a: {command: x, env: {"${K}": v}}}')
    assert config.services["a"].env == {"${K}": "v"}


# --------------------------------------------------------------------------- .env


def read(text: str, **environ: str) -> dict[str, str]:
    values, problems = parse_dotenv(text.encode(), ".env", environ)
    assert problems == []
    return values


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A = b  ", "b"),
        ("A=", ""),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A='b # c'", "b # c"),
        ("A='${X}'", "${X}"),
        ('A="b # c" # d', "b # c"),
        (r'A="a\nb\t\"q\" \\ \$"', 'a\nb\t"q" \\ $'),
        ('A="one\ntwo"', "one\ntwo"),
        ("A='one\ntwo'", "one\ntwo"),
        ("A=b=c", "b=c"),
        ("A=it's", "it's"),
        ("A=b\r", "b"),
    ],
)
def test_a_line_of_dotenv(line: str, value: str) -> None:
    assert read(f"# first\n\n{line}\nZ=last") == {"A": value, "Z": "last"}


def test_dotenv_fills_in_variables_from_the_environment_and_from_lines_above() -> None:
    assert read("A=1\nB=${A}${C}\nD='${A}'\nE=\"${A}\"", C="3") == {"A": "1", "B": "13", "D": "${A}", "E": "1"}


def test_bad_lines_of_dotenv_are_problems_with_their_line_and_the_rest_is_read() -> None:
    values, problems = parse_dotenv(b"A=1\nnonsense\nB='open\nC=2\nD=${GONE}\n", "x/.env", {})
    assert values == {"A": "1", "C": "2", "D": ""}
    assert [(found.file, found.line) for found in problems] == [("x/.env", 2), ("x/.env", 3), ("x/.env", 5)]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_dotenv_or_problems(data: bytes) -> None:
    parse_dotenv(data, ".env", {})


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(alphabet=st.characters(codec="utf-8"))))
def test_single_quoted_values_come_back_as_they_were(values: dict[str, str]) -> None:
    kept = {name: value.replace("'", "").replace("\0", "").replace("\r", "") for name, value in values.items()}
    assert read("\n".join(f"{name}='{value}'" for name, value in kept.items())) == kept


def test_dotenv_beside_the_file_is_read_and_the_process_environment_wins(tmp_path: Path) -> None:
    write(tmp_path, "A=from-file\nB=from-file\n", ".env")
    text = "services: {a: {command: x, env: {A: '${A}', B: '${B}'}}}"
    found = project(tmp_path, text, {"B": "from-process"})
    assert found.services["a"].content.env == {"A": "from-file", "B": "from-process"}
    assert found.env == {"A": "from-file", "B": "from-file"}


def test_a_broken_dotenv_is_a_problem_of_the_load(tmp_path: Path) -> None:
    write(tmp_path, "ok=1\nwhat is this\n", ".env")
    (found,) = complaints(tmp_path, "services: {}")
    assert found.startswith("2:1  E002 not a NAME=value line")


def test_an_unquoted_variable_in_flow_style_is_explained(tmp_path: Path) -> None:
    (found,) = complaints(tmp_path, "services: {a: {replicas: ${N}}}")
    assert found.endswith('(inside { } and [ ] a variable needs quotes: "${VAR}")')
