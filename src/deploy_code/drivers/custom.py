"""Services of types that somebody else wrote: whoever runs their objects is asked, and nothing is started here.

An object says itself how it is. What its ``start`` gave back is all that is remembered of it; with that it can be made
anew at any time, by another host, after a reboot too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deploy_code.drivers.base import Running, StartOrder
from deploy_code.drivers.pidfd import kill_all
from deploy_code.drivers.proctree import Claim, Ident, Proc, boot_id, look_up
from deploy_code.drivers.scans import SharedScan
from deploy_code.errors import DeployCodeError
from deploy_code.model import Exit, ProbeResult, Volume

MEMORY, CHECKED, HOLDER = "memory", "checked", "holder"  # keys of ``Running.handler``, and so of the row
ENDED = {"failed": 1, "stopped": 0}  # what an object answers that has ended by itself, and the exit code it counts as
KILL_SECONDS = 5.0  # what has not gone so long after SIGKILL hangs in the kernel
_READY = "running"
_NOBODY = Ident(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomOrder(StartOrder):
    """A start of a custom service. ``handler`` and ``digest`` say which code runs it: "" what a process registered.

    ``clean``: an earlier start was broken off where nobody knows; what it left is cleaned up first.
    """

    service_type: str
    handler: str = ""
    digest: str = ""  # of the file that ``handler`` names; "" for packages
    revision: int = 0
    index: int = 0
    image: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    clean: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a start left behind. ``checked``: the class says itself how it is. ``holder``: the host that has it."""

    memory: Mapping[str, str]
    checked: bool
    holder: str


class Hosts(Protocol):
    """Whoever reaches the objects. All raise DriverError: E014 where nobody can run the type, E005 what went wrong."""

    async def start(self, order: CustomOrder) -> Begun:
        """Start it, once. Who cancels this leaves the start under way; ``stop`` breaks it off."""
        ...

    async def reach(self, running: Running) -> None:
        """Make sure that somebody holds it, made anew if need be."""
        ...

    async def health(self, running: Running, timeout: float) -> str:
        """The word that its ``health_check`` answers within ``timeout`` seconds, a ``ServiceStatus``."""
        ...

    async def stop(self, running: Running, timeout: float) -> bool:
        """Break off its start or stop it. True when it stopped by itself within ``timeout`` seconds."""
        ...

    def forget(self, uuid: str) -> None:
        """The instance is no more."""
        ...

    async def clean_up(self, running: Running) -> bool:
        """It has ended: let its ``stop`` remove what is left. Bounded; False when that went wrong."""
        ...

    async def abandon(self, running: Running) -> None:
        """It cannot be stopped, and nobody is to try any more. Bounded."""
        ...

    def holder_pid(self, uuid: str) -> int:
        """pid of the process that has it; 0 where none does."""
        ...

    def close(self) -> None:
        """Let go of all hosts; what they run goes on."""
        ...


class CustomDriver:
    """``drivers.base.Driver`` for objects of custom types.

    ``Running.pid`` is that of the memory's ``pid``, where that is one of a living process, else 0.
    """

    name = "custom"

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._ends: dict[str, asyncio.Future[Exit]] = {}
        self._scans = SharedScan()

    async def start(self, order: StartOrder) -> Running:
        """Start one object. Raises DriverError: E005, E014."""
        assert isinstance(order, CustomOrder)
        self._ends.pop(order.uuid, None)
        begun = await self._hosts.start(order)
        handler = {MEMORY: json.dumps(dict(begun.memory)), HOLDER: begun.holder}
        if begun.checked:
            handler[CHECKED] = "yes"
        pid, start_time = _process_of(begun.memory)
        return Running(uuid=order.uuid, pid=pid, start_time=start_time, boot_id=boot_id(), handler=handler)

    def begun(self, order: StartOrder) -> Running:
        """What stands for a start that nobody waits for any more: it can be stopped."""
        return Running(uuid=order.uuid, pid=0, start_time=0, boot_id=boot_id())

    async def find(self, running: Running) -> bool:
        """Until it is asked, one that was started is taken to be there: only its handler knows."""
        return MEMORY in running.handler

    async def find_spawned(self, uuids: Sequence[str]) -> dict[str, Running]:
        """None: a start that nobody recorded is found by starting it again, which its host takes for the same."""
        return {}

    async def wait(self, running: Running) -> Exit:
        """Wait until its health check has said that it ended, or until it was stopped."""
        return await asyncio.shield(self._end(running.uuid))

    async def stop(self, running: Running, signal: str, timeout: float) -> bool:
        """Have it stopped; ``signal`` means nothing here. True when it went by itself. Raises DriverError.

        When its ``stop`` did not return in time, its processes are killed.
        """
        host = self._hosts.holder_pid(running.uuid)
        gently = await self._hosts.stop(running, timeout)
        if not gently:
            await self._kill_left(running, host)
        self._ended(running.uuid, Exit(at=time.time(), code=0))
        return gently

    async def abandon(self, running: Running) -> int:
        """Nobody is to try to stop it any more: its processes are killed, as far as they are known; how many."""
        host = self._hosts.holder_pid(running.uuid)
        await self._hosts.abandon(running)
        return await self._kill_left(running, host)

    async def sweep(self, running: Running) -> int:
        """Have the ended one clean up after itself; where it does not, kill what it left behind, and say how many."""
        host = self._hosts.holder_pid(running.uuid)
        return 0 if await self._hosts.clean_up(running) else await self._kill_left(running, host)

    async def pids(self, running: Running) -> tuple[int, ...]:
        """The process that its memory names, those that carry its uuid in their env, and what descends from them."""
        members = await self._members(running, Ident(running.pid, running.start_time))
        return tuple(sorted(members, key=lambda pid: (pid != running.pid, pid)))

    async def _members(self, running: Running, leader: Ident) -> dict[int, Proc]:
        table = await self._scans.fresh(since=0)
        return table.members(Claim(running.uuid, leader))

    async def _kill_left(self, running: Running, host: int) -> int:
        """Kill its processes until none is left. An object may run in its ``host``, and name that: it is spared."""
        killed: set[Ident] = set()
        at_home = running.pid == host or not running.pid or running.boot_id != boot_id()
        leader = _NOBODY if at_home else Ident(running.pid, running.start_time)
        deadline = time.monotonic() + KILL_SECONDS
        while time.monotonic() < deadline:
            left = {proc.ident for proc in (await self._members(running, leader)).values() if proc.pid != host}
            if not left:
                break
            killed |= left
            await kill_all(left, deadline - time.monotonic())
        return len(killed)

    def close(self) -> None:
        """Forget everything; nothing is stopped."""
        for end in self._ends.values():
            end.cancel()
        self._ends.clear()
        self._hosts.close()

    # -- health

    async def ask(self, running: Running, timeout: float) -> str:
        """The word of its health check. One that has ended by itself ends ``wait``. Raises DriverError."""
        word = await self._hosts.health(running, timeout)
        if word in ENDED:
            self._ended(running.uuid, Exit(at=time.time(), code=ENDED[word]))
        return word

    async def look(self, running: Running, timeout: float) -> None:
        """Find out whether it still runs, as far as it can say. Raises DriverError."""
        if CHECKED in running.handler:
            await self.ask(running, timeout)
        else:
            await self._hosts.reach(running)

    def _end(self, uuid: str) -> asyncio.Future[Exit]:
        if uuid not in self._ends:
            self._ends[uuid] = asyncio.get_running_loop().create_future()
        return self._ends[uuid]

    def _ended(self, uuid: str, exit_: Exit) -> None:
        end = self._end(uuid)
        if not end.done():
            end.set_result(exit_)

    def forget(self, uuid: str) -> None:
        """It is no more: nobody waits for its end."""
        self._ends.pop(uuid, None)
        self._hosts.forget(uuid)


def memory_of(running: Running) -> dict[str, str]:
    """What its ``start`` gave back; empty when that is not known."""
    memory: dict[str, str] = json.loads(running.handler.get(MEMORY, "{}"))
    return memory


def _process_of(memory: Mapping[str, str]) -> tuple[int, int]:
    """pid and start time of the process that the memory names as ``pid``; zeros where there is none."""
    text = memory.get("pid", "")
    proc = look_up(int(text)) if text.isdecimal() and 0 < int(text) < 1 << 31 else None
    return (proc.pid, proc.start_time) if proc is not None and proc.alive else (0, 0)


class HandlerProbe:
    """Asks an object how it is; what it answers is a value, never an exception (``health.probes.Probe``)."""

    kind = "handler"

    def __init__(self, driver: CustomDriver, running: Running, service_type: str, *, timeout: float) -> None:
        self._driver = driver
        self._running = running
        self._target = f"health_check of {service_type}"
        self._timeout = timeout

    async def __call__(self) -> ProbeResult:
        at, began = time.time(), time.perf_counter()
        try:
            word = await self._driver.ask(self._running, self._timeout)
            ok, detail = word == _READY, f"answered {word.upper()}"
        except DeployCodeError as exc:
            ok, detail = False, exc.text
        return ProbeResult(
            ok=ok,
            kind=self.kind,
            target=self._target,
            at=at,
            duration=time.perf_counter() - began,
            detail=detail[:2048],
        )
