"""``ResourceManager``: cores, memory, disk and GPUs of this machine, set aside by name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from operator import index
from typing import Protocol

from deploy_code.errors import Problem, ServiceError
from deploy_code.model import Resources
from deploy_code.resources.amounts import total
from deploy_code.resources.capacity import Capacity, read_capacity
from deploy_code.resources.ledger import Ledger, Promise
from deploy_code.resources.owners import Owner
from deploy_code.resources.place import machine_dir
from deploy_code.resources.shortage import Request, insufficient, shortages
from deploy_code.resources.written import Written, here, written_gb
from deploy_code.state.files import make_private_folder
from deploy_code.state.places import default_data_dir


class Requirements(Protocol):
    """What may be asked for: ``deploy_code.config.ResourceRequirements``, ``deploy_code.model.Resources`` or alike."""

    @property
    def cpu_cores(self) -> float: ...
    @property
    def memory_mb(self) -> int: ...
    @property
    def storage_gb(self) -> int: ...
    @property
    def gpu_count(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What was set aside. ``owner``: the project's name, or ``process PID``; ``gpus``: indices of NVML.

    ``cpu_cores`` in cores, ``memory_mb`` in 2^20 bytes, ``storage_gb`` in 2^30 bytes, ``since`` in seconds since the
    epoch. ``by_name``: by ``allocate``; False: it is a service of the project, and follows its deployments.
    """

    name: str
    owner: str
    cpu_cores: float
    memory_mb: int
    storage_gb: int
    gpus: tuple[int, ...]
    since: float
    by_name: bool


class ResourceManager:
    """Sets aside resources of this machine. Nothing is measured against it: it is a promise among those who ask.

    Alone (``ResourceManager()``) what it allocates belongs to this process, and is free again when that has ended. With
    ``owner``, the state folder of a project, it belongs to the project until it is released.

    ``data_dir``: a folder with a ledger of its own, apart from that of this machine. ``overcommit``: how many times
    over ``cpu``, ``memory`` and ``storage`` may be promised, each 1.0 by default. ``capacity``: what there is, default
    what the machine says; its disk is that of ``data_dir``, else of ``owner``, else of the default ``data_dir``.

    ``allocate``, ``release`` and ``check_availability`` are coroutines, since they may have to wait for others;
    ``available`` and ``allocations`` are plain calls. All raise StateError when the ledger cannot be had.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        owner: str | os.PathLike[str] | None = None,
        overcommit: Mapping[str, float] | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        own_ledger = data_dir is not None
        if data_dir is None:
            data_dir = os.path.dirname(os.path.realpath(owner)) if owner is not None else default_data_dir(os.environ)
        self._data_dir = os.path.abspath(data_dir)
        self._home = self._data_dir if own_ledger else machine_dir(self._data_dir)
        self._state = None if owner is None else os.fspath(owner)
        self._overcommit = dict(overcommit or {})
        self._capacity = capacity

    async def allocate(self, name: str, requirements: Requirements) -> Allocation:
        """Set aside ``requirements`` under ``name``, all or nothing.

        Raises PreflightError (E004) when something is short, ServiceError (S002) when the name is taken, ValueError for
        negative amounts, TypeError for fractions of what is counted. Cancelled, nothing is kept.
        """
        work = asyncio.ensure_future(asyncio.to_thread(self._allocate, name, _amount(requirements)))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await self._take_back(work)
            raise

    async def release(self, allocation: str | Allocation) -> None:
        """Give back what was allocated, by name or by what ``allocate`` returned. Raises ServiceError (S001)."""
        name = allocation.name if isinstance(allocation, Allocation) else allocation
        await asyncio.to_thread(self._release, name)

    async def check_availability(self, requirements: Requirements) -> bool:
        """Would ``allocate`` succeed now? Changes nothing."""
        return await asyncio.to_thread(self._fits, _amount(requirements))

    def available(self) -> Capacity:
        """What nobody has been promised, overcommit counted in; never below nothing."""
        promises, there = here(self._promises(), self._data_dir), self._there()
        taken = total(each.resources for each in promises)
        storage = there.storage_gb + written_gb(promises, self._data_dir)
        return Capacity(
            cpu_cores=max(0.0, round(there.cpu_cores * self._factor("cpu") - taken.cpu_cores, 3)),
            memory_mb=max(0, int(there.memory_mb * self._factor("memory")) - taken.memory_mb),
            storage_gb=max(0, int(storage * self._factor("storage")) - taken.storage_gb),
            gpus=tuple(sorted(set(there.gpus) - {gpu for each in promises for gpu in each.gpus})),
        )

    def allocations(self, *, everyone: bool = False) -> list[Allocation]:
        """What this owner has been promised; with ``everyone`` all that is promised of this machine."""
        owner = self._owner()
        return [_allocation(each) for each in self._promises() if everyone or each.owner.id == owner.id]

    # -- pieces

    async def _take_back(self, work: asyncio.Future[Allocation]) -> None:
        """Whoever asked is no longer there; a thread cannot be stopped, so what it gets is given back."""
        await asyncio.wait([work])
        if not work.cancelled() and work.exception() is None:
            await asyncio.to_thread(self._release, work.result().name)

    def _allocate(self, name: str, amount: Resources) -> Allocation:
        there = self._there()
        if self._state is not None:
            make_private_folder(self._state)  # a project lives as long as its folder does, deployed yet or not
        written = Written(self._data_dir)
        if amount.storage_gb:  # how full the disk is, is not measured while others wait for the ledger
            seen = self._promises()
            self._shortages(seen, amount, there, lambda: written.measure(seen))
        with Ledger.open(self._home) as ledger:
            made = ledger.allocate(
                self._owner(),
                name,
                amount,
                gpus=there.gpus,
                check=lambda promises: self._check(promises, amount, there, written),
                disk=self._data_dir,
            )
        return _allocation(made)

    def _release(self, name: str) -> None:
        if Ledger.is_there(self._home):
            with Ledger.open(self._home) as ledger:
                ledger.release(self._owner(), name)
        else:
            raise ServiceError(f'"{name}" has no allocation', code="S001")

    def _fits(self, amount: Resources) -> bool:
        promises = self._promises()
        return not self._shortages(promises, amount, self._there(), lambda: written_gb(promises, self._data_dir))

    def _check(self, promises: list[Promise], amount: Resources, there: Capacity, written: Written) -> None:
        if problems := self._shortages(promises, amount, there, lambda: written.gb(promises)):
            raise insufficient(problems, remedy="Ask for less, or release what is not needed any more")

    def _shortages(
        self, promises: list[Promise], amount: Resources, there: Capacity, written: Callable[[], int]
    ) -> list[Problem]:
        request = Request(
            others=here(promises, self._data_dir),
            needs={"": amount},
            overcommit=self._overcommit,
            written_gb=written,
        )
        return shortages(there, request)

    def _there(self) -> Capacity:
        return self._capacity or read_capacity(self._data_dir)

    def _factor(self, kind: str) -> float:
        return self._overcommit.get(kind, 1.0)

    def _owner(self) -> Owner:
        """Asked for anew each time: after a fork it is another process."""
        return Owner.project(self._state) if self._state is not None else Owner.this_process()

    def _promises(self) -> list[Promise]:
        ledger = Ledger.reader(self._home)
        if ledger is None:
            return []
        with ledger:
            return ledger.promises()


def _amount(given: Requirements) -> Resources:
    amount = Resources(
        cpu_cores=float(given.cpu_cores),
        memory_mb=index(given.memory_mb),
        storage_gb=index(given.storage_gb),
        gpu_count=index(given.gpu_count),
    )
    if min(amount.memory_mb, amount.storage_gb, amount.gpu_count) < 0 or not 0 <= amount.cpu_cores < inf:
        raise ValueError(f"amounts cannot be negative or without end: {amount}")
    return amount


def _allocation(promise: Promise) -> Allocation:
    amount = promise.resources
    return Allocation(
        name=promise.service,
        owner=promise.owner.name,
        cpu_cores=amount.cpu_cores,
        memory_mb=amount.memory_mb,
        storage_gb=amount.storage_gb,
        gpus=promise.gpus,
        since=promise.since,
        by_name=promise.is_allocated,
    )
