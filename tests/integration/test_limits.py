"""Limits of CPU and memory that really hold, on programs that really exceed them or try to get away.

Needs a machine where control groups can be made: version 2 or 1, as root or in a part of the tree that is ours.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy_code.drivers import groups
from deploy_code.drivers.base import Running, StartOrder
from deploy_code.drivers.cgroup import Found, Hierarchy, find
from deploy_code.drivers.group import Group
from deploy_code.drivers.groups import Groups
from deploy_code.drivers.process import ProcessDriver
from deploy_code.errors import DriverError
from deploy_code.model import Resources
from deploy_code.testing.contracts import ProcessDriverContract
from support.agents import alive
from support.drivers import Harness
from support.groups import HOG, groups_of, need_groups, version_1_only
from support.loops import on_both_loops, until
from support.needs import need_root

MEMORY = Resources(memory_mb=48)
BOTH = Resources(memory_mb=48, cpu_cores=1)

# Forks, leaves its session and its parent, has no env: and so on, for ever.
HOPPER = "import os\nos.fork()\nwhile True:\n    if os.fork():\n        os._exit(0)\n    os.setsid()\n"


@pytest.fixture(autouse=True)
def _groups_can_be_made() -> None:
    need_groups()


def limiting(state: Path, look: Callable[[], Found] = find) -> Callable[[], ProcessDriver]:
    return lambda: ProcessDriver(Groups(str(state), look))


@asynccontextmanager
async def project(folder: Path, look: Callable[[], Found] = find) -> AsyncIterator[Harness]:
    """A driver whose instances all have limits of memory, unless they say otherwise; no group outlives it."""
    made = Harness(folder, limiting(folder / "shop", look))
    try:
        yield made
    finally:
        await made.close()
        assert groups_of(folder / "shop") == []


async def start(it: Harness, script: str, resources: Resources = MEMORY, **changes: object) -> Running:
    return await it.start(script, resources=resources, **changes)


async def hog(it: Harness, **changes: object) -> Running:
    """Allocates until somebody stops it."""
    return await start(it, "", command=sys.executable, args=("-c", HOG), **changes)


def own_groups(it: Harness) -> list[Path]:
    return groups_of(it.folder / "shop")


# --------------------------------------------------------------------------- memory


@on_both_loops
async def test_a_program_that_takes_more_memory_than_it_may_is_killed_and_that_is_said(tmp_path: Path):
    async with project(tmp_path) as it:
        for one_shot in (False, True):
            running = await hog(it, one_shot=one_shot)
            exit_ = await it.driver.wait(running)
            assert (exit_.signal, exit_.out_of_memory) == (signal.SIGKILL, True)
            assert str(exit_) == "killed: out of memory"
            await it.driver.sweep(running)


async def test_a_limit_is_one_of_memory_and_swap_together(tmp_path: Path):
    async with project(tmp_path) as it:
        await start(it, "exec sleep 1000")
        (group,) = [path for path in own_groups(it) if _memory_files(path)]
        texts = {name: (group / name).read_text().strip() for name in _memory_files(group)}
        size = str(48 * 1024 * 1024)
        assert texts in ({"memory.max": size, "memory.swap.max": "0"}, {"memory.max": size}) or set(texts.values()) == {
            size
        }


def _memory_files(group: Path) -> list[str]:
    names = ("memory.max", "memory.swap.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    return [name for name in names if (group / name).exists()]


async def test_an_end_of_another_kind_is_not_blamed_on_memory(tmp_path: Path):
    async with project(tmp_path) as it:
        assert not (await it.driver.wait(await start(it, "exit 3"))).out_of_memory
        assert not (await it.driver.wait(await start(it, "kill -KILL $$"))).out_of_memory


async def test_other_users_programs_have_limits_too(open_folder: Path):
    need_root()
    async with project(open_folder) as it:
        for one_shot in (False, True):
            script = "id -un; cat /proc/self/cgroup"
            running = await start(it, script, user="nobody", one_shot=one_shot)
            assert (await it.driver.wait(running)).code == 0, it.log()
            user, *lines = it.log().splitlines()
            assert user == "nobody"
            assert any(line.endswith(running.uuid) for line in lines), "it was inside before its first line ran"
            await it.driver.sweep(running)
            (open_folder / "api.0.log").unlink()
        greedy = await start(it, "exec tail /dev/zero", user="nobody")  # looks for the last lines of one endless line
        assert (await it.driver.wait(greedy)).out_of_memory


async def test_neighbours_with_and_without_limits_do_not_notice(tmp_path: Path):
    async with project(tmp_path) as it:
        limited = await start(it, "exec sleep 1000")
        free = await start(it, "exec sleep 1000", Resources())
        assert (await it.driver.wait(await hog(it))).out_of_memory
        assert alive(limited.pid) and alive(free.pid)
        assert free.handler == {}, "without limits there is no group"


async def test_a_child_that_is_killed_for_memory_is_told_while_its_leader_lives_on(tmp_path: Path):
    """In version 2 nothing lives on: the group ends as a whole, and the end says why."""
    told: list[str] = []
    async with project(tmp_path) as it:
        assert isinstance(it.driver, ProcessDriver)
        it.driver.groups.on_out_of_memory = told.append
        script = f'{sys.executable} -c "$1"; echo child ended $?; exec sleep 1000'
        running = await start(it, "", command="sh", args=("-c", script, "sh", HOG))
        await until(lambda: told or not alive(running.pid))
        if alive(running.pid):
            assert told == [running.uuid]
            await until(lambda: "child ended 137" in it.log())
            os.kill(running.pid, signal.SIGKILL)
        assert (await it.driver.wait(running)).out_of_memory, "it ended right after that"


async def test_what_happened_long_ago_is_not_why_it_ends_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "_RECENT_SECONDS", 0.0)
    told: list[str] = []
    async with project(tmp_path) as it:
        assert isinstance(it.driver, ProcessDriver)
        it.driver.groups.on_out_of_memory = told.append
        script = f'{sys.executable} -c "$1"; exec sleep 1000'
        running = await start(it, "", command="sh", args=("-c", script, "sh", HOG))
        await until(lambda: told or not alive(running.pid))
        if not told:
            pytest.skip("the kernel ends the whole group: nothing lives on")
        os.kill(running.pid, signal.SIGKILL)
        assert not (await it.driver.wait(running)).out_of_memory


# --------------------------------------------------------------------------- CPU


@pytest.mark.serial
async def test_half_a_core_is_half_a_core_for_all_processes_together(tmp_path: Path):
    async with project(tmp_path) as it:
        burn = "while :; do :; done"
        running = await start(it, f"sh -c '{burn}' & sh -c '{burn}' & wait", Resources(cpu_cores=0.5))
        await until(lambda: _cpu_seconds(running.pid) > 0)
        begun, before = time.monotonic(), _cpu_seconds(running.pid)
        await asyncio.sleep(2.0)
        cores = (_cpu_seconds(running.pid) - before) / (time.monotonic() - begun)
        assert 0.2 < cores < 0.65, f"it used {cores:.2f} cores"


def _cpu_seconds(session: int) -> float:
    """CPU time of all living processes of a session."""
    ticks = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            ticks += int(fields[11]) + int(fields[12]) if int(fields[3]) == session else 0
    return ticks / os.sysconf("SC_CLK_TCK")


# --------------------------------------------------------------------------- nothing gets away


@pytest.mark.parametrize("look", [find, version_1_only])
async def test_what_forks_faster_than_one_can_look_is_swept_all_the_same(tmp_path: Path, look: Callable[[], Found]):
    async with project(tmp_path, look) as it:
        running = await start(it, "", command=sys.executable, args=("-c", HOPPER), env={})
        await it.driver.wait(running)
        assert await it.driver.pids(running), "its children live on"
        await it.driver.sweep(running)
        assert await it.driver.pids(running) == ()


async def test_what_cleared_its_env_session_and_parent_is_found_by_the_next_agent(tmp_path: Path):
    async with project(tmp_path) as it:
        running = await start(it, "env -i setsid -f sleep 1000; exec sleep 1000")
        await until(lambda: len(_members(it)) == 2)
        it.fresh_driver()
        os.kill(running.pid, signal.SIGKILL)
        os.waitpid(running.pid, 0)
        assert not await it.driver.find(running)
        await it.driver.wait(running)
        assert await it.driver.sweep(running) == 1
        assert own_groups(it) == []


def _members(it: Harness) -> set[str]:
    return {pid for path in own_groups(it) for pid in (path / "cgroup.procs").read_text().split()}


async def test_stop_ends_what_is_in_the_group_and_removes_it(tmp_path: Path):
    async with project(tmp_path) as it:
        running = await start(it, "env -i setsid -f sleep 1000; exec sleep 1000", BOTH)
        await until(lambda: len(_members(it)) == 2)
        members = _members(it)
        assert await it.driver.stop(running, "SIGTERM", 5)
        assert not any(alive(int(pid)) for pid in members)
        assert own_groups(it) == []


async def test_what_an_unrecorded_start_left_behind_is_gone_before_the_next_one(tmp_path: Path):
    async with project(tmp_path) as it:
        first = await start(it, "env -i setsid -f sleep 1000; exec sleep 1000", uuid="again")
        await until(lambda: len(_members(it)) == 2)
        left = _members(it) - {str(first.pid)}
        it.fresh_driver()
        os.kill(first.pid, signal.SIGKILL)
        os.waitpid(first.pid, 0)
        second = await start(it, "exec sleep 1000", uuid="again")
        assert _members(it) == {str(second.pid)}
        assert not any(alive(int(pid)) for pid in left)


# --------------------------------------------------------------------------- the next agent


async def test_an_adopted_instance_keeps_its_limits_and_the_reason_of_its_end(tmp_path: Path):
    async with project(tmp_path) as it:
        script = f'read go < go; exec {sys.executable} -c "$1"'
        os.mkfifo(tmp_path / "go")
        running = await start(it, "", command="sh", args=("-c", script, "sh", HOG))
        it.fresh_driver()
        assert await it.driver.find(running)
        (tmp_path / "go").write_text("go\n")
        exit_ = await it.driver.wait(running)
        assert exit_.out_of_memory
        await it.driver.sweep(running)
        assert own_groups(it) == []


async def test_an_end_that_no_agent_saw_is_still_known_to_be_for_want_of_memory(tmp_path: Path):
    async with project(tmp_path) as it:
        running = await hog(it)
        it.fresh_driver()
        os.waitpid(running.pid, 0)
        assert not await it.driver.find(running)
        exit_ = await it.driver.wait(running)
        assert (exit_.code, exit_.signal, exit_.out_of_memory) == (None, signal.SIGKILL, True)


async def test_what_was_spawned_and_never_recorded_is_found_with_its_group(tmp_path: Path):
    async with project(tmp_path) as it:
        running = await start(it, "exec sleep 1000", BOTH)
        found = await it.fresh_driver().find_spawned([running.uuid])
        lines = set(found[running.uuid].handler["cgroup"].splitlines())
        assert lines == set(running.handler["cgroup"].splitlines())


async def test_empty_groups_that_a_dead_agent_left_are_removed_by_the_next(tmp_path: Path):
    async with project(tmp_path) as it:
        kept = await start(it, "exec sleep 1000")
        gone = await start(it, "exec sleep 1000")
        it.driver.close()
        os.kill(gone.pid, signal.SIGKILL)
        os.waitpid(gone.pid, 0)
        driver = it.fresh_driver()
        assert isinstance(driver, ProcessDriver)
        assert await driver.find(kept)
        driver.reap_strangers()
        assert {path.name for path in own_groups(it)} == {kept.uuid}


# --------------------------------------------------------------------------- when it cannot be


async def test_without_control_groups_services_run_and_nothing_is_pretended(tmp_path: Path):
    async with project(tmp_path, Found) as it:
        running = await start(it, "exit 3")
        assert running.handler == {}
        assert (await it.driver.wait(running)).code == 3


async def test_a_limit_that_the_kernel_refuses_keeps_the_service_from_starting(tmp_path: Path):
    broken = tmp_path / "memory"
    broken.mkdir()
    look = lambda: Found((Hierarchy(str(broken), False, frozenset({"memory"})),))  # noqa: E731
    async with project(tmp_path, look) as it:
        with pytest.raises(DriverError, match=r"api: its limits cannot be enforced: .*memory.limit_in_bytes") as caught:
            await start(it, "touch started")
        assert caught.value.code == "E005"
        assert not (tmp_path / "started").exists()
        assert list(broken.iterdir()) == [], "nothing is left of the attempt"


async def test_a_program_that_cannot_enter_its_group_is_not_run_outside_of_it(tmp_path: Path):
    outside = tmp_path / "no-hierarchy"
    outside.mkdir()
    broken = Hierarchy(str(outside), True, frozenset())
    async with project(tmp_path, lambda: Found((broken, *find().hierarchies))) as it:
        with pytest.raises(DriverError, match="api: it could not be put into its control group") as caught:
            await start(it, "touch started")
        assert caught.value.code == "E005"
        assert not (tmp_path / "started").exists()


def test_agents_that_make_and_remove_groups_at_once_do_not_get_in_each_others_way(tmp_path: Path):
    found = find()

    def work(name: str) -> None:
        for _ in range(100):
            made = Group.make(found, groups.domain(str(tmp_path / name)), uuid.uuid4().hex, BOTH)
            assert made is not None and made.remove()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ("shop", "shop", "other", "third")))


async def test_a_command_that_is_not_there_leaves_no_group(tmp_path: Path):
    async with project(tmp_path) as it:
        with pytest.raises(DriverError) as caught:
            await start(it, "", command="no-such-command", args=())
        assert caught.value.code == "E003"
        assert own_groups(it) == []


# --------------------------------------------------------------------------- all that holds without limits


class TestProcessDriverWithLimits(ProcessDriverContract):
    """The whole contract of a process driver, with a group around every instance."""

    @pytest.fixture(autouse=True)
    def _no_group_is_left(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.state = tmp_path / "shop"
        request.addfinalizer(lambda: self.check())

    def check(self) -> None:
        assert groups_of(self.state) == []

    def make_driver(self) -> ProcessDriver:
        return limiting(self.state)()

    def order(self, program: str, stage: object) -> StartOrder:
        from dataclasses import replace

        return replace(super().order(program, stage), resources=BOTH)  # type: ignore[arg-type]

    def script(self, stage: object, text: str, **changes: object) -> StartOrder:
        return super().script(stage, text, **{"resources": BOTH, **changes})  # type: ignore[arg-type]
