"""Which processes an instance has, and what they use: looked up in /proc, found as the driver finds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from deploy_code.drivers.group import Group
from deploy_code.drivers.proctree import Claim, Ident, Proc, Table, boot_id
from deploy_code.model import Instance

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Of several processes together. ``open_files`` None: of one of them the kernel does not tell."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    open_files: int | None = 0
    processes: int = 0


def members(instances: Iterable[Instance], *, by_uuid: bool = True) -> dict[str, dict[int, Proc]]:
    """All living processes of each instance, by its uuid; one look at /proc for all.

    ``by_uuid`` False goes by relations alone: what has cut every tie is missed, but no environment is read.
    """
    here = (each for each in instances if each.boot_id == boot_id())
    running = [each for each in here if each.pid or (by_uuid and each.phase.is_alive)]  # custom types may name no pid
    if not running:
        return {}
    table = Table.scan(since=min(each.start_time for each in running))
    return {each.uuid: _members(table, each, by_uuid=by_uuid) for each in running}


def _members(table: Table, instance: Instance, *, by_uuid: bool) -> dict[int, Proc]:
    leader = Ident(instance.pid, instance.start_time)
    group = Group.remembered(instance.handler)
    inside = group.processes() if group is not None else {}
    known = frozenset(proc.ident for proc in inside.values())
    return table.members(Claim(instance.uuid if by_uuid else "", leader, known)) | inside


def usage(procs: Mapping[int, Proc]) -> Usage:
    """What these use now. One that ends meanwhile counts nothing."""
    files = [_open_files(pid) for pid in procs]
    return Usage(
        cpu_seconds=sum(map(cpu_seconds, procs)),
        memory_bytes=sum(map(_share_of_memory, procs)),
        open_files=None if None in files else sum(each or 0 for each in files),
        processes=len(procs),
    )


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children that have ended."""
    fields = _read(pid, "stat").rpartition(b") ")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def resident_bytes(pid: int) -> int:
    """All memory that a process has in RAM, shared or not."""
    fields = _read(pid, "statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def _share_of_memory(pid: int) -> int:
    """The proportional share, so that sums count what is shared once; all of it where the kernel hides the share."""
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return resident_bytes(pid)


def _open_files(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return None
    except OSError:
        return 0


def _read(pid: int, name: str) -> bytes:
    """A file in /proc/PID; nothing of a process that has gone, or that is not ours to look into."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
