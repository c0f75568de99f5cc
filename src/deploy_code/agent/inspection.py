"""What an instance looks like from outside, for the failure report: processes, what they listen on, what they use."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable

from deploy_code.drivers.base import Driver, Running
from deploy_code.health.listeners import listening_ports
from deploy_code.wire import Inspection

_SAMPLE_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def inspect(driver: Driver, running: Running | None) -> Inspection:
    """Takes about 0.1 s, over which CPU use is measured. Nothing of an instance that does not run."""
    pids = await driver.pids(running) if running is not None else ()
    if not pids:
        return Inspection()
    began, before = time.monotonic(), _cpu_seconds(pids)
    await asyncio.sleep(_SAMPLE_SECONDS)
    used, passed = _cpu_seconds(pids) - before, time.monotonic() - began
    return Inspection(
        pids=pids,
        listening=listening_ports(pids),
        cpu_percent=round(max(0.0, 100 * used / passed), 1),
        memory_bytes=sum(map(memory_bytes, pids)),
    )


def memory_bytes(pid: int) -> int:
    """Resident memory; 0 for a process that has gone."""
    return int((_fields(pid, "statm") or [b"0", b"0"])[1]) * _PAGE


def _cpu_seconds(pids: Iterable[int]) -> float:
    return sum(_cpu_ticks(pid) for pid in pids) / _TICKS


def _cpu_ticks(pid: int) -> int:
    fields = _fields(pid, "stat")
    return int(fields[11]) + int(fields[12]) if fields else 0


def _fields(pid: int, name: str) -> list[bytes]:
    """The fields of a file in /proc/PID, after the name of the program where there is one."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().rpartition(b") ")[2].split()
    except OSError:
        return []
