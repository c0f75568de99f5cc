"""The engine: decides through ``plan`` what is wanted, and walks the plan through the platform.

Public names load when first used. ``DeploymentOrchestrator`` stands on top of the engine and lives higher up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_code.embed.orchestrator import DeploymentOrchestrator as DeploymentOrchestrator
    from deploy_code.orchestrator.engine import Engine as Engine
    from deploy_code.orchestrator.report import DeploymentReport as DeploymentReport
    from deploy_code.orchestrator.report import FailureReport as FailureReport
    from deploy_code.orchestrator.strategy import DeploymentStrategy as DeploymentStrategy

_WHERE = {
    "DeploymentOrchestrator": "deploy_code.embed.orchestrator",
    "DeploymentReport": "deploy_code.orchestrator.report",
    "DeploymentStrategy": "deploy_code.orchestrator.strategy",
    "Engine": "deploy_code.orchestrator.engine",
    "FailureReport": "deploy_code.orchestrator.report",
}
__all__ = ["DeploymentOrchestrator", "DeploymentReport", "DeploymentStrategy", "Engine", "FailureReport"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
