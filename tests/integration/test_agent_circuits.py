"""Crash loops: one circuit an instance, one try at a time a revision, and what everybody can see of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy_code.model import Instance, Phase, Restart
from deploy_code.orchestrator.status import read_status
from support.agents import House, shell

LOOP = Restart(
    backoff_seconds=0.02, backoff_max_seconds=0.02, max_exits=3, cooldown_seconds=0.6, reset_after_seconds=0.5
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


def crasher(marker: Path) -> str:
    """Comes up and dies, until the marker is there: then it stays."""
    return f"echo x >> {marker}.starts; sleep 0.1; test -e {marker} && exec sleep 1000"


def starts(marker: Path) -> int:
    return len(Path(f"{marker}.starts").read_text().split())


async def is_open(house: House, service: str, count: int = 1) -> tuple[Instance, ...]:
    return await house.until(service, lambda found: sum(each.circuit == "open" for each in found) >= count)


async def test_a_crash_loop_goes_through_open_half_open_and_closed(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "well"
    await house.want(house.wanted("app", shell(crasher(marker)), min_ready_seconds=0.05, restart=LOOP))
    (failed,) = await is_open(house, "app")
    assert failed.phase is Phase.FAILED
    assert failed.next_start_at > time.time()
    await house.mirrored()
    shown = read_status(house.store, agent_alive=True)["services"]["app"]["circuit"]
    assert shown == {"state": "open", "retry_at": failed.next_start_at, "reason": "exit code 1"}
    marker.touch()
    (tried,) = await house.until("app", lambda found: found[0].circuit == "half-open" and found[0].ready_at)
    (well,) = await house.until("app", lambda found: not found[0].circuit)
    assert (well.phase, well.pid) == (Phase.READY, tried.pid)
    assert time.time() - tried.ready_at >= LOOP.reset_after_seconds - 0.01
    await house.eventually(lambda: "CircuitClosed" in house.events())
    names = [name for name in house.events() if name.startswith("Circuit")]
    assert names == ["CircuitOpened", "CircuitHalfOpened", "CircuitClosed"]


async def test_a_try_that_ends_too_early_opens_it_again(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "well"
    await house.want(house.wanted("app", shell(crasher(marker)), min_ready_seconds=0.05, restart=LOOP))
    await is_open(house, "app")
    await house.until("app", lambda found: found[0].circuit == "half-open")
    (failed,) = await is_open(house, "app")
    assert "its one try has ended too" in failed.note
    assert starts(marker) == LOOP.max_exits + 1


async def test_of_a_revision_one_instance_at_a_time_makes_the_try(house: House, tmp_path: Path) -> None:
    """Five crash; after the cool-down one is started, not five, and when it fails all wait with it."""
    marker = tmp_path / "well"
    wanted = house.wanted("app", shell(crasher(marker)), replicas=5, min_ready_seconds=10.0, restart=LOOP)
    await house.want(wanted)
    await house.settle()
    found = await is_open(house, "app", count=5)
    before, last = starts(marker), max(each.next_start_at for each in found)
    assert before == 5 * LOOP.max_exits
    most, tried = 0, set[str]()
    while time.time() < last + 2.5 * LOOP.cooldown_seconds:
        trying = {each.uuid for each in house.platform.instances("app") if each.circuit == "half-open"}
        most, tried = max(most, len(trying)), tried | trying
        await house.platform.changed("app")
    assert most == 1
    assert len(tried) == starts(marker) - before >= 2, "each try is another one's"


async def test_once_the_try_is_ready_the_others_follow(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "well"
    await house.want(house.wanted("app", shell(crasher(marker)), replicas=3, min_ready_seconds=0.2, restart=LOOP))
    await house.settle()
    await is_open(house, "app", count=3)
    marker.touch()
    await house.ready("app", count=3)
    await house.until("app", lambda found: not any(each.circuit for each in found))


async def test_one_bad_instance_takes_no_good_one_along(house: House, tmp_path: Path) -> None:
    """The first to take the folder is the good one; the other dies again and again."""
    script = f"mkdir {tmp_path}/taken 2>/dev/null || {{ sleep 0.1; exit 3; }}; exec sleep 1000"
    await house.want(house.wanted("app", shell(script), replicas=2, min_ready_seconds=0.05, restart=LOOP))
    found = await is_open(house, "app")
    good = next(each for each in found if not each.circuit)
    assert good.phase is Phase.READY
    await house.mirrored()
    service = read_status(house.store, agent_alive=True)["services"]["app"]
    assert (service["circuit"]["state"], service["circuit"]["reason"]) == ("open", "exit code 3")
    assert service["ready"] == 1


async def test_an_open_circuit_survives_the_agent(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "well"
    slow = Restart(backoff_seconds=0.02, backoff_max_seconds=0.02, max_exits=2, cooldown_seconds=2.0)
    await house.want(house.wanted("app", shell(crasher(marker)), min_ready_seconds=0.05, restart=slow))
    (failed,) = await is_open(house, "app")
    await house.mirrored()
    house.kill_agent()
    await house.platform.open()
    (adopted,) = house.platform.instances("app")
    assert (adopted.circuit, adopted.next_start_at) == ("open", failed.next_start_at)
    await house.until("app", lambda found: found[0].circuit == "half-open")
    await is_open(house, "app")
    assert starts(marker) == slow.max_exits + 1


async def test_a_try_that_an_agent_did_not_see_begin_is_proven_all_the_same(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "well"
    patient = Restart(
        backoff_seconds=0.02, backoff_max_seconds=0.02, max_exits=2, cooldown_seconds=0.2, reset_after_seconds=2.0
    )
    await house.want(house.wanted("app", shell(crasher(marker)), min_ready_seconds=0.05, restart=patient))
    await is_open(house, "app")
    marker.touch()
    (ready,) = await house.until("app", lambda found: found[0].circuit == "half-open" and found[0].ready_at)
    await house.mirrored()
    house.kill_agent()
    await house.platform.open()
    (proven,) = await house.until("app", lambda found: not found[0].circuit)
    assert proven.pid == ready.pid
    assert time.time() - ready.ready_at >= patient.reset_after_seconds - 0.01


async def test_after_a_reboot_it_begins_closed_and_starts_at_once(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "well"
    forever = Restart(backoff_seconds=0.02, backoff_max_seconds=0.02, max_exits=2, cooldown_seconds=600.0)
    await house.want(house.wanted("app", shell(crasher(marker)), min_ready_seconds=0.05, restart=forever))
    await is_open(house, "app")
    await house.end_agent()
    (row,) = house.store.instances()
    house.rewrite(row.but(boot_id="another-boot"))
    marker.touch()
    await house.platform.open()
    ready = await house.ready("app")
    assert not ready.circuit


async def test_a_newer_deployment_closes_the_circuit_and_starts_at_once(house: House, tmp_path: Path) -> None:
    marker = tmp_path / "well"
    forever = Restart(backoff_seconds=0.02, backoff_max_seconds=0.02, max_exits=2, cooldown_seconds=600.0)
    wanted = house.wanted("app", shell(crasher(marker)), replicas=2, min_ready_seconds=0.05, restart=forever)
    await house.want(wanted)
    await is_open(house, "app", count=2)
    marker.touch()
    await house.settle()
    house.end()
    house.deployment = house.begin()
    async with asyncio.timeout(10):
        await house.want(wanted)
        found = await house.ready("app", count=2)
    assert not any(each.circuit for each in house.platform.instances("app"))
    assert found.ready_at
