"""The ports of a container: inside it they are its own, and some of them are published on this machine.

Only what is published can meet somebody else's ports, and only that comes from the book of ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from deploy_code.drivers.engine.order import port_key
from deploy_code.model import Content, Instance, Policy, Port

from .ports import PortBook, assign


class Numbers(NamedTuple):
    """Of one instance: key → number at its own address; and on this machine, where that is another thing."""

    bound: dict[str, int]
    published: dict[str, int]


def assign_numbers(uuid: str, content: Content, policy: Policy, book: PortBook, *, kept: Numbers) -> Numbers:
    """The numbers for one start, first port first; dynamic ones in ``kept`` stay. Raises DriverError S004."""
    if not content.has_own_network:
        return Numbers(assign(uuid, content, policy, book, kept=kept.bound), {})
    published = dict(_published(content, policy, book, kept.published))
    book.hold(uuid, published.values())
    return Numbers(_bound(content, published), published)


def bound_inside(content: Content, instance: Instance) -> Mapping[str, int]:
    """What it binds. From here it may answer at other numbers: a runtime that is elsewhere is reached by those it
    publishes."""
    if not content.has_own_network:
        return instance.ports
    return _bound(content, instance.published)


def _bound(content: Content, published: Mapping[str, int]) -> dict[str, int]:
    return {port_key(port): port.container_port or 0 for port in inner_ports(content, published)}


def inner_ports(content: Content, published: Mapping[str, int]) -> tuple[Port, ...]:
    """The declared ports with the number that the container binds: one that is not given is the published one."""
    return tuple(
        replace(port, container_port=port.container_port or port.host_port or _same_on_both_sides(published))
        for port in _declared(content)
    )


def _same_on_both_sides(numbers: Mapping[str, int]) -> int | None:
    """Of a port that has no number in the file: what is chosen is its number inside, too."""
    return next((number for key, number in numbers.items() if key == str(number)), None)


def _declared(content: Content) -> tuple[Port, ...]:
    """As PORT counts them: dynamic ones first (CONTRACTS §2)."""
    return tuple(sorted(content.ports, key=lambda port: not port.dynamic))


def _published(content: Content, policy: Policy, book: PortBook, kept: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    chosen: list[int] = []
    for port in _declared(content):
        key = port_key(port)
        if port.host_port and policy.replicas == 1:
            yield key, port.host_port
        elif port.dynamic:
            nameless = not (port.container_port or port.host_port)
            chosen.append((_same_on_both_sides(kept) if nameless else kept.get(key)) or book.choose(chosen))
            yield str(chosen[-1]) if nameless else key, chosen[-1]
