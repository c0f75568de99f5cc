"""Services: how they are doing, how to write a type of your own, and the registry of those of a project.

Public names load when first used: who only asks for a word need not load what a registry stands on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_code.embed.registry import ServiceRegistry as ServiceRegistry
    from deploy_code.embed.registry import ServiceState as ServiceState
    from deploy_code.services.handler import InstanceConfig as InstanceConfig
    from deploy_code.services.handler import Service as Service
    from deploy_code.services.status import ServiceStatus as ServiceStatus

_WHERE = {
    "InstanceConfig": "deploy_code.services.handler",
    "Service": "deploy_code.services.handler",
    "ServiceRegistry": "deploy_code.embed.registry",
    "ServiceState": "deploy_code.embed.registry",
    "ServiceStatus": "deploy_code.services.status",
}
__all__ = ["InstanceConfig", "Service", "ServiceRegistry", "ServiceState", "ServiceStatus"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
