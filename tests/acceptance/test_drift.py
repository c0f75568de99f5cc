"""``status --drift`` and the deploy that mends it, as people meet them: what is told, how it exits, what is left."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_code.codec import from_data
from deploy_code.drivers.cgroup import find
from deploy_code.model import Content, run_hash
from support.agents import alive
from support.groups import groups_of, need_groups
from support.project import ProjectFolder
from support.scenarios import agent_pid, pid_of, pids, sleeper
from support.wait import wait_until

NONE = "no drift: what runs is what was deployed"
MENDS = "`deploy-code deploy` mends it"


def drift(project: ProjectFolder, code: int = 4) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.cli("status", "--drift", "--format", "json").exits(code).json()["drift"]
    return found


def texts(project: ProjectFolder) -> list[str]:
    return [each["text"] for each in drift(project)]


def change_memory(project: ProjectFolder, size: int) -> None:
    (memory,) = [each for each in find().hierarchies if "memory" in each.controllers]
    name = "memory.max" if memory.unified else "memory.limit_in_bytes"
    for group in groups_of(project.state):
        if (group / name).exists():
            (group / name).write_text(str(size))


@contextmanager
def stranger(project: ProjectFolder) -> Iterator[subprocess.Popen[bytes]]:
    """What an older state of this project left behind: it carries our marks, and nobody knows it."""
    marks = {"DEPLOY_CODE_INSTANCE": "f00d", "DEPLOY_CODE_SERVICE": "old", "DEPLOY_CODE_STATE": str(project.state)}
    child = subprocess.Popen(["/bin/sleep", "1000"], env=marks, start_new_session=True)
    try:
        wait_until(lambda: Path(f"/proc/{child.pid}/cmdline").read_bytes().startswith(b"/bin/sleep"))
        yield child
    finally:
        child.kill()
        child.wait()


# --------------------------------------------------------------------------- nothing to tell


def test_before_the_first_deployment_after_it_and_after_a_stop_there_is_none(project: ProjectFolder) -> None:
    project.write({"api": sleeper(replicas=2), "once": {"command": "true", "one_shot": True}})
    assert project.cli("status", "--drift").ok().stdout
    project.cli("deploy").ok()
    assert NONE in project.cli("status", "--drift").ok().stdout
    assert project.cli("status").ok().stdout.find("drift") < 0, "unasked it is not spoken of"
    project.cli("stop").ok()
    assert drift(project, 0) == []


def test_a_file_that_was_edited_is_the_next_deploys_business_and_no_drift(project: ProjectFolder) -> None:
    program = project.program("app.sh", "#!/bin/sh\nexec sleep 1000\n")
    project.write({"api": sleeper(command="./app.sh", args=[])})
    project.cli("deploy").ok()
    program.write_text("#!/bin/sh\nexec sleep 2000\n")
    project.write({"api": sleeper(command="./app.sh", args=[], env={"COLOUR": "blue"})})
    assert drift(project, 0) == []
    project.cli("plan", "--detailed-exitcode").exits(2)


# --------------------------------------------------------------------------- limits


def test_a_limit_changed_by_hand_is_told_mended_and_told_again_by_the_deploy(project: ProjectFolder) -> None:
    need_groups()
    project.write({"api": sleeper(resources={"memory_mb": 64}), "web": sleeper()})
    project.cli("deploy").ok()
    web = pid_of(project, "web")
    change_memory(project, 32 << 20)

    told = "limits: its memory limit is 32 MB and not 64 MB"
    shown = project.cli("status", "--drift").exits(4).stdout
    assert f"drift: api r1 #0: {told}" in shown and MENDS in shown
    [found] = drift(project)
    assert (found["service"], found["revision"], found["index"], found["kind"]) == ("api", 1, 0, "limits")
    as_yaml = project.cli("status", "--drift", "--format", "yaml").exits(4).stdout
    assert yaml.safe_load(as_yaml)["drift"] == [found]

    plan = project.cli("plan", "--detailed-exitcode").exits(2).output
    assert f"drifted: {told}" in plan
    assert texts(project) == [told], "a plan changes nothing"

    done = project.cli("deploy").ok().output
    assert f"drift is mended: api r1 #0: {told}" in done
    assert drift(project, 0) == []
    assert pid_of(project, "web") == web, "who has not drifted goes on"
    assert project.cli("deploy").ok().output.find("mended") < 0


def test_what_only_warns_in_a_plan_is_in_the_history_too(project: ProjectFolder) -> None:
    need_groups()
    project.write({"api": sleeper(resources={"memory_mb": 64})})
    project.cli("deploy").ok()
    change_memory(project, 32 << 20)
    project.cli("deploy").ok()
    assert "drift is mended" in project.cli("history", "show", "2").ok().stdout


# --------------------------------------------------------------------------- code of a release


def test_code_of_a_release_that_was_edited_is_brought_back(project: ProjectFolder) -> None:
    source = project.folder / "code"
    (source / "lib").mkdir(parents=True)
    (source / "app.py").write_text("import time\ntime.sleep(1000)\n")
    (source / "lib" / "gone.py").write_text("GONE = 1\n")
    (source / "notes.db").write_text("empty")
    project.write({"api": {"command": sys.executable, "args": ["app.py"], "release": "code", "replicas": 2}})
    project.cli("deploy").ok()
    assert drift(project, 0) == []
    [copy] = (project.state / "releases").iterdir()

    (copy / "upload.txt").write_text("what the service wrote beside it")
    (copy / "notes.db").write_text("what the service wrote into it")
    assert drift(project, 0) == [], "programs may write where they live"

    (copy / "app.py").write_text("import time\ntime.sleep(2000)  # by hand\n")
    (copy / "lib" / "gone.py").unlink()
    before = set(pids(project)["api"])
    [text] = texts(project)
    assert text == f"its code in releases/{copy.name[:12]} was edited (app.py, lib/gone.py)"
    assert text in project.cli("deploy").ok().output
    assert drift(project, 0) == []
    assert (copy / "app.py").read_text() == (source / "app.py").read_text()
    assert (copy / "lib" / "gone.py").read_text() == "GONE = 1\n"
    assert (copy / "upload.txt").exists() and "wrote into" in (copy / "notes.db").read_text(), "nothing is lost"
    assert not before & set(pids(project)["api"]), "both run the code that was deployed"


def test_where_nobody_can_say_what_was_edited_nothing_is_claimed(project: ProjectFolder) -> None:
    source = project.folder / "code"
    source.mkdir()
    (source / "app.py").write_text("import time\ntime.sleep(1000)\n")
    project.write({"api": {"command": sys.executable, "args": ["app.py"], "release": "code"}})
    project.cli("deploy").ok()
    [copy] = (project.state / "releases").iterdir()
    (copy / "upload.txt").write_text("new")
    (source / "app.py").write_text("import time\ntime.sleep(3000)\n")
    data = project.cli("status", "--drift", "--format", "json").ok().json()
    assert data["drift"] == []
    assert any("cannot be told" in note for note in data["notes"])


# --------------------------------------------------------------------------- missing and extra


def test_what_belongs_to_no_instance_is_told_and_ended_by_a_deploy(project: ProjectFolder) -> None:
    project.write({"api": sleeper()})
    project.cli("deploy").ok()
    with stranger(project) as child:
        [found] = drift(project)
        assert (found["kind"], found["service"], found["instance"]) == ("extra", "old", "f00d")
        assert f"(pid {child.pid})" in found["text"]
        api = pid_of(project, "api")
        done = project.cli("deploy").ok().output
        assert "drift is mended: old: extra: processes of no instance" in done
        assert child.wait(10) == -signal.SIGTERM
        assert alive(api) and pid_of(project, "api") == api
    assert drift(project, 0) == []
    assert "end what belongs to no instance" in project.cli("history", "show", "2").ok().stdout


def test_a_process_of_another_project_of_the_same_name_is_none_of_ours(make_project: Any, tmp_path: Path) -> None:
    one, other = make_project("shop", tmp_path / "one"), make_project("shop", tmp_path / "other")
    for each in (one, other):
        each.write({"api": sleeper()})
        each.cli("deploy").ok()
    assert drift(one, 0) == drift(other, 0) == []
    one.cli("deploy").ok()
    assert pid_of(other, "api")


def test_without_an_agent_rows_and_proc_tell_and_no_agent_is_started(project: ProjectFolder) -> None:
    need_groups()
    project.write({"api": sleeper(resources={"memory_mb": 64}), "web": sleeper(replicas=2)})
    project.cli("deploy").ok()
    project.cli("agent", "stop").ok()
    assert drift(project, 0) == []
    change_memory(project, 32 << 20)
    victim = min(pids(project)["web"])
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not alive(victim))
    with stranger(project):
        found = drift(project)
    assert sorted((each["service"], each["kind"]) for each in found) == [
        ("api", "limits"),
        ("old", "extra"),
        ("web", "missing"),
    ]
    assert not project.cli("agent", "status").output.count("The agent runs")
    project.cli("deploy").ok()
    assert drift(project, 0) == []
    assert agent_pid(project)


# --------------------------------------------------------------------------- what is recorded


def test_a_state_that_says_something_else_than_what_was_started_is_drift(project: ProjectFolder) -> None:
    """Its record was changed under a process that goes on: names are told, values are not."""
    project.write({"api": sleeper(env={"COLOUR": "blue", "API_TOKEN": "geheim-7"})})
    project.cli("deploy").ok()
    project.cli("agent", "stop").ok()
    rewrite(project, "api", env={"COLOUR": "red", "API_TOKEN": "geheim-8"})
    project.cli("agent", "start").ok()
    shown = project.cli("status", "--drift").exits(4).stdout
    assert "drift: api r1 #0: env changed (API_TOKEN, COLOUR)" in shown
    assert "geheim" not in shown
    project.cli("agent", "stop").ok()
    assert texts(project) == ["env changed (API_TOKEN, COLOUR)"], "without an agent the same"
    project.cli("deploy").ok()
    assert drift(project, 0) == []


def rewrite(project: ProjectFolder, service: str, **changes: Any) -> None:
    """The recorded revision of a service, as if another one had been deployed."""
    with sqlite3.connect(project.state / "state.db") as db:
        [(text,)] = db.execute("SELECT content FROM revisions WHERE service = ?", (service,)).fetchall()
        content = {**json.loads(text), **changes}
        values = (json.dumps(content), run_hash(from_data(Content, content)), service)
        db.execute("UPDATE revisions SET content = ?, run_hash = ? WHERE service = ?", values)
    db.close()


# --------------------------------------------------------------------------- asked wrongly


def test_drift_is_looked_for_once(project: ProjectFolder) -> None:
    project.write({"api": sleeper()})
    assert "--watch" in project.cli("status", "--drift", "--watch").exits(2).stderr


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_the_exit_code_is_4_for_either_reason(project: ProjectFolder, check: tuple[str, ...]) -> None:
    project.write({"api": sleeper()})
    project.cli("deploy").ok()
    project.cli("status", "--drift", *check).exits(0)
    with stranger(project):
        project.cli("status", "--drift", *check).exits(4)
        project.cli("status", *check).exits(0)
