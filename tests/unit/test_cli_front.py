"""What the front does before and around any command: version, help, usage errors, exit codes, crashes."""

import os
import subprocess
import sys
from dataclasses import replace

import click
import pytest

from deploy_code.cli import main as front
from deploy_code.cli.lazy import COMMANDS
from deploy_code.cli.main import ROOT, run
from deploy_code.cli.options import Command, Options, command
from deploy_code.cli.output import Interrupted
from deploy_code.errors import CATALOGUE, ConfigError, DeployCodeError, Problem

HEAVY = {"asyncio", "pydantic", "rich", "importlib.metadata", "yaml", "psutil", "logging"}


def deploy_code(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "deploy_code", *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=30,
    )


def imported(*args, **env):
    """Modules that one run imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deploy_code", *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.fixture
def pretend(monkeypatch):
    """Put a command of the test's own into the table under the name ``status``."""

    def install(function):
        made = function if isinstance(function, Command) else command("status", data=True)(function)
        monkeypatch.setattr(type(ROOT), "get_command", lambda self, ctx, name: made if name == "status" else None)

    return install


# --------------------------------------------------------------------------- start-up


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_answered_before_anything_is_imported(flag):
    done = deploy_code(flag)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "deploy-code", "")
    assert not {"click", "deploy_code.cli", *HEAVY} & imported(flag)


def test_help_imports_no_command_and_nothing_heavy():
    found = imported("--help")
    assert not HEAVY & found
    assert not {f"deploy_code.cli.{entry.module}" for entry in COMMANDS.values()} & found


@pytest.mark.parametrize("name", ["deploy", "status", "logs", "history", "events", "validate", "plan"])
def test_help_of_a_command_imports_nothing_heavy(name):
    assert not HEAVY & imported(name, "--help")


def test_completion_of_a_command_imports_nothing_heavy(tmp_path):
    found = imported(_DEPLOY_CODE_COMPLETE="bash_complete", COMP_WORDS="deploy-code sta", COMP_CWORD="1")
    assert "click.shell_completion" in found
    assert not HEAVY & found


# --------------------------------------------------------------------------- usage


def test_without_a_command_the_help_is_shown(capsys):
    assert run([]) == 0
    assert "Usage: deploy-code [OPTIONS] COMMAND" in capsys.readouterr().out


def test_the_help_lists_every_command_of_the_table(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and entry.help in shown for name, entry in COMMANDS.items())


def test_help_is_also_a_word(capsys):
    assert run(["help"]) == 0
    assert "Usage: deploy-code [OPTIONS] COMMAND" in capsys.readouterr().out
    assert run(["help", "history", "show"]) == 0
    assert "Usage: deploy-code history show" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["deplyo"], "there is no command 'deplyo'; did you mean 'deploy'?"),
        (["deploy", "--servces", "a"], "there is no option --servces; did you mean --services?"),
        (["deploy", "--skip-phases", "services"], "there is no phase 'services' to skip"),
        (["scale", "web"], "'web' is not of the form SERVICE=COUNT, such as web=3"),
        (["scale", "web=-1"], "not of the form"),
        (["scale"], "Missing argument"),
        (["stop", "--timeout", "soon"], "'soon' is not a valid float"),
        (["stop", "--timeout", "-1"], "-1.0"),
        (["-l", "loud", "status"], "'loud' is not one of"),
        (["status", "--format", "xml"], "'xml' is not one of"),
        (["events", "--since", "yesterday"], "'yesterday' is neither a span"),
        (["--format", "json", "init"], "init prints no data, so it has no --format"),
        (["status", "extra"], "extra"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do_and_exits_2(args, said, capsys):
    assert run(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "--help'." in shown.err
    assert shown.err.count("\n") == 1


def test_with_detailed_exitcode_wrong_usage_is_1_because_2_means_changes(capsys):
    assert run(["plan", "--detailed-exitcode", "--nonsense"]) == 1


# --------------------------------------------------------------------------- shared options


@click.pass_obj
def _show(options: Options) -> None:
    click.echo(repr(replace(options, args=())))


def seen_options(args, pretend, capsys):
    pretend(_show)
    assert run(args) == 0
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (["-c", "a.yaml"], "config=['a.yaml']"),
        (["--config", "a.yaml", "-c", "b.yaml"], "config=['a.yaml', 'b.yaml']"),
        (["-l", "debug"], "log_level='debug'"),
        (["--log-level", "WARNING"], "log_level='warn'"),
        (["-q"], "log_level='error'"),
        (["--dry-run"], "dry_run=True"),
        (["--force"], "force=True"),
        (["--project", "shop"], "project='shop'"),
        (["--format", "json"], "format='json'"),
        (["--no-color"], "no_color=True"),
    ],
)
def test_a_shared_option_means_the_same_before_and_after_the_command(given, seen, pretend, capsys):
    before = seen_options([*given, "status"], pretend, capsys)
    after = seen_options(["status", *given], pretend, capsys)
    assert seen in before
    assert before == after


def test_config_files_before_and_after_the_command_add_up_in_order(pretend, capsys):
    shown = seen_options(["-c", "base.yaml", "status", "-c", "prod.yaml"], pretend, capsys)
    assert "config=['base.yaml', 'prod.yaml']" in shown


def test_what_stands_after_the_command_wins(pretend, capsys):
    assert "log_level='error'" in seen_options(["-l", "debug", "status", "-l", "error"], pretend, capsys)


def test_without_a_config_option_it_is_the_file_of_the_document():
    assert Options().files == ("deploy-code.yaml",)


def test_the_version_is_also_an_option_of_a_command(capsys):
    assert run(["status", "--version"]) == 0
    assert capsys.readouterr().out.startswith("deploy-code ")


def test_a_command_to_copy_names_the_same_project():
    options = Options(config=["my file.yaml"], project="shop")
    assert options.line("logs api") == "deploy-code -c 'my file.yaml' --project shop logs api"


# --------------------------------------------------------------------------- errors


def raising(error):
    def command_that_fails() -> None:
        raise error

    return command_that_fails


@pytest.mark.parametrize("code", CATALOGUE)
def test_an_error_is_its_text_on_stderr_and_the_exit_code_of_the_catalogue(code, pretend, capsys):
    error = DeployCodeError("it broke", code=code, remedy="Mend it")
    pretend(raising(error))
    assert run(["status"]) == CATALOGUE[code].exit_code
    assert capsys.readouterr() == ("", f"{code} {CATALOGUE[code].name}: it broke. Mend it.\n")


def test_an_error_that_encloses_problems_shows_each_on_its_line(pretend, capsys):
    problems = [Problem("no such key", file="a.yaml", line=2, column=3, path="x"), Problem("a circle")]
    pretend(raising(ConfigError("2 problems in a.yaml", problems)))
    assert run(["status"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("E002 CONFIG_INVALID: 2 problems in a.yaml")
    assert lines[1:] == ["  a.yaml:2:3: x: no such key [E002]", "  a circle [E002]"]


def test_a_fault_of_ours_is_an_apology_without_a_traceback(pretend, capsys):
    pretend(raising(ZeroDivisionError("secret-value")))
    assert run(["status"]) == 1
    said = capsys.readouterr().err
    assert "fault of its own: ZeroDivisionError" in said
    assert "--log-level debug" in said
    assert "Traceback" not in said
    assert "secret-value" not in said


def test_a_fault_of_ours_shows_its_traceback_at_log_level_debug(pretend, capsys):
    pretend(raising(ZeroDivisionError("here")))
    assert run(["status", "-l", "debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted(), click.Abort()])
def test_ctrl_c_is_130(stop, pretend, capsys):
    pretend(raising(stop))
    assert run(["status"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_command_may_return_its_exit_code(pretend):
    pretend(lambda: 4)
    assert run(["status"]) == 4


def test_a_reader_that_goes_away_is_no_error():
    script = "deploy_code schema --help | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m {script}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_output_to_a_closed_pipe_is_quiet(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "deploy_code", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_front_knows_the_program_by_name():
    assert front.PROGRAM == "deploy-code"
