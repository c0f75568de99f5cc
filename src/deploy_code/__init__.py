"""deploy-code: from one YAML file to healthy services on this machine, and back as one unit when something fails."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deploy_code._version import __version__

if TYPE_CHECKING:
    from deploy_code.client import DeployCode
    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.embed.orchestrator import DeploymentOrchestrator
    from deploy_code.errors import DeployCodeError
    from deploy_code.orchestrator.report import DeploymentReport
    from deploy_code.services.status import DeploymentStatus, ServiceStatus

_WHERE = {
    "DeployCode": "deploy_code.client",
    "DeployCodeError": "deploy_code.errors",
    "DeploymentConfig": "deploy_code.config.schema",
    "DeploymentOrchestrator": "deploy_code.embed.orchestrator",
    "DeploymentReport": "deploy_code.orchestrator.report",
    "DeploymentStatus": "deploy_code.services.status",
    "ServiceStatus": "deploy_code.services.status",
}

__all__ = [
    "DeployCode",
    "DeployCodeError",
    "DeploymentConfig",
    "DeploymentOrchestrator",
    "DeploymentReport",
    "DeploymentStatus",
    "ServiceStatus",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: start-up time is a feature."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
