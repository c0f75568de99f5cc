"""A config of ours as the text of a Compose file, with everything that cannot be said there.

What is written is what docker-compose 1.29 and today's Compose both read, so there is no ``version`` and no ``name``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deploy_code.config.check import type_of
from deploy_code.config.compose.findings import Finding, Findings
from deploy_code.config.compose.outbound import has_check, service_out, volume_name
from deploy_code.config.compose.published import HOST, Addresses
from deploy_code.config.compose.writer import Writer
from deploy_code.config.nodes import Path, place_of
from deploy_code.config.schema import DeploymentConfig
from deploy_code.config.source import source_of
from deploy_code.config.write import Dumper, written

_ENDLESS = 2**31
_DISABLED = "disabled"  # the profile of services that are not to run
_CONDITIONS = {
    "started": "service_started",
    "healthy": "service_healthy",
    "completed": "service_completed_successfully",
}
_TOP = {
    "name": "not known to docker-compose 1: give it with --project-name, or in COMPOSE_PROJECT_NAME",
    "hooks": "Compose runs no commands around a deployment",
    "plugins": "Compose has no plugins",
    "security": "Compose has no API of its own to guard",
    "monitoring": "Compose watches nothing",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """``text``: a Compose file; ``findings``: what it cannot say, in the order of our file."""

    text: str
    findings: tuple[Finding, ...]


def export_compose(config: DeploymentConfig, *, folder: str) -> Exported:
    """``config``, which was read from files, as a Compose file that will lie in ``folder``.

    What comes from a variable stays one. Processes and services of types that are registered are left out.
    """
    source = source_of(config)
    data = written(config)
    services = data.get("services", {})
    containers = frozenset(name for name, service in config.services.items() if type_of(service) == "container")
    addresses = Addresses(services, containers)
    writer = Writer(Findings(source.files), source, os.path.realpath(folder), addresses.resolve)
    addresses.writer = writer
    _top(writer, data)
    found = {name: service_out(writer, services[name], ("services", name)) for name in services if name in containers}
    for name, service in found.items():
        _surroundings(service, name, data, writer, addresses)
        dependencies = _dependencies(writer, name, services, containers)
        if dependencies:
            service["depends_on"] = dependencies
    _left_out(writer, config, containers)
    _defaults(writer, services, containers)
    document = {"services": found, **_volumes(services, containers), **_network(data)}
    return Exported(_text(document, source.files), writer.findings.ordered())


def _top(writer: Writer, data: Mapping[str, Any]) -> None:
    """Sections and settings that Compose has nothing like."""
    for key, why in _TOP.items():
        if data.get(key):
            writer.dropped(why, (key,))
    for key, value in data.get("deployment", {}).items():
        if (key, str(value)) != ("strategy", "Parallel"):
            writer.dropped("Compose starts what it can at once, and puts nothing back", ("deployment", key))
    infrastructure = data.get("infrastructure", {})
    for key in infrastructure.keys() - {"network", "orchestrator", "storage"}:
        if str(infrastructure[key]) != "Docker":
            writer.dropped("what Compose runs on is Docker's own business", ("infrastructure", key))
    if str(infrastructure.get("network", {}).get("mode")) == "Overlay":
        writer.dropped("Compose has a bridge, or the machine's own network", ("infrastructure", "network", "mode"))
    if "port_range" in infrastructure.get("network", {}):
        writer.dropped("ports that are not given are chosen by Docker", ("infrastructure", "network", "port_range"))


def _left_out(writer: Writer, config: DeploymentConfig, containers: frozenset[str]) -> None:
    for name, service in config.services.items():
        if name not in containers:
            kind = type_of(service)
            what = "a process" if kind == "process" else f"of type {kind}"
            writer.dropped(f"{what}: Compose runs containers only", ("services", name))


def _defaults(writer: Writer, services: Mapping[str, Any], containers: frozenset[str]) -> None:
    """Where both are silent, they mean different things."""
    silent = [name for name in services if name in containers and "stop_timeout_seconds" not in services[name]]
    if silent:
        message = "where stop_timeout_seconds is not given, Compose waits 10 seconds, not 30"
        writer.findings.changed(message, place_of(writer.source.tree, ("services",), key=True), ("services",))


# --------------------------------------------------------------------------- what surrounds a service


def _surroundings(
    found: dict[str, Any], name: str, data: Mapping[str, Any], writer: Writer, addresses: Addresses
) -> None:
    service, network = data["services"][name], data.get("infrastructure", {}).get("network", {})
    path: Path = ("services", name)
    if service.get("enabled") is False:
        found["profiles"] = [_DISABLED]
    if name in addresses.of_host:
        found.setdefault("extra_hosts", {})[HOST] = "host-gateway"
        writer.changed(f"a process is reached as {HOST}, if it listens on more than 127.0.0.1", path)
    if str(network.get("mode", "")) == "Host":
        found["network_mode"] = "host"
    elif "dns_servers" in network:
        servers = network["dns_servers"]
        found["dns"] = [writer.text(each, ("infrastructure", "network", "dns_servers")) for each in servers]
    if service.get("one_shot"):
        writer.changed("Compose runs it again at each up", (*path, "one_shot"))


def _dependencies(
    writer: Writer, name: str, services: Mapping[str, Any], containers: frozenset[str]
) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for index, item in enumerate(services[name].get("dependencies", ())):
        at: Path = ("services", name, "dependencies", index)
        other, how = (item, "healthy") if isinstance(item, str) else (item["service"], item.get("condition", "healthy"))
        if other not in containers:
            writer.dropped(f"'{other}' is not in the Compose file", at)
        elif other not in found:
            found[other] = {"condition": _condition(writer, services[other], other, str(how), at)}
    return found


def _condition(writer: Writer, other: Mapping[str, Any], name: str, how: str, path: Path) -> str:
    if other.get("one_shot") and how == "healthy":
        how = "completed"
    if how == "healthy" and not has_check(other):
        writer.changed(f"waits only until '{name}' has started: Compose knows no health check of it", path)
        how = "started"
    return _CONDITIONS[how]


# --------------------------------------------------------------------------- sections


def _volumes(services: Mapping[str, Any], containers: frozenset[str]) -> dict[str, Any]:
    names = [
        volume_name(volume["name"])
        for name in services
        if name in containers
        for volume in services[name].get("volumes", ())
        if "source" not in volume and not volume.get("tmpfs")
    ]
    return {"volumes": {name: {} for name in names}} if names else {}


def _network(data: Mapping[str, Any]) -> dict[str, Any]:
    network = data.get("infrastructure", {}).get("network", {})
    if "cidr" not in network or str(network.get("mode", "")) == "Host":
        return {}
    return {"networks": {"default": {"ipam": {"config": [{"subnet": str(network["cidr"])}]}}}}


def _text(document: Mapping[str, Any], files: tuple[str, ...]) -> str:
    body: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=_ENDLESS)
    sources = ", ".join(os.path.basename(file) for file in files)
    return f"# Made from {sources} by 'deploy-code export compose'.\n\n{body}"
