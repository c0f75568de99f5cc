"""What `deploy` does on a good day: order, gates, changes and only changes, one-shots, ports, hooks, phases."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.ports import answers, free_port, free_ports, free_range
from support.project import ProjectFolder
from support.scenarios import (
    FAST,
    history,
    instances,
    kill_hard,
    last,
    one_shot,
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

# --------------------------------------------------------------------------- order and gates


def test_a_service_starts_only_when_its_dependency_answers(project: ProjectFolder) -> None:
    db, api = free_ports(2)
    write_program(project)
    project.write(  # api asks db once, at its birth, and dies when nobody answers
        {"api": program(api, "needs", db, dependencies=["db"]), "db": program(db, "slow", 0.7)},
        deployment={"strategy": "Parallel"},
    )
    project.cli("deploy").ok()
    assert states(project) == {"api": "running", "db": "running"}
    assert project.status()["services"]["api"]["restarts"] == 0


def test_sequential_starts_one_service_at_a_time_and_parallel_all_at_once(project: ProjectFolder) -> None:
    ports = free_ports(3)
    write_program(project)
    services = {f"s{n}": program(port, "slow", 0.6) for n, port in enumerate(ports)}
    took = {}
    for strategy in ("Sequential", "Parallel"):
        project.write(services, deployment={"strategy": strategy})
        report = project.cli("deploy", "--format", "json").ok().json()
        took[strategy] = report["duration"]
        project.cli("stop").ok()
    assert took["Sequential"] > 1.8 > took["Parallel"]


def test_a_service_without_a_health_check_is_ready_when_its_port_answers(project: ProjectFolder, port: int) -> None:
    write_program(project)
    slow = program(port, "slow", 0.5)
    del slow["health_check"]
    project.write({"slow": slow})
    project.cli("deploy").ok()
    assert answers(port)


def test_a_service_without_port_or_health_check_is_ready_once_it_has_lived_a_while(project: ProjectFolder) -> None:
    project.write({"worker": sleeper(min_ready_seconds=0.5)})
    report = project.cli("deploy", "--format", "json").ok().json()
    assert report["duration"] >= 0.5
    assert states(project) == {"worker": "running"}


def test_a_command_probe_runs_with_the_env_and_in_the_directory_of_its_service(
    project: ProjectFolder, port: int
) -> None:
    (project.folder / "inside").mkdir()
    check = [sys.executable, "-c", "import os; assert os.environ['COLOUR'] == 'red' and os.path.exists('here')"]
    (project.folder / "inside" / "here").touch()
    service = sleeper(env={"COLOUR": "red"}, working_dir="inside", health_check={"command": check, **FAST})
    project.write({"worker": service})
    project.cli("deploy").ok()
    assert states(project) == {"worker": "running"}


def test_both_probes_of_a_health_check_must_pass(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    both = {"endpoint": "/index.html", "command": ["test", "-e", str(project.folder / "flag")], **FAST}
    project.write({"web": web(port, health_check=both)})
    assert "E006" in project.cli("deploy").exits(1).output
    (project.folder / "flag").touch()
    project.cli("deploy").ok()


def test_failures_inside_the_start_period_do_not_count(project: ProjectFolder, port: int) -> None:
    write_program(project)
    patient = {"endpoint": "/", "interval_seconds": 1, "timeout_seconds": 1, "retries": 1, "start_period_seconds": 10}
    project.write({"slow": program(port, "slow", 2.5, health_check=patient)})
    project.cli("deploy").ok()


# --------------------------------------------------------------------------- what counts as a change


@pytest.fixture
def pair(project: ProjectFolder) -> Callable[..., dict[str, int]]:
    """``db`` and ``api`` that needs it, deployed; call it again with options of ``api`` to write another file."""
    db, api = free_ports(2)
    pages(project, "v1", "v2")

    def write(**options: Any) -> dict[str, int]:
        project.write({"db": web(db), "api": web(api, "db", **options)})
        return {"db": db, "api": api}

    write()
    project.cli("deploy").ok()
    return write


def test_a_second_deploy_with_nothing_changed_does_nothing(project: ProjectFolder, pair: object) -> None:
    before, number = pids(project), last(project)["number"]
    project.cli("plan", "--detailed-exitcode").ok()
    report = project.cli("deploy", "--format", "json").ok().json()
    assert (report["success"], report["deployed_services"], report["total_services"]) == (True, 2, 2)
    assert report["plan"]["steps"] == []
    assert pids(project) == before
    assert last(project)["number"] >= number


def test_only_the_changed_service_is_replaced(project: ProjectFolder, pair: Callable[..., dict[str, int]]) -> None:
    before = pids(project)
    ports = pair(version="v2")
    project.cli("plan", "--detailed-exitcode").exits(2)
    project.cli("deploy").ok()
    after = pids(project)
    assert text_at(ports["api"], "/index.html") == "v2"
    assert after["db"] == before["db"]
    assert after["api"] != before["api"]


def test_changed_policy_alone_restarts_nothing(project: ProjectFolder, pair: Callable[..., dict[str, int]]) -> None:
    before = pids(project)
    pair(health_check={"endpoint": "/index.html", "interval_seconds": 7})
    plan = project.cli("plan", "--detailed-exitcode").exits(2).stdout
    assert "update api" in plan
    project.cli("deploy").ok()
    assert pids(project) == before
    project.cli("plan", "--detailed-exitcode").ok()


def test_a_changed_env_file_is_a_change(project: ProjectFolder, port: int) -> None:
    write_program(project)
    (project.folder / "app.env").write_text("COLOUR=red\n")
    project.write({"app": program(port, "env", env_file="app.env")})
    project.cli("deploy").ok()
    assert "COLOUR=red" in text_at(port)
    (project.folder / "app.env").write_text("COLOUR=blue\n")
    project.cli("deploy").ok()
    assert "COLOUR=blue" in text_at(port)


def test_an_edited_program_is_a_change(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port)})
    project.cli("deploy").ok()
    project.cli("plan", "--detailed-exitcode").ok()
    write_program(project, "v2")
    plan = project.cli("plan", "--detailed-exitcode").exits(2).stdout
    assert "app.py" in plan, "the cause names the file that changed"
    project.cli("deploy").ok()
    assert text_at(port) == "v2"


def test_a_file_that_files_names_is_content_too(project: ProjectFolder, port: int) -> None:
    write_program(project)
    settings = project.folder / "conf" / "deep" / "settings.ini"
    settings.parent.mkdir(parents=True)
    settings.write_text("a = 1")
    project.write({"app": program(port, files=["conf/**/*.ini"])})
    project.cli("deploy").ok()
    before = pid_of(project, "app")
    settings.write_text("a = 2")
    project.cli("plan", "--detailed-exitcode").exits(2)
    project.cli("deploy").ok()
    assert pid_of(project, "app") != before


def test_a_service_removed_from_the_file_is_removed(
    project: ProjectFolder, pair: Callable[..., dict[str, int]]
) -> None:
    ports = pair()
    untouched = pid_of(project, "db")
    project.write({"db": web(ports["db"])})
    assert "remove api" in project.cli("plan").ok().stdout
    project.cli("deploy").ok()
    assert states(project) == {"db": "running"}
    assert pids(project) == {"db": {untouched}}


def test_a_disabled_service_is_as_if_removed(project: ProjectFolder, pair: Callable[..., dict[str, int]]) -> None:
    pair(enabled=False)
    report = project.cli("deploy", "--format", "json").ok().json()
    assert report["total_services"] == 1
    assert set(pids(project)) == {"db"}


def test_a_service_that_died_is_started_again_by_deploy_with_that_cause(project: ProjectFolder) -> None:
    project.write({"worker": sleeper(restart="never"), "other": sleeper()})
    project.cli("deploy").ok()
    other = pid_of(project, "other")
    kill_hard(pid_of(project, "worker"))
    until(lambda: states(project)["worker"] == "failed", "status to notice")
    assert "worker" in project.cli("plan", "--detailed-exitcode").exits(2).stdout
    project.cli("deploy").ok()
    assert states(project) == {"worker": "running", "other": "running"}
    assert pid_of(project, "other") == other


def test_dependencies_turned_round_are_deployed_without_a_cycle(project: ProjectFolder) -> None:
    a, b = free_ports(2)
    pages(project, "v1", "v2")
    project.write({"a": web(a), "b": web(b, "a")})
    project.cli("deploy").ok()
    project.write({"a": web(a, "b", version="v2"), "b": web(b, version="v2")})
    project.cli("deploy").ok()
    assert (text_at(a, "/index.html"), text_at(b, "/index.html")) == ("v2", "v2")


def test_a_renamed_service_takes_over_its_port(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    project.write({"old": web(port)})
    project.cli("deploy").ok()
    project.write({"new": web(port)})
    project.cli("deploy").ok()
    assert set(pids(project)) == {"new"}
    assert answers(port)


def test_a_rename_that_fails_gives_the_port_back_to_the_old_name(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    project.write({"old": web(port)})
    project.cli("deploy").ok()
    project.write({"new": web(port, health_check={"endpoint": "/missing", **FAST})})
    assert "E006" in project.cli("deploy").exits(1).output
    assert set(pids(project)) == {"old"}
    assert text_at(port, "/index.html") == "v1"


def test_two_services_swap_their_ports(project: ProjectFolder) -> None:
    first, second = free_ports(2)
    pages(project, "one", "two")
    project.write({"one": web(first, version="one"), "two": web(second, version="two")})
    project.cli("deploy").ok()
    project.write({"one": web(second, version="one"), "two": web(first, version="two")})
    project.cli("deploy").ok()
    assert (text_at(first, "/index.html"), text_at(second, "/index.html")) == ("two", "one")


# --------------------------------------------------------------------------- plan and dry run


def test_plan_and_dry_run_show_each_step_with_its_cause_and_change_nothing(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    project.write({"web": web(port), "worker": sleeper(dependencies=["web"])})
    before = sorted(project.folder.rglob("*"))
    planned = project.cli("plan").ok().stdout
    assert "start web" in planned and "new service" in planned
    assert project.cli("--dry-run", "deploy").ok().stdout == planned
    assert project.cli("deploy", "--dry-run").ok().stdout == planned
    as_json = project.cli("plan", "--format", "json").ok().json()
    assert yaml.safe_load(project.cli("plan", "--format", "yaml").ok().stdout) == as_json
    assert as_json["changes"] is True
    assert {step["service"] for step in as_json["steps"]} == {"web", "worker"}
    assert all("cause" in step and "after" in step for step in as_json["steps"])
    project.cli("plan", "--detailed-exitcode").exits(2)
    assert not project.leftovers()
    assert [each for each in sorted(project.folder.rglob("*")) if "home" not in each.parts] == [
        each for each in before if "home" not in each.parts
    ]


def test_dry_run_in_the_file_equals_the_option(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    project.write({"web": web(port)}, dry_run=True)
    assert "start web" in project.cli("deploy").ok().stdout
    assert not project.leftovers()


@pytest.mark.parametrize("command", ["stop", "restart", "rollback", "scale"])
def test_a_dry_run_of_any_changing_command_changes_nothing(
    project: ProjectFolder, pair: Callable[..., dict[str, int]], command: str
) -> None:
    pair(version="v2")
    project.cli("deploy").ok()
    before, rows = pids(project), history(project)
    arguments = {"rollback": ["--to", "1"], "scale": ["api=2"]}.get(command, [])
    project.cli("--dry-run", command, *arguments)
    assert pids(project) == before
    assert history(project) == rows


def test_detailed_exitcode_is_1_for_every_error(project: ProjectFolder) -> None:
    project.write_text("services: [")
    project.cli("plan", "--detailed-exitcode").exits(1)
    project.config.unlink()
    project.cli("plan", "--detailed-exitcode").exits(1)


def test_preflight_tells_everything_at_once_and_changes_nothing(project: ProjectFolder) -> None:
    taken = free_port()
    pages(project, "v1")
    import socket

    with socket.create_server(("127.0.0.1", taken)):
        services = {
            "web": web(taken),
            "ghost": {"command": "no-such-program-anywhere"},
            "stranger": sleeper(user="nobody-of-that-name"),
            "fine": sleeper(),
        }
        project.write(services)
        for command in (["plan"], ["deploy"], ["--dry-run", "deploy"]):
            said = project.cli(*command).exits(1).output
            assert "E003" in said and "S004" in said and "nobody-of-that-name" in said, said
            assert "no-such-program-anywhere" in said and str(taken) in said
    assert pids(project) == {}
    until_gone(project)


# --------------------------------------------------------------------------- part of the services


def test_services_named_bring_what_they_need_and_leave_the_rest(project: ProjectFolder) -> None:
    db, api, other = free_ports(3)
    pages(project, "v1", "v2")
    project.write({"db": web(db), "api": web(api, "db"), "other": web(other)})
    report = project.cli("deploy", "--services", "api", "--format", "json").ok().json()
    assert report["total_services"] == 2
    assert set(pids(project)) == {"db", "api"}
    project.cli("deploy").ok()
    before = pids(project)
    project.write({"db": web(db, version="v2"), "api": web(api, "db", version="v2")})
    project.cli("deploy", "--services", "api").ok()
    after = pids(project)
    assert after["other"] == before["other"], "no orphan is removed"
    assert after["db"] == before["db"], "a healthy dependency is left as it is"
    assert text_at(api, "/index.html") == "v2"
    project.cli("deploy").ok()
    assert set(pids(project)) == {"db", "api"}


@pytest.mark.parametrize("names", [["--services", "a,c"], ["--services", "a", "--services", "c"]])
def test_services_are_separated_by_commas_or_repeated(project: ProjectFolder, names: list[str]) -> None:
    project.write({name: sleeper() for name in "abc"})
    project.cli("deploy", *names).ok()
    assert set(pids(project)) == {"a", "c"}


@pytest.mark.parametrize("command", ["deploy", "plan"])
def test_an_unknown_service_is_s001_and_nothing_happens(project: ProjectFolder, command: str) -> None:
    project.write({"worker": sleeper()})
    said = project.cli(command, "--services", "wroker").exits(2).output
    assert "S001" in said and "worker" in said, "the nearest name is offered"
    assert pids(project) == {}
    until_gone(project)


@pytest.mark.parametrize("command", ["restart", "stop"])
def test_an_unknown_service_is_s001_among_those_that_run_too(project: ProjectFolder, command: str) -> None:
    project.write({"worker": sleeper()})
    project.cli("deploy").ok()
    before = pids(project)
    said = project.cli(command, "--services", "wroker").exits(2).output
    assert "S001" in said and "worker" in said
    assert pids(project) == before


# --------------------------------------------------------------------------- one-shots


def _appends(path: Path, text: str = "x") -> str:
    return f"open({str(path)!r}, 'a').write({text!r})"


def test_a_one_shot_runs_once_and_again_when_it_changes_or_is_asked_to(project: ProjectFolder) -> None:
    ran = project.folder / "ran"
    project.write({"migrate": one_shot(_appends(ran)), "app": sleeper(dependencies=["migrate"])})
    project.cli("deploy").ok()
    project.cli("deploy").ok()
    project.cli("restart", "--services", "app").ok()
    assert ran.read_text() == "x"
    project.cli("deploy", "--rerun", "migrate").ok()
    assert ran.read_text() == "xx"
    project.write({"migrate": one_shot(_appends(ran, "y")), "app": sleeper(dependencies=["migrate"])})
    project.cli("deploy").ok()
    assert ran.read_text() == "xxy"
    project.cli("rollback", "--to", "1").ok()
    assert ran.read_text() == "xxy", "a rollback never runs one-shots"


def test_a_one_shot_runs_in_its_place_in_the_order(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    asks = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/index.html')"
    late = one_shot(asks, dependencies=[{"service": "db", "condition": "healthy"}])
    done = sleeper(dependencies=[{"service": "late", "condition": "completed"}])
    project.write({"done": done, "late": late, "db": web(port)}, deployment={"strategy": "Parallel"})
    project.cli("deploy").ok()
    assert set(pids(project)) == {"db", "done"}


def test_a_failing_one_shot_fails_the_deployment_and_skips_its_dependents(project: ProjectFolder) -> None:
    project.write({"migrate": one_shot("raise SystemExit('no such table')"), "app": sleeper(dependencies=["migrate"])})
    said = project.cli("deploy").exits(1).output
    assert "E005" in said and "no such table" in said and "E007" in said
    assert pids(project) == {}


# --------------------------------------------------------------------------- replicas and ports


def test_replicas_without_a_host_port_each_have_a_port_of_their_own(project: ProjectFolder) -> None:
    first, last_port = free_range(3)
    write_program(project)
    service = program(8080, replicas=3)
    project.write({"app": service}, infrastructure={"network": {"port_range": {"start": first, "end": last_port}}})
    project.cli("deploy").ok()
    used = sorted(port for each in instances(project, "app") for port in each["ports"].values())
    assert used == [first, first + 1, last_port], "both ends belong to the range"
    assert all(text_at(port) == "v1" for port in used)


def test_a_dynamic_port_of_one_instance_is_its_host_port(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(8080, ports=[{"container_port": 8080, "host_port": port, "dynamic": True}])})
    project.cli("deploy").ok()
    assert text_at(port) == "v1"


def test_port_in_args_makes_the_port_dynamic_and_it_survives_a_restart(project: ProjectFolder) -> None:
    pages(project, "v1")
    service = web(8080) | {"args": ["httpd", "-f", "-p", "127.0.0.1:${PORT}", "-h", "www/v1"]}
    project.write({"web": service})
    project.cli("deploy").ok()
    [instance] = instances(project, "web")
    [port] = instance["ports"].values()
    assert text_at(port, "/index.html") == "v1"
    kill_hard(pid_of(project, "web"))
    until_served(port, "v1") if text_at(port) else until(lambda: text_at(port, "/index.html") == "v1", "the same port")


def test_the_env_of_an_instance_is_short_and_says_who_it_is(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "env", env={"GREETING": "hello $${NAME}"})})
    project.cli("deploy", env={"LEAKED_FROM_CALLER": "1"}).ok()
    env = dict(line.partition("=")[::2] for line in text_at(port).splitlines())
    assert env["PORT"] == env[f"PORT_{port}"] == str(port)
    assert env["DEPLOY_CODE_SERVICE"] == "app"
    assert env["DEPLOY_CODE_INSTANCE"]
    assert env["DEPLOY_CODE_REVISION"] == "1"
    assert env["GREETING"] == "hello ${NAME}"
    assert env["PATH"] and "HOME" in env
    assert "LEAKED_FROM_CALLER" not in env


def test_one_service_may_name_another_ones_address(project: ProjectFolder) -> None:
    db, app = free_ports(2)
    pages(project, "v1")
    write_program(project)
    address = "http://${services.db.host}:${services.db.port}"
    project.write({"db": web(db), "app": program(app, "env", env={"DB": address}, dependencies=["db"])})
    project.cli("deploy").ok()
    [line] = [each for each in text_at(app).splitlines() if each.startswith("DB=")]
    assert line.endswith(f":{db}") and ("127.0.0.1" in line or "localhost" in line)


@pytest.mark.parametrize(
    "options",
    [{"replicas": 2, "ports": [{"container_port": 8080, "host_port": 18080}]},
     {"ports": [{"container_port": 8080, "host_port": 18080}]}],
    ids=["replicas behind one host_port", "host_port differs from container_port"],
)  # fmt: skip
def test_what_needs_a_router_is_s004_that_says_so(project: ProjectFolder, options: dict[str, Any]) -> None:
    write_program(project)
    project.write({"app": program(8080, **options)})
    project.cli("validate").ok()
    said = project.cli("deploy").exits(1).output
    assert "S004" in said and "router" in said, said
    assert pids(project) == {}
    until_gone(project)


# --------------------------------------------------------------------------- hooks and phases


def _hook(project: ProjectFolder, name: str, code: int = 0) -> list[str]:
    script = (
        f"import os, sys; open('hooks.txt', 'a').write({name!r} + os.environ.get('MODE', '') + ' '); sys.exit({code})"
    )
    return [sys.executable, "-c", script]


def _hooks_run(project: ProjectFolder) -> list[str]:
    path = project.folder / "hooks.txt"
    return path.read_text().split() if path.exists() else []


def test_hooks_run_before_and_after(project: ProjectFolder) -> None:
    hooks = {"pre_deploy": _hook(project, "pre"), "post_deploy": _hook(project, "post")}
    project.write({"worker": sleeper()}, hooks=hooks | {"on_failure": _hook(project, "failure")})
    project.cli("--dry-run", "deploy").ok()
    assert _hooks_run(project) == []
    project.cli("deploy").ok()
    assert _hooks_run(project) == ["pre", "post"]


def test_a_failing_pre_deploy_aborts_before_any_change(project: ProjectFolder) -> None:
    project.write({"worker": sleeper()})
    project.cli("deploy").ok()
    before = pids(project)
    hooks = {"pre_deploy": _hook(project, "pre", code=3)}
    project.write({"worker": sleeper(args=["999"]), "more": sleeper()}, hooks=hooks)
    said = project.cli("deploy").exits(1).output
    assert "pre_deploy" in said and "3" in said
    assert pids(project) == before


def test_a_failing_post_deploy_only_warns(project: ProjectFolder) -> None:
    project.write({"worker": sleeper()}, hooks={"post_deploy": _hook(project, "post", code=3)})
    done = project.cli("deploy", "--format", "json").ok()
    assert any("post_deploy" in each for each in done.json()["warnings"])


def test_on_failure_runs_when_a_deployment_fails(project: ProjectFolder) -> None:
    project.write({"bad": {"command": "false"}}, hooks={"on_failure": _hook(project, "failure")})
    project.cli("deploy").exits(1)
    assert _hooks_run(project) == ["failure"]


def test_skip_phases_takes_each_phase_but_services(project: ProjectFolder) -> None:
    project.write({"worker": sleeper()})
    skipped = "validation,resources,network,storage,health,monitoring,logging"
    report = project.cli("deploy", "--skip-phases", skipped, "--format", "json").ok().json()
    assert report["phases_completed"] == ["services"]
    said = project.cli("deploy", "--skip-phases", "services").exits(2).output
    assert "services" in said
    said = project.cli("deploy", "--skip-phases", "monitorin").exits(2).output
    assert "monitoring" in said


def test_skipped_phases_never_turn_off_gates(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "refuse")})
    said = project.cli("deploy", "--skip-phases", "health", "--skip-phases", "validation").exits(1).output
    assert "E006" in said


# --------------------------------------------------------------------------- force


def test_force_turns_a_failed_gate_into_a_warning_and_starts_dependents(project: ProjectFolder) -> None:
    refuse, after = free_ports(2)
    write_program(project)
    project.write({"sick": program(refuse, "refuse"), "after": program(after, dependencies=["sick"])})
    report = project.cli("--force", "deploy", "--format", "json").ok().json()
    assert report["success"] and any("E006" in each for each in report["warnings"])
    assert set(states(project)) == {"sick", "after"}
    assert text_at(after) == "v1"
    row = last(project)
    assert (row["status"], row["good"], row["forced"]) == ("completed", False, True)
    assert "--force" in row["command"]


def test_force_does_not_help_a_dead_process_and_redeploys_nothing_unchanged(project: ProjectFolder) -> None:
    project.write({"worker": sleeper()})
    project.cli("deploy").ok()
    before = pids(project)
    project.cli("deploy", "--force").ok()
    assert pids(project) == before
    project.write({"worker": sleeper(), "dead": {"command": "false"}})
    assert "E005" in project.cli("deploy", "--force").exits(1).output
    assert pids(project) == before


# --------------------------------------------------------------------------- several files, several projects


def test_later_files_are_laid_over_earlier_ones(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "env", env={"A": "1", "B": "1"})})
    (project.folder / "local.yaml").write_text(yaml.safe_dump({"services": {"app": {"env": {"B": "2"}}}}))
    project.cli("-c", "deploy-code.yaml", "-c", "local.yaml", "deploy").ok()
    assert {"A=1", "B=2"} <= set(text_at(port).splitlines())


def test_two_files_with_one_project_name_are_told_apart(make_project: Callable[..., ProjectFolder]) -> None:
    first = make_project("shop")
    first.write({"worker": sleeper()})
    first.cli("deploy").ok()
    before = pids(first)
    other = first.folder / "elsewhere" / "deploy-code.yaml"
    other.parent.mkdir()
    other.write_text(first.config.read_text().replace("'1000'", "'999'"))
    refused = first.cli("-c", other, "deploy")
    assert refused.code != 0 and "--adopt" in refused.output and str(first.config) in refused.output, refused
    assert pids(first) == before
    first.cli("-c", other, "deploy", "--adopt").ok()
    assert pids(first) != before
    first.cli("-c", other, "stop").ok()


def test_two_projects_live_side_by_side(make_project: Callable[..., ProjectFolder]) -> None:
    one, two = make_project("one"), make_project("two")
    for each in (one, two):
        each.write({"worker": sleeper()})
        each.cli("deploy").ok()
    before = pids(two)
    one.cli("stop").ok()
    assert pids(two) == before
    assert states(two) == {"worker": "running"}


def test_state_and_logs_lie_where_the_file_says_and_belong_to_their_owner(project: ProjectFolder) -> None:
    project.write({"worker": sleeper()})
    project.cli("deploy").ok()
    database = project.data_dir / "shop" / "state.db"
    assert database.stat().st_mode & 0o777 == 0o600
    assert database.parent.stat().st_mode & 0o777 == 0o700
    sockets = [each for each in database.parent.iterdir() if each.is_socket()]
    assert sockets and all(each.stat().st_mode & 0o777 == 0o600 for each in sockets)
    assert any((project.log_dir / "shop").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs as another user")
def test_a_service_runs_as_its_user(make_project: Callable[..., ProjectFolder], open_folder: Path, port: int) -> None:
    project = make_project("shop", open_folder / "shop")
    for folder in (open_folder, project.folder):
        folder.chmod(0o755)
    write_program(project).chmod(0o644)
    project.write({"app": program(port, command="/usr/bin/python3", user="nobody")})
    project.cli("deploy").ok()
    import pwd

    assert os.stat(f"/proc/{pid_of(project, 'app')}").st_uid == pwd.getpwnam("nobody").pw_uid


def test_an_empty_or_disabled_project_is_no_error(project: ProjectFolder) -> None:
    project.write({})
    report = project.cli("deploy", "--format", "json").ok().json()
    assert (report["success"], report["total_services"]) == (True, 0)
    until_gone(project)
