"""GPUs by index, each promised to one service at most, and of that to one instance.

A device stays with its instance over restarts. It is given back by the agent, which alone knows when the last process
that used it is gone; what is not in use goes back as soon as the promise shrinks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from deploy_code.resources.ledger import Promise
    from deploy_code.state.connection import Connection

Key = tuple[int, int]  # revision and index of an instance
Holder = tuple[str, str, bool]  # owner, service, and whether it is an allocation by name


class Device(NamedTuple):
    """One row: a promised GPU. ``instance`` None: nobody of the service has it yet."""

    number: int
    owner: str
    service: str
    is_allocated: bool
    instance: Key | None


def _devices(db: Connection) -> list[Device]:
    return [
        Device(number, owner, service, bool(allocated), None if revision is None else (revision, index))
        for number, owner, service, allocated, revision, index in db.all("devices")
    ]


def by_holder(db: Connection) -> dict[Holder, tuple[int, ...]]:
    """Indices by who has them."""
    found: dict[Holder, tuple[int, ...]] = {}
    for each in _devices(db):
        key = each.owner, each.service, each.is_allocated
        found[key] = (*found.get(key, ()), each.number)
    return found


def deal(db: Connection, promises: Sequence[Promise], gpus: Collection[int]) -> None:
    """Hand out of ``gpus`` what ``promises`` lack, the lowest free ones first; what is not there is not handed out."""
    if not gpus:
        return
    free = sorted(set(gpus) - {each.number for each in _devices(db)}, reverse=True)
    for promise in promises:
        while free and len(promise.gpus) < promise.resources.gpu_count:
            number = free.pop()
            db.run("put_device", (number, promise.owner.id, promise.service, promise.is_allocated))
            promise = _with(promise, number)


def _with(promise: Promise, number: int) -> Promise:
    from dataclasses import replace

    return replace(promise, gpus=(*promise.gpus, number))


def trim(db: Connection, owner: str, counts: Mapping[str, int]) -> None:
    """Take back what is beyond ``counts`` (by service), but nothing that an instance of a promised service has."""
    for service, held in _pools(db, owner).items():
        count = counts.get(service, 0)
        idle = [each for each in held if each.instance is None or not count]
        for each in idle[: max(0, len(held) - count)] if count else idle:
            db.run("drop_device", (each.number,))


def _pools(db: Connection, owner: str) -> dict[str, list[Device]]:
    """Devices of the services of ``owner``, those highest first."""
    found: dict[str, list[Device]] = {}
    for each in reversed(_devices(db)):
        if each.owner == owner and not each.is_allocated:
            found.setdefault(each.service, []).append(each)
    return found


def assign(
    db: Connection, owner: str, service: str, instance: Key, count: int, alive: Collection[Key]
) -> tuple[int, ...]:
    """The devices of ``instance``: those it had, then idle ones of its service, at most ``count``."""
    pool = sorted(_pools(db, owner).get(service, []))
    own = [each for each in pool if each.instance == instance]
    idle = [each for each in pool if each.instance is None or each.instance not in {*alive, instance}]
    chosen = (own + idle)[:count]
    for each in own[count:]:
        db.run("give_device", (None, None, each.number))
    for each in chosen:
        if each.instance != instance:  # a restart writes nothing, so it needs no room on the disk
            db.run("give_device", (*instance, each.number))
    return tuple(sorted(each.number for each in chosen))


def forget(db: Connection, owner: str, alive: Mapping[str, Collection[Key]]) -> None:
    """No device belongs to an instance that is not in ``alive`` (by service)."""
    for service, held in _pools(db, owner).items():
        for each in held:
            if each.instance is not None and each.instance not in alive.get(service, ()):
                db.run("give_device", (None, None, each.number))
