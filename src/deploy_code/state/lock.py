"""One deployment of a project at a time: an ``flock`` that dies with its holder and names it (DESIGN §8).

The flock on ``deploy.lock`` is the lock. The kernel frees it with the holder's last descriptor, so it is
close-on-exec and closed in forked children. Beside it the holder keeps an open-file-description lock on the
same descriptor, as a sign: that kind can be asked for (``F_OFD_GETLK``) without being taken, so that
``status`` never gets in the way of a deploy.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from deploy_code.errors import LockedError
from deploy_code.state.files import make_private_folder, os_errors_wrapped

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path
    from typing import Self

FILE = "deploy.lock"
SETTLE_SECONDS = 0.2  # how long a lock without a sign may be in the middle of being taken or let go


class Holder(NamedTuple):
    """Who holds the lock. ``since`` in seconds since the epoch; ``command`` with its secrets redacted."""

    user: str
    host: str
    pid: int
    since: float
    command: str

    @classmethod
    def this_process(cls, command: str = "") -> Holder:
        return cls(_user(), os.uname().nodename, os.getpid(), time.time(), command)

    def __str__(self) -> str:
        return f"{self.user}@{self.host} pid {self.pid}"


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a uid without an account, as containers have
        return str(os.geteuid())


def holder(directory: Path | str) -> Holder | None:
    """Who deploys this project right now, if anybody. Takes no lock and creates nothing."""
    path = os.path.join(directory, FILE)
    with os_errors_wrapped(path):
        try:
            fd = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return _read(fd) if _signed(fd) else None
        finally:
            os.close(fd)


class DeployLock:
    """The deploy lock of the project whose state lies in ``directory`` (made 0700 when missing).

    One object holds it once. Waiting can be cancelled and interrupted, and bounded by a time-out.
    """

    def __init__(self, directory: Path | str) -> None:
        self.path = os.path.join(directory, FILE)
        self._fd = -1

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def acquire(self, command: str, *, wait: bool = False, timeout: float | None = None) -> None:
        """Take the lock, or raise ``LockedError`` E011: who has it, since when, what to do.

        ``wait``: queue for it, at most ``timeout`` seconds (None: for ever).
        """
        if self._take_free(command):
            return
        waiter = self._queue(wait)
        try:
            waiter.taken.wait(timeout if wait else SETTLE_SECONDS)
        except BaseException:  # Ctrl-C
            waiter.abandon()
            raise
        self._take_waited(waiter, command)

    async def acquire_async(self, command: str, *, wait: bool = False, timeout: float | None = None) -> None:
        """``acquire`` that leaves the event loop free. Cancelling it leaves nothing locked."""
        import asyncio

        if self._take_free(command):
            return
        taken = asyncio.Event()
        waiter = self._queue(wait, _waker(asyncio.get_running_loop(), taken))
        try:
            async with asyncio.timeout(timeout if wait else SETTLE_SECONDS):
                await taken.wait()
        except TimeoutError:
            pass  # whether the lock was had at the last moment is told by the waiter, below
        except BaseException:
            waiter.abandon()
            raise
        self._take_waited(waiter, command)

    def release(self) -> None:
        """Let go of it. Idempotent."""
        if self.held:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))
            os.ftruncate(self._fd, 0)
            self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def _open(self) -> int:
        make_private_folder(os.path.dirname(self.path))
        with os_errors_wrapped(self.path):
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)  # close-on-exec, as all of os.open

    def _take_free(self, command: str) -> bool:
        if self.held:
            raise RuntimeError(f"{self.path} is held by this very object")
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._hold(fd, command)
        return True

    def _queue(self, wait: bool, wake: Callable[[], None] = lambda: None) -> _Waiter:
        if not wait and holder(os.path.dirname(self.path)):
            raise self._locked()
        return _Waiter(self._open(), wake)

    def _take_waited(self, waiter: _Waiter, command: str) -> None:
        if waiter.give_up():
            raise self._locked()
        self._hold(waiter.fd, command)

    def _hold(self, fd: int, command: str) -> None:
        try:
            with os_errors_wrapped(self.path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(Holder.this_process(command)._asdict()).encode(), 0)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        _HELD.add(self)

    def _forget(self) -> None:
        os.close(self._fd)
        self._fd = -1
        _HELD.discard(self)

    def _locked(self) -> LockedError:
        by = holder(os.path.dirname(self.path))
        return LockedError(
            _story(by) if by else f"Another process holds {self.path}",
            meaning="Only one deployment of a project runs at a time; nothing was changed",
            remedy="Wait until it is done, or run this with --wait to queue behind it",
        )


class _Waiter:
    """Blocks in ``flock`` in a thread of its own, so that whoever waits for it can stop waiting.

    Python cannot wake a thread out of ``flock``: one that was given up lets go as soon as it gets the lock.
    """

    def __init__(self, fd: int, wake: Callable[[], None]) -> None:
        self.fd = fd
        self.taken = threading.Event()
        self._wake = wake
        self._mutex = threading.Lock()
        self._given_up = False
        threading.Thread(target=self._run, name="deploy-lock", daemon=True).start()

    def _run(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        with self._mutex:
            if self._given_up:
                os.close(self.fd)
                return
            self.taken.set()
        self._wake()

    def give_up(self) -> bool:
        """Stop wanting the lock. False: it was had already, and is the caller's now."""
        with self._mutex:
            self._given_up = not self.taken.is_set()
            return self._given_up

    def abandon(self) -> None:
        """Stop wanting the lock, and let go of it if it was had already."""
        if not self.give_up():
            os.close(self.fd)


def _waker(loop: asyncio.AbstractEventLoop, taken: asyncio.Event) -> Callable[[], None]:
    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(taken.set)

    return wake


def _story(by: Holder) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(by.since))
    doing = f": {by.command}" if by.command else ""
    return f"{by} has been deploying this project since {since} ({time.time() - by.since:.0f} s){doing}"


# struct flock of the kernel: l_type, l_whence, l_start, l_len, l_pid; length 0 is the whole file.
_FLOCK = "hhqqi0q"


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def _signed(fd: int) -> bool:
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _read(fd: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(fd, 65536, 0)))
    except (ValueError, TypeError):  # let go of in this very moment
        return None


_HELD: set[DeployLock] = set()


def _close_in_child() -> None:
    for lock in tuple(_HELD):
        lock._forget()


os.register_at_fork(after_in_child=_close_in_child)
