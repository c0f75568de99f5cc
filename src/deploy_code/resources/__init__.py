"""What this machine has, and what of it is promised to whom. Loaded lazily: import only what is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_code.resources.capacity import Capacity
    from deploy_code.resources.manager import Allocation, ResourceManager

__all__ = ["Allocation", "Capacity", "ResourceManager"]


def __getattr__(name: str) -> object:
    if name == "Capacity":
        from deploy_code.resources.capacity import Capacity

        return Capacity
    if name in ("Allocation", "ResourceManager"):
        from deploy_code.resources import manager

        return getattr(manager, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
