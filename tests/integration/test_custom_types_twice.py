"""Whoever dies, and in whatever order: of one instance there is one live object and one program, never two."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_code.model import Instance
from deploy_code.platforms.spawn import agent_status
from support.agents import FAST_RESTART, House, alive
from support.custom import custom, hosts, kill_hosts
from support.leftovers import leftovers

GUARDED = """
import fcntl


class Guarded(Service):
    def __init__(self, config):
        self.guard = os.open(config.options["guard"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self.guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said(config, "a second object")

    async def start(self):
        await asyncio.sleep(0.1)
        folder = os.path.dirname(self.config.log_path)
        program = subprocess.Popen(["sleep", "1000"], env=dict(self.config.env), cwd=folder, start_new_session=True)
        await asyncio.sleep(0.1)
        return {"pid": str(program.pid)}

    async def stop(self):
        subprocess.run(["pkill", "-KILL", "-g", self.memory["pid"]]) if "pid" in self.memory else None
        if self.guard is not None:
            os.close(self.guard)
            self.guard = None

    async def health_check(self):
        return ServiceStatus.RUNNING if lives(self.memory["pid"]) else ServiceStatus.FAILED
"""

DEATHS = ("agent", "host", "program", "agent and host", "agent and program", "a pause")


@pytest.mark.timeout(300)
@settings(max_examples=4, deadline=None, suppress_health_check=list(Check))
@given(deaths=st.lists(st.sampled_from(DEATHS), min_size=3, max_size=6))
def test_there_is_never_a_second_object_or_program(deaths: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live_through(Path(folder), deaths))


async def _live_through(folder: Path, deaths: Sequence[str]) -> None:
    house = House(folder)
    try:
        await house.platform.open()
        content = custom(folder, GUARDED, "Guarded", options={"guard": str(folder / "guard")})
        await house.want(house.wanted("site", content, restart=FAST_RESTART))
        instance = await house.ready("site")
        await house.settle()
        for death in deaths:
            await _bring(house, folder, death)
            instance = await _well(house, instance)
            assert "a second object" not in _log(instance)
            assert len(_programs(folder)) == 1
            assert len(hosts(folder)) == 1
    finally:
        await house.close()


async def _bring(house: House, folder: Path, death: str) -> None:
    if "host" in death:
        kill_hosts(folder)
    if "program" in death:
        for pid in _programs(folder):
            os.kill(pid, signal.SIGKILL)
    if "agent" in death:
        await house.eventually(lambda: agent_status(str(house.state)))
        house.kill_agent()  # the platform starts the next one
        await house.eventually(lambda: agent_status(str(house.state)))
    if death == "a pause":
        await asyncio.sleep(0.3)


async def _well(house: House, before: Instance) -> Instance:
    """The instance once it has been asked since, and its program runs."""

    def lives(found: tuple[Instance, ...]) -> bool:
        return bool(found and found[0].ready_at and alive(found[0].pid))

    await house.eventually(lambda: len(hosts(house.state.parent)) == 1, timeout=30)
    [now] = await house.until("site", lives, timeout=30)
    assert now.uuid == before.uuid
    return now


def _programs(folder: Path) -> list[int]:
    return [each.pid for each in leftovers(folder) if each.command == "sleep 1000"]


def _log(instance: Instance) -> str:
    path = Path(instance.log_path)
    return path.read_text() if path.exists() else ""
