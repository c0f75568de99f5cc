"""Tells when the state of a project was written to, so that nobody polls it: inotify on its folder.

Every commit touches ``state.db-wal``. Where inotify cannot be had (no more watches), the bound of each wait is left.
"""

from __future__ import annotations

import ctypes
import os
import select
from typing import Self

IN_MODIFY, IN_CREATE, IN_NONBLOCK, IN_CLOEXEC = 0x2, 0x100, os.O_NONBLOCK, os.O_CLOEXEC


class StateWatch:
    """A context manager over the folder of one project's state; the folder need not exist yet."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._fd >= 0 and libc.inotify_add_watch(self._fd, os.fsencode(self._directory), IN_MODIFY | IN_CREATE) < 0:
            os.close(self._fd)
            self._fd = -1
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wait(self, timeout: float | None) -> bool:
        """Block until something was written, at most ``timeout`` seconds; whether something was."""
        if self._fd < 0:
            select.select([], [], [], timeout if timeout is not None else 1.0)
            return False
        ready, _, _ = select.select([self._fd], [], [], timeout)
        self._drain()
        return bool(ready)

    async def changed(self, timeout: float) -> bool:
        """``wait`` for a running event loop."""
        import asyncio

        if self._fd < 0:
            await asyncio.sleep(timeout)
            return False
        loop, written = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, written.set)
        try:
            async with asyncio.timeout(timeout):
                await written.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
            self._drain()
        return True

    def _drain(self) -> None:
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass
