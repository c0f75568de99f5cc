"""What a runtime on this machine must be able to do. The keeper calls these, and nothing else talks to a runtime.

Drivers know neither each other nor the state; they get resolved values and give back small ones. Library and OS errors
are wrapped into ``DriverError`` here, once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from deploy_code.model import Exit, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOrder:
    """Everything one start needs, all placeholders resolved."""

    uuid: str
    service: str
    command: str  # absolute, or a name looked up on the PATH of ``env``
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # the complete environment of the child
    working_dir: str = "/"
    user: str = ""
    log_path: str = ""  # opened O_APPEND by the driver, 0640
    one_shot: bool = False
    status_path: str = ""  # one-shots: where the wrapper writes the exit status, atomically
    resources: Resources = Resources()  # CPU, memory and pids are limits, enforced where the machine lets us
    made: str = ""  # of a process: what its revision says, in digests (drivers/made.py)
    patience: float = 30.0  # seconds that a runtime which is away is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What must be remembered of a start to find it again; plain data, kept in the instance row."""

    uuid: str
    pid: int
    start_time: int  # field 22 of /proc/PID/stat
    boot_id: str
    status_path: str = ""  # one-shots
    handler: Mapping[str, str] = field(default_factory=dict)
    address: str = ""  # where its ports answer; "": on this machine, as a process's do
    ports: Mapping[str, int] = field(default_factory=dict)  # at that address, where the runtime chose them
    published: Mapping[str, int] = field(default_factory=dict)  # on this machine


class Driver(Protocol):
    """One runtime on this machine."""

    name: str

    async def start(self, order: StartOrder) -> Running:
        """Start one instance. Raises DriverError: E003 no such command, E005 cannot be started, S004 port taken."""
        ...

    async def find(self, running: Running) -> bool:
        """Is this very one still alive? After a restart of the agent also takes it under watch (adoption)."""
        ...

    async def find_spawned(self, uuids: Sequence[str]) -> dict[str, Running]:
        """Those of ``uuids`` that were spawned although nobody could record it (found by DEPLOY_CODE_INSTANCE)."""
        ...

    async def wait(self, running: Running) -> Exit:
        """Wait until it has ended, and how. Cancelling the wait harms nothing."""
        ...

    async def stop(self, running: Running, signal: str, timeout: float) -> bool:
        """Ask with ``signal``, wait up to ``timeout``, kill, and sweep whatever it left behind.

        True when it went by itself, False when it had to be killed. Idempotent.
        """
        ...

    async def sweep(self, running: Running) -> int:
        """Kill what an ended instance left behind; how many processes that were."""
        ...

    async def pids(self, running: Running) -> tuple[int, ...]:
        """All processes of this instance, its own first."""
        ...

    def close(self) -> None:
        """Forget everything that is watched; kills nothing."""
        ...


@runtime_checkable
class ComparingDriver(Driver, Protocol):
    """A driver that can tell what runs from what ought to."""

    async def differences(self, running: Running, order: StartOrder) -> tuple[str, ...]:
        """In words, led by what it is about (``"limits: …"``, ``"env changed (A, B)"``): what of this one is not as
        ``order`` would make it. Names of variables, never values."""
        ...

    async def orphans(self, known: Collection[str]) -> list[Running]:
        """What carries this project's marks, and a uuid that is none of ``known``.

        Their ``handler`` says the ``service``, and under ``name`` what people call it.
        """
        ...


@runtime_checkable
class SlowDriver(Driver, Protocol):
    """A driver whose starts may take seconds, and can be broken off: cancel one, and stop what ``begun`` gives."""

    def begun(self, order: StartOrder) -> Running:
        """What stands for a start that nobody waits for any more: ``stop`` of it removes whatever came of it."""
        ...
