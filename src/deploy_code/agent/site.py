"""What all supervisors of one agent share. The keeper is it; here is what they may rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from deploy_code.model import Instance
from deploy_code.reliability.registry import Breakers

from .addresses import Addresses
from .dependencies import Dependencies
from .drivers import Drivers
from .journal import Journal
from .launch import Launcher
from .prober import Prober
from .records import Records

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
    addresses: Addresses
    dependencies: Dependencies
    boot_id: str
    open_files: int  # soft limit that services start with

    def changed(self, instance: Instance) -> None:
        """Tell all who watch."""
        ...

    def gone(self, instance: Instance) -> None:
        """It is no more: forget it."""
        ...

    def chance(self) -> float:
        """A number in [0, 1)."""
        ...

    def circuits_beside(self, instance: Instance) -> list[LoopCircuit]:
        """Those of the other instances of its revision."""
        ...

    async def news(self) -> None:
        """Wait until any instance changes."""
        ...
