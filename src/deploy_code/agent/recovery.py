"""Notices a deployment whose engine died, and has it finished or undone (DESIGN §7 "Recovery").

The engine holds the deploy lock while it works and the kernel frees it when the engine dies. If a deployment is
recorded as in progress and the lock stays free for a while, ``deploy-code recover N`` is run as a child: the decisions
are the engine's, not ours.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import deploy_code
from deploy_code.wire import DEPLOY_LOCK

from .journal import Journal

DELAY_SECONDS = 3.0
BACKOFF_SECONDS = 5.0
BACKOFF_MAX_SECONDS = 300.0


class Recovery:
    """Call ``look`` whenever an engine may have died. ``running``: the number of the deployment in progress."""

    def __init__(self, state: str, running: Callable[[], Awaitable[int | None]], journal: Journal) -> None:
        self._state = state
        self._running = running
        self._journal = journal
        self._task: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()
        self.delay = float(os.environ.get("DEPLOY_CODE_RECOVERY_DELAY", DELAY_SECONDS))
        self.on_end: Callable[[], None] = lambda: None

    def hurry(self) -> None:
        """What kept the last try from its end may be there again: make the next one now."""
        self._hurried.set()

    @property
    def is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def look(self) -> None:
        """See whether a deployment was left behind; returns at once."""
        if not self.is_busy:
            self._task = asyncio.get_running_loop().create_task(self._recover(), name="recovery")
            self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stop looking. A recovery under way goes on by itself: it is a deployment like any other."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._journal.trouble(f"recovery failed: {error!r}")
        self.on_end()

    async def _recover(self) -> None:
        wait = BACKOFF_SECONDS
        while (number := await self._abandoned()) is not None:
            self._journal.happened("RecoveryStarted", f"deployment {number} was interrupted: recovering it")
            code = await self._run(number)
            self._journal.happened("RecoveryEnded", f"recovery of deployment {number} ended with exit code {code}")
            if await self._running() != number:
                return
            self._hurried.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), wait)
            wait = min(2 * wait, BACKOFF_MAX_SECONDS)

    async def _abandoned(self) -> int | None:
        """The deployment in progress whose lock was free at both ends of the delay."""
        while (number := await self._running()) is not None:
            free_before = self._lock_is_free()
            await asyncio.sleep(self.delay)
            if free_before and self._lock_is_free() and await self._running() == number:
                return number
        return None

    def _lock_is_free(self) -> bool:
        """A look, no claim: a shared lock for a moment."""
        try:
            fd = os.open(os.path.join(self._state, DEPLOY_LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    async def _run(self, number: int) -> int:
        child = _spawn([sys.executable, "-P", "-m", "deploy_code", "recover", str(number), "--state-dir", self._state])
        await _ended(child.pid)
        return child.wait()


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Its output goes where ours goes."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=_env(), start_new_session=True)


def _env() -> dict[str, str]:
    """Ours, and where this very package lies."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(deploy_code.__file__)))
    env = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return env if os.path.basename(folder).endswith("-packages") else env | {"PYTHONPATH": folder}


async def _ended(pid: int) -> None:
    """Wait for a child without reaping it."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    fd = os.pidfd_open(pid)
    loop.add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(fd)
        os.close(fd)
