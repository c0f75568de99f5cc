"""What this machine really has for services: cores and memory that control groups leave us, free disk, GPUs.

Memory is counted in MB of 2^20 bytes and disk in GB of 2^30 bytes, as the limits of the kernel are.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from deploy_code.resources import gpus as nvml
from deploy_code.resources.cgroups import cpu_limit, memory_limit

SAMPLE_SECONDS = 0.1  # how long the CPU is watched to say how busy it is
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What there is. ``storage_gb`` is what is free now where ``data_dir`` lies; ``gpus`` are indices."""

    cpu_cores: float = 0.0
    memory_mb: int = 0
    storage_gb: int = 0
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What is in use right now, by whomever: cores (over the last moment), memory and disk."""

    cpu_cores: float
    memory_mb: int
    storage_gb: int


def read_capacity(data_dir: str, *, root: str = "/") -> Capacity:
    """Ask the machine. ``data_dir`` need not exist yet. ``root``: where /proc and /sys are looked for."""
    return Capacity(
        cpu_cores=cores(root),
        memory_mb=_memory_bytes(root) >> 20,
        storage_gb=_disk(data_dir)[0] >> 30,
        gpus=tuple(gpu.index for gpu in nvml.gpus()),
    )


def read_use(data_dir: str, *, root: str = "/") -> Use:
    """Look at what is used; takes ``SAMPLE_SECONDS``."""
    busy, began = _busy_seconds(root), time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    spent = max(0.0, _busy_seconds(root) - busy) / (time.monotonic() - began)
    free, size = _disk(data_dir)
    return Use(
        cpu_cores=round(spent, 2),
        memory_mb=_used_bytes(root) >> 20,
        storage_gb=(size - free) >> 30,
    )


def cores(root: str = "/") -> float:
    """Cores that this process may use: those it may run on, or what quotas leave of them."""
    own = float(len(os.sched_getaffinity(0)))
    limit = cpu_limit(root)
    return own if limit is None else round(min(own, limit), 3)


def _memory_bytes(root: str) -> int:
    limit = memory_limit(root)
    whole = _meminfo(root).get("MemTotal", 0)
    return min(whole, limit.limit_bytes) if limit else whole


def _used_bytes(root: str) -> int:
    """Of the whole machine, or of the control group where its limit is what binds."""
    limit, memory = memory_limit(root), _meminfo(root)
    whole = memory.get("MemTotal", 0)
    if limit is not None and limit.limit_bytes < whole:
        return limit.used_bytes
    return whole - memory.get("MemAvailable", 0)


def _meminfo(root: str) -> dict[str, int]:
    with open(os.path.join(root, "proc/meminfo")) as file:
        fields = (line.split() for line in file)
        return {name.rstrip(":"): int(value) << 10 for name, value, *_ in fields}


def _busy_seconds(root: str) -> float:
    """CPU time of all cores since boot, without idle and waiting for disks."""
    with open(os.path.join(root, "proc/stat")) as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _disk(path: str) -> tuple[int, int]:
    """(free for us, all) in bytes of the disk where ``path`` lies or will lie."""
    while not os.path.exists(path):
        path = os.path.dirname(os.path.abspath(path))
    found = os.statvfs(path)
    reserved = found.f_bfree - found.f_bavail
    return found.f_bavail * found.f_frsize, (found.f_blocks - reserved) * found.f_frsize
