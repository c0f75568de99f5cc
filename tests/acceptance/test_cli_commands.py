"""Every command against a real project, as a person would type it."""

import json
import os
import signal
import sys

import pexpect
import pyte
import pytest
import yaml

from support.ports import answers, free_port
from support.wait import wait_until

SERVER = ["-m", "http.server", "--bind", "127.0.0.1"]


def server(port, **more):
    return {
        "command": sys.executable,
        "args": [*SERVER, str(port)],
        "ports": [{"container_port": port}],
        "health_check": {"endpoint": "/", "interval_seconds": 10},
        **more,
    }


@pytest.fixture
def shop(project):
    """Two services, deployed: db, and api that needs it."""
    project.ports = free_port(), free_port()
    project.write({"db": server(project.ports[0]), "api": server(project.ports[1], dependencies=["db"])})
    project.cli("deploy").ok()
    return project


def terminal(project, *args, columns=100, rows=30):
    """The command in a pseudo-terminal."""
    return pexpect.spawn(
        sys.executable,
        ["-m", "deploy_code", *args],
        cwd=str(project.folder),
        env={**os.environ, **project.env, "TERM": "xterm-256color"},
        dimensions=(rows, columns),
        encoding="utf-8",
        timeout=30,
    )


def painted(text, columns=100, rows=30):
    screen = pyte.Screen(columns, rows)
    pyte.Stream(screen).feed(text)
    return [line.rstrip() for line in screen.display if line.strip()]


# --------------------------------------------------------------------------- deploy


def test_deploy_prints_its_summary_on_stdout_and_its_progress_on_stderr(project):
    project.write({"web": server(free_port())})
    done = project.cli("deploy").ok()
    assert done.stdout.startswith("deploy 1 completed in ")
    assert done.stdout.endswith(": 1 of 1 service ready.\n")
    assert "web r1 #0 ready" in done.stderr


def test_deploy_again_says_that_there_is_nothing_to_do(shop):
    done = shop.cli("deploy").ok()
    assert done.stdout == "Nothing to deploy: 2 of 2 services already as wanted.\n"
    assert done.stderr == ""


def test_deploy_as_json_is_the_report(project):
    project.write({"web": server(free_port())})
    report = project.cli("deploy", "--format", "json").ok().json()
    assert (report["success"], report["deployed_services"], report["status"]) == (True, 1, "completed")


def test_a_dry_run_shows_the_plan_and_changes_nothing(project):
    project.write({"web": server(free_port())})
    before = sorted(path.name for path in project.folder.iterdir())
    done = project.cli("--dry-run", "deploy").ok()
    assert "start web r1" in done.stdout
    assert done.stdout == project.cli("deploy", "--dry-run").ok().stdout == project.cli("plan").ok().stdout
    assert sorted(path.name for path in project.folder.iterdir()) == before


@pytest.mark.parametrize("command", [["stop"], ["restart"], ["rollback"], ["scale", "api=2"]])
def test_a_dry_run_of_any_command_changes_nothing(shop, command):
    before = shop.cli("history", "--format", "json").ok().stdout
    shop.cli("--dry-run", *command)
    assert all(answers(port) for port in shop.ports)
    assert shop.cli("history", "--format", "json").ok().stdout == before


def test_a_failed_deploy_tells_the_root_cause_and_exits_1(shop):
    shop.write({"db": server(shop.ports[0]), "bad": {"command": "sh", "args": ["-c", "echo no disk; exit 3"]}})
    done = shop.cli("deploy").exits(1)
    assert "E005 SERVICE_START_FAILED" in done.stderr
    assert "no disk" in done.stderr
    assert "failed and was rolled back" in done.stderr
    assert "deploy-code history show 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert answers(shop.ports[1])


def test_a_broken_file_is_2_with_every_problem_on_its_line(project):
    project.write({"web": {"comand": "x", "dependencies": ["nobody"]}})
    for command in ("deploy", "validate", "plan"):
        done = project.cli(command).exits(2)
        assert "E002 CONFIG_INVALID: " in done.stderr
        assert "nobody" in done.stderr and "comand" in done.stderr
        assert done.stdout == ""


def test_an_unknown_service_is_2(shop):
    for command in (["deploy", "--services", "nobody"], ["restart", "--services", "nobody"], ["scale", "nobody=2"]):
        assert "S001 SERVICE_NOT_FOUND" in shop.cli(*command).exits(2).stderr


def test_services_are_comma_separated_or_repeated(project):
    ports = [free_port() for _ in range(3)]
    project.write({name: server(port) for name, port in zip("abc", ports, strict=True)})
    project.cli("deploy", "--services", "a,b").ok()
    assert [answers(port) for port in ports] == [True, True, False]
    project.cli("deploy", "--services", "b", "--services", "c").ok()
    assert all(answers(port) for port in ports)


# --------------------------------------------------------------------------- the other commands


def test_status_shows_a_row_a_service(shop):
    lines = shop.cli("status").ok().stdout.splitlines()
    assert lines[0] == "shop (development): healthy, 2 of 2 running, deployment 1 completed"
    assert [line.split()[:5] for line in lines[3:]] == [
        ["api", "running", "healthy", "1/1", "r1"],
        ["db", "running", "healthy", "1/1", "r1"],
    ]


def test_status_detailed_shows_instances_probes_and_how_late_they_are(shop):
    text = shop.cli("status", "--detailed").ok().stdout
    assert "api r1 #0: ready" in text
    assert f"probe     http http://localhost:{shop.ports[1]}/ passed (200)" in text
    assert "probes per second" in text


def test_status_check_is_0_when_healthy_and_4_when_not(shop):
    shop.cli("status", "--check").ok()
    shop.cli("stop", "--services", "api").ok()
    shop.cli("stop").ok()
    shop.cli("status", "--check").exits(4)
    assert shop.settle() == []


def test_health_speaks_three_formats(shop):
    assert shop.cli("health").ok().stdout.startswith("healthy: score 100 of 100")
    data = shop.cli("health", "--format", "json").ok().json()
    assert (data["status"], data["score"], data["issues"]) == ("healthy", 100, [])
    assert yaml.safe_load(shop.cli("health", "--format", "yaml").ok().stdout)["status"] == "healthy"


def test_restart_starts_anew_only_what_is_named(shop):
    before = shop.status("--detailed")["services"]
    shop.cli("restart", "--services", "api").ok()
    after = shop.status("--detailed")["services"]
    assert before["api"]["instances"][0]["pid"] != after["api"]["instances"][0]["pid"]
    assert before["db"]["instances"][0]["pid"] == after["db"]["instances"][0]["pid"]


def test_stop_stops_and_works_with_a_broken_file(shop):
    shop.config.write_text(shop.config.read_text() + "\nnonsense: [")
    assert shop.cli("stop", "--timeout", "10").ok().stdout.startswith("stop 2 completed in ")
    assert not any(answers(port) for port in shop.ports)
    assert shop.status()["overall_health"] == "stopped"
    assert shop.settle() == []


def test_history_and_show(shop):
    rows = shop.cli("history", "--format", "json").ok().json()
    assert [(row["number"], row["kind"], row["status"], row["good"]) for row in rows] == [
        (1, "deploy", "completed", True)
    ]
    assert rows[0]["command"] == "deploy-code deploy"
    text = shop.cli("history", "show", "1").ok().stdout
    assert "start api r1" in text and "new service" in text


def test_rollback_returns_to_an_earlier_deployment(shop):
    shop.write({"db": server(shop.ports[0])})
    shop.cli("deploy").ok()
    assert not answers(shop.ports[1])
    shop.cli("rollback", "--to", "1").ok()
    assert answers(shop.ports[1])


def test_plan_says_with_its_exit_code_whether_there_is_something_to_do(shop):
    assert shop.cli("plan", "--detailed-exitcode").ok().stdout.startswith("deploy shop: nothing to do")
    shop.write({"db": server(shop.ports[0])})
    done = shop.cli("plan", "--detailed-exitcode", "--format", "json").exits(2)
    assert done.json()["services"]["api"]["action"] == "remove"
    shop.config.write_text(shop.config.read_text() + "\nnonsense: [")
    shop.cli("plan", "--detailed-exitcode").exits(1)


def test_events_tell_who_did_what(shop):
    rows = shop.cli("events", "--format", "json").ok().json()
    names = [row["name"] for row in rows]
    assert names[0] == "DeploymentStarted"
    assert "DeploymentFinished" in names
    assert f"pid {os.getpid()}" not in rows[0]["who"]
    assert "@" in rows[0]["who"]


def test_agent_start_stop_and_status(shop):
    assert shop.cli("agent", "status", "--format", "json").ok().json()["instances"] == 2
    shop.cli("agent", "stop").ok()
    assert all(answers(port) for port in shop.ports)
    assert "No agent is running" in shop.cli("agent", "status").ok().stdout
    assert "no agent is running" in shop.cli("status").ok().stdout
    shop.cli("agent", "start").ok()
    assert shop.cli("agent", "status", "--format", "json").ok().json()["instances"] == 2


def test_recover_has_nothing_to_do_where_nothing_was_interrupted(shop):
    assert shop.cli("recover").ok().stdout == "Nothing to recover: no deployment was interrupted.\n"
    assert shop.cli("recover", "--state-dir", shop.state, "--format", "json").ok().json() is None


def test_scale_runs_so_many(project):
    worker = {"command": "sleep", "args": ["1000"], "min_ready_seconds": 0.1}
    project.write({"worker": worker})
    project.cli("deploy").ok()
    project.cli("scale", "worker=3").ok()
    assert project.status()["services"]["worker"]["ready"] == 3


def test_init_writes_a_file_that_is_valid_and_refuses_to_overwrite_it(project):
    project.cli("init").ok()
    text = project.config.read_text()
    project.cli("validate").ok()
    assert "is there already and was left alone" in project.cli("init").exits(2).stderr
    assert project.config.read_text() == text


def test_the_schema_describes_the_file_and_the_reference_is_valid(project):
    assert "services" in project.cli("schema").ok().json()["properties"]
    (project.folder / "reference.yaml").write_text(project.cli("schema", "--reference").ok().stdout)
    assert project.cli("validate", "-c", "reference.yaml", "--format", "json").json()["errors"] == []


def test_validate_shows_warnings_but_accepts_the_file(project):
    project.write({"job": {"command": "sleep", "args": ["1"]}})
    done = project.cli("validate").ok()
    assert done.stdout == "deploy-code.yaml is valid.\n"
    assert "no health check" in done.stderr


@pytest.mark.parametrize("command", ["status", "health", "logs", "history", "events", "resources"])
def test_commands_that_look_import_nothing_heavy(shop, command):
    import subprocess

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deploy_code", command],
        cwd=shop.folder,
        env={**os.environ, **shop.env},
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    names = {line.rpartition("|")[2].strip() for line in lines}
    assert done.returncode == 0
    assert not {"asyncio", "pydantic", "rich", "importlib.metadata", "yaml", "psutil", "logging"} & names


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_and_completes_names_of_services(shop, shell):
    assert "_DEPLOY_CODE_COMPLETE" in shop.cli("completion", shell).ok().stdout
    env = {
        "_DEPLOY_CODE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "deploy-code restart --services db,a",
        "COMP_CWORD": "db,a" if shell == "fish" else "3",
    }
    assert "db,api" in shop.cli(env=env).ok().stdout


# --------------------------------------------------------------------------- as it comes


def read_until(process, text):
    seen = ""
    while text not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    return seen


def end(process, number=signal.SIGINT):
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode


def test_logs_follow_a_service_as_it_writes(project):
    script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done"
    project.write({"chatty": {"command": "sh", "args": ["-c", script], "min_ready_seconds": 0.1}})
    project.cli("deploy").ok()
    assert "line 1" in project.cli("logs", "chatty").ok().stdout
    process = project.start("logs", "-f", "-n", "0", "chatty")
    first = int(read_until(process, "line ").split()[-1])
    read_until(process, f"line {first + 5}\n")
    assert end(process) == 130


def test_status_watch_prints_what_changes(shop):
    process = shop.start("status", "--watch")
    read_until(process, "db  running")
    shop.cli("stop", "--services", "api").ok()
    assert "api  stopped" in read_until(process, "stopped")
    assert end(process) == 130


def test_events_follow(shop):
    process = shop.start("events", "-f", "-n", "1", "--format", "json")
    assert json.loads(process.stdout.readline())
    shop.cli("restart", "--services", "api").ok()
    read_until(process, '"restart 2 completed')
    assert end(process) == 130


# --------------------------------------------------------------------------- on a terminal


def test_deploy_on_a_terminal_ends_with_a_picture_and_a_summary(project):
    project.write({"db": server(free_port()), "api": server(free_port(), dependencies=["db"])})
    child = terminal(project, "deploy")
    lines = painted(child.read())
    child.close()
    assert child.exitstatus == 0
    assert lines[0].startswith("deploy 1  2/2 services")
    assert [line.split()[:4] for line in lines[1:3]] == [["✓", name, "ready", "healthy"] for name in ("api", "db")]
    assert lines[3].startswith("deploy 1 completed in ")


def test_ctrl_c_on_a_terminal_undoes_in_order_and_exits_130(project):
    slow = {"command": "sleep", "args": ["1000"], "health_check": {"endpoint": f"tcp://localhost:{free_port()}"}}
    project.write({"slow": slow})
    child = terminal(project, "deploy")
    child.expect("starting")
    child.sendintr()
    text = child.read()
    child.close()
    assert child.exitstatus == 130
    assert "undoing what was begun" in text
    wait_until(lambda: not project.leftovers(), what="everything is undone")


def test_status_watch_repaints_in_place(shop):
    child = terminal(shop, "status", "--watch")
    child.expect("db .*running")
    shop.cli("stop", "--services", "api").ok()
    child.expect("stopped")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
