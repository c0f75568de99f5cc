"""The loop that somebody else's code runs in: what it does there holds up nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

from deploy_code.orchestrator.own_loop import OwnLoop
from support.wait import wait_until

NEVER_ENDS = """
import asyncio, threading
from deploy_code.orchestrator.own_loop import OwnLoop

async def never():
    begun.set()
    await asyncio.to_thread(threading.Event().wait)

async def main():
    loop = OwnLoop("theirs")
    loop.run(never)
    await asyncio.to_thread(begun.wait)
    loop.close()

begun = threading.Event()
asyncio.run(main())
"""


def test_a_thread_that_never_ends_keeps_no_program_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", NEVER_ENDS], timeout=30, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_that_is_closed_at_once_ends_quietly() -> None:
    begun = threading.active_count()
    for _ in range(50):
        OwnLoop("short").close()
    wait_until(lambda: threading.active_count() <= begun)


async def test_what_is_cancelled_there_is_no_cancellation_here() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    loop = OwnLoop("theirs")
    future, _ = loop.run(gives_up)
    try:
        assert "it cancelled itself" in str(await asyncio.wait_for(asyncio.gather(future, return_exceptions=True), 10))
    finally:
        loop.close()
