"""Bounds a call of an author's method, and notices when it keeps the event loop from everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TICK_SECONDS = 0.005
BLOCKED_SECONDS = 1.0  # a loop that stands still for so long keeps everybody else waiting


@asynccontextmanager
async def bounded(what: str, seconds: float) -> AsyncIterator[None]:
    """AssertionError when it takes longer than ``seconds``, or blocks the loop. ``what``: for the message."""
    loop = asyncio.get_running_loop()
    ticking = loop.create_task(_longest_gap(), name="tick")
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise AssertionError(f"{what} did not end within {seconds:g} s; bound what it waits for") from exc
    finally:
        await asyncio.sleep(TICK_SECONDS * 2)
        ticking.cancel()
        gap = await ticking
    assert gap < BLOCKED_SECONDS, (
        f"{what} kept the event loop from running for {gap:.1f} s: "
        "await what it waits for, or make it a plain method, which runs in a thread"
    )


async def _longest_gap() -> float:
    """For how long at most the loop did not get to this task; told when it is cancelled."""
    loop, longest = asyncio.get_running_loop(), 0.0
    try:
        while True:
            began = loop.time()
            await asyncio.sleep(TICK_SECONDS)
            longest = max(longest, loop.time() - began - TICK_SECONDS)
    except asyncio.CancelledError:
        return longest
