"""Which machine the figures belong to."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def description() -> str:
    """One line: processor, cores, memory, kernel, Python."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{_processor()}, {cores()} cores, {_memory_gb()} GB, Linux {platform.release()}, {python}"


def cores() -> int:
    """Those this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def now() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
