"""``ports`` and ``expose`` to ports of ours.

A published port is published on all addresses here, and a host port that Compose would pick comes from ``port_range``:
both are told.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from deploy_code.config.compose.reader import Item, Reader, Text
from deploy_code.config.compose.template import Variable, joined

_EVERYWHERE = frozenset({"", "0.0.0.0", "::", "[::]"})
_RANGE = re.compile(r"(\d+)-(\d+)")
_MOST = 1000  # ports of one entry: a longer range is a slip of the pen

Port = dict[str, Any]


def ports_of(reader: Reader, service: dict[str, Item]) -> list[Port]:
    """All ports of one service, published ones first, each once."""
    found: list[Port] = []
    for item in reader.items(service.get("ports")):
        found += _short(reader, item) if item.is_scalar else _long(reader, item)
    known = {(port["container_port"], port.get("protocol", "tcp")) for port in found}
    for text in reader.texts(service.get("expose")):
        for port in _exposed(reader, text):
            key = (port["container_port"], port.get("protocol", "tcp"))
            if key not in known:
                known.add(key)
                found.append(port)
    return _once(reader, found, service.get("ports"))


def _once(reader: Reader, ports: list[Port], item: Item | None) -> list[Port]:
    """A container port is published once: at a fixed host port, if there is one."""
    found: dict[tuple[Any, str], Port] = {}
    for port in sorted(ports, key=lambda port: "host_port" not in port):
        key = (port["container_port"], port.get("protocol", "tcp"))
        if key not in found:
            found[key] = port
        elif port != found[key] and item is not None:
            reader.dropped(f"container port {key[0]} is published once, at {found[key].get('host_port')}", item)
    return [port for index, port in enumerate(ports) if port in found.values() and port not in ports[:index]]


def _exposed(reader: Reader, text: Text) -> Iterator[Port]:
    numbers, protocol = _protocol(reader, text)
    for number in _range(reader, numbers):
        yield _port(number, None, protocol)


# --------------------------------------------------------------------------- the short form


def _short(reader: Reader, item: Item) -> list[Port]:
    """``[[address:]host:]container[/protocol]``; host and container may be ranges."""
    text = reader.text(item)
    if text is None:
        return []
    numbers, protocol = _protocol(reader, text)
    address, host, container = _cut(reader, numbers)
    if not reader.value(container):
        reader.problem(f"'{reader.value(text)}' is no port", text, 'write "8080:80"')
        return []
    if address is not None:
        _told_address(reader, address, text)
    return _pairs(reader, host if host and reader.value(host) else None, container, protocol)


def _protocol(reader: Reader, text: Text) -> tuple[Text, str]:
    numbers, *rest = reader.split(text, "/")
    protocol = reader.fixed(rest[0]).lower() if rest else "tcp"
    if protocol not in ("tcp", "udp"):
        reader.problem(f"protocol '{protocol}' is neither tcp nor udp", text)
        protocol = "tcp"
    return numbers, protocol


def _cut(reader: Reader, numbers: Text) -> tuple[Text | None, Text | None, Text]:
    """Address, host port and container port; an IPv6 address has colons of its own."""
    pieces = reader.split(numbers, ":")
    if len(pieces) == 1:
        return None, None, pieces[0]
    if len(pieces) == 2:
        return None, pieces[0], pieces[1]
    rest: list[str | Variable] = []
    for piece in pieces[:-2]:
        rest += [":", *piece.parts]
    return numbers.of(joined(*rest[1:])), pieces[-2], pieces[-1]


def _told_address(reader: Reader, address: Text, text: Text | Item) -> None:
    value = reader.value(address)
    if value in _EVERYWHERE:
        return
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        reader.problem(f"'{value}' is no address", address)
        return
    reader.changed(f"published on all addresses, not on {value} alone: keep strangers out by a firewall", text)


def _pairs(reader: Reader, host: Text | None, container: Text, protocol: str) -> list[Port]:
    inside = _range(reader, container)
    if host is None:
        if inside:
            reader.changed("the host port is one of infrastructure.network.port_range", container)
        return [_port(number, None, protocol, dynamic=True) for number in inside]
    outside = _range(reader, host)
    if len(outside) == len(inside):
        return [_port(number, published, protocol) for number, published in zip(inside, outside, strict=True)]
    if len(inside) == 1 and outside:
        reader.changed("the host port is one of infrastructure.network.port_range, not of this range", container)
        return [_port(inside[0], None, protocol, dynamic=True)]
    if inside and outside:
        reader.problem("the two ranges of ports are not equally long", host)
    return []


def _range(reader: Reader, text: Text) -> list[Any]:
    """The port numbers of ``80``, ``${PORT}`` or ``8000-8010``."""
    match = _RANGE.fullmatch(reader.value(text))
    if match is None:
        number = reader.number(text, low=1, high=65535)
        return [] if number is None else [number]
    first, last = int(match[1]), int(match[2])
    if not 0 < first <= last < 65536 or last - first >= _MOST:
        reader.problem(f"'{match[0]}' is no range of ports", text)
        return []
    reader.fixed(text)
    return list(range(first, last + 1))


def _port(container: Any, host: Any, protocol: str, *, dynamic: bool = False) -> Port:
    port: Port = {"container_port": container}
    if host is not None:
        port["host_port"] = host
    if protocol != "tcp":
        port["protocol"] = protocol
    if dynamic:
        port["dynamic"] = True
    return port


# --------------------------------------------------------------------------- the long form


def _long(reader: Reader, item: Item) -> list[Port]:
    keys = reader.entries(item)
    target = reader.text(keys.get("target"))
    if target is None:
        reader.problem("a port needs its target", item, "write target: 80")
        return []
    host_ip = reader.text(keys.get("host_ip"))
    if host_ip is not None:
        _told_address(reader, host_ip, host_ip)
    mode = reader.one_of(keys.get("mode"), ("host", "ingress"), "ingress")
    if mode == "host" and "published" not in keys:
        reader.dropped("mode host publishes nothing without a published port", item)
    protocol = reader.one_of(keys.get("protocol"), ("tcp", "udp"), "tcp")
    published = reader.text(keys.get("published"))
    if published is not None and reader.value(published) in ("", "0"):
        published = None
    return _pairs(reader, published, target, protocol)


def unique_host_ports(reader: Reader, found: dict[str, dict[str, Any]], items: dict[str, Item]) -> None:
    """A host port has one owner here, whatever the address: later ones get one of ``port_range``."""
    owners: dict[tuple[Any, str], str] = {}
    for name, service in found.items():
        for port in service.get("ports", ()) if service.get("enabled", True) else ():
            host = port.get("host_port")
            if host is None:
                continue
            key = (host, port.get("protocol", "tcp"))
            if key in owners:
                reader.changed(f"host port {host} is that of '{owners[key]}'; this one is chosen at start", items[name])
                del port["host_port"]
                port["dynamic"] = True
            owners.setdefault(key, name)
