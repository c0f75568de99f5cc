"""A limit of processes that really holds: what forks without end gets no further, and its neighbours do not notice."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from deploy_code.drivers.cgroup import find
from deploy_code.drivers.groups import Groups
from deploy_code.drivers.process import ProcessDriver
from deploy_code.model import Resources
from support.drivers import Harness
from support.groups import groups_of
from support.loops import on_both_loops

MOST = 12
BOMB = """
import os, sys, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except OSError as exc:
    print(f"{exc.strerror} after {made}", flush=True)
if sys.argv[1:]:
    time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def _pids_can_be_limited() -> None:
    found = find()
    if "pids" not in found.controllers:
        pytest.skip(f"processes cannot be limited here: {found.reason or 'no controller for it'}")


@on_both_loops
async def test_a_fork_bomb_is_bounded_and_all_of_it_goes(tmp_path: Path) -> None:
    state = tmp_path / "shop"
    it = Harness(tmp_path, lambda: ProcessDriver(Groups(str(state))))
    try:
        running = await it.start("", command=sys.executable, args=("-c", BOMB), resources=Resources(pids=MOST))
        exit_ = await it.driver.wait(running)
        assert exit_.code == 0, it.log()
        assert it.log().splitlines() == [f"Resource temporarily unavailable after {MOST - 1}"], "itself counts, too"
        assert await it.driver.sweep(running) == MOST - 1
    finally:
        await it.close()
    assert groups_of(state) == []


@on_both_loops
async def test_the_limit_is_of_one_instance_and_not_of_all(tmp_path: Path) -> None:
    state = tmp_path / "shop"
    it = Harness(tmp_path, lambda: ProcessDriver(Groups(str(state))))
    try:
        bomb = await it.start("", command=sys.executable, args=("-c", BOMB, "stay"), resources=Resources(pids=MOST))
        other = await it.start("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait", resources=Resources(pids=MOST))
        free = await it.start("sleep 1000 & wait")
        for running, count in ((bomb, MOST), (other, 9), (free, 2)):
            async with asyncio.timeout(10):
                while len(await it.driver.pids(running)) != count:
                    await asyncio.sleep(0.02)
    finally:
        await it.close()
    assert groups_of(state) == []
