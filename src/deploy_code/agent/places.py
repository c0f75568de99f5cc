"""Where one service answers, seen from another: the same service has other addresses inside a network than outside."""

from __future__ import annotations

from collections.abc import Iterable

from deploy_code.model import Content, Instance

from .placeholders import Place

LOOPBACK = "127.0.0.1"
HOST_NAME = "host.docker.internal"  # this machine, seen from a container


def seen(service: str, content: Content, instances: Iterable[Instance], by: Content) -> Place:
    """Where ``service`` answers for somebody made of ``by``. ``instances`` of it, the best one first."""
    found = tuple(instances)
    if not content.has_own_network:
        host = HOST_NAME if by.has_own_network else LOOPBACK
        return Place(host, next((number for each in found for number in each.ports.values()), None))
    if by.has_own_network and _network(by) == _network(content):
        return Place(service, next((number for each in found for number in each.ports.values()), None))
    return _from_outside(found, by)


def _network(content: Content) -> tuple[str, str]:
    return content.container.engine, content.container.network.name


def _from_outside(instances: tuple[Instance, ...], by: Content) -> Place:
    """A published port stays the same over all revisions, so it comes before the container's own address."""
    for each in instances:
        for number in each.published.values():
            return Place(HOST_NAME if by.has_own_network else LOOPBACK, number)
    for each in instances:
        if each.address:
            return Place(each.address, next(iter(each.ports.values()), None))
    return Place("", None)
