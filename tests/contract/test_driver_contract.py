"""Our drivers keep what every driver promises; a new one joins by a class of its own here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_code.drivers.base import Driver, Running, StartOrder
from deploy_code.drivers.process import ProcessDriver
from deploy_code.model import Network
from deploy_code.testing import FakeDriver, FakeMachine
from deploy_code.testing.contracts import DriverContract, DriverStage, ProcessDriverContract
from support.containers import PROGRAMS, cleared, container_order, new_driver
from support.engine_daemons import Engine
from support.loops import until


class TestProcessDriver(ProcessDriverContract):
    def make_driver(self) -> Driver:
        return ProcessDriver()


class TestFakeDriver(DriverContract):
    def setup_method(self) -> None:
        self.machine = FakeMachine()

    def make_driver(self) -> Driver:
        return FakeDriver(self.machine)


class ContainerDriverContract(DriverContract):
    """The programs of the suite, in busybox."""

    engine: Engine
    folder: Path

    @pytest.fixture(autouse=True)
    def _house(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        with cleared(tmp_path):
            yield

    def make_driver(self) -> Driver:
        return new_driver(self.engine, self.folder)

    def order(self, program: str, stage: DriverStage) -> StartOrder:
        words = program.split()
        if words[0] in ("exit", *PROGRAMS):
            words = ["sh", "-c", PROGRAMS.get(program, program)]
        return container_order(self.engine, stage.folder, *words, container={"network": Network(mode="Host")})

    async def until_up(self, stage: DriverStage, running: Running) -> None:
        """Only then does it hear of signals."""
        starts = len(stage.started)
        await until(lambda: stage.log().count("up\n") == starts)


class TestDockerDriver(ContainerDriverContract):
    @pytest.fixture(autouse=True)
    def _engine(self, docker: Engine) -> None:
        self.engine = docker


class TestPodmanDriver(ContainerDriverContract):
    @pytest.fixture(autouse=True)
    def _engine(self, podman: Engine) -> None:
        self.engine = podman
