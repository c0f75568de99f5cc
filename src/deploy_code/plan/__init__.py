"""Decides: ``(target, observed) -> Plan``, pure. No clock, no randomness, no I/O, no asyncio in this package.

What authors of rollouts need has its public names here; they load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_code.plan.diff import Change as Change
    from deploy_code.plan.plan import Goal as Goal
    from deploy_code.plan.plan import Plan as Plan
    from deploy_code.plan.plan import Step as Step
    from deploy_code.plan.plan import WaitReady as WaitReady
    from deploy_code.plan.plan import Want as Want

_WHERE = {
    "Change": "deploy_code.plan.diff",
    "Goal": "deploy_code.plan.plan",
    "Plan": "deploy_code.plan.plan",
    "Step": "deploy_code.plan.plan",
    "WaitReady": "deploy_code.plan.plan",
    "Want": "deploy_code.plan.plan",
}
__all__ = ["Change", "Goal", "Plan", "Step", "WaitReady", "Want"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
