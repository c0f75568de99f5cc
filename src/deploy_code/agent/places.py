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
    engine = content.container.engine
    is_here = engine.startswith("unix:") or (by.has_own_network and engine == by.container.engine)
    return next((place for each in found if (place := _from_outside(each, by, is_here=is_here))), Place("", None))


def _network(content: Content) -> tuple[str, str]:
    return content.container.engine, content.container.network.name


def _from_outside(instance: Instance, by: Content, *, is_here: bool) -> Place | None:
    """Its first port: published, it stays the same over all revisions; else at the container's own address.

    ``is_here``: its runtime publishes on the machine of who asks.
    """
    key = next(iter(instance.ports), "")
    if key in instance.published and (is_here or instance.address):
        own = HOST_NAME if by.has_own_network else LOOPBACK
        return Place(own if is_here else instance.address, instance.published[key])
    return Place(instance.address, instance.ports.get(key)) if instance.address else None
