"""One host of custom services that is connected, as the agent sees it: who it is, what it holds, how it is asked."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any, Protocol

from deploy_code.drivers.proctree import look_up
from deploy_code.errors import DriverError
from deploy_code.wire import Offer

KILL_SECONDS = 5.0  # a process that has not gone so long after SIGKILL hangs in the kernel


class HostLostError(Exception):
    """The host went away before it answered."""


class Asker(Protocol):
    """The connection to a host (``serve.Connection``)."""

    peer: int  # pid of the process at the other end

    @property
    def is_open(self) -> bool: ...

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Its answer. Raises DriverError as answered, HostLostError."""
        ...

    def close(self) -> None: ...

    def abort(self) -> None:
        """Close it without a word: nobody reads at the other end."""
        ...


class Link:
    """A connected host. ``holds``: uuids of its objects."""

    def __init__(self, connection: Asker, offer: Offer) -> None:
        self.connection = connection
        self.offer = offer
        self.holds = set(offer.holds)
        self.pid = connection.peer
        self.holder = holder_of(self.pid)

    @property
    def is_program(self) -> bool:
        """Was it started by an agent? Else it is a process that registered types in code."""
        return bool(self.offer.key)

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Its answer. Raises DriverError, HostLostError."""
        return await self.connection.ask(do, **arguments)


# --------------------------------------------------------------------------- processes by pid and start time ("holder")


def holder_of(pid: int) -> str:
    """This very process, in words that its pid's next owner cannot be mistaken for."""
    proc = look_up(pid)
    return f"{pid} {proc.start_time if proc else 0}"


def pid_of(holder: str) -> int:
    return int(holder.partition(" ")[0] or 0)


def is_alive(holder: str) -> bool:
    """Does the very process that is meant still live?"""
    pid, _, start_time = holder.partition(" ")
    proc = look_up(int(pid)) if pid else None
    return proc is not None and proc.alive and str(proc.start_time) == start_time


async def ended(pid: int) -> None:
    """Wait until this process is no more; it is not reaped."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, lambda: None if over.done() else over.set_result(None))
    try:
        await over
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def kill(holder: str) -> bool:
    """End this very process at once; what it started goes on. True when it is no more."""
    with suppress(ProcessLookupError, TimeoutError):
        fd = os.pidfd_open(pid_of(holder))
        try:
            if is_alive(holder):  # the descriptor is that of the one that was looked at, or of one that is gone
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                await asyncio.wait_for(ended(pid_of(holder)), KILL_SECONDS)
        finally:
            os.close(fd)
    return not is_alive(holder)


def answered(error: dict[str, str]) -> DriverError:
    """An error as a host sent it."""
    return DriverError(
        error["message"], code=error.get("code"), meaning=error.get("meaning", ""), remedy=error.get("remedy", "")
    )
