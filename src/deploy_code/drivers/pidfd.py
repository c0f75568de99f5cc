"""Awaiting the end of one process by its pidfd: no thread, no SIGCHLD, no polling, no mistaken process.

asyncio's own child watching is left out: in Python 3.11 it takes a thread per child, and it cannot watch
processes that are not children (adopted ones).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from deploy_code.drivers.proctree import Ident, look_up
from deploy_code.model import Exit


class Watch:
    """Holds one process by its pidfd until it has ended; reaps it when it is a child of ours."""

    __slots__ = ("_fd", "_loop", "_on_end", "_waiters", "exit", "ident")

    def __init__(self, ident: Ident, fd: int, on_end: Callable[[Watch], None] | None = None) -> None:
        self.ident = ident
        self.exit: Exit | None = None
        self._fd = fd
        self._on_end = on_end
        self._waiters: list[asyncio.Future[bool]] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._ended)

    @classmethod
    def open(cls, ident: Ident, on_end: Callable[[Watch], None] | None = None) -> Watch | None:
        """Watch this very process; None when it is no more or its pid belongs to another by now.

        Raises OSError when there are no file descriptors left.
        """
        try:
            fd = os.pidfd_open(ident.pid)
        except ProcessLookupError:
            return None
        proc = look_up(ident.pid)  # the pidfd holds the pid; only now does the comparison prove anything
        if proc is None or proc.start_time != ident.start_time:
            os.close(fd)
            return None
        return cls(ident, fd, on_end)

    def send(self, number: int) -> None:
        """Signal it; nothing happens when it has ended. Raises PermissionError for another user's process."""
        if self.exit is None:
            try:
                signal.pidfd_send_signal(self._fd, number)
            except ProcessLookupError:
                return  # a zombie; its end is about to be noticed

    async def ended(self, timeout: float | None = None) -> bool:
        """True once it has ended, False when ``timeout`` seconds ran out first."""
        if self.exit is not None:
            return True
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = None if timeout is None else self._loop.call_later(max(timeout, 0.0), _wake, waiter, False)
        try:
            return await waiter
        finally:
            self._waiters.remove(waiter)
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Stop watching. The process is left alone, and those who wait are cancelled."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        for waiter in self._waiters:
            waiter.cancel()

    def _ended(self) -> None:
        self.exit = _reap(self._fd)
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._on_end is not None:
            self._on_end(self)
        for waiter in self._waiters:
            _wake(waiter, True)


async def kill_all(idents: Iterable[Ident], timeout: float) -> None:
    """SIGKILL to these very processes; returns once they are gone, or after ``timeout`` seconds."""
    ends_at = time.monotonic() + timeout
    watches = [watch for ident in idents if (watch := Watch.open(ident)) is not None]
    try:
        for watch in watches:
            with suppress(PermissionError):  # another user's: whoever looks again finds it
                watch.send(signal.SIGKILL)
        for watch in watches:
            await watch.ended(max(0.0, ends_at - time.monotonic()))
    finally:
        for watch in watches:
            watch.close()


def _wake(waiter: asyncio.Future[bool], result: bool) -> None:
    if not waiter.done():
        waiter.set_result(result)


def _reap(fd: int) -> Exit:
    """How the process behind a readable pidfd ended; unknown when it was not our child."""
    at = time.time()
    try:
        info = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return Exit(at=at)
    if info is None:
        return Exit(at=at)
    if info.si_code == os.CLD_EXITED:
        return Exit(at=at, code=info.si_status)
    return Exit(at=at, signal=info.si_status)
