"""Ports and addresses of our file in a Compose file: what is published, and where one service finds another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy_code.config.compose.template import Template
from deploy_code.config.compose.writer import Writer
from deploy_code.config.nodes import Path

HOST = "host.docker.internal"
"""This machine, as a container calls it."""

Services = Mapping[str, Mapping[str, Any]]


def ports_out(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, list[str]]:
    """``ports`` for what callers use, ``expose`` for the rest."""
    published: list[str] = []
    exposed: list[str] = []
    for index, port in enumerate(service.get("ports", ())):
        _port(writer, port, (*path, "ports", index), published, exposed)
    return {key: found for key, found in (("ports", published), ("expose", exposed)) if found}


def _port(writer: Writer, port: Mapping[str, Any], at: Path, published: list[str], exposed: list[str]) -> None:
    host, container = port.get("host_port"), inner(port)
    if container is None:
        writer.dropped("a port that is chosen at start and handed over as PORT", at)
        return
    protocol = str(port.get("protocol", "tcp")).lower()
    number = writer.text(container, at) + ("" if protocol == "tcp" else f"/{protocol}")
    if host is not None:
        published.append(f"{writer.text(host, at)}:{number}")
    elif port.get("dynamic"):
        published.append(number)
    else:
        exposed.append(number)


def inner(port: Mapping[str, Any]) -> Any:
    """The port that the service itself binds; None when it is chosen at start."""
    found = port.get("container_port")
    return port.get("host_port") if found is None else found


class Addresses:
    """What ``${PORT}``, ``${services.NAME.host}`` and their like are in a Compose file."""

    def __init__(self, services: Services, containers: frozenset[str]) -> None:
        self._services = services
        self._containers = containers
        self.writer: Writer | None = None
        self.of_host: set[str] = set()
        """Services that use the name of this machine."""

    def resolve(self, name: str, path: Path) -> Template | None:
        """None for what only deploy-code knows."""
        service = str(path[1])
        if name == "PORT":
            return self._first(service)
        if name.startswith("PORT_"):
            return (name.removeprefix("PORT_"),)
        if not name.startswith("services."):
            return None
        other, _, what = name.removeprefix("services.").rpartition(".")
        if what == "port":
            return self._first(other)
        if other in self._containers:
            return (other,)
        self.of_host.add(service)
        return (HOST,)

    def _first(self, service: str) -> Template | None:
        ports = self._services.get(service, {}).get("ports", ())
        if not ports:
            return None
        port = inner(ports[0]) if service in self._containers else ports[0].get("host_port") or inner(ports[0])
        return None if port is None or self.writer is None else self.writer.parts(port)
