"""A runtime in memory: ``FakeDriver`` plays ``drivers.base.Driver`` on a ``FakeMachine`` that a test can look into.

A machine outlives its drivers, as real instances outlive the agent: a second driver on the same machine finds what the
first one started.
"""

from __future__ import annotations

import asyncio
import signal as signals
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy_code.drivers.base import Running, StartOrder
from deploy_code.errors import DriverError
from deploy_code.model import Exit

FIRST_PID = 4_200_000  # above the highest number that Linux gives: a mistake meets no real process


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeProgram:
    """What a command does. ``code``: it ends at once with this; None: it runs until it is stopped.

    ``deaf``: no signal but SIGKILL ends it. ``leaves``: so many children stay when it ends, until they are swept.
    """

    code: int | None = None
    deaf: bool = False
    leaves: int = 0


@dataclass(slots=True)
class _Process:
    order: StartOrder
    program: FakeProgram
    pid: int
    start_time: int
    boot_id: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exit | None = None
    left: int = 0

    @property
    def alive(self) -> bool:
        return self.exit is None


class FakeMachine:
    """Where fake instances live. ``orders`` are all starts so far, in their order.

    It knows the programs ``exit`` (``args=("3",)``: ends at once with 3), ``sleep`` (runs until stopped) and ``deaf``
    (has to be killed); ``programs`` adds others by the name of their command.
    """

    def __init__(self, programs: Mapping[str, FakeProgram] | None = None) -> None:
        self.orders: list[StartOrder] = []
        self._programs = {"sleep": FakeProgram(), "deaf": FakeProgram(deaf=True), **(programs or {})}
        self._processes: dict[str, _Process] = {}
        self._boots = 1
        self._made = 0

    @property
    def boot_id(self) -> str:
        return f"boot {self._boots}"

    def alive(self) -> list[str]:
        """The uuids of what runs."""
        return [uuid for uuid, each in self._processes.items() if each.alive]

    def end(self, uuid: str, code: int | None = None, signal: int | None = None) -> None:
        """An instance ends, by itself or by somebody else's hand. One that has ended stays as it is."""
        process = self._processes[uuid]
        if process.alive:
            process.exit = Exit(at=time.time(), code=code, signal=signal)
            process.left = process.program.leaves
            process.ended.set()

    def reboot(self) -> None:
        """Everything ends, and nothing of it is there any more."""
        for uuid in self.alive():
            self.end(uuid)
        self._processes.clear()
        self._boots += 1

    # -- for drivers

    def spawn(self, order: StartOrder) -> _Process:
        self._made += 1
        process = _Process(order, self._program(order), FIRST_PID + self._made, self._made, self.boot_id)
        self._processes[order.uuid] = process
        self.orders.append(order)
        if process.program.code is not None:
            self.end(order.uuid, process.program.code)
        return process

    def look_up(self, running: Running) -> _Process | None:
        """The very one: not another start under the same uuid, nor one before a reboot."""
        process = self._processes.get(running.uuid)
        same = process is not None and (process.pid, process.start_time, process.boot_id) == (
            running.pid,
            running.start_time,
            running.boot_id,
        )
        return process if same else None

    def spawned(self, uuid: str) -> _Process | None:
        process = self._processes.get(uuid)
        return process if process is not None and process.alive else None

    def _program(self, order: StartOrder) -> FakeProgram:
        if order.command == "exit" and "exit" not in self._programs:
            return FakeProgram(code=int(order.args[0]) if order.args else 0)
        try:
            return self._programs[order.command]
        except KeyError as exc:
            known = ", ".join(sorted({*self._programs, "exit"}))
            raise DriverError(
                f"no program {order.command!r} on this machine (it has {known})",
                code="E003",
                remedy="Give FakeMachine a program of that name",
            ) from exc


class FakeDriver:
    """``drivers.base.Driver`` over a ``FakeMachine`` (a new one unless given). Nothing real is ever started."""

    name = "fake"

    def __init__(self, machine: FakeMachine | None = None) -> None:
        self.machine = machine or FakeMachine()

    async def start(self, order: StartOrder) -> Running:
        """Raises DriverError E003 for a command that the machine does not have."""
        return _running(self.machine.spawn(order))

    async def find(self, running: Running) -> bool:
        process = self.machine.look_up(running)
        return process is not None and process.alive

    async def find_spawned(self, uuids: Sequence[str]) -> dict[str, Running]:
        found = {uuid: self.machine.spawned(uuid) for uuid in uuids}
        return {uuid: _running(process) for uuid, process in found.items() if process is not None}

    async def wait(self, running: Running) -> Exit:
        process = self.machine.look_up(running)
        if process is None:
            return Exit(at=time.time())
        await process.ended.wait()
        assert process.exit is not None
        return process.exit

    async def stop(self, running: Running, signal: str, timeout: float) -> bool:
        """A deaf one is killed at once: nobody waits for what is not there."""
        number = _signal_number(signal)
        process = self.machine.look_up(running)
        if process is None:
            return True
        alive, deaf = process.alive, process.program.deaf
        self.machine.end(running.uuid, signal=signals.SIGKILL if deaf else number)
        process.left = 0
        return not (alive and deaf)

    async def sweep(self, running: Running) -> int:
        process = self.machine.look_up(running)
        if process is None:
            return 0
        if process.alive:
            raise DriverError(f"process {running.pid} still runs and cannot be swept", remedy="Stop it first")
        swept, process.left = process.left, 0
        return swept

    async def pids(self, running: Running) -> tuple[int, ...]:
        process = self.machine.look_up(running)
        if process is None:
            return ()
        return (process.pid,) if process.alive else tuple(process.pid * 10 + n for n in range(process.left))

    def close(self) -> None:
        """Nothing is watched."""


def _running(process: _Process) -> Running:
    return Running(uuid=process.order.uuid, pid=process.pid, start_time=process.start_time, boot_id=process.boot_id)


def _signal_number(name: str) -> int:
    try:
        return signals.Signals[name]
    except KeyError as exc:
        raise DriverError(f'"{name}" is no signal', remedy='Use a name such as SIGTERM in "stop_signal"') from exc
