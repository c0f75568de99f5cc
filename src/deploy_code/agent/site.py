"""What all supervisors of one agent share. The keeper is it; here is what they may rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from deploy_code.model import Instance, Policy
from deploy_code.reliability.registry import Breakers

from .drivers import Drivers
from .journal import Journal
from .launch import Launcher
from .prober import Prober
from .published import Numbers
from .records import Records
from .wanted import Entry

if TYPE_CHECKING:
    from .circuit import LoopCircuit


class Site(Protocol):
    """Where a supervisor works."""

    drivers: Drivers
    prober: Prober
    records: Records
    journal: Journal
    breakers: Breakers  # before all that is somebody else's
    launcher: Launcher
    boot_id: str
    open_files: int  # soft limit that services start with

    def changed(self, instance: Instance) -> None:
        """Tell all who watch."""
        ...

    def gone(self, instance: Instance) -> None:
        """It is no more: forget it."""
        ...

    def assign_ports(self, entry: Entry, instance: Instance, *, anew: bool) -> Numbers:
        """The ports for a start of ``instance``: those it had, unless ``anew``. Raises DriverError S004."""
        ...

    def chance(self) -> float:
        """A number in [0, 1)."""
        ...

    def unready_dependency(self, policy: Policy) -> str:
        """A service that has to be healthy for this one, and is not; empty when there is none."""
        ...

    async def dependencies_met(self, policy: Policy) -> None:
        """Wait until all dependencies are as their conditions say."""
        ...

    def circuits_beside(self, instance: Instance) -> list[LoopCircuit]:
        """Those of the other instances of its revision."""
        ...

    async def news(self) -> None:
        """Wait until any instance changes."""
        ...
