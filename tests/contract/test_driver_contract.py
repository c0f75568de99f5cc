"""Our drivers keep what every driver promises; a new one joins by a class of its own here."""

from __future__ import annotations

from deploy_code.drivers.base import Driver
from deploy_code.drivers.process import ProcessDriver
from deploy_code.testing import FakeDriver, FakeMachine
from deploy_code.testing.contracts import DriverContract, ProcessDriverContract


class TestProcessDriver(ProcessDriverContract):
    def make_driver(self) -> Driver:
        return ProcessDriver()


class TestFakeDriver(DriverContract):
    def setup_method(self) -> None:
        self.machine = FakeMachine()

    def make_driver(self) -> Driver:
        return FakeDriver(self.machine)
