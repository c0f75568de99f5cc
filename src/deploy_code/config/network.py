"""Rules for ``infrastructure.network`` (E010): addresses and ranges that a type alone cannot check."""

from __future__ import annotations

from collections.abc import Callable

from deploy_code.config.nodes import Path
from deploy_code.config.schema import DeploymentConfig
from deploy_code.config.source import Source

_AT: Path = ("infrastructure", "network")


def network_problems(config: DeploymentConfig, source: Source, report: Callable[..., None]) -> None:
    """Report a port range that is empty, a cidr that is none, name servers that are no addresses."""
    network = config.infrastructure.network
    ports = network.port_range
    if ports.start > ports.end:
        remedy = "start must not be above end"
        report(f"the range {ports.start}-{ports.end} is empty", (*_AT, "port_range"), code="E010", remedy=remedy)
    if "cidr" in network.model_fields_set:
        _cidr(network.cidr, report)
    if "dns_servers" in network.model_fields_set:
        for index, server in enumerate(network.dns_servers):
            _address(server, (*_AT, "dns_servers", index), report)


def _cidr(text: str, report: Callable[..., None]) -> None:
    import ipaddress

    try:
        ipaddress.ip_network(text)
    except ValueError:
        report(f"'{text}' is no subnet", (*_AT, "cidr"), code="E010", remedy=_subnet(text))


def _subnet(text: str) -> str:
    import ipaddress

    try:
        return f"did you mean {ipaddress.ip_network(text, strict=False)}?"
    except ValueError:
        return "write an address and a prefix: 172.20.0.0/16"


def _address(text: str, path: Path, report: Callable[..., None]) -> None:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        report(f"'{text}' is no address of a name server", path, code="E010", remedy="write an IP address: 1.1.1.1")
