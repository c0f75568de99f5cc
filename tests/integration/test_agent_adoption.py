"""The agent's death harms nobody: what it left is taken over, nothing is started twice, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy_code.model import Dependency, Gate, Instance, Phase, Restart
from support.agents import FAST_RESTART, House, alive, shell, sleeper, web
from support.leftovers import leftovers
from support.ports import free_port, free_range


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.platform.open()
    yield made
    await made.close()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def test_services_survive_the_agent_and_are_adopted(house: House):
    await house.want(house.wanted("web", web(free_port())))
    before = await house.ready("web")
    await house.end_agent()
    assert alive(before.pid)
    await house.platform.open()
    after = await house.ready("web")
    assert (after.uuid, after.pid, after.restarts, after.gate) == (before.uuid, before.pid, 0, Gate.OPEN)


async def test_the_platform_starts_the_agent_again_by_itself(house: House):
    await house.want(house.wanted("web", web(free_port())))
    before = await house.ready("web")
    old = house.kill_agent()
    other = house.wanted("idle", sleeper())
    await house.want(other)
    await house.phase("idle", Phase.STARTING, Phase.READY)
    assert house.agent_pid() != old
    assert house.platform.instances("web")[0].pid == before.pid


async def test_an_adopted_service_is_watched_and_restarted_as_before(house: House):
    await house.want(house.wanted("web", web(free_port()), restart=FAST_RESTART))
    before = await house.ready("web")
    await house.end_agent()
    await house.platform.open()
    os.kill(before.pid, signal.SIGKILL)
    (after,) = await house.until("web", lambda all_: all_[0].phase is Phase.READY and all_[0].pid != before.pid)
    assert after.exit is not None and after.exit.code is None and after.exit.signal is None, "nobody could wait for it"
    assert after.restarts == 1


async def test_what_died_while_no_agent_was_there_is_restarted(house: House):
    await house.want(house.wanted("web", web(free_port()), restart=FAST_RESTART))
    before = await house.ready("web")
    await house.end_agent()
    os.kill(before.pid, signal.SIGKILL)
    await house.platform.open()
    (after,) = await house.until("web", lambda all_: all_ and all_[0].phase is Phase.READY and all_[0].restarts == 1)
    assert after.uuid == before.uuid


async def test_a_dynamic_port_is_kept_over_agents_and_restarts(house: House):
    content = sleeper().__class__(command="busybox", args=("httpd", "-f", "-p", "127.0.0.1:${PORT}"))
    await house.want(house.wanted("web", content, restart=FAST_RESTART), port_range=free_range(4))
    before = await house.ready("web")
    await house.end_agent()
    os.kill(before.pid, signal.SIGKILL)
    await house.platform.open()
    (after,) = await house.until("web", lambda all_: all_ and all_[0].phase is Phase.READY and all_[0].restarts == 1)
    assert after.ports == before.ports


async def test_a_row_without_a_process_is_started(house: House):
    """Killed between the row and the spawn."""
    wanted = house.wanted("idle", sleeper())
    await house.want(wanted)
    before = await house.phase("idle", Phase.STARTING, Phase.READY)
    await house.end_agent()
    os.kill(before.pid, signal.SIGKILL)
    house.rewrite(before.but(phase=Phase.STARTING, pid=0, start_time=0))
    await house.platform.open()
    (after,) = await house.until("idle", lambda found: found and found[0].pid)
    assert after.uuid == before.uuid
    assert after.restarts == 0


async def test_a_process_that_nobody_could_record_is_found_and_not_started_twice(house: House, tmp_path: Path):
    """Killed between the spawn and its record."""
    starts = tmp_path / "starts"
    await house.want(house.wanted("idle", shell(f"echo x >> {starts}; sleep 1000")))
    before = await house.ready("idle")
    await house.end_agent()
    house.rewrite(before.but(phase=Phase.STARTING, gate=Gate.WAITING, pid=0, start_time=0))
    await house.platform.open()
    after = await house.ready("idle")
    assert after.pid == before.pid
    assert starts.read_text() == "x\n"


async def test_what_is_wanted_and_has_no_row_is_started(house: House):
    """Killed between the wanted set and the row."""
    wanted = house.wanted("idle", sleeper())
    await house.want(wanted)
    before = await house.phase("idle", Phase.STARTING, Phase.READY)
    await house.end_agent()
    os.kill(before.pid, signal.SIGKILL)
    _forget_row(house, before)
    await house.platform.open()
    (after,) = await house.until("idle", lambda found: found and found[0].pid)
    assert after.uuid != before.uuid


async def test_an_orphan_is_stopped(house: House):
    orphan_id = uuid.uuid4().hex
    child = subprocess.Popen(
        ["sleep", "1000"], env={**os.environ, "DEPLOY_CODE_INSTANCE": orphan_id}, start_new_session=True
    )
    try:
        await house.want(house.wanted("idle", sleeper()))
        await house.phase("idle", Phase.STARTING, Phase.READY)
        await house.end_agent()
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        house.rewrite(
            Instance(
                uuid=orphan_id,
                service="old",
                revision=9,
                index=0,
                phase=Phase.READY,
                pid=child.pid,
                start_time=int(stat[19]),
                boot_id=boot_id(),
            )
        )
        await house.platform.open()
        await house.until("old", lambda found: not found)
        assert child.wait(5) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


async def test_a_stop_that_the_agents_death_interrupted_is_finished(house: House):
    script = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"
    wanted = house.wanted("slow", shell(script))
    await house.want(wanted)
    before = await house.ready("slow")
    await house.want(house.wanted("slow", wanted.content, replicas=0))
    await house.phase("slow", Phase.STOPPING)
    await house.eventually(lambda: [row.phase for row in house.store.instances()] == [Phase.STOPPING])
    await house.end_agent()
    await house.platform.open()
    await house.until("slow", lambda found: not found)
    assert not alive(before.pid)


async def test_a_back_off_goes_on_under_the_next_agent(house: House):
    restart = Restart(backoff_seconds=1.5, backoff_max_seconds=1.5)
    await house.want(house.wanted("web", sleeper(), restart=restart, min_ready_seconds=0.05))
    before = await house.ready("web")
    os.kill(before.pid, signal.SIGKILL)
    waiting = await house.phase("web", Phase.BACKOFF)
    await house.eventually(lambda: house.store.instances()[0].phase is Phase.BACKOFF)
    await house.end_agent()
    await house.platform.open()
    assert house.platform.instances("web")[0].next_start_at == waiting.next_start_at
    after = await house.ready("web")
    assert after.started_at >= waiting.next_start_at


async def test_what_ended_before_its_gate_stays_ended_under_the_next_agent(house: House):
    await house.want(house.wanted("broken", shell("exit 3"), restart=FAST_RESTART))
    await house.phase("broken", Phase.EXITED)
    await house.eventually(lambda: house.store.instances()[0].phase is Phase.EXITED)
    await house.end_agent()
    await house.platform.open()
    (after,) = house.platform.instances("broken")
    assert (after.phase, after.restarts) == (Phase.EXITED, 0)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.1])
async def test_an_agent_killed_while_it_starts_many_starts_none_twice_and_loses_none(
    house: House, tmp_path: Path, delay: float
):
    starts = tmp_path / "starts"
    starts.mkdir()
    wanted = [house.wanted(f"s{n}", shell(f"echo x >> {starts}/s{n}; exec sleep 1000")) for n in range(40)]
    want = asyncio.create_task(house.want(*wanted))
    await asyncio.sleep(delay)
    house.kill_agent()
    await want
    for each in wanted:
        await house.ready(each.service)
        assert len(house.platform.instances(each.service)) == 1
        assert (starts / each.service).read_text() == "x\n"
    await house.stop(*wanted)
    assert [each.command for each in leftovers(tmp_path) if "agent" not in each.command] == []


# ------------------------------------------------------------------------------------------------- reboot


async def _reboot(house: House) -> None:
    """All pids are gone and the rows speak of another boot."""
    await house.end_agent()
    for row in house.store.instances():
        if row.phase.is_alive:
            os.kill(row.pid, signal.SIGKILL)
        house.rewrite(row.but(boot_id="another-boot"))


async def test_after_a_reboot_everything_wanted_starts_in_dependency_order(house: House, tmp_path: Path):
    trace = tmp_path / "trace"
    db = house.wanted("db", shell(f"echo db >> {trace}; sleep 1000"), min_ready_seconds=0.5)
    needs = (Dependency(service="db"),)
    api = house.wanted("api", shell(f"echo api >> {trace}; sleep 1000"), dependencies=needs, min_ready_seconds=0.05)
    await house.want(db, api)
    await house.ready("db")
    await house.ready("api")
    trace.unlink()
    await _reboot(house)
    await house.platform.open()
    (waiting,) = house.platform.instances("api")
    assert waiting.phase is Phase.WAITING
    api_after = await house.ready("api")
    (db_after,) = house.platform.instances("db")
    assert trace.read_text() == "db\napi\n"
    assert api_after.started_at >= db_after.ready_at > 0


async def test_after_a_reboot_a_completed_one_shot_counts_and_does_not_run_again(house: House, tmp_path: Path):
    runs = tmp_path / "runs"
    job = house.wanted("job", shell(f"echo x >> {runs}", one_shot=True))
    needs = (Dependency(service="job", condition="completed"),)  # type: ignore[arg-type]
    api = house.wanted("api", sleeper(), dependencies=needs, min_ready_seconds=0.05)
    await house.want(job)
    await house.phase("job", Phase.COMPLETED)
    await house.want(api)
    await house.ready("api")
    await _reboot(house)
    await house.platform.open()
    await house.ready("api")
    assert runs.read_text() == "x\n"


async def test_after_a_reboot_a_pid_that_belongs_to_another_is_left_alone(house: House):
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        await house.want(house.wanted("idle", sleeper(), min_ready_seconds=0.05))
        before = await house.ready("idle")
        await _reboot(house)
        house.rewrite(before.but(boot_id="another-boot", pid=stranger.pid))
        await house.platform.open()
        after = await house.ready("idle")
        assert after.pid not in (0, stranger.pid)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def _forget_row(house: House, instance: Instance) -> None:
    import sqlite3

    with sqlite3.connect(house.state / "state.db") as db:
        db.execute("DELETE FROM instances WHERE uuid = ?", (instance.uuid,))
    db.close()
