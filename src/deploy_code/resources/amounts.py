"""Arithmetic of ``Resources``: what several instances need together, and the most of two needs."""

from __future__ import annotations

from collections.abc import Iterable

from deploy_code.model import Resources

NOTHING = Resources()
_DIGITS = 3  # of a core; so that tenths add up to what people expect


def total(amounts: Iterable[Resources]) -> Resources:
    """All of them at once."""
    cpu, memory, storage, gpus = 0.0, 0, 0, 0
    for each in amounts:
        cpu += each.cpu_cores
        memory += each.memory_mb
        storage += each.storage_gb
        gpus += each.gpu_count
    return Resources(cpu_cores=round(cpu, _DIGITS), memory_mb=memory, storage_gb=storage, gpu_count=gpus)


def times(amount: Resources, count: int) -> Resources:
    """``count`` instances of it."""
    return Resources(
        cpu_cores=round(amount.cpu_cores * count, _DIGITS),
        memory_mb=amount.memory_mb * count,
        storage_gb=amount.storage_gb * count,
        gpu_count=amount.gpu_count * count,
    )


def most(*amounts: Resources) -> Resources:
    """The larger of each kind: enough for either."""
    return Resources(
        cpu_cores=max((each.cpu_cores for each in amounts), default=0.0),
        memory_mb=max((each.memory_mb for each in amounts), default=0),
        storage_gb=max((each.storage_gb for each in amounts), default=0),
        gpu_count=max((each.gpu_count for each in amounts), default=0),
    )
