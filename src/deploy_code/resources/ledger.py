"""What of this machine is promised to whom, for all projects of a user and for single processes.

Level-triggered, as everything here: a project's promises are replaced by what it needs, so that whoever died on the way
leaves nothing behind that the next write does not put right. Every change is one transaction that takes the write lock
first: two who ask at once are answered one after the other.

A promise has a stage. ``kept`` is what runs. ``deploying`` is what a deployment needs at its peak; until it is over
both are held, so that its rollback fits. ``allocated`` was asked for by name, and no deployment touches it.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from deploy_code.errors import ServiceError
from deploy_code.model import Resources
from deploy_code.resources import devices
from deploy_code.resources.amounts import NOTHING, most
from deploy_code.resources.database import open_for_reading, open_for_writing
from deploy_code.resources.owners import Owner, Process
from deploy_code.resources.place import path_of
from deploy_code.resources.recorded import Need, recorded_needs
from deploy_code.state.connection import Connection

KEPT, DEPLOYING, ALLOCATED = "kept", "deploying", "allocated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What one service, or one allocation by name, has been promised. ``gpus``: the indices it really has.

    ``disk``: a folder on the disk that the storage is of. ``since``: seconds since the epoch.
    """

    owner: Owner
    service: str
    resources: Resources
    gpus: tuple[int, ...] = ()
    folders: tuple[str, ...] = ()
    disk: str = ""
    is_allocated: bool = False
    since: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.owner.name}/{self.service}"


Check = Callable[[list[Promise]], None]  # is shown all promises, and raises when what is asked for does not fit


class Ledger:
    """The open ledger; close it. All methods raise StateError when the file cannot be had."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    @classmethod
    def open(cls, home: str) -> Ledger:
        """For writing; made when there is none. ``home``: see ``place.machine_dir``."""
        return cls(open_for_writing(home))

    @classmethod
    def reader(cls, home: str) -> Ledger | None:
        """For looking only; None when nothing was ever promised here."""
        connection = open_for_reading(home)
        return None if connection is None else cls(connection)

    @staticmethod
    def is_there(home: str) -> bool:
        """Was anything ever promised here?"""
        return os.path.exists(path_of(home))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- looking

    def promises(self) -> list[Promise]:
        """All that counts, by owner and service; what the dead were promised is left out."""
        owners = {owner.id: owner for owner in self._owners() if owner.exists}
        ended = {name: needs for name, owner in owners.items() if (needs := _ended(owner)) is not None}
        rows = [row for row in self._db.all("promises") if row[0] in owners and _counts(row, ended)]
        rows += [_promise(owners[name], *item) for name, needs in ended.items() for item in _kept(needs)]
        found = _merged(rows, owners, devices.by_holder(self._db))
        return [_cut(each) if each.owner.id in ended else each for each in found]

    def owns(self, owner: Owner) -> bool:
        """Is anything written down for this project, allocations by name aside?"""
        return self._db.one("owns", (owner.id,)) is not None

    def agrees(self, owner: Owner, needs: Mapping[str, Need]) -> bool:
        """Is this what ``settle`` would leave, all GPUs included?"""
        mine = list(self._of(owner))
        is_deployed = any(each.id == owner.id and each.process.pid for each in self._owners())
        wanted = {name: need.resources for name, need in needs.items() if need.resources != NOTHING}
        has_all = all(len(each.gpus) == each.resources.gpu_count for each in mine)
        return has_all and not is_deployed and {each.service: each.resources for each in mine} == wanted

    def services_of(self, owner: Owner) -> set[str]:
        """The services of this project that anything was promised to."""
        return {each.service for each in self._of(owner)}

    def _owners(self) -> Iterator[Owner]:
        for owner_id, name, is_project, pid, start_time, boot in self._db.all("owners"):
            process = Process(pid, start_time, boot)
            yield Owner(id=owner_id, name=name, is_project=bool(is_project), process=process)

    # -- what deployments do

    def reserve(self, owner: Owner, needs: Mapping[str, Need], *, gpus: Collection[int], check: Check) -> None:
        """Hold ``needs`` for a deployment of ``owner`` beside what it has, unless ``check`` raises.

        ``gpus``: the indices that this machine has. This process is noted as the one that deploys.
        """
        with self._change():
            check(self.promises())
            self._put_owner(owner.deploying())
            self._replace(owner, DEPLOYING, needs)
            devices.deal(self._db, [each for each in self.promises() if each.owner.id == owner.id], gpus)

    def settle(self, owner: Owner, needs: Mapping[str, Need], *, gpus: Collection[int] = ()) -> None:
        """The deployment is over: ``owner`` needs exactly this from here on. It gets what it lacks of ``gpus``."""
        with self._change():
            self._db.run("meet_owner", _row(owner))
            self._settle(owner, needs)
            devices.deal(self._db, list(self._of(owner)), gpus)
            self._db.run("drop_idle_owners")

    def _replace(self, owner: Owner, stage: str, needs: Mapping[str, Need]) -> None:
        self._db.run("drop_stage", (owner.id, stage))
        rows = [_promise(owner, name, stage, need) for name, need in needs.items() if need.resources != NOTHING]
        self._db.run_many("put_promise", rows)

    def _settle(self, owner: Owner, needs: Mapping[str, Need]) -> None:
        self._db.run("end_claim", (owner.id,))
        self._replace(owner, DEPLOYING, {})
        self._replace(owner, KEPT, needs)
        self._trim(owner)

    def _put_owner(self, owner: Owner) -> None:
        self._db.run("put_owner", _row(owner))

    def _trim(self, owner: Owner) -> None:
        devices.trim(self._db, owner.id, {each.service: each.resources.gpu_count for each in self._of(owner)})

    def _of(self, owner: Owner) -> Iterator[Promise]:
        return (each for each in self.promises() if each.owner.id == owner.id and not each.is_allocated)

    # -- allocations by name

    def allocate(
        self, owner: Owner, name: str, amount: Resources, *, gpus: Collection[int], check: Check, disk: str = ""
    ) -> Promise:
        """Promise ``amount`` to ``owner`` under ``name``. Raises ServiceError S002 when the name is taken."""
        with self._change():
            promises = self.promises()
            if any(each.owner.id == owner.id and each.service == name for each in promises):
                raise ServiceError(f'"{name}" has an allocation already', code="S002", remedy="Release it first")
            check(promises)
            self._db.run("meet_owner", _row(owner))
            self._db.run("put_promise", _promise(owner, name, ALLOCATED, Need(amount), disk))
            devices.deal(self._db, [each for each in self.promises() if each.owner.id == owner.id], gpus)
            return next(each for each in self.promises() if each.owner.id == owner.id and each.service == name)

    def release(self, owner: Owner, name: str) -> None:
        """Take back an allocation by name. Raises ServiceError S001 when there is none."""
        with self._change():
            if not self._db.run("drop_allocated", (owner.id, name)):
                raise ServiceError(f'"{name}" has no allocation', code="S001", remedy=_known(self._names(owner)))
            self._db.run("drop_allocated_devices", (owner.id, name))
            self._db.run("drop_idle_owners")

    def _names(self, owner: Owner) -> list[str]:
        return sorted(each.service for each in self.promises() if each.owner.id == owner.id and each.is_allocated)

    # -- what agents do

    def remember(self, owner: Owner, service: str, need: Need, gpus: Collection[int]) -> None:
        """``service`` runs, and nothing is written down of it: it was deployed before, or this is a new ledger."""
        with self._change():
            if service not in self.services_of(owner):
                self._db.run("meet_owner", _row(owner))
                self._db.run("put_promise", _promise(owner, service, KEPT, need))
                devices.deal(self._db, list(self._of(owner)), gpus)

    def assign_gpus(
        self, owner: Owner, service: str, instance: devices.Key, count: int, alive: Collection[devices.Key]
    ) -> tuple[int, ...]:
        """Of what ``service`` was promised, the devices of one instance: those it had, and those it still lacks.

        ``alive``: all instances of the service that are there, as (revision, index). Fewer than ``count`` when it was
        promised fewer.
        """
        with self._change():
            return devices.assign(self._db, owner.id, service, instance, count, alive)

    def keep_gpus(self, owner: Owner, alive: Mapping[str, Collection[devices.Key]]) -> None:
        """Take back the devices of instances that are no more; ``alive``: by service."""
        with self._change():
            devices.forget(self._db, owner.id, alive)
            self._trim(owner)

    def lease_ports(self, owner: Owner, candidates: Iterable[int], count: int, held: Iterable[int] = ()) -> set[int]:
        """The first ``count`` of ``candidates`` that nobody has, for ``owner`` alone; all that it has from then on.

        ``held``: what its instances hold already, whatever was written down of it.
        """
        with self._change():
            self._db.run("meet_owner", _row(owner))
            self._db.run_many("put_port", [(number, owner.id) for number in held])
            candidates = list(candidates)
            free = self._free_ports(candidates, count)
            if not free and self._drop_deserted_ports(owner):
                free = self._free_ports(candidates, count)
            self._db.run_many("put_port", [(number, owner.id) for number in free])
            return self.ports_of(owner)

    def _free_ports(self, candidates: Iterable[int], count: int) -> list[int]:
        taken = {number for (number, _) in self._db.all("ports")}
        return list(islice((number for number in candidates if number not in taken), count))

    def _drop_deserted_ports(self, besides: Owner) -> bool:
        """Free what was leased to projects that no agent keeps. What still runs there is seen when it is tried."""
        leasing = {owner for _, owner in self._db.all("ports")} - {besides.id}
        deserted = [owner for owner in self._owners() if owner.id in leasing and not owner.has_agent]
        for owner in deserted:
            self._db.run("drop_ports", (owner.id,))
        return bool(deserted)

    def leases(self) -> dict[str, int]:
        """How many dynamic ports are leased, by name of the project."""
        names = {owner.id: owner.name for owner in self._owners() if owner.exists}
        counted = Counter(names[owner] for _, owner in self._db.all("ports") if owner in names)
        return dict(counted)

    def ports_of(self, owner: Owner) -> set[int]:
        return {number for (number,) in self._db.all("ports_of", (owner.id,))}

    def release_ports(self, owner: Owner) -> None:
        with self._change():
            self._db.run("drop_ports", (owner.id,))
            self._db.run("drop_idle_owners")

    # -- every change

    @contextmanager
    def _change(self) -> Iterator[None]:
        """All or nothing, alone, over a ledger that the dead have left."""
        with self._db.transaction():
            for owner in self._owners():
                if not owner.exists:
                    self._drop(owner)
                elif (needs := _ended(owner)) is not None:
                    self._settle(owner, needs)
            yield

    def _drop(self, owner: Owner) -> None:
        for statement in ("drop_promises", "drop_devices", "drop_ports", "drop_owner"):
            self._db.run(statement, (owner.id,))


def _ended(owner: Owner) -> dict[str, Need] | None:
    """What a project needs whose deployment ended or was never begun, but died before it could say so here."""
    return recorded_needs(owner.id) if owner.left_deploying else None


def _counts(row: tuple[Any, ...], ended: Mapping[str, object]) -> bool:
    return row[0] not in ended or row[2] == ALLOCATED


def _kept(needs: Mapping[str, Need]) -> Iterator[tuple[str, str, Need]]:
    return ((name, KEPT, need) for name, need in needs.items() if need.resources != NOTHING)


def _merged(
    rows: Iterable[tuple[Any, ...]], owners: Mapping[str, Owner], gpus: Mapping[devices.Holder, tuple[int, ...]]
) -> list[Promise]:
    """One promise for each service: the most of what is kept and what is deployed; allocations by name apart."""
    found: dict[devices.Holder, Promise] = {}
    for owner, service, stage, cpu, memory, storage, gpu, folders, disk, since in rows:
        key = owner, service, stage == ALLOCATED
        amount = Resources(cpu_cores=cpu, memory_mb=memory, storage_gb=storage, gpu_count=gpu)
        other = found.get(key)
        found[key] = Promise(
            owner=owners[owner],
            service=service,
            resources=most(amount, other.resources) if other else amount,
            gpus=gpus.get(key, ()),
            folders=tuple(dict.fromkeys((*json.loads(folders), *(other.folders if other else ())))),
            disk=disk,
            is_allocated=stage == ALLOCATED,
            since=min(since, other.since) if other else since,
        )
    return list(found.values())


def _cut(promise: Promise) -> Promise:
    """Without the GPUs that the next write will take back."""
    return replace(promise, gpus=promise.gpus[: promise.resources.gpu_count])


def _row(owner: Owner) -> tuple[object, ...]:
    return owner.id, owner.name, owner.is_project, *owner.process


def _promise(owner: Owner, name: str, stage: str, need: Need, disk: str = "") -> tuple[Any, ...]:
    amount = need.resources
    amounts = amount.cpu_cores, amount.memory_mb, amount.storage_gb, amount.gpu_count
    disk = disk or (os.path.dirname(owner.id) if owner.is_project else "")
    return owner.id, name, stage, *amounts, json.dumps(need.folders), disk, time.time()


def _known(names: list[str]) -> str:
    return f"There are: {', '.join(names)}" if names else ""
