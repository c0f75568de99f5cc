"""The processes of a container on this machine, as the kernel groups them; the engine is not asked."""

from __future__ import annotations

import os
import re

from deploy_code.drivers.proctree import Proc, look_up

_OCTAL = re.compile(r"\\([0-7]{3})")
_PREFERRED = ("pids", "memory", "cpu,cpuacct", "cpu", "devices", "")  # any of them knows; the first that is there


def first_process(pid: int, container: str) -> Proc | None:
    """The container's first process, if ``pid`` is its number on this very machine."""
    proc = look_up(pid) if pid > 0 else None
    return proc if proc is not None and proc.alive and container in _membership(pid) else None


def processes(pid: int, container: str) -> tuple[int, ...]:
    """All processes of the container whose first process is ``pid``, that one first."""
    folder = _group_folder(pid, container)
    found = set(_listed(folder)) if folder else set()
    return (pid, *sorted(found - {pid}))


def _membership(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return file.read()
    except OSError:  # gone
        return ""


def memory_folder(pid: int, container: str) -> str:
    """Where version 1 limits the container's memory; "" where it does not."""
    if "memory" in (places := _places(pid, container)) and (top := _mounted("memory")):
        return top + places["memory"]
    return ""


def _group_folder(pid: int, container: str) -> str:
    """Where the kernel shows the container's group; "" where it does not."""
    places = _places(pid, container)
    for controllers in (*_PREFERRED, *places):
        if controllers in places and (top := _mounted(controllers)):
            return top + places[controllers]
    return ""


def _places(pid: int, container: str) -> dict[str, str]:
    """By controllers, the container's group in their hierarchy."""
    places = {}
    for line in _membership(pid).splitlines():
        _, controllers, path = line.split(":", 2)
        before, found, after = path.partition(container)
        if found:
            places[controllers] = before + found + after.partition("/")[0]
    return places


def _mounted(controllers: str) -> str:
    """Where the hierarchy of these controllers is mounted; "" of none is version 2."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            if kind == "cgroup2" and not controllers:
                return _plain(before.split()[4])
            if kind == "cgroup" and controllers and set(controllers.split(",")) <= set(options.strip().split(",")):
                return _plain(before.split()[4])
    return ""


def _plain(path: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def _listed(folder: str) -> list[int]:
    """Members of the group and of all groups in it."""
    found: list[int] = []
    for place, _, files in os.walk(folder):
        if "cgroup.procs" in files:
            try:
                with open(os.path.join(place, "cgroup.procs")) as file:
                    found += map(int, file.read().split())
            except OSError:  # removed meanwhile
                continue
    return [pid for pid in found if pid > 0]
