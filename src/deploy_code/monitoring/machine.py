"""The machine as a whole: how busy it is, and how much of its memory and disk is left."""

from __future__ import annotations

import os
import time

from deploy_code.monitoring.values import SystemMetrics
from deploy_code.resources.capacity import cores
from deploy_code.resources.cgroups import memory_limit


def busy_seconds() -> float:
    """CPU time of all cores since boot, without idling and waiting for disks; a counter."""
    import psutil

    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)  # guests are in user time


def read_machine(busy_cores: float, disk_of: str) -> SystemMetrics:
    """Everything now. ``busy_cores``: how many were busy over the last moment; ``disk_of``: may be yet to be made."""
    import psutil

    used, total = _memory()
    disk = psutil.disk_usage(_existing(disk_of))
    return SystemMetrics(
        at=time.time(),
        cpu_usage=round(min(100.0, 100 * busy_cores / (os.cpu_count() or 1)), 1),
        memory_usage=round(100 * used / total, 1),
        disk_usage=disk.percent,
        cpu_count=cores(),
        load_average=os.getloadavg(),
        memory_total_bytes=total,
        memory_used_bytes=used,
        disk_total_bytes=disk.total,
        disk_used_bytes=disk.used,
    )


def _existing(path: str) -> str:
    """``path``, or the folder in which it will lie."""
    while not os.path.exists(path):
        path = os.path.dirname(os.path.abspath(path))
    return path


def _memory() -> tuple[int, int]:
    """(used, all) of the machine, or of the control group whose limit is what binds us."""
    import psutil

    memory, limit = psutil.virtual_memory(), memory_limit()
    if limit is not None and limit.limit_bytes < memory.total:
        return limit.used_bytes, limit.limit_bytes
    return memory.total - memory.available, memory.total
