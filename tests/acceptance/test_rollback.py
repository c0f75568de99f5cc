"""Going back: `rollback`, `rollback --to N`, and what they restore: command, env, config and the released code."""

from __future__ import annotations

import shutil

import pytest

from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import (
    agent_pid,
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


def numbers(project: ProjectFolder) -> int:
    return int(last(project)["number"])


def test_rollback_returns_to_the_last_good_deployment(project: ProjectFolder, port: int) -> None:
    pages(project, "v1", "v2")
    project.write({"web": web(port), "db": sleeper()})
    project.cli("deploy").ok()
    project.write({"web": web(port, version="v2"), "db": sleeper()})
    project.cli("deploy").ok()
    db = pid_of(project, "db")
    project.cli("rollback").ok()
    assert text_at(port, "/index.html") == "v1"
    assert pid_of(project, "db") == db
    assert last(project)["kind"] == "rollback"


def test_rollback_to_a_number_restores_the_whole_map(project: ProjectFolder) -> None:
    a, b, c = free_ports(3)
    pages(project, "v1", "v2", "v3")
    project.write({"a": web(a), "b": web(b, "a")})
    project.cli("deploy").ok()
    first = str(numbers(project))
    project.write({"a": web(a, version="v2"), "c": web(c)})
    project.cli("deploy").ok()
    project.write({"a": web(a, version="v3"), "c": web(c, version="v3")})
    project.cli("deploy").ok()
    assert set(pids(project)) == {"a", "c"}
    project.cli("rollback", "--to", first).ok()
    assert set(pids(project)) == {"a", "b"}
    assert (text_at(a, "/index.html"), text_at(b, "/index.html"), text_at(c)) == ("v1", "v1", "")


def test_rollback_restores_env_command_and_policy(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "env", env={"COLOUR": "red"}, restart="never")})
    project.cli("deploy").ok()
    project.write({"app": program(port, "serve", env={"COLOUR": "blue"}, restart="always")})
    project.cli("deploy").ok()
    assert text_at(port) == "v1"
    project.cli("rollback", "--to", "1").ok()
    assert "COLOUR=red" in text_at(port)
    kill_hard(pid_of(project, "app"))
    until(lambda: states(project)["app"] == "failed", "nothing to restart it: `never` is back")


def test_rollback_restores_replicas(project: ProjectFolder) -> None:
    write_program(project)
    project.write({"app": program(8080, replicas=2)})
    project.cli("deploy").ok()
    project.write({"app": program(8080, replicas=1)})
    project.cli("deploy").ok()
    assert len(pids(project)["app"]) == 1
    project.cli("rollback").ok()
    assert len(pids(project)["app"]) == 2


def test_with_release_the_old_code_answers_after_a_rollback(project: ProjectFolder, port: int) -> None:
    write_program(project, "v1", "code/app.py")
    project.write({"app": program(port, release="code")})
    project.cli("deploy").ok()
    assert text_at(port) == "v1"
    write_program(project, "v2", "code/app.py")
    project.cli("deploy").ok()
    assert text_at(port) == "v2"
    shutil.rmtree(project.folder / "code")
    project.cli("rollback").ok()
    assert text_at(port) == "v1"
    kill_hard(pid_of(project, "app"))
    until_served(port, "v1")


def test_with_release_a_failed_deploy_puts_the_old_code_back(project: ProjectFolder, port: int) -> None:
    write_program(project, "v1", "code/app.py")
    project.write({"app": program(port, release="code")})
    project.cli("deploy").ok()
    (project.folder / "code" / "app.py").write_text("raise SystemExit('broken by hand')")
    assert "broken by hand" in project.cli("deploy").exits(1).stderr
    assert text_at(port) == "v1"


def test_with_release_an_edit_without_a_deploy_changes_nothing_that_runs(project: ProjectFolder, port: int) -> None:
    write_program(project, "v1", "code/app.py")
    project.write({"app": program(port, release="code")})
    project.cli("deploy").ok()
    write_program(project, "v2", "code/app.py")
    kill_hard(pid_of(project, "app"))
    until_served(port, "v1")
    project.cli("restart").ok()
    assert text_at(port) == "v1"


def test_without_release_the_plan_and_the_rollback_warn_that_code_is_not_kept(
    project: ProjectFolder, port: int
) -> None:
    write_program(project)
    project.write({"app": program(port)})
    project.cli("deploy").ok()
    write_program(project, "v2")
    assert "code not kept" in project.cli("plan").ok().output
    project.cli("deploy").ok()
    told = project.cli("rollback").ok()
    assert "warning" in told.stderr and "app.py" in told.stderr, told
    assert text_at(port) == "v2"


def test_rollback_never_runs_one_shots_and_lists_those_it_cannot_undo(project: ProjectFolder) -> None:
    ran = project.folder / "ran"
    adds = f"open({str(ran)!r}, 'a').write"
    project.write({"migrate": one_shot(f"{adds}('1')"), "app": sleeper(dependencies=["migrate"])})
    project.cli("deploy").ok()
    project.write({"migrate": one_shot(f"{adds}('2')"), "app": sleeper(dependencies=["migrate"], env={"SCHEMA": "2"})})
    project.cli("deploy").ok()
    told = project.cli("rollback").ok()
    assert ran.read_text() == "12"
    assert "migrate" in told.stderr, "that it cannot be undone is said"
    assert states(project)["app"] == "running"


def test_a_forced_or_failed_deployment_is_never_what_rollback_returns_to(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port)})
    project.cli("deploy").ok()
    project.write({"app": program(port, "refuse")})
    project.cli("deploy", "--force").ok()
    project.write({"app": program(port, "refuse", env={"A": "1"})})
    project.cli("deploy", "--force").ok()
    project.cli("rollback").ok()
    assert text_at(port) == "v1"


def test_rollback_needs_no_file_that_can_be_read(project: ProjectFolder, port: int) -> None:
    pages(project, "v1", "v2")
    project.write({"web": web(port)})
    project.cli("deploy").ok()
    project.write({"web": web(port, version="v2")})
    project.cli("deploy").ok()
    project.config.write_text(project.config.read_text() + "\nservices: [what is this\n")
    project.cli("rollback").ok()
    assert text_at(port, "/index.html") == "v1"


def test_rollback_over_a_stop_starts_what_ran(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    project.write({"web": web(port)})
    project.cli("deploy").ok()
    project.cli("stop").ok()
    until_gone(project)
    project.cli("rollback", "--to", "1").ok()
    assert text_at(port, "/index.html") == "v1"
    assert agent_pid(project)


@pytest.mark.parametrize("arguments", [["--to", "99"], []])
def test_there_must_be_something_to_go_back_to(project: ProjectFolder, arguments: list[str]) -> None:
    project.write({"worker": sleeper()})
    project.cli("deploy").ok()
    before = pids(project)
    refused = project.cli("rollback", *arguments)
    assert refused.code in (1, 2) and "history" in refused.output, refused
    assert pids(project) == before


def test_a_rollback_that_goes_wrong_is_not_rolled_back_itself(project: ProjectFolder, port: int) -> None:
    write_program(project)
    write_program(project, "v2", "other.py")
    project.write({"app": program(port), "fine": sleeper()})
    project.cli("deploy").ok()
    project.write({"app": program(port, file="other.py"), "fine": sleeper(), "more": sleeper()})
    project.cli("deploy").ok()
    (project.folder / "app.py").write_text("raise SystemExit('gone for good')")
    failed = project.cli("rollback").exits(1)
    assert "E009" in failed.stderr and "gone for good" in failed.stderr, failed
    assert states(project)["fine"] == "running"
    assert "app" not in pids(project) or states(project)["app"] != "running"


def test_deploy_after_a_rollback_goes_forward_again(project: ProjectFolder, port: int) -> None:
    pages(project, "v1", "v2")
    project.write({"web": web(port)})
    project.cli("deploy").ok()
    project.write({"web": web(port, version="v2")})
    project.cli("deploy").ok()
    project.cli("rollback").ok()
    project.cli("plan", "--detailed-exitcode").exits(2)
    project.cli("deploy").ok()
    assert text_at(port, "/index.html") == "v2"
    assert [row["revision"] for row in project.status()["services"].values()] == [2], "no new revision for old content"
