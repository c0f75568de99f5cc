"""The limits of CPU and memory that stand above this process: those of every control group it is in.

A container, a systemd slice or a login session may give us less than the machine has. Both versions are read, v1 and
v2, from our own group up to the mount point; the smallest limit counts. ``root``: where /proc and /sys are looked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Group(NamedTuple):
    """One control group: its folder, and whether it is of version 2."""

    folder: str
    unified: bool


class MemoryLimit(NamedTuple):
    """``limit_bytes``, and what the group that has it uses now, without what the kernel can drop at once."""

    limit_bytes: int
    used_bytes: int


def cpu_limit(root: str = "/") -> float | None:
    """Cores that the quotas above us leave, None where there are none."""
    found = [cores for group in _groups("cpu", root) if (cores := _cores(group)) is not None]
    return min(found, default=None)


def memory_limit(root: str = "/") -> MemoryLimit | None:
    """The smallest limit of memory above us, None where there is none."""
    found = [
        (limit, group)
        for group in _groups("memory", root)
        if (limit := _number(group, "memory.max" if group.unified else "memory.limit_in_bytes")) is not None
    ]
    if not found:
        return None
    limit, group = min(found)
    return MemoryLimit(limit, _used(group))


def _cores(group: Group) -> float | None:
    if group.unified:
        quota, _, period = _read(group, "cpu.max").partition(" ")
    else:
        quota, period = _read(group, "cpu.cfs_quota_us"), _read(group, "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None  # "max", -1, or no such controller
    return int(quota) / int(period)


def _used(group: Group) -> int:
    used = _number(group, "memory.current" if group.unified else "memory.usage_in_bytes") or 0
    key = "inactive_file" if group.unified else "total_inactive_file"
    for line in _read(group, "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return max(0, used - int(value))
    return used


def _number(group: Group, file: str) -> int | None:
    text = _read(group, file)
    return int(text) if text.isdigit() else None


def _read(group: Group, file: str) -> str:
    with suppress(OSError), open(os.path.join(group.folder, file)) as text:
        return text.read().strip()
    return ""


# --------------------------------------------------------------------------- where our groups are


def _groups(controller: str, root: str) -> Iterator[Group]:
    """Our own group and all above it, of every hierarchy that may limit ``controller``."""
    ours = _memberships(root)
    for mount, base, unified, options in _mounts(root):
        if not unified and controller not in options:
            continue
        path = ours.get("" if unified else controller)
        if path is not None:
            yield from (Group(folder, unified) for folder in _upwards(mount, base, path))


def _memberships(root: str) -> dict[str, str]:
    """Controller → path of our group in its hierarchy; "" is version 2."""
    found: dict[str, str] = {}
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _mounts(root: str) -> Iterator[tuple[str, str, bool, list[str]]]:
    """(folder, path of the hierarchy that is mounted there, version 2?, controllers) of each mounted hierarchy."""
    for line in _lines(os.path.join(root, "proc/self/mountinfo")):
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            base, point = (_ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), text) for text in head.split(" ")[3:5])
            yield os.path.join(root, point.lstrip("/")), base, kind == "cgroup2", options.split(",")


def _upwards(mount: str, base: str, path: str) -> Iterator[str]:
    """From our group up to the mount point. Seen from another namespace our path may lie outside: then that alone."""
    inside = os.path.relpath(path, base)
    if inside != "." and not inside.startswith(".."):
        parts = inside.split("/")
        yield from (os.path.join(mount, *parts[:count]) for count in range(len(parts), 0, -1))
    yield mount


def _lines(path: str) -> list[str]:
    with suppress(OSError), open(path) as file:
        return file.read().splitlines()
    return []
