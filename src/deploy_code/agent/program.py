"""The program that runs the objects of one type from ``plugins:`` or an entry point: started when it is needed.

It is a child of the agent, but outlives it, so one that a former agent started may still be there; its lock tells. Two
never run for one type: what does not come back to us is killed first, and then another one makes its objects anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from contextlib import suppress
from typing import Any

from deploy_code.errors import DriverError
from deploy_code.reliability.circuit import CircuitBreaker
from deploy_code.wire import AGENT_ENV, HOSTS

from .links import Link, ended, holder_of, is_alive, kill, pid_of
from .roster import Roster
from .ulimit import limit_open_files

log = logging.getLogger("deploy_code.agent")

RETURN_SECONDS = 5.0  # what survived a former agent has come back by then
LOAD_SECONDS = 20.0  # from its start until it has imported the type
STABLE_SECONDS = 10.0  # one that lives for so long was started well
_NAMELESS = "?"  # it has taken its lock, and is about to write who it is
_WRITE_SECONDS = 0.02


class Program:
    """The host of one ``key``. ``source``: where the type is defined; ``breaker`` stands before each start of it.

    ``open_files``: the soft limit that it, and what it starts, begins with.
    """

    def __init__(
        self, state: str, key: str, source: str, breaker: CircuitBreaker, roster: Roster, open_files: int
    ) -> None:
        self._state = state
        self._key = key
        self._source = source
        self._breaker = breaker
        self._roster = roster
        self._open_files = open_files
        self._starting: asyncio.Task[Link] | None = None
        self._arrival: asyncio.Future[Link] | None = None
        self._stable: asyncio.TimerHandle | None = None

    async def reach(self, python_path: str) -> Link:
        """The connected host; it is started for all who wait. Raises DriverError E005, CircuitOpenError E018."""
        if link := self._roster.program(self._key):
            return link
        if self._starting is None or self._starting.done():
            self._starting = asyncio.get_running_loop().create_task(
                self._start(python_path), name=f"start the host of {self._source}"
            )
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._starting)

    def arrived(self, link: Link) -> None:
        """It is connected, or says that it cannot run anything."""
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(link)

    def lost(self) -> None:
        """It ended, and nobody had told it to."""
        if self._stable is not None:
            self._stable.cancel()
            self._stable = None
        self._breaker.failed("its process ended")

    def try_now(self) -> None:
        """It was left alone because it kept failing; somebody wants something of it now."""
        self._breaker.try_now()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._starting is not None:
            self._starting.cancel()
        if self._stable is not None:
            self._stable.cancel()

    async def _start(self, python_path: str) -> Link:
        call = self._breaker.admit()
        try:
            link = await self._come_back() or await self._spawn(python_path)
        except DriverError as exc:
            call.failed(exc.message)
            raise
        except BaseException:
            call.abandoned()
            raise
        self._stable = asyncio.get_running_loop().call_later(STABLE_SECONDS, call.succeeded)
        return link

    async def _come_back(self) -> Link | None:
        """The one that a former agent started, if it comes back to us; one that does not is killed."""
        while holder := lock_holder(self._state, self._key):
            if holder == _NAMELESS:
                await asyncio.sleep(_WRITE_SECONDS)
                continue
            link = await self._arrives(pid_of(holder), RETURN_SECONDS)
            if link is not None and not link.offer.failed:
                return link
            if is_alive(holder):
                log.warning("the host of %s (pid %d) does not come back: killed", self._source, pid_of(holder))
                if not await kill(holder):
                    raise self._failed(f"its former host, pid {pid_of(holder)}, does not end when it is killed")
            if lock_holder(self._state, self._key) == holder:
                break_lock(self._state, self._key)  # a process that it left behind has inherited it
        return None

    async def _spawn(self, python_path: str) -> Link:
        try:
            pid = _spawn(self._state, self._key, self._source, python_path)
            holder = holder_of(pid)
        except OSError as exc:
            raise self._failed(f"its host cannot be started: {exc.strerror}") from exc
        limit_open_files(pid, self._open_files)
        link = await self._arrives(pid, LOAD_SECONDS)
        if link is None:
            await kill(holder)
            raise self._failed("its host ended, or did not load it in time", remedy="See agent.log")
        if link.offer.failed:
            raise self._failed(link.offer.failed)
        return link

    async def _arrives(self, pid: int, timeout: float) -> Link | None:
        """Its offer; None when it ends instead, or lets itself be waited for too long."""
        if link := self._roster.program(self._key):
            return link
        arrival: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._arrival = arrival
        end = asyncio.ensure_future(ended(pid))
        either: set[asyncio.Future[Any]] = {arrival, end}
        try:
            await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            return arrival.result() if arrival.done() else None
        finally:
            self._arrival = None
            end.cancel()

    def _failed(self, why: str, remedy: str = "") -> DriverError:
        return DriverError(
            f"the service type of {self._source} cannot be run: {why}",
            remedy=remedy or "Correct it, or take it out of `plugins:`",
        )


def lock_holder(state: str, key: str) -> str:
    """pid and start time of the program that took the lock of this key; empty when nobody holds it."""
    try:
        fd = os.open(_lock(state, key), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(fd, 64).decode().strip() or _NAMELESS
    finally:
        os.close(fd)
    return ""


def break_lock(state: str, key: str) -> None:
    """Whoever took it is dead: the next program makes a new one."""
    with suppress(FileNotFoundError):
        os.unlink(_lock(state, key))


def _lock(state: str, key: str) -> str:
    return os.path.join(state, HOSTS, f"{key}.lock")


def _spawn(state: str, key: str, source: str, python_path: str) -> int:
    """Own session, our short environment, output to where ours goes. Reaped with the orphans."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-u", "-m", "deploy_code.services.host", state, key, source],
            _env(python_path),
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0)],
            setsid=True,
            setsigmask=(),
        )
    finally:
        os.close(null)


def _env(python_path: str) -> dict[str, str]:
    env = {name: os.environ[name] for name in AGENT_ENV if name in os.environ}
    env.pop("NOTIFY_SOCKET", None)
    paths = [path for path in (*env.get("PYTHONPATH", "").split(":"), *python_path.split(":")) if path]
    return env | ({"PYTHONPATH": ":".join(dict.fromkeys(paths))} if paths else {})
