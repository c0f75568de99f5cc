"""One instance's control group: made before its first process, entered by it, removed after its last.

The same group may be several folders, one in each hierarchy that has a say (version 1 has CPU and memory apart). What
is written here are files of the kernel; docs/decisions/0012 says which, and why.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from deploy_code.drivers.cgroup import Found, Hierarchy, folder_of, limited
from deploy_code.drivers.proctree import Proc, look_up
from deploy_code.model import Resources

TOP = "deploy-code"
HANDLER_KEY = "cgroup"  # in Running.handler: one line for each folder, led by its version
_MIB = 1024 * 1024
_PERIOD_US = 100_000
_LONG_PERIOD_US = 1_000_000
_LEAST_QUOTA_US = 1_000  # the kernel takes no less
_NO_LIMIT = 1 << 62  # version 1 says a number for "max"
_TRIES = 10  # for what others change meanwhile
_CHASE_SECONDS = 0.02  # then the loop has its turn


class Folder(NamedTuple):
    path: str
    unified: bool


class Group:
    """The folders of one group. Raises OSError where the kernel refuses."""

    def __init__(self, folders: Iterable[Folder]) -> None:
        self.folders = tuple(folders)

    # -- how to come by one

    @classmethod
    def make(cls, found: Found, domain: str, name: str, resources: Resources) -> Group | None:
        """Make ``deploy-code/<domain>/<name>`` with these limits; None where none of them can be enforced.

        One that is there already is taken as it is, with its processes.
        """
        wanted = limited(resources)
        if not wanted & found.controllers:
            return None
        used = [each for each in found.hierarchies if not each.controllers or each.controllers & wanted]
        made: list[Folder] = []
        try:
            for hierarchy in used:
                made.append(Folder(_make(hierarchy, domain, name), hierarchy.unified))
                _limit(made[-1], hierarchy.controllers & wanted, resources)
        except OSError:
            cls(made).remove()
            raise
        return cls(made)

    @classmethod
    def remembered(cls, handler: Mapping[str, str]) -> Group | None:
        """The group that ``memory`` tells of."""
        lines = [line.partition(" ") for line in handler.get(HANDLER_KEY, "").splitlines()]
        return cls(Folder(path, version == "v2") for version, _, path in lines) if lines else None

    @classmethod
    def around(cls, pid: int, name: str) -> Group | None:
        """The group called ``name`` that process ``pid`` is in."""
        with suppress(OSError):  # the process is gone, or control groups are not to be seen
            folders = folder_of(pid, name)
            return cls(Folder(path, unified) for path, unified in folders.items()) if folders else None
        return None

    @property
    def memory(self) -> dict[str, str]:
        """What to keep in the instance's row, so that the next agent knows the group."""
        return {HANDLER_KEY: "\n".join(f"{'v2' if each.unified else 'v1'} {each.path}" for each in self.folders)}

    # -- who is in it

    @contextmanager
    def door(self) -> Iterator[Callable[[], None]]:
        """A function for a child to call between fork and exec: it enters the group, and does nothing else.

        The files are opened here, because the child may be another user by then: rights are those of whoever opened.
        """
        files: list[int] = []
        try:
            files.extend(os.open(f"{each.path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for each in self.folders)

            def enter() -> None:
                for file in files:
                    os.write(file, b"0")

            yield enter
        finally:
            for file in files:
                os.close(file)

    def processes(self) -> dict[int, Proc]:
        """All living ones by pid. A group that is gone has none."""
        found: dict[int, Proc] = {}
        for _ in range(_TRIES):
            pids = {int(line) for each in self.folders for line in _lines(f"{each.path}/cgroup.procs")}
            procs = (look_up(pid) for pid in pids if pid)  # 0: outside our own pid namespace
            found = {proc.pid: proc for proc in procs if proc is not None and proc.alive}
            if found or not pids:
                break  # else they forked and ended between the two looks: their children are there
        return found

    def kill(self) -> None:
        """SIGKILL to all, even while they fork: at once where the kernel can do that, else as fast as we can."""
        if not any(_write_if_any(f"{each.path}/cgroup.kill", "1") for each in self.folders if each.unified):
            until = time.monotonic() + _CHASE_SECONDS
            while (procs := self.processes()) and time.monotonic() < until:
                for proc in procs.values():
                    _kill(proc)

    # -- what holds now

    def holds(self, pid: int, name: str) -> bool:
        """Is process ``pid`` in this group, which is called ``name``, or in one that was made inside it?"""
        return _text(f"/proc/{pid}/cgroup").count(f"/{name}".encode()) >= len(self.folders) or look_up(pid) is None

    def limits(self, resources: Resources) -> Iterator[tuple[str, str, str]]:
        """Each limit of these as the kernel has it and as it ought to be, in words, "" for none: (name, now, due)."""
        asked = limited(resources)
        for path, unified in self.folders:
            if "memory" in asked and (words := _words(f"{path}/memory.{'max' if unified else 'limit_in_bytes'}")):
                yield "memory limit", _megabytes(_number(words[0])), _megabytes(resources.memory_mb * _MIB)
            if "cpu" in asked and (words := _words(f"{path}/cpu.{'max' if unified else 'cfs_quota_us'}")):
                period = words[1] if unified else _text(f"{path}/cpu.cfs_period_us")
                due, of = _bandwidth(resources.cpu_cores)
                yield "CPU limit", _in_cores(_number(words[0]), _number(period)), _in_cores(due, of)
            if "pids" in asked and (words := _words(f"{path}/pids.max")):
                yield "limit of processes", str(_number(words[0]) or ""), str(resources.pids)

    # -- out of memory

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed since it was made, because its memory limit was reached."""
        for each in self.folders:
            for line in _lines(f"{each.path}/memory.{'events' if each.unified else 'oom_control'}"):
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        return 0

    def oom_signal(self) -> int | None:
        """A file descriptor that becomes readable when its memory has run out; None where that cannot be had.

        Only for version 1: in version 2 the whole group ends at once, and that is noticed anyway.
        """
        for each in self.folders:
            if not each.unified and os.path.exists(f"{each.path}/memory.oom_control"):
                return _oom_eventfd(each.path)
        return None

    # -- its end

    def remove(self) -> bool:
        """Remove it and the parents that it leaves empty; False while there are processes in it."""
        left = [each for each in self.folders if not _remove(each.path)]
        return not left


def _make(hierarchy: Hierarchy, domain: str, name: str) -> str:
    for _ in range(_TRIES):
        path = hierarchy.folder
        try:
            for part in (TOP, domain, name):
                _hand_down(path, hierarchy)
                path = f"{path}/{part}"
                with suppress(FileExistsError):
                    os.mkdir(path, 0o755)
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENODEV):  # another agent removed a parent that was empty
                raise
            continue
        return path
    raise FileNotFoundError(errno.ENOENT, "what is made there is removed again and again", hierarchy.folder)


def _hand_down(path: str, hierarchy: Hierarchy) -> None:
    """Version 2: let groups in ``path`` have the controllers."""
    if hierarchy.unified and hierarchy.controllers:
        file = f"{path}/cgroup.subtree_control"
        missing = hierarchy.controllers.difference(*(line.split() for line in _lines(file)))
        if missing:
            _write(file, " ".join(f"+{name}" for name in sorted(missing)))


def _limit(folder: Folder, controllers: frozenset[str], resources: Resources) -> None:
    if "memory" in controllers:
        (_limit_memory_2 if folder.unified else _limit_memory_1)(folder.path, resources.memory_mb * _MIB)
    if "cpu" in controllers:
        quota, period = _bandwidth(resources.cpu_cores)
        if folder.unified:
            _write(f"{folder.path}/cpu.max", f"{quota} {period}")
        else:
            _write(f"{folder.path}/cpu.cfs_period_us", str(period))
            _write(f"{folder.path}/cpu.cfs_quota_us", str(quota))
    if "pids" in controllers:
        _write(f"{folder.path}/pids.max", str(resources.pids))  # threads count, too


def _limit_memory_2(path: str, size: int) -> None:
    _write(f"{path}/memory.max", str(size))
    _write_if_any(f"{path}/memory.swap.max", "0")  # absent: no swap is counted, or there is none
    _write_if_any(f"{path}/memory.oom.group", "1")  # half a service is worse than a restart


def _limit_memory_1(path: str, size: int) -> None:
    _write(f"{path}/memory.limit_in_bytes", str(size))
    if not _write_if_any(f"{path}/memory.memsw.limit_in_bytes", str(size)):  # memory and swap together
        _write_if_any(f"{path}/memory.swappiness", "0")


def _bandwidth(cores: float) -> tuple[int, int]:
    """µs of CPU time in each period of so many µs."""
    period = _PERIOD_US if cores * _PERIOD_US >= _LEAST_QUOTA_US else _LONG_PERIOD_US
    return max(_LEAST_QUOTA_US, round(cores * period)), period


def _number(word: bytes) -> int:
    """0 for what is no limit: "max", -1, or a number beyond all that there can be."""
    value = int(word) if word.strip().isdigit() else 0
    return value if value < _NO_LIMIT else 0


def _megabytes(size: int) -> str:
    return f"{size / _MIB:g} MB" if size else ""


def _in_cores(quota: int, period: int) -> str:
    if not quota or not period:
        return ""
    return "1 core" if quota == period else f"{quota / period:g} cores"


def _kill(proc: Proc) -> None:
    """Kill this very process, not one that got its number."""
    try:
        fd = os.pidfd_open(proc.pid)
    except OSError:  # it is gone
        return
    with suppress(ProcessLookupError):
        if (now := look_up(proc.pid)) is not None and now.ident == proc.ident:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    os.close(fd)


def _oom_eventfd(path: str) -> int | None:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(f"{path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _write(f"{path}/cgroup.event_control", f"{fd} {control}")
        finally:
            os.close(control)
    except OSError:  # only the moment is lost; the counter still tells
        os.close(fd)
        return None
    return fd


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY: somebody is in it
        return False
    with suppress(OSError):  # others have groups there
        os.rmdir(domain := os.path.dirname(path))
        os.rmdir(os.path.dirname(domain))
    return True


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from exc  # write(2) does not say where


def _write_if_any(path: str, text: str) -> bool:
    try:
        _write(path, text)
    except FileNotFoundError:
        return False
    return True


def _words(path: str) -> list[bytes]:
    return _text(path).split()


def _text(path: str) -> bytes:
    """What a small file of the kernel says; nothing for one that is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 65536)
    except OSError:  # it went in between
        return b""
    finally:
        os.close(fd)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().splitlines()
    except OSError:  # it is gone, or about to go
        return []
