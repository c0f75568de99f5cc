"""Deployments of services with limits: what users read when memory runs out, and that nobody else suffers from it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from deploy_code.services.status import DeploymentStatus
from support.agents import alive
from support.engine import engine, row, until, until_runs
from support.groups import HOG, as_nobody, groups_of, need_groups
from support.ports import free_port
from support.project import ProjectFolder
from support.scenarios import agent_pid, instances, one_shot, pages, pid_of, pids, sleeper, text_at, web
from support.wait import wait_until

LIMITS = {"cpu_cores": 0.5, "memory_mb": 48}
OUT_OF_MEMORY = "killed: out of memory"
LIMIT = "its memory limit of 48 MB (resources.memory_mb) was reached"
WHEN_TOLD = f"import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.02)\n{HOG}"


@pytest.fixture(autouse=True)
def _no_group_is_left(project: ProjectFolder) -> Iterator[None]:
    need_groups()
    yield
    project.close()
    assert groups_of(project.state) == []


def python(text: str, **options: Any) -> dict[str, Any]:
    """A service that runs this text, and is ready when it has lived for a moment."""
    return {"command": sys.executable, "args": ["-c", text], "resources": LIMITS, "min_ready_seconds": 0.1} | options


def write(project: ProjectFolder, services: dict[str, Any]) -> None:
    project.write(services, deployment={"strategy": "Parallel", "timeout_seconds": 20})


async def test_a_deployment_that_runs_out_of_memory_says_so_and_leaves_all_others_as_they_were(
    project: ProjectFolder,
) -> None:
    limited, free, idle = free_port(), free_port(), sleeper()
    pages(project, "v1")
    neighbours = {"limited": web(limited, resources=LIMITS), "free": web(free), "idle": idle | {"resources": LIMITS}}
    write(project, neighbours)
    assert (await engine(project).deploy()).success
    before = pids(project)
    write(project, neighbours | {"greedy": python(HOG, min_ready_seconds=20)})
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK
    [failure] = report.failures
    assert (failure.service, failure.code) == ("greedy", "E005")
    assert f"({OUT_OF_MEMORY}): {LIMIT}" in failure.message
    assert failure.exit is not None and failure.exit.out_of_memory
    assert "Raise services.greedy.resources.memory_mb, or let greedy need less memory" in failure.remedies
    assert pids(project) == before
    assert text_at(limited) == text_at(free) == "v1"


async def test_a_service_that_outgrows_its_limit_comes_back_and_status_says_why(project: ProjectFolder) -> None:
    restart = {"policy": "always", "backoff_seconds": 30}
    write(project, {"app": python(WHEN_TOLD, restart=restart), "other": sleeper(resources=LIMITS)})
    assert (await engine(project).deploy()).success
    other = pid_of(project, "other")
    (project.folder / "go").touch()
    wait_until(lambda: instances(project, "app")[0]["phase"] == "backoff", 20)
    assert project.status()["services"]["app"]["detail"] == f"{OUT_OF_MEMORY}; {LIMIT}"
    assert f"app r1 #0 {OUT_OF_MEMORY}; {LIMIT}" in project.cli("events").ok().stdout
    assert pid_of(project, "other") == other


async def test_an_instance_that_loses_a_child_for_want_of_memory_says_so(project: ProjectFolder) -> None:
    """Version 2 ends the whole instance instead, which says the same."""
    script = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {HOG!r}])\ntime.sleep(1000)\n"
    write(project, {"app": python(script, restart={"policy": "never"})})
    await engine(project).deploy()
    wait_until(lambda: LIMIT in project.cli("events").ok().stdout, 20)


async def test_a_one_shot_that_needs_too_much_memory_fails_with_that_reason(project: ProjectFolder) -> None:
    write(project, {"migrate": one_shot(HOG, resources=LIMITS), "app": sleeper(dependencies=["migrate"])})
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK
    assert f"one-shot migrate r1 did not complete ({OUT_OF_MEMORY}): {LIMIT}" in report.failures[0].message


async def test_after_a_kill_of_the_agent_the_next_one_stops_what_hides_and_removes_the_group(
    project: ProjectFolder,
) -> None:
    hide = "import os, time\nos.environ.clear()\n"
    hide += "if os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
    hide += "    os.execve('/bin/sleep', ['sleep', '1000'], {})\ntime.sleep(1000)\n"
    write(project, {"app": python(hide, stop_signal="SIGKILL")})
    assert (await engine(project).deploy()).success
    wait_until(lambda: len(_members(project)) == 2)
    members = _members(project)
    _kill(agent_pid(project))
    project.cli("stop", "--timeout", "5").ok()
    assert groups_of(project.state) == []
    assert not any(alive(int(pid)) for pid in members)


def _members(project: ProjectFolder) -> set[str]:
    return {pid for path in groups_of(project.state) for pid in (path / "cgroup.procs").read_text().split()}


def _kill(pid: int) -> None:
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    import select

    select.select([fd], [], [], 10)
    os.close(fd)


async def test_a_new_limit_is_a_new_revision_with_a_new_group(project: ProjectFolder) -> None:
    write(project, {"app": sleeper(resources=LIMITS)})
    assert (await engine(project).deploy()).success
    old = {path.name for path in groups_of(project.state)}
    write(project, {"app": sleeper(resources=LIMITS | {"memory_mb": 64})})
    assert (await engine(project).deploy()).success
    assert row(project).wanted["app"].revision == 2
    new = {path.name for path in groups_of(project.state)}
    assert len(old) == len(new) == 1 and old != new
    sizes = {(path / name).read_text().strip() for path in groups_of(project.state)
             for name in ("memory.max", "memory.limit_in_bytes") if (path / name).exists()}  # fmt: skip
    assert sizes == {str(64 * 1024 * 1024)}


# --------------------------------------------------------------------------- what the plan says


async def test_the_plan_says_nothing_where_limits_are_enforced(project: ProjectFolder) -> None:
    write(project, {"app": sleeper(resources=LIMITS)})
    assert not [note for note in (await _plan(project)).notes if "limit" in note]


async def _plan(project: ProjectFolder) -> Any:
    found = engine(project).plan()
    return await found if hasattr(found, "__await__") else found


async def test_the_plan_of_a_user_who_may_write_no_control_group_names_whose_limits_do_not_hold(
    project: ProjectFolder,
) -> None:
    write(
        project,
        {
            "web": sleeper(resources={"memory_mb": 48}),
            "api": sleeper(resources=LIMITS),
            "db": sleeper(resources=LIMITS),
            "free": sleeper(),
        },
    )
    from deploy_code.orchestrator.limits import unenforced

    plan = await _plan(project)
    list(unenforced(plan))  # all that it imports may lie where others cannot read
    with as_nobody():
        notes = list(unenforced(plan))
    both, memory = notes
    assert both.startswith("the CPU and memory limits of api, db will not be enforced: uid 65534 may write no control")
    assert memory.startswith("the memory limit of web will not be enforced: ")
    assert "Delegate=yes" in both


async def test_what_runs_already_is_not_mentioned_again(project: ProjectFolder) -> None:
    write(project, {"app": sleeper(resources=LIMITS)})
    assert (await engine(project).deploy()).success
    await until_runs(project, "app")
    from deploy_code.orchestrator.limits import unenforced

    plan = await _plan(project)
    with as_nobody():
        assert list(unenforced(plan)) == []


async def test_a_user_whose_agent_may_write_groups_is_told_the_truth_of_the_agent(project: ProjectFolder) -> None:
    """The agent sits in a group of its own under systemd; whoever deploys does not. It is the agent that is asked."""
    from deploy_code.drivers import cgroup
    from deploy_code.orchestrator.limits import unenforced

    write(project, {"app": sleeper()})
    assert (await engine(project).deploy()).success
    agent = agent_pid(project)
    write(project, {"app": sleeper(resources=LIMITS)})
    plan = await _plan(project)
    asked: list[int] = []
    enforced = cgroup.find()

    def find(pid: int = 0) -> cgroup.Found:
        asked.append(pid)
        return enforced if pid else cgroup.Found(reason="not ours")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroup, "find", find)
        assert list(unenforced(plan, str(project.state))) == []
        assert asked == [0, agent]
        assert "not ours" in next(iter(unenforced(plan, str(project.folder / "elsewhere"))))
    await until(lambda: pids(project).keys() == {"app"})
