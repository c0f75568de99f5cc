"""A driver with orders for it, for the suites that every driver passes and for those of one driver.

A new driver joins the contract suite by an entry in ``HARNESSES``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from deploy_code.drivers.base import Driver, Running, StartOrder
from deploy_code.drivers.process import ProcessDriver


class Harness:
    """A driver, and orders for it. ``fresh_driver`` plays the agent's successor."""

    def __init__(self, folder: Path, make: Callable[[], Driver]) -> None:
        self.folder = folder
        self._make = make
        self.driver = make()
        self._drivers = [self.driver]
        self.started: list[Running] = []

    def order(self, script: str, **changes: object) -> StartOrder:
        name = uuid.uuid4().hex
        values: dict[str, object] = {
            "uuid": name,
            "service": "api",
            "command": "sh",
            "args": ("-c", script),
            "env": {"PATH": os.environ["PATH"], "DEPLOY_CODE_INSTANCE": name},
            "working_dir": str(self.folder),
            "log_path": str(self.folder / "api.0.log"),
            "status_path": str(self.folder / f"{name}.status"),
        }
        return StartOrder(**{**values, **changes})  # type: ignore[arg-type]

    async def start(self, script: str, **changes: object) -> Running:
        self.started.append(await self.driver.start(self.order(script, **changes)))
        return self.started[-1]

    def fresh_driver(self) -> Driver:
        """The old one forgets everything, as when the agent is replaced."""
        self.driver.close()
        self.driver = self._make()
        return self.driver

    def log(self) -> str:
        return (self.folder / "api.0.log").read_text()

    async def close(self) -> None:
        for running in self.started:
            await self.driver.stop(running, "SIGKILL", 5)
        self.driver.close()


HARNESSES = {"process": ProcessDriver}


@asynccontextmanager
async def harness(kind: str, folder: Path) -> AsyncIterator[Harness]:
    made = Harness(folder, HARNESSES[kind])
    try:
        yield made
    finally:
        await made.close()
