"""The engine: decides through ``plan`` what is wanted, and walks the plan through the platform."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Engine": "engine",
    "DeploymentReport": "report",
    "FailureReport": "report",
}
__all__ = ["DeploymentOrchestrator", "DeploymentReport", "Engine", "FailureReport"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
