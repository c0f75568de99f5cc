"""What a container says, from the engine into our log file: each line once, also over the agent's restarts.

The engine keeps every line with its time. How far we have come is kept in a small file beside the state: a time, and
how many lines since then are in our log. The next agent asks from that time on, and leaves out so many.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deploy_code.drivers.engine.client import EngineClient, EngineError
from deploy_code.errors import DeployCodeError

_FLUSH_BYTES = 64 * 1024
_RECORD = 64  # bytes of the position file; one write, so it is never half old and half new
_MOVE_SECONDS = 2.0  # the time from which is counted moves on so often: lines of two streams may be a bit out of order
_MOVE_LINES = 1000  # or after so many, because they are read again at the end
_RETRY_SECONDS = 1.0
_HOLD_SECONDS = 0.5  # so long the rest of a line is waited for: two streams that are one log tear no lines apart
_FORMAT = "{:<63}\n"

Stamp = tuple[int, int]  # seconds since the epoch, nanoseconds


@dataclass(slots=True)
class Position:
    """``count`` lines at or after ``since`` are in our log. ``since``: "SECONDS.NANOSECONDS", "" from the first on."""

    since: str = ""
    count: int = 0

    @classmethod
    def read(cls, path: str) -> Position:
        try:
            with open(path, encoding="ascii") as file:
                since, _, count = file.read(_RECORD).strip().partition(" ")
            return cls(since if since != "-" else "", int(count))
        except (OSError, ValueError):
            return cls()

    def text(self) -> bytes:
        return _FORMAT.format(f"{self.since or '-'} {self.count}").encode("ascii")


class Counter:
    """Counts lines as they come, so that they can be left out when they come again."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self._since = _stamp_of(position.since)
        self._latest = self._since
        self._moved = time.monotonic()

    def took(self, stamp: Stamp) -> None:
        """A line of this time is in our log now."""
        if stamp > self._latest:
            self._latest = stamp
            if self._is_due():
                self._since, self._moved = stamp, time.monotonic()
                self.position.since, self.position.count = f"{stamp[0]}.{stamp[1]:09d}", 1
                return
        if stamp >= self._since:
            self.position.count += 1

    def saw(self, stamp: Stamp) -> None:
        """A line of this time was in our log before."""
        self._latest = max(self._latest, stamp)

    def _is_due(self) -> bool:
        position = self.position
        late = time.monotonic() - self._moved >= _MOVE_SECONDS
        return late or not position.since or position.count >= _MOVE_LINES


class Follower:
    """Follows one container from ``position_path`` on into ``log_path``, until it has ended and all is written.

    ``available()`` waits until the engine is there, ``ended()`` until the container has ended. ``told`` hears why
    nothing can be followed.
    """

    def __init__(
        self,
        client: EngineClient,
        container: str,
        log_path: str,
        position_path: str,
        *,
        available: Callable[[], Awaitable[object]],
        ended: Callable[[], Awaitable[object]],
        told: Callable[[str], None],
    ) -> None:
        self.container = container
        self._client = client
        self._log_path = log_path
        self._position_path = position_path
        self._available = available
        self._ended = ended
        self._told = told
        self._said = ""
        self._log = self._record = -1
        self._buffer = bytearray()
        self._held: dict[int, bytearray] = {}  # by stream: lines whose end has not come
        self._release: asyncio.TimerHandle | None = None
        self._flushes: asyncio.Handle | None = None
        self._skip = 0
        self._counter = Counter(Position())
        self._stamps = _Stamps()
        self._at_line_end = True
        self._trouble: OSError | None = None

    async def run(self) -> None:
        """Returns when there is nothing more to come. What cannot be written is tried again."""
        try:
            while True:
                try:
                    await self._available()
                    await self._read(follow=True)
                    if await self._is_over():
                        await self._read(follow=False)  # engines end a stream now and then before its last lines
                        self._end_line()
                        return
                except EngineError as exc:
                    if exc.status == 404:  # removed, with all it said
                        _remove(self._position_path)
                        return
                    self._say(f"the log of container {self.container[:12]} cannot be read: {exc.message}")
                    return
                except DeployCodeError:
                    pass  # it is away
                except OSError as exc:
                    self._say(f"{exc.filename or self._log_path} cannot be written: {exc.strerror}")
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._close()

    def _say(self, text: str) -> None:
        """The same thing once."""
        if text != self._said:
            self._said = text
            self._told(text)

    async def _read(self, *, follow: bool) -> None:
        """From where we are until the stream ends."""
        self._open()
        query: dict[str, object] = {"follow": int(follow), "stdout": 1, "stderr": 1, "timestamps": 1}
        if self._counter.position.since:
            query["since"] = self._counter.position.since
        try:
            async with self._client.frames("GET", f"/containers/{self.container}/logs", query=query) as frames:
                async for stream, line in frames:
                    self._took(stream, line)
        finally:
            self._let_go()
            self._flush_now()

    async def _is_over(self) -> bool:
        """The stream has ended: because the container has? That may be known a moment later."""
        try:
            async with asyncio.timeout(_RETRY_SECONDS):
                await self._ended()
        except TimeoutError:
            return False
        return True

    def _open(self) -> None:
        self._close()
        self._trouble = None
        position = Position.read(self._position_path)
        self._counter, self._skip = Counter(position), position.count
        folder = os.path.dirname(self._position_path)
        for each in (os.path.dirname(folder), folder):  # makedirs minds the mode of the last one only
            os.makedirs(each, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._record = os.open(self._position_path, flags, 0o600)
        self._log = os.open(self._log_path or os.devnull, flags | os.O_APPEND, 0o640)

    def _took(self, stream: int, frame: bytes) -> None:
        if self._trouble is not None:
            raise self._trouble
        head, _, line = frame.partition(b" ")
        stamp = self._stamps.read(head)
        if self._skip and stamp >= _stamp_of(self._counter.position.since):
            self._skip -= 1
            self._counter.saw(stamp)
            return
        self._counter.took(stamp)
        self._add(stream, line)
        if len(self._buffer) >= _FLUSH_BYTES:
            self._flush_now()
        elif self._flushes is None:  # as soon as nothing more lies ready
            self._flushes = asyncio.get_running_loop().call_soon(self._flush_soon)

    def _add(self, stream: int, line: bytes) -> None:
        held = self._held.setdefault(stream, bytearray())
        held += line
        if line.endswith(b"\n") or len(held) >= _FLUSH_BYTES:
            self._buffer += held
            held.clear()
        elif self._release is None:
            self._release = asyncio.get_running_loop().call_later(_HOLD_SECONDS, self._let_go_and_flush)

    def _let_go(self) -> None:
        """What waits for its line's end waits no longer."""
        if self._release is not None:
            self._release.cancel()
            self._release = None
        for held in self._held.values():
            self._buffer += held
            held.clear()

    def _let_go_and_flush(self) -> None:
        self._let_go()
        self._flush_soon()

    def _flush_soon(self) -> None:
        try:
            self._flush_now()
        except OSError as exc:
            self._trouble = exc  # for the next line to raise: this is called by the loop

    def _flush_now(self) -> None:
        if self._flushes is not None:
            self._flushes.cancel()
            self._flushes = None
        if not self._buffer or self._trouble is not None:
            return
        data, self._buffer = bytes(self._buffer), bytearray()
        written = 0
        while written < len(data):
            written += os.write(self._log, data[written:])
        os.pwrite(self._record, self._counter.position.text(), 0)
        self._at_line_end = data.endswith(b"\n")

    def _end_line(self) -> None:
        """What comes next into this log begins a line of its own."""
        if not self._at_line_end:
            os.write(self._log, b"\n")
            self._at_line_end = True

    def _close(self) -> None:
        if self._flushes is not None:
            self._flushes.cancel()
            self._flushes = None
        self._buffer.clear()
        self._held.clear()
        if self._release is not None:
            self._release.cancel()
            self._release = None
        for fd in (self._log, self._record):
            if fd >= 0:
                os.close(fd)
        self._log = self._record = -1


class _Stamps:
    """Reads the times that lines begin with. Most are of the second that the last one was of."""

    def __init__(self) -> None:
        self._head, self._zone, self._seconds = b"", b"", 0

    def read(self, text: bytes) -> Stamp:
        """``2026-11-23T18:10:35.448376772Z``; Podman tells whole seconds. (0, 0) for anything else."""
        head, rest = text[:19], text[19:]
        zone = rest.lstrip(b".0123456789")
        digits = rest[1 : len(rest) - len(zone)]
        if head != self._head or zone != self._zone:
            from datetime import datetime

            try:
                self._seconds = int(datetime.fromisoformat((head + zone).decode("ascii")).timestamp())
            except ValueError:
                return 0, 0
            self._head, self._zone = head, zone
        return self._seconds, int(digits[:9].ljust(9, b"0")) if digits.isdigit() else 0


def _stamp_of(since: str) -> Stamp:
    seconds, _, nanos = since.partition(".")
    return (int(seconds), int(nanos)) if since else (0, 0)


class Followers:
    """One for each container of an engine. ``folder``: where their position files lie."""

    def __init__(
        self,
        client: EngineClient,
        folder: str,
        *,
        available: Callable[[], Awaitable[object]],
        ended: Callable[[str], Awaitable[object]],
        told: Callable[[str], None],
    ) -> None:
        self._client = client
        self._folder = folder
        self._available = available
        self._ended = ended
        self._told = told
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drained: set[str] = set()

    def begin(self, container: str, log_path: str) -> None:
        """Follow it, unless that is done already."""
        if not log_path or container in self._tasks or container in self._drained:
            return
        follower = Follower(
            self._client,
            container,
            log_path,
            self._position(container),
            available=self._available,
            ended=lambda: self._ended(container),
            told=self._told,
        )
        self._tasks[container] = _spawn(self._run(follower), f"log of {container[:12]}")

    async def _run(self, follower: Follower) -> None:
        try:
            await follower.run()
            self._drained.add(follower.container)
        except Exception as exc:  # a bug of ours must not stay unheard until somebody misses his log
            self._told(f"the log of container {follower.container[:12]} is not read any more: {exc!r}")
        finally:
            self._tasks.pop(follower.container, None)

    async def drained(self, container: str, timeout: float) -> None:
        """Wait until all that it said is written, at most ``timeout`` seconds."""
        if (task := self._tasks.get(container)) is not None:
            await asyncio.wait([task], timeout=timeout)

    async def leave(self, container: str) -> None:
        """It is about to be removed: read no more of it."""
        if (task := self._tasks.get(container)) is not None:
            task.cancel()
            await asyncio.wait([task])

    def forget(self, container: str) -> None:
        """It was removed."""
        self._drained.discard(container)
        _remove(self._position(container))

    def keep_only(self, containers: set[str]) -> None:
        """Forget containers that are no more."""
        self._drained &= containers
        with suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                if name not in containers and name not in self._tasks:
                    os.unlink(os.path.join(self._folder, name))

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _position(self, container: str) -> str:
        return os.path.join(self._folder, container)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)
