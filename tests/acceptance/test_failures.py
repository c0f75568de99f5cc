"""What goes wrong with one service, and what must then happen: the right code, the cause named, all put back."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from support.cli import Finished
from support.ports import answers, free_ports
from support.project import ProjectFolder
from support.scenarios import (
    FAST,
    alive,
    family,
    history,
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
    until_served,
    web,
    write_program,
)
from support.wait import wait_until


class Town:
    """``steady`` is never changed; ``api`` is to become v2 together with ``bad``, which fails; ``later`` needs that."""

    def __init__(self, project: ProjectFolder) -> None:
        self.project = project
        self.steady, self.api, self.bad = free_ports(3)
        write_program(project)
        pages(project, "v1", "v2")
        project.write({"steady": web(self.steady), "api": web(self.api)}, deployment={"timeout_seconds": 20})
        project.cli("deploy").ok()
        self.before = pids(project)

    def deploy_with(self, bad: dict[str, Any], *args: str, **settings: Any) -> Finished:
        """``bad`` needs ``api`` and ``steady``; ``later`` needs ``bad``. Settings are those of `deployment`."""
        services = {
            "steady": web(self.steady),
            "api": web(self.api, version="v2"),
            "bad": bad | {"dependencies": ["api", "steady"]},
            "later": sleeper(dependencies=["bad"]),
        }
        self.project.write(services, deployment={"timeout_seconds": 20, **settings})
        return self.project.cli("deploy", *args)

    def as_before(self) -> None:
        """Everything this deployment touched is put back, and what it did not touch was not touched."""
        now = pids(self.project)
        assert set(now) == {"steady", "api"}
        assert now["steady"] == self.before["steady"]
        assert text_at(self.api, "/index.html") == text_at(self.steady, "/index.html") == "v1"
        assert states(self.project) == {"steady": "running", "api": "running"}
        assert last(self.project)["status"] == "rolled_back"
        assert not last(self.project)["good"]


@pytest.fixture
def town(project: ProjectFolder) -> Town:
    return Town(project)


def told(town: Town, run: Finished, *facts: str) -> None:
    """Exit code 1; every fact is on stderr and in `history show`, as text and as data."""
    run.exits(1)
    number = str(last(town.project)["number"])
    shown = town.project.cli("history", "show", number).ok().stdout
    kept = town.project.cli("history", "show", number, "--format", "json").ok().stdout
    for fact in facts:
        assert fact in run.stderr, f"{fact!r} is not on stderr: {run}"
        assert fact in shown, f"{fact!r} is not in history show {number}:\n{shown}"
        assert fact in kept, f"{fact!r} is not in history show --format json"


# --------------------------------------------------------------------------- one bad service after the other


def test_a_service_that_exits_at_once(town: Town) -> None:
    run = town.deploy_with(program(town.bad, "exit", 7))
    told(town, run, "E005", "bad", "7", "cannot open the vault", "E007", "later")
    assert "took" not in run.stdout
    town.as_before()


def test_a_service_that_exits_at_once_fails_long_before_its_deadline(town: Town) -> None:
    run = town.deploy_with(program(town.bad, "exit", 7), "--format", "json", timeout_seconds=300)
    assert run.exits(1).json()["duration"] < 5


def test_a_service_that_exits_with_0_has_failed_too(town: Town) -> None:
    told(town, town.deploy_with(program(town.bad, "exit", 0)), "E005", "bad", "one_shot: true")
    town.as_before()


def test_a_service_killed_by_a_signal_names_the_signal(town: Town) -> None:
    suicide = {"command": "python3", "args": ["-c", "import os; os.kill(os.getpid(), 11)"]}
    told(town, town.deploy_with(suicide), "E005", "SIGSEGV")
    town.as_before()


def test_a_service_that_never_becomes_healthy(town: Town) -> None:
    told(town, town.deploy_with(program(town.bad, "deaf")), "E006", "bad", "refused", "later")
    town.as_before()


def test_a_service_that_answers_500_shows_what_it_answered(town: Town) -> None:
    told(town, town.deploy_with(program(town.bad, "refuse")), "E006", "500", "the database is on fire")
    town.as_before()


def test_a_service_that_listens_elsewhere_shows_where(town: Town) -> None:
    [elsewhere] = free_ports(1)
    told(town, town.deploy_with(program(town.bad, "elsewhere", elsewhere)), "E006", str(elsewhere))
    town.as_before()


def test_a_command_probe_that_fails_shows_its_stderr(town: Town) -> None:
    check = {"command": ["python3", "-c", "import sys; sys.exit('the cellar is flooded')"], **FAST}
    told(town, town.deploy_with(program(town.bad, health_check=check)), "E006", "the cellar is flooded")
    town.as_before()


def test_a_command_probe_that_hangs_is_cut_off(town: Town) -> None:
    check = {"command": ["sleep", "1000"], **FAST}
    told(town, town.deploy_with(program(town.bad, health_check=check)), "E006", "bad")
    town.as_before()


def test_the_deadline_of_a_gate_is_timeout_seconds(town: Town) -> None:
    patient = {"endpoint": "/", "interval_seconds": 30, "timeout_seconds": 5, "retries": 9}
    run = town.deploy_with(program(town.bad, "deaf", health_check=patient), "--format", "json", timeout_seconds=2)
    assert 2 <= run.exits(1).json()["duration"] < 10
    told(town, run, "E006", "bad")
    town.as_before()


def test_the_whole_deployment_has_a_bound(town: Town) -> None:
    patient = {"endpoint": "/", "interval_seconds": 30, "timeout_seconds": 5, "retries": 9}
    bad = program(town.bad, "deaf", health_check=patient)
    told(town, town.deploy_with(bad, timeout_seconds=60, total_timeout_seconds=3), "E008")
    town.as_before()


def test_no_such_command_is_found_out_before_anything_is_changed(town: Town) -> None:
    run = town.deploy_with({"command": "no-such-program"}).exits(1)
    assert "E003" in run.stderr and "no-such-program" in run.stderr
    assert pids(town.project) == town.before, "nothing was stopped for it"


def test_a_command_that_disappears_after_preflight_is_e003_or_e005(town: Town) -> None:
    """Not executable by its content: the kernel refuses it at exec."""
    path = town.project.program("broken", "\x00\x01 this is no program")
    run = town.deploy_with({"command": str(path)})
    assert "E003" in run.exits(1).stderr or "E005" in run.stderr, run
    if last(town.project)["status"] == "rolled_back":
        town.as_before()
    assert text_at(town.api, "/index.html") == "v1"


def test_a_command_with_spaces_is_an_error_that_shows_how_to_write_it(town: Town) -> None:
    run = town.deploy_with({"command": "python3 -m http.server"})
    assert run.code in (1, 2) and "args" in run.stderr and "-m" in run.stderr, run
    assert pids(town.project) == town.before


def test_a_service_that_hangs_on_sigterm_is_killed_and_the_deployment_goes_on(
    project: ProjectFolder, port: int
) -> None:
    write_program(project)
    project.write({"app": program(port, "stubborn", stop_timeout_seconds=1)})
    project.cli("deploy").ok()
    old = pid_of(project, "app")
    project.write({"app": program(port, stop_timeout_seconds=1)})
    project.cli("deploy").ok()
    assert not alive(old)
    assert text_at(port) == "v1"
    assert "I heard SIGTERM and stay" in project.cli("logs", "app").ok().stdout


def test_stop_with_a_timeout_kills_what_hangs_within_it(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "stubborn", stop_timeout_seconds=300), "fine": sleeper()})
    project.cli("deploy").ok()
    done = project.cli("stop", "--timeout", "1", timeout=20).ok()
    assert "app" in done.stderr, "that it had to be killed is said"
    until_gone(project)


def test_children_that_survive_their_parent_are_swept(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "family")})
    project.cli("deploy").ok()
    everyone = wait_until(lambda: found if len(found := family(project, "app")) >= 3 else None)
    project.cli("stop").ok()
    assert not [pid for pid in everyone if alive(pid)]


def test_children_of_a_service_that_failed_its_gate_are_swept(town: Town) -> None:
    script = (
        "import subprocess, sys; "
        "print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid, flush=True); sys.exit(3)"
    )
    run = town.deploy_with({"command": "python3", "args": ["-c", script]})
    told(town, run, "E005")
    child = int(town.project.cli("logs", "bad").ok().stdout.split()[-1])
    assert not alive(child)
    town.as_before()


def test_a_command_that_daemonises_is_told_to_stay_in_the_foreground(town: Town) -> None:
    run = town.deploy_with(program(town.bad, "daemon"))
    told(town, run, "E005", "foreground")
    assert not answers(town.bad), "the daemon it left behind is swept"
    town.as_before()


def test_a_service_that_floods_its_log_stays_up_and_its_last_lines_are_kept(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "flood", 150_000)})
    project.cli("deploy").ok()
    lines = project.cli("logs", "app", "--lines", "3").ok().stdout.splitlines()
    assert [line.split("line ")[1].split()[0] for line in lines] == ["00149997", "00149998", "00149999"]
    assert text_at(port) == "v1"


def test_a_service_that_crashes_later_is_restarted_and_then_given_up_on(project: ProjectFolder, port: int) -> None:
    """Ready once, so that the deployment succeeds; then it dies again and again."""
    dies = "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['PORT']))); time.sleep(0.4)"
    quick = {"policy": "always", "backoff_seconds": 0.05, "backoff_max_seconds": 0.1}
    service = {
        "command": "python3",
        "args": ["-c", dies],
        "ports": [{"container_port": port}],
        "min_ready_seconds": 0,
        "restart": quick,
    }
    project.write({"app": service, "fine": sleeper()})
    project.cli("deploy").ok()
    until(lambda: states(project)["app"] == "failed", "the circuit to open", timeout=40)
    status = project.status()
    assert status["services"]["app"]["restarts"] >= 2
    assert status["overall_health"] in ("degraded", "unhealthy")
    assert status["services"]["fine"]["status"] == "running"
    assert project.cli("health").exits(4)
    assert project.cli("status", "--check").exits(4)
    events = project.cli("events", "--services", "app").ok().stdout
    assert "app" in events


def test_a_service_that_turns_unhealthy_later_is_restarted(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    project.write({"web": web(port)})
    project.cli("deploy").ok()
    before = pids(project)["web"]
    page = project.folder / "www" / "v1" / "index.html"
    page.rename(page.with_name("gone"))
    until(lambda: pids(project).get("web", before) != before, "a restart", timeout=15)
    page.with_name("gone").rename(page)
    until(lambda: project.status()["overall_health"] == "healthy", "health to return", timeout=15)


# --------------------------------------------------------------------------- ports of strangers


def test_a_port_that_a_stranger_holds_is_found_before_anything_is_changed(town: Town) -> None:
    with socket.create_server(("127.0.0.1", town.bad)):
        run = town.deploy_with(program(town.bad)).exits(1)
        assert "S004" in run.stderr and str(town.bad) in run.stderr
        assert pids(town.project) == town.before
    town.deploy_with(program(town.bad)).ok()


def test_a_stranger_that_takes_the_port_in_between_is_not_taken_for_the_service(town: Town) -> None:
    """The program moves away while a stranger answers on its port: healthy-looking, but not ours."""
    [elsewhere] = free_ports(1)
    services = {"bad": program(town.bad, "elsewhere", elsewhere)}
    with socket.create_server(("127.0.0.1", town.bad)):
        check = {"endpoint": f"tcp://127.0.0.1:{town.bad}", **FAST}
        run = town.deploy_with(services["bad"] | {"health_check": check}, "--skip-phases", "validation,network")
    told(town, run, str(town.bad))
    assert "S004" in run.stderr or "E006" in run.stderr
    town.as_before()


# --------------------------------------------------------------------------- what is put back, and what is not


def test_a_first_deploy_that_fails_leaves_nothing_but_logs(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    write_program(project)
    project.write({"web": web(port), "bad": program(port + 1, "exit", 7, dependencies=["web"])})
    project.cli("deploy").exits(1)
    assert pids(project) == {}
    assert "cannot open the vault" in project.cli("logs", "bad").ok().stdout
    assert last(project)["status"] == "rolled_back"


def test_without_rollback_everything_is_left_as_it_stands(town: Town) -> None:
    run = town.deploy_with(program(town.bad, "refuse"), rollback_on_failure=False)
    told(town, run, "E006")
    assert last(town.project)["status"] == "failed"
    assert text_at(town.api, "/index.html") == "v2"
    assert "later" not in pids(town.project)
    assert pids(town.project)["steady"] == town.before["steady"]


def test_no_rollback_is_that_for_once(town: Town) -> None:
    told(town, town.deploy_with(program(town.bad, "refuse"), "--no-rollback"), "E006")
    assert last(town.project)["status"] == "failed"
    assert text_at(town.api, "/index.html") == "v2"
    town.deploy_with(program(town.bad)).ok()
    assert set(pids(town.project)) == {"steady", "api", "bad", "later"}


def test_after_a_failure_the_same_file_mended_deploys(town: Town) -> None:
    town.deploy_with(program(town.bad, "exit", 7)).exits(1)
    town.deploy_with(program(town.bad)).ok()
    assert states(town.project) == dict.fromkeys(("steady", "api", "bad", "later"), "running")
    assert pids(town.project)["steady"] == town.before["steady"]


def test_one_failure_fails_only_what_depends_on_it_and_all_is_rolled_back_as_one(
    project: ProjectFolder,
) -> None:
    good, bad = free_ports(2)
    pages(project, "v1")
    write_program(project)
    services = {
        "good": web(good),
        "bad": program(bad, "slow", 0.5) | {"args": ["-u", "app.py", "exit", "7"]},
        "after": sleeper(dependencies=["bad"]),
        "further": sleeper(dependencies=["after"]),
    }
    project.write(services, deployment={"strategy": "Parallel"})
    run = project.cli("deploy", "--format", "json").exits(1)
    errors = run.json()["errors"]
    assert errors[0].startswith("E005"), "the root cause comes first"
    skipped = [each for each in errors if each.startswith("E007")]
    assert any("after" in each and "bad" in each for each in skipped)
    assert any("further" in each and "bad" in each for each in skipped), "they name the root cause"
    assert run.json()["status"] == "rolled_back"
    assert pids(project) == {}


def test_a_target_that_was_not_healthy_before_is_restored_without_a_gate(project: ProjectFolder) -> None:
    sick, other = free_ports(2)
    write_program(project)
    project.write({"sick": program(sick, "refuse"), "other": program(other)})
    project.cli("deploy", "--force").ok()
    project.write({"sick": program(sick, "refuse"), "other": program(other, "exit", 7)})
    run = project.cli("deploy").exits(1)
    assert "E009" not in run.stderr, run
    until_served(other, "v1")


def test_a_rollback_that_fails_is_e009_with_the_state_as_it_is(project: ProjectFolder, port: int) -> None:
    """The old code of a service cannot start again: its program was edited, and no release was kept."""
    write_program(project)
    project.write({"app": program(port), "fine": sleeper()})
    project.cli("deploy").ok()
    fine = pid_of(project, "fine")
    (project.folder / "app.py").write_text("raise SystemExit('both old and new are this now')")
    run = project.cli("deploy").exits(1)
    assert "E005" in run.stderr and "E009" in run.stderr
    assert pid_of(project, "fine") == fine
    assert states(project)["app"] != "running"
    write_program(project, "v2")
    project.cli("deploy").ok()
    assert text_at(port) == "v2"


def test_stop_works_after_any_failure(town: Town) -> None:
    town.deploy_with(program(town.bad, "refuse"), "--no-rollback").exits(1)
    town.project.cli("stop").ok()
    until_gone(town.project)


# --------------------------------------------------------------------------- files that cannot be read


BROKEN: dict[str, Callable[[str], str]] = {
    "not yaml": lambda text: text + "\n  - [",
    "a wrong type": lambda text: text.replace("args:", "args: 7\n    ignored:"),
    "an unknown key": lambda text: text + "\nservices_: {}\n",
    "a missing variable": lambda text: text.replace("sleep", "${NOWHERE_SET}"),
    "empty": lambda text: "",
    "binary": lambda text: "\x00\x01\x02",
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_file_is_a_coded_error_and_does_not_block_the_rest(project: ProjectFolder, way: str) -> None:
    project.write({"worker": sleeper()})
    project.cli("deploy").ok()
    project.write({"worker": sleeper(env={"MARK": "second"})})
    project.cli("deploy").ok()
    before, sound = pids(project), project.config.read_text()
    project.config.write_text(BROKEN[way](sound))
    for command in ("validate", "deploy", "plan"):
        said = project.cli(command).exits(2).output
        assert "E002" in said and "Traceback" not in said
    assert pids(project) == before
    if way in ("empty", "binary"):  # nothing in it says where the state lies
        project.config.write_text(sound)
    assert states(project) == {"worker": "running"}
    assert len(project.cli("history", "--format", "json").ok().json()) == 2
    project.cli("logs").ok()
    project.cli("rollback", "--to", "1").ok()
    assert pids(project) != before
    project.cli("stop").ok()
    until_gone(project)


def test_every_problem_of_a_file_is_told_at_once_with_its_place(project: ProjectFolder) -> None:
    project.write_text(
        "name: shop\n"
        "services:\n"
        "  api:\n"
        "    comand: x\n"
        "    dependencies: [nowhere]\n"
        "    ports: [{container_port: 99999}]\n"
        "  web:\n"
        "    command: ${MISSING_ONE}\n"
    )
    said = project.cli("validate").exits(2).output
    for fact in ("deploy-code.yaml:4:", "comand", "command", "E007", "nowhere", "99999", "MISSING_ONE", ":8:"):
        assert fact in said, f"{fact!r}: {said}"


def test_a_missing_file_is_e001(project: ProjectFolder) -> None:
    for command in ("validate", "deploy", "plan"):
        assert "E001" in project.cli(command).exits(2).output
    assert "deploy-code init" in project.cli("deploy").output


def test_history_keeps_the_report_of_each_failure(town: Town) -> None:
    town.deploy_with(program(town.bad, "exit", 7)).exits(1)
    first = str(last(town.project)["number"])
    town.deploy_with(program(town.bad, "refuse")).exits(1)
    assert "cannot open the vault" in town.project.cli("history", "show", first).ok().stdout
    assert [row["status"] for row in history(town.project)] == ["rolled_back", "rolled_back", "completed"]


def test_the_failure_report_says_what_to_do_next(town: Town) -> None:
    run = town.deploy_with(program(town.bad, "exit", 7))
    assert "deploy-code logs" in run.stderr or "deploy-code history show" in run.stderr, run


def test_killing_a_service_in_the_middle_of_its_gate_fails_it_at_once(project: ProjectFolder, port: int) -> None:
    write_program(project)
    patient = {"endpoint": "/", "interval_seconds": 30, "timeout_seconds": 5, "retries": 9}
    project.write({"app": program(port, "deaf", health_check=patient)})
    running = project.start("deploy")
    until(lambda: "app" in pids(project), "the start")
    kill_hard(pid_of(project, "app"))
    _, stderr = running.communicate(timeout=10)
    assert running.returncode == 1
    assert "E005" in stderr and "SIGKILL" in stderr
