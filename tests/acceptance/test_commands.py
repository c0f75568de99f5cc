"""The other commands: stop, restart, scale, status, health, logs, events, history, agent, init, schema, completion."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest
import yaml

from support.cli import PROGRAM
from support.needs import need
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import (
    agent_pid,
    agents,
    alive,
    history,
    instances,
    kill_hard,
    last,
    pages,
    pid_of,
    pids,
    program,
    sleeper,
    states,
    text_at,
    until,
    until_gone,
    web,
    write_program,
)


@pytest.fixture
def trio(project: ProjectFolder) -> ProjectFolder:
    """``a``, ``b`` that needs it, ``c``: deployed."""
    project.write({"a": sleeper(), "b": sleeper(dependencies=["a"]), "c": sleeper()})
    project.cli("deploy").ok()
    return project


# --------------------------------------------------------------------------- stop


def test_stop_ends_everything_the_agent_too(trio: ProjectFolder) -> None:
    trio.cli("stop").ok()
    assert pids(trio) == {}
    until_gone(trio)
    assert states(trio) == dict.fromkeys("abc", "stopped")
    assert trio.status()["overall_health"] == "stopped"
    trio.cli("health").exits(4)


def test_deploy_after_a_stop_starts_everything_again(trio: ProjectFolder) -> None:
    trio.cli("stop").ok()
    assert "was stopped" in trio.cli("plan", "--detailed-exitcode").exits(2).stdout
    trio.cli("deploy").ok()
    assert set(pids(trio)) == {"a", "b", "c"}


def test_stop_of_one_service_stops_what_depends_on_it_and_no_more(trio: ProjectFolder) -> None:
    before = pids(trio)
    trio.cli("stop", "--services", "a").ok()
    assert pids(trio) == {"c": before["c"]}
    assert states(trio) == {"a": "stopped", "b": "stopped", "c": "running"}


def test_stop_of_a_project_that_never_ran_is_no_error(project: ProjectFolder) -> None:
    project.write({"a": sleeper()})
    project.cli("stop").ok()
    until_gone(project)


# --------------------------------------------------------------------------- restart and scale


def test_restart_recreates_the_same_revision(trio: ProjectFolder) -> None:
    before = pids(trio)
    trio.cli("restart", "--services", "a").ok()
    after = pids(trio)
    assert after["a"] != before["a"]
    assert (after["b"], after["c"]) == (before["b"], before["c"])
    assert {each["revision"] for each in trio.status()["services"].values()} == {1}
    assert last(trio)["kind"] == "restart"
    trio.cli("restart").ok()
    assert all(pids(trio)[name] != after[name] for name in "abc")


def test_restart_ignores_what_the_file_says_now(project: ProjectFolder, port: int) -> None:
    pages(project, "v1", "v2")
    project.write({"web": web(port)})
    project.cli("deploy").ok()
    project.write({"web": web(port, version="v2")})
    project.cli("restart").ok()
    assert text_at(port, "/index.html") == "v1"


def test_a_restart_that_fails_says_so(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port)})
    project.cli("deploy").ok()
    (project.folder / "app.py").write_text("raise SystemExit('spoilt meanwhile')")
    failed = project.cli("restart").exits(1)
    assert "E005" in failed.stderr and "spoilt meanwhile" in failed.stderr


def test_scale_up_and_down_keeps_the_others(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port)})
    project.cli("deploy").ok()
    [first] = pids(project)["app"]
    project.cli("scale", "app=3").ok()
    assert len(pids(project)["app"]) == 3 and first in pids(project)["app"]
    ports = {port for each in instances(project, "app") for port in each["ports"].values()}
    assert len(ports) == 3 and all(text_at(each) == "v1" for each in ports)
    project.cli("scale", "app=1").ok()
    assert pids(project)["app"] == {first}, "the highest index goes first"
    assert [row["kind"] for row in history(project)[:2]] == ["scale", "scale"]


@pytest.mark.parametrize("written", [True, False])
def test_the_replicas_of_the_file_win_at_the_next_deploy_where_it_has_them(
    project: ProjectFolder, port: int, written: bool
) -> None:
    write_program(project)
    project.write({"app": program(port, **({"replicas": 1} if written else {}))})
    project.cli("deploy").ok()
    project.cli("scale", "app=2").ok()
    plan = project.cli("plan").ok().stdout
    project.cli("deploy").ok()
    assert len(pids(project)["app"]) == (1 if written else 2)
    if written:
        assert "app" in plan and "replicas" in plan, plan


@pytest.mark.parametrize("bad", ["app", "app=x", "app=-1", "nobody=2"])
def test_scale_refuses_nonsense(project: ProjectFolder, bad: str) -> None:
    project.write({"app": sleeper()})
    project.cli("deploy").ok()
    before = pids(project)
    project.cli("scale", bad).exits(2)
    assert pids(project) == before


# --------------------------------------------------------------------------- status and health


def test_status_before_anything_was_deployed(project: ProjectFolder) -> None:
    project.write({"a": sleeper()})
    status = project.status()
    assert status["running_services"] == 0
    assert "deploy" in project.cli("status").ok().output
    assert not project.data_dir.exists(), "looking creates nothing"


def test_status_check_exits_with_4_when_something_is_wrong(project: ProjectFolder) -> None:
    project.write({"a": sleeper(restart="never"), "b": sleeper()})
    project.cli("deploy").ok()
    project.cli("status", "--check").ok()
    kill_hard(pid_of(project, "a"))
    until(lambda: project.cli("status", "--check").code == 4, "status to notice")
    assert project.status()["overall_health"] in ("degraded", "unhealthy")
    said = project.cli("status").ok().stdout
    assert re.search(r"^a +failed", said, re.MULTILINE), said
    assert "SIGKILL" in project.cli("status", "--detailed").ok().stdout


def test_status_has_the_same_facts_in_json_and_yaml(trio: ProjectFolder) -> None:
    kill_hard(agent_pid(trio))  # so that no uptime or usage moves between the two
    as_json = trio.status()
    as_yaml = yaml.safe_load(trio.cli("status", "--format", "yaml").ok().stdout)
    assert as_yaml.keys() == as_json.keys()
    assert as_yaml["services"].keys() == as_json["services"].keys()
    assert as_yaml["overall_health"] == as_json["overall_health"]


@contextmanager
def going_on(project: ProjectFolder, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A command that does not end by itself, ended by Ctrl-C."""
    running = project.start(*args)
    try:
        yield running
    finally:
        if running.poll() is None:
            os.kill(running.pid, signal.SIGINT)
        running.communicate(timeout=10)


def lines_until(running: subprocess.Popen[str], wanted: str) -> list[str]:
    """What it prints, up to a line that has ``wanted``; the test's own timeout bounds it."""
    assert running.stdout
    seen: list[str] = []
    for line in running.stdout:
        seen.append(line.rstrip("\n"))
        if wanted in line:
            return seen
    raise AssertionError(f"it ended without {wanted!r}: {seen}")


@pytest.mark.timeout(30)
def test_status_watch_prints_what_changes(project: ProjectFolder) -> None:
    project.write({"a": sleeper(), "b": sleeper(restart="never")})
    project.cli("deploy").ok()
    with going_on(project, "status", "--watch") as watching:
        lines_until(watching, "b")
        kill_hard(pid_of(project, "b"))
        lines_until(watching, "failed")


@pytest.mark.timeout(30)
def test_the_live_view_of_a_deploy_shows_each_service_on_a_terminal(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"slow": program(port, "slow", 1), "worker": sleeper(dependencies=["slow"])})
    env = {**os.environ, **project.env, "TERM": "xterm-256color"}
    terminal = pexpect.spawn(
        PROGRAM[0], [*PROGRAM[1:], "deploy"], cwd=str(project.folder), env=env, dimensions=(30, 100), timeout=20
    )
    painted = terminal.read()
    terminal.close()
    screen = pyte.Screen(100, 30)
    pyte.ByteStream(screen).feed(painted)
    shown = "\n".join(line.rstrip() for line in screen.display).strip()
    assert terminal.exitstatus == 0, shown
    assert "slow" in shown and "worker" in shown and "completed" in shown, shown
    assert b"\x1b[3" not in painted, "NO_COLOR is honoured"


def test_health_has_a_score_and_issues(project: ProjectFolder) -> None:
    project.write({"a": sleeper(restart="never"), "b": sleeper()})
    project.cli("deploy").ok()
    assert project.cli("health", "--format", "json").ok().json()["score"] == 100
    kill_hard(pid_of(project, "a"))
    until(lambda: project.cli("health").code == 4, "health to notice")
    health = project.cli("health", "--format", "json").exits(4).json()
    assert health["score"] < 100
    assert [issue["service"] for issue in health["issues"]] == ["a"]
    assert yaml.safe_load(project.cli("health", "--format", "yaml").exits(4).stdout)["score"] == health["score"]


# --------------------------------------------------------------------------- logs


def talker(*said: str) -> dict[str, Any]:
    """Prints each text, 0.1 s apart, then stays."""
    script = f"import time\nfor each in {said!r}:\n    print(each, flush=True); time.sleep(0.1)\ntime.sleep(1000)"
    return {"command": sys.executable, "args": ["-c", script], "min_ready_seconds": 0.1}


def test_logs_of_all_services_are_merged_in_time(project: ProjectFolder) -> None:
    project.write(
        {
            "one": talker("1 first", "1 second") | {"min_ready_seconds": 2},  # its first line is out by then
            "two": talker("2 first") | {"dependencies": ["one"]},
        },
        deployment={"strategy": "Sequential"},
    )
    project.cli("deploy").ok()
    until(lambda: "2 first" in (said := project.cli("logs").ok().stdout) and "1 second" in said, "all three lines")
    said = project.cli("logs").ok().stdout
    assert said.index("1 first") < said.index("2 first")
    assert all(line.startswith(("one", "two")) for line in said.splitlines()), "each line is led by its service"
    assert "1 first" not in project.cli("logs", "two").ok().stdout


def test_logs_lines_and_since(project: ProjectFolder) -> None:
    project.write({"one": talker(*(f"line {n}" for n in range(5)))})
    project.cli("deploy").ok()
    until(lambda: "line 4" in project.cli("logs").ok().stdout, "five lines")
    assert re.findall(r"line \d", project.cli("logs", "--lines", "2").ok().stdout) == ["line 3", "line 4"]
    assert re.findall(r"line \d", project.cli("logs", "-n", "0").ok().stdout) == []
    assert len(re.findall(r"line \d", project.cli("logs", "--since", "10m").ok().stdout)) == 5
    assert re.findall(r"line \d", project.cli("logs", "--since", "2099-01-31T12:00").ok().stdout) == []
    project.cli("logs", "--since", "soon").exits(2)
    project.cli("logs", "nobody").exits(2)
    entries = project.cli("logs", "--format", "json").ok().json()
    assert [each["service"] for each in entries] == ["one"] * 5


@pytest.mark.timeout(30)
def test_logs_follow_goes_on_over_restarts(project: ProjectFolder) -> None:
    project.write({"one": talker("hello from one")})
    project.cli("deploy").ok()
    with going_on(project, "logs", "-f") as following:
        lines_until(following, "hello from one")
        project.cli("restart").ok()
        lines_until(following, "hello from one")
    assert following.returncode in (0, 130)


@pytest.mark.timeout(30)
def test_logs_follow_takes_up_services_that_come_later(project: ProjectFolder) -> None:
    project.write({"one": talker("hello from one")})
    project.cli("deploy").ok()
    with going_on(project, "logs", "-f") as following:
        lines_until(following, "hello from one")
        project.write({"one": talker("hello from one"), "two": talker("hello from two")})
        project.cli("deploy").ok()
        lines_until(following, "hello from two")


def test_logs_of_a_removed_service_are_kept(project: ProjectFolder) -> None:
    project.write({"one": talker("my last words"), "two": sleeper()})
    project.cli("deploy").ok()
    until(lambda: "my last words" in project.cli("logs", "one").ok().stdout, "its line")
    project.write({"two": sleeper()})
    project.cli("deploy").ok()
    assert "my last words" in project.cli("logs", "one").ok().stdout


def test_a_reader_that_goes_away_is_no_error(trio: ProjectFolder) -> None:
    command = f"{' '.join(PROGRAM)} schema | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=trio.folder,
        env={**os.environ, **trio.env},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and "fault of its own" not in done.stderr, done.stderr


# --------------------------------------------------------------------------- events and history


def test_events_say_what_happened_and_who_did_it(trio: ProjectFolder) -> None:
    trio.cli("restart", "--services", "c").ok()
    kill_hard(pid_of(trio, "a"))
    until(lambda: "a" in pids(trio), "its restart")
    until(lambda: "SIGKILL" in trio.cli("events").ok().stdout, "the event")
    rows = trio.cli("events", "--format", "json").ok().json()
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert any("restart" in row["text"] and row["who"] for row in rows)
    assert {row["service"] for row in trio.cli("events", "--services", "c", "--format", "json").ok().json()} == {"c"}
    assert len(trio.cli("events", "-n", "2", "--format", "json").ok().json()) == 2
    assert trio.cli("events", "--since", "2099-01-01", "--format", "json").ok().json() == []


@pytest.mark.timeout(30)
def test_events_follow(trio: ProjectFolder) -> None:
    with going_on(trio, "events", "-f") as following:
        lines_until(following, "deploy 1 completed")
        trio.cli("restart", "--services", "c").ok()
        lines_until(following, "restart 2 completed")


def test_history_lists_newest_first_and_shows_one(trio: ProjectFolder) -> None:
    trio.cli("restart").ok()
    trio.cli("stop").ok()
    assert [(row["number"], row["kind"]) for row in history(trio)] == [(3, "stop"), (2, "restart"), (1, "deploy")]
    assert all(row["who"] and row["command"].startswith("deploy-code ") for row in history(trio))
    assert len(trio.cli("history", "-n", "1", "--format", "json").ok().json()) == 1
    shown = trio.cli("history", "show", "1").ok().stdout
    assert "start a" in shown and "new service" in shown
    refused = trio.cli("history", "show", "99")
    assert refused.code in (1, 2) and "99" in refused.output


# --------------------------------------------------------------------------- agent


def test_agent_start_status_and_stop_touch_no_service(trio: ProjectFolder) -> None:
    before = pids(trio)
    assert str(agent_pid(trio)) in trio.cli("agent", "status").ok().stdout
    trio.cli("agent", "stop").ok()
    until(lambda: not agents(trio), "the agent to leave")
    assert pids(trio) == before
    assert "no agent" in trio.cli("agent", "status").output.lower()
    trio.cli("agent", "start").ok()
    assert len(agents(trio)) == 1
    assert pids(trio) == before
    trio.cli("agent", "start").ok()
    assert len(agents(trio)) == 1
    assert trio.cli("agent", "status", "--format", "json").ok().json()["pid"] == agent_pid(trio)


def test_agent_install_writes_a_unit_that_systemd_accepts(trio: ProjectFolder) -> None:
    analyze = need("systemd-analyze")
    units = trio.folder / "home" / ".config"
    done = trio.cli("agent", "install", "--help").ok()
    assert "systemd" in done.stdout
    printed = trio.cli("--dry-run", "agent", "install").ok().stdout
    text = printed[printed.index("[Unit]") :]
    unit = trio.folder / "deploy-code-shop.service"
    unit.write_text(text)
    checked = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True)
    assert checked.returncode == 0 and "deploy-code-shop" not in checked.stderr, checked.stderr + text
    assert not units.exists() or not list(units.rglob("*.service")), "a dry run installs nothing"


def test_the_agent_runs_in_the_background_and_holds_no_terminal(trio: ProjectFolder) -> None:
    pid = agent_pid(trio)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    assert all("/dev/pts" not in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in ("0", "1", "2"))
    assert alive(pid)


# --------------------------------------------------------------------------- init, schema, validate, completion, help


def test_init_writes_a_file_that_deploys_as_it_is(project: ProjectFolder, port: int) -> None:
    """But for its port, which may be taken here, and the place of its state, which is this machine's own."""
    project.cli("init").ok()
    written = project.config.read_text()
    assert "#" in written
    again = project.cli("init")
    assert again.code != 0 and project.config.read_text() == written, "a file that is there is left alone"
    project.cli("validate").ok()
    storage = {"data_dir": str(project.data_dir), "log_dir": str(project.log_dir)}
    project.config.write_text(
        written.replace("8080", str(port)) + yaml.safe_dump({"infrastructure": {"storage": storage}})
    )
    project.cli("deploy").ok()
    assert project.status()["overall_health"] == "healthy"
    assert text_at(port)


def test_schema_describes_the_file(project: ProjectFolder) -> None:
    schema = project.cli("schema").ok().json()
    assert "$defs" in schema and {"services", "deployment", "hooks"} <= schema["properties"].keys()
    reference = project.cli("schema", "--reference").ok().stdout
    assert {"services", "infrastructure", "security", "deployment", "monitoring"} <= yaml.safe_load(reference).keys()


def test_validate_in_all_formats(project: ProjectFolder) -> None:
    project.write({"a": {"command": "x", "dependencies": ["nobody"]}})
    text = project.cli("validate").exits(2).output
    assert "E002 CONFIG_INVALID: 1 problem" in text and "E007" in text
    found = project.cli("validate", "--format", "json").exits(2).json()
    assert found["is_valid"] is False and found["errors"][0].startswith("E007")
    assert yaml.safe_load(project.cli("validate", "--format", "yaml").exits(2).stdout) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed_without_a_file(project: ProjectFolder, shell: str) -> None:
    script = project.cli("completion", shell).ok().stdout
    assert "deploy-code" in script
    checker = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "-n"]}[shell]
    path = project.folder / "script"
    path.write_text(script)
    from shutil import which

    if which(checker[0]):
        subprocess.run([*checker, str(path)], check=True)


def test_completion_in_bash_offers_commands_and_services(trio: ProjectFolder) -> None:
    folder = trio.folder / "bin"
    folder.mkdir()
    (folder / "deploy-code").write_text(
        f"#!{sys.executable}\nimport sys\nfrom deploy_code.__main__ import main\nsys.exit(main())\n"
    )
    (folder / "deploy-code").chmod(0o755)
    script = """
eval "$(deploy-code completion bash)"
complete -p deploy-code >&2
function offer() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  local function=$(complete -p deploy-code | sed 's/.*-F \\([^ ]*\\).*/\\1/')
  $function deploy-code "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"; }
offer deploy-code re
offer deploy-code logs ""
"""
    env = {**os.environ, **trio.env, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=trio.folder, env=env, capture_output=True, text=True, timeout=30)
    commands, services = done.stdout.splitlines()
    assert {"restart", "recover"} <= set(commands.split()), done
    assert {"a", "b", "c"} <= set(services.split()), done


def test_no_command_is_help_and_an_unknown_one_is_a_usage_error(project: ProjectFolder) -> None:
    assert "Usage: deploy-code" in project.cli().output
    assert "deploy" in project.cli("--help").ok().stdout
    refused = project.cli("deplyo").exits(2)
    assert "deploy" in refused.stderr
    assert re.fullmatch(r"deploy-code \d+\.\d+\S*\n", project.cli("--version").ok().stdout)


def test_data_is_on_stdout_and_talk_on_stderr(project: ProjectFolder) -> None:
    project.write({"a": sleeper()})
    done = project.cli("deploy", "--format", "json").ok()
    json.loads(done.stdout)
    assert "warning" in done.stderr
    quiet = project.cli("-q", "restart").ok()
    assert quiet.stderr == ""


def test_project_by_name_needs_no_file(project: ProjectFolder, tmp_path: Path) -> None:
    """State in the user's own directory is found by name alone."""
    from support.cli import run_cli

    below_a_file = str(project.config / "data")  # not even root can write there
    project.config.write_text(
        yaml.safe_dump(
            {
                "name": "byname",
                "infrastructure": {"storage": {"data_dir": below_a_file, "log_dir": below_a_file}},
                "services": {"a": sleeper()},
            }
        )
    )
    project.cli("deploy").ok()
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    env = project.env
    assert "running" in run_cli("--project", "byname", "status", cwd=elsewhere, env=env).ok().stdout
    run_cli("--project", "byname", "stop", cwd=elsewhere, env=env).ok()


def test_ports_of_everything_are_in_status(project: ProjectFolder) -> None:
    first, second = free_ports(2)
    pages(project, "v1")
    project.write({"one": web(first), "two": web(second)})
    project.cli("deploy").ok()
    said = project.cli("status").ok().stdout
    assert str(first) in said and str(second) in said
