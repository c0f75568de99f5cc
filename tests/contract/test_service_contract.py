"""Custom service types of both kinds, plain and async, keep what every one of them promises."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from deploy_code.services.handler import InstanceConfig, Service
from deploy_code.services.status import ServiceStatus
from deploy_code.testing.contracts import ServiceContract
from support.pages import names_of


class Program(Service):
    """A program of its own, remembered by its pid: plain methods, which may block."""

    def start(self) -> Mapping[str, str]:
        pid = os.posix_spawn("/bin/sleep", ["sleep", str(self.config.options["seconds"])], {}, setsid=True)
        return {"pid": str(pid)}

    def stop(self) -> None:
        if "pid" in self.memory:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(int(self.memory["pid"]), signal.SIGKILL)
                os.waitpid(int(self.memory["pid"]), 0)

    def health_check(self) -> ServiceStatus:
        if "pid" not in self.memory:
            return ServiceStatus.STOPPED
        alive = Path(f"/proc/{self.memory['pid']}").exists()
        return ServiceStatus.RUNNING if alive else ServiceStatus.FAILED


class TestPlainService(ServiceContract):
    service = Program

    def instance(self, folder: Path, index: int = 0) -> InstanceConfig:
        return replace(super().instance(folder, index), options={"seconds": 1000})


@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")  # it lets go of its process, and means to
class TestTypeOfTheHowTo(ServiceContract):
    service = names_of("how-to/service-type.md")["Folder"]

    def instance(self, folder: Path, index: int = 0) -> InstanceConfig:
        options = {"path": str(folder)}
        return replace(super().instance(folder, index), env=dict(os.environ), options=options)


class Mailbox(Service):
    """A folder that counts as up once it is there: async methods, and a constructor of its own."""

    def __init__(self, config: InstanceConfig) -> None:
        self._folder = Path(config.working_dir) / f"mailbox-{config.index}"

    async def start(self) -> Mapping[str, str]:
        await asyncio.sleep(0.01)
        self._folder.mkdir()
        return {"folder": str(self._folder)}

    async def stop(self) -> None:
        with suppress(FileNotFoundError):
            self._folder.rmdir()

    async def health_check(self) -> ServiceStatus:
        return ServiceStatus.RUNNING if Path(self.memory.get("folder", "/no")).is_dir() else ServiceStatus.STOPPED


class TestAsyncService(ServiceContract):
    service = Mailbox
