"""What all supervisors of one agent share. The keeper is it; here is what they may rely on."""

from __future__ import annotations

from typing import Protocol

from deploy_code.drivers.base import Driver
from deploy_code.model import Instance, Policy

from .journal import Journal
from .launch import Launcher
from .prober import Prober
from .records import Records
from .wanted import Entry


class Site(Protocol):
    """Where a supervisor works."""

    driver: Driver
    prober: Prober
    records: Records
    journal: Journal
    launcher: Launcher
    boot_id: str
    open_files: int  # soft limit that services start with

    def changed(self, instance: Instance) -> None:
        """Tell all who watch."""
        ...

    def gone(self, instance: Instance) -> None:
        """It is no more: forget it."""
        ...

    def assign_ports(self, entry: Entry, instance: Instance, *, anew: bool) -> dict[str, int]:
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
