"""Where a Compose file and ours are both silent and mean different things: told once, with the services' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy_code.config.compose.reader import Item, Reader

_SHOWN = 5


def tell_defaults(reader: Reader, services: Mapping[str, Mapping[str, Any]], item: Item) -> None:
    """``services``: as they will stand in our file."""
    active = {name: service for name, service in services.items() if service.get("enabled", True)}
    unasked = [name for name, service in active.items() if _is_asked_by_port(service)]
    if unasked:
        message = "without a healthcheck here or in the image, ready when the first port takes a connection"
        reader.changed(f"{message}: {_listed(unasked)}", item)
    unbounded = [name for name, service in active.items() if "stop_timeout_seconds" not in service]
    if unbounded:
        reader.changed(f"killed 30 seconds after being asked to stop, not 10: {_listed(unbounded)}", item)


def _is_asked_by_port(service: Mapping[str, Any]) -> bool:
    ports = [port for port in service.get("ports", ()) if port.get("protocol", "tcp") == "tcp"]
    return bool(ports) and "health_check" not in service and not service.get("one_shot")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
