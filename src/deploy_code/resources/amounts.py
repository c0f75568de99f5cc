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


def least(*amounts: Resources) -> Resources:
    """The smaller of each kind."""
    return Resources(
        cpu_cores=min(each.cpu_cores for each in amounts),
        memory_mb=min(each.memory_mb for each in amounts),
        storage_gb=min(each.storage_gb for each in amounts),
        gpu_count=min(each.gpu_count for each in amounts),
    )


def minus(amount: Resources, other: Resources) -> Resources:
    """What is left of ``amount``, of no kind less than nothing."""
    return Resources(
        cpu_cores=max(0.0, round(amount.cpu_cores - other.cpu_cores, _DIGITS)),
        memory_mb=max(0, amount.memory_mb - other.memory_mb),
        storage_gb=max(0, amount.storage_gb - other.storage_gb),
        gpu_count=max(0, amount.gpu_count - other.gpu_count),
    )
