"""Drift of real processes: what was changed by hand is seen, and what programs do themselves is not taken for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy_code.drivers.cgroup import find
from deploy_code.model import Drift, HealthCheck, Instance, Phase, Port, Resources, Restart
from support.agents import House, alive, python, shell, sleeper
from support.groups import groups_of, need_groups

MARK = "DEPLOY_CODE_STATE"
LIMITS = Resources(memory_mb=64, cpu_cores=0.5, pids=20)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.platform.open()
    yield made
    await made.close()


async def drifts(house: House) -> list[str]:
    told = await house.platform.drift()
    assert told.unseen == ()
    return [str(each) for each in told.found]


def group_of(house: House, instance: Instance, file: str) -> Path:
    (found,) = [each / file for each in groups_of(house.state) if each.name == instance.uuid and (each / file).exists()]
    return found


def memory_file() -> str:
    limiting = [each for each in find().hierarchies if "memory" in each.controllers]
    return "memory.max" if limiting[0].unified else "memory.limit_in_bytes"


# --------------------------------------------------------------------------- limits


async def test_a_limit_that_was_changed_by_hand_is_told_in_both_numbers(house: House) -> None:
    need_groups()
    await house.want(house.wanted("api", sleeper(resources=LIMITS)))
    instance = await house.ready("api")
    assert await drifts(house) == []
    group_of(house, instance, memory_file()).write_text(str(32 << 20))
    assert await drifts(house) == ["api r1 #0: limits: its memory limit is 32 MB and not 64 MB"]
    group_of(house, instance, "pids.max").write_text("max")
    assert "api r1 #0: limits: its limit of processes is none and not 20" in await drifts(house)


async def test_a_process_that_was_moved_out_of_its_group_is_told(house: House) -> None:
    need_groups()
    await house.want(house.wanted("api", sleeper(resources=LIMITS)))
    instance = await house.ready("api")
    group = group_of(house, instance, memory_file()).parent
    (group.parent.parent.parent / "cgroup.procs").write_text(str(instance.pid))
    try:
        assert await drifts(house) == ["api r1 #0: limits: it was moved out of its control group"]
    finally:
        (group / "cgroup.procs").write_text(str(instance.pid))
    assert await drifts(house) == []


async def test_after_the_agent_was_killed_the_next_one_sees_the_same(house: House) -> None:
    need_groups()
    await house.want(house.wanted("api", sleeper(resources=LIMITS)))
    instance = await house.ready("api")
    await house.settle()
    await house.end_agent()
    group_of(house, instance, memory_file()).write_text(str(32 << 20))
    await house.platform.open()
    assert await drifts(house) == ["api r1 #0: limits: its memory limit is 32 MB and not 64 MB"]


# --------------------------------------------------------------------------- what programs do themselves

TITLED = """
import ctypes, os, sys
start, end = [int(field) for field in open('/proc/self/stat').read().rpartition(') ')[2].split()[45:47]]
env_start, env_end = [int(field) for field in open('/proc/self/stat').read().rpartition(') ')[2].split()[47:49]]
ctypes.memset(start, ord('t'), end - start)
ctypes.memset(env_start, ord('t'), env_end - env_start)
print('written over', flush=True)
import time; time.sleep(1000)
"""


async def test_programs_that_change_what_is_seen_of_them_have_not_drifted(house: House) -> None:
    """Titles over arguments and env, exec of another program with another env, another folder, another limit."""
    services = {
        "titled": python(TITLED, env={"COLOUR": "blue"}),
        "other": shell("cd /tmp; export COLOUR=red; exec env -u COLOUR sleep 1000", env={"COLOUR": "blue"}),
        "bare": shell("exec env -i sleep 1000", env={"COLOUR": "blue"}),
        "limits": shell("ulimit -n 100; umask 077; exec sleep 1000"),
        "script": shell("sleep 1000 & wait"),
        "again": python("import os, sys; os.environ.get('X') or os.execve(sys.executable, sys.orig_argv, {'X': '1'})\n"
                        "import time; time.sleep(1000)"),
    }  # fmt: skip
    if os.geteuid() == 0:
        services["dropped"] = python("import os, time; os.setgid(65534); os.setuid(65534); time.sleep(1000)")
    await house.want(*(house.wanted(name, content, min_ready_seconds=0.3) for name, content in services.items()))
    for name in services:
        await house.ready(name)
    titled = house.platform.instances("titled")[0]
    await house.eventually(lambda: Path(f"/proc/{titled.pid}/cmdline").read_bytes().startswith(b"tttt"))
    assert await drifts(house) == []
    await house.settle()
    await house.end_agent()
    await house.platform.open()
    assert await drifts(house) == [], "nor for an agent that did not start them"


async def test_addresses_that_were_handed_over_at_the_start_are_no_drift(house: House) -> None:
    """The number that a neighbour has now says nothing about what was right then."""
    db = sleeper(ports=(Port(dynamic=True),))
    api = sleeper(env={"DB": "127.0.0.1:${services.db.port}", "OWN": "${PORT}"}, ports=(Port(dynamic=True),))
    health = {"min_ready_seconds": 0.05}
    off = HealthCheck(disabled=True)
    await house.want(house.wanted("db", db, health=off, **health))
    await house.ready("db")
    await house.want(house.wanted("api", api, health=off, **health))
    await house.ready("api")
    await house.want(house.wanted("db", db, health=off, replicas=2, **health))
    await house.ready("db", count=2)
    assert await drifts(house) == []


async def test_one_shots_that_are_done_are_not_missing(house: House) -> None:
    await house.want(house.wanted("once", shell("exit 0", one_shot=True)))
    await house.phase("once", Phase.COMPLETED)
    assert await drifts(house) == []


# --------------------------------------------------------------------------- missing


async def test_what_has_ended_for_good_is_missing_and_what_comes_back_is_not(house: House) -> None:
    ends = shell("sleep 0.3; exit 3")
    await house.want(
        house.wanted("ends", ends, restart=Restart(policy="never"), min_ready_seconds=0.05),
        house.wanted(
            "back", ends, restart=Restart(backoff_seconds=600, backoff_max_seconds=600), min_ready_seconds=0.05
        ),
    )
    await house.ready("ends")
    await house.ready("back")
    await house.settle()
    await house.phase("ends", Phase.EXITED)
    await house.phase("back", Phase.BACKOFF)
    assert await drifts(house) == ["ends r1 #0: missing: exit code 3"]


# --------------------------------------------------------------------------- extra


def stranger(house: House, uuid: str = "f00d", **env: str) -> subprocess.Popen[bytes]:
    """A process as an instance of this project gets it, which no row knows, with a child that says that it is there."""
    marks = {"DEPLOY_CODE_INSTANCE": uuid, "DEPLOY_CODE_SERVICE": "old", MARK: str(house.state)}
    grandchild = "import time; print(flush=True); time.sleep(1000)"
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {grandchild!r}]); time.sleep(1000)"
    child = subprocess.Popen(
        [sys.executable, "-c", script], env={**marks, **env}, start_new_session=True, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    with child.stdout as told:
        assert told.readline(), "a process in the middle of its exec has no environment to show"
    return child


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


async def test_a_process_with_our_marks_that_is_no_instance_is_extra_and_can_be_ended(house: House) -> None:
    await house.want(house.wanted("api", sleeper()))
    instance = await house.ready("api")
    child = stranger(house)
    try:
        (found,) = (await house.platform.drift()).found
        assert found == Drift(
            service="old",
            kind="extra",
            text=f"extra: processes of no instance (pid {child.pid} and 1 more)",
            instance="f00d",
        )
        grandchild = _children(child.pid)[0]
        await house.platform.clear(["f00d"])
        assert child.wait(10) is not None
        assert not alive(grandchild), "with all that belongs to it"
        assert await drifts(house) == []
        assert alive(instance.pid)
        await house.eventually(lambda: "ExtraRemoved" in house.events())
    finally:
        child.kill()
        child.wait()


async def test_processes_of_another_project_are_never_touched(house: House) -> None:
    other = stranger(house, **{MARK: str(house.state) + "-other"})
    grandchild = _children(other.pid)[0]
    try:
        assert await drifts(house) == []
        await house.platform.clear(["f00d"])
        assert other.poll() is None and alive(grandchild)
    finally:
        os.killpg(other.pid, 9)
        other.wait()


async def test_what_an_instance_has_started_is_its_own_however_far_it_went(house: House) -> None:
    script = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\ntime.sleep(1000)"
    )
    await house.want(house.wanted("api", python(script)))
    await house.ready("api")
    assert await drifts(house) == []
