"""For authors of extensions: fakes to try them on in memory, and suites that say whether they keep their promises.

The fakes need nothing but this package. The suites are in ``deploy_code.testing.contracts`` and need pytest:
``pip install "deploy-code[testing]"``. Our own drivers, platforms and rollouts pass the same suites.
"""

from __future__ import annotations

from deploy_code.testing.clock import FakeClock
from deploy_code.testing.driver import FakeDriver, FakeMachine, FakeProgram
from deploy_code.testing.platform import FakePlatform, Start
from deploy_code.testing.project import FakeProject

__all__ = ["FakeClock", "FakeDriver", "FakeMachine", "FakePlatform", "FakeProgram", "FakeProject", "Start"]
