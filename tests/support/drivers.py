"""A driver with orders for it, for the suites of one driver; what all drivers promise is in the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from deploy_code.drivers.base import Driver, Running, StartOrder
from deploy_code.drivers.process import ProcessDriver
from deploy_code.testing.contracts import DriverStage
from deploy_code.testing.contracts.driver import plain_order


class Harness(DriverStage):
    """A driver, and orders for shell scripts."""

    def order(self, script: str, **changes: object) -> StartOrder:
        return plain_order(self, "sh", "-c", script, **changes)

    async def start(self, script: str | StartOrder, **changes: object) -> Running:
        return await super().start(self.order(script, **changes) if isinstance(script, str) else script)

    def fresh_driver(self) -> Driver:
        """The old one forgets everything, as when the agent is replaced."""
        return self.successor()


HARNESSES: dict[str, Callable[[], Driver]] = {"process": ProcessDriver}


@asynccontextmanager
async def harness(kind: str, folder: Path) -> AsyncIterator[Harness]:
    made = Harness(folder, HARNESSES[kind])
    try:
        yield made
    finally:
        await made.close()
