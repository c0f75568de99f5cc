"""What is recorded of a project, and the lock on deploying it. Loaded lazily: import only what is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_code.state.lock import DeployLock
    from deploy_code.state.store import Store

__all__ = ["DeployLock", "Store"]


def __getattr__(name: str) -> object:
    if name == "Store":
        from deploy_code.state.store import Store

        return Store
    if name == "DeployLock":
        from deploy_code.state.lock import DeployLock

        return DeployLock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
