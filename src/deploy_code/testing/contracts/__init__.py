"""Suites that say whether an extension keeps its promises: subclass one in a test module, and pytest runs it.

Each suite says in its docstring what to supply. The tests are plain functions that run a loop of their own, so that no
plugin of pytest is needed. A failed test says what was promised and what was seen.

A suite is imported when it is first named: only ``RolloutContract`` needs hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from deploy_code.testing.contracts.driver import DriverContract as DriverContract
    from deploy_code.testing.contracts.driver import DriverStage as DriverStage
    from deploy_code.testing.contracts.platform import PlatformContract as PlatformContract
    from deploy_code.testing.contracts.platform import PlatformStage as PlatformStage
    from deploy_code.testing.contracts.plugin import PluginContract as PluginContract
    from deploy_code.testing.contracts.process import ProcessDriverContract as ProcessDriverContract
    from deploy_code.testing.contracts.rollout import RolloutContract as RolloutContract
    from deploy_code.testing.contracts.service import ServiceContract as ServiceContract
    from deploy_code.testing.contracts.strategy import StrategyContract as StrategyContract

_HOMES = {
    "DriverContract": "driver",
    "DriverStage": "driver",
    "PlatformContract": "platform",
    "PlatformStage": "platform",
    "PluginContract": "plugin",
    "ProcessDriverContract": "process",
    "RolloutContract": "rollout",
    "ServiceContract": "service",
    "StrategyContract": "strategy",
}

pytest.register_assert_rewrite(*(f"{__name__}.{home}" for home in sorted({*_HOMES.values()})))


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
