"""Whose is this process? One look at /proc, and the answer for any number of instances.

A service may fork, start sessions of its own (every PostgreSQL backend does), clear its environment or
detach. So an instance owns the union of four things: its leader, every descendant of a process it owns,
every session that a process it owns leads (a process group is always part of a session), and whatever
carries its uuid in ``DEPLOY_CODE_INSTANCE``. A pid alone never proves anything: with its start time it
does.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache, cached_property
from typing import NamedTuple

_ENVIRON_BYTES = 32 * 1024  # of most all in one read
INSTANCE_KEY = b"DEPLOY_CODE_INSTANCE="
SERVICE_KEY = b"DEPLOY_CODE_SERVICE="
STATE = "DEPLOY_CODE_STATE"  # the project's state folder: tells apart two projects of one name


class Ident(NamedTuple):
    """A pid that cannot be mistaken for its reuse. ``start_time``: clock ticks since boot."""

    pid: int
    start_time: int


class Proc(NamedTuple):
    """What /proc/PID/stat says, as far as it matters here."""

    pid: int
    ppid: int
    sid: int
    state: str
    threads: int
    start_time: int

    @property
    def ident(self) -> Ident:
        return Ident(self.pid, self.start_time)

    @property
    def alive(self) -> bool:
        """Not a zombie. One whose main thread has left but whose others run only looks like a zombie."""
        return self.state not in "ZX" or self.threads > 1


class Stranger(NamedTuple):
    """What carries the marks of a project, and belongs to none of its instances. ``leader``: its oldest process."""

    uuid: str
    service: str
    leader: Proc
    processes: int


class Claim(NamedTuple):
    """What is known of an instance whose processes are sought.

    ``uuid``: empty to go by relations alone, which spares a look into every environment.
    ``known``: processes found to be its own earlier. ``watched``: the leader was watched until its end, so
    its number cannot have been given to somebody else's session in between; without that a session whose
    leader is gone counts only when a process in it carries the uuid.
    """

    uuid: str
    leader: Ident
    known: frozenset[Ident] = frozenset()
    watched: bool = False


@cache
def boot_id() -> str:
    """Changes with every boot; start times count from there."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def look_up(pid: int) -> Proc | None:
    """The process of this number, zombies included; None when there is none."""
    try:
        text = _read(f"/proc/{pid}/stat", 1024)
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split(None, 20)  # the name in parentheses may hold anything
    return Proc(pid, int(fields[1]), int(fields[3]), fields[0].decode(), int(fields[17]), int(fields[19]))


def _read(path: str, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def _uuid_of(pid: int) -> str:
    """Value of DEPLOY_CODE_INSTANCE in its environment; empty when there is none or it may not be read."""
    return _value(_environ(pid), INSTANCE_KEY)


def _environ(pid: int) -> bytes:
    """Its environment, led by a NUL; nothing of one that has gone or hides it."""
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
        try:
            environ = b"\0" + (part := os.read(fd, _ENVIRON_BYTES))
            while len(part) == _ENVIRON_BYTES:
                environ += (part := os.read(fd, _ENVIRON_BYTES))
            return environ
        finally:
            os.close(fd)
    except OSError:  # gone meanwhile, or another user's: then it is not one that we started
        return b""


def _value(environ: bytes, key: bytes) -> str:
    """What follows ``key`` ("NAME=") in an environment."""
    _, found, rest = environ.partition(b"\0" + key)
    return rest.partition(b"\0")[0].decode(errors="replace") if found else ""


def _own_line(found: Callable[[int], Proc | None] = look_up) -> frozenset[int]:
    """pid 1, ourselves and those we descend from."""
    pid, line = os.getpid(), {0, 1}
    while pid not in line:
        line.add(pid)
        pid = proc.ppid if (proc := found(pid)) else 1
    return frozenset(line)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def strangers(state: str, known: Collection[str], leaders: Collection[int] = ()) -> list[Stranger]:
    """What was started for the project in folder ``state``, as an instance that is none of ``known``.

    ``leaders``: pids of known instances, which need not be looked into. Never this process or one it descends from.
    """
    mark = b"\0" + f"{STATE}={state}\0".encode(errors="surrogateescape")
    found: dict[str, list[tuple[Proc, bytes]]] = defaultdict(list)
    for pid in _pids():
        if pid not in leaders and mark in _environ(pid) and pid not in _own_line():
            proc, environ = look_up(pid), _environ(pid)  # again, now that it cannot be another one
            uuid = _value(environ, INSTANCE_KEY)
            if proc is not None and proc.alive and mark in environ and uuid and uuid not in known:
                found[uuid].append((proc, environ))
    return [_stranger(uuid, found[uuid]) for uuid in sorted(found)] if state else []


def _stranger(uuid: str, marked: list[tuple[Proc, bytes]]) -> Stranger:
    leader, environ = min(marked, key=lambda each: (each[0].sid != each[0].pid, each[0].start_time, each[0].pid))
    return Stranger(uuid, _value(environ, SERVICE_KEY), leader, len(marked))


class Table:
    """All processes at one moment, with indexes that are built once and shared by all who ask."""

    def __init__(self, procs: Iterable[Proc], *, since: int = 0) -> None:
        """``since``: no instance asked about began before this start time; older ones are not looked into."""
        self.procs = {proc.pid: proc for proc in procs}
        self._since = since

    @classmethod
    def scan(cls, *, since: int = 0) -> Table:
        """Read /proc now: some 10 µs a process."""
        return cls(filter(None, map(look_up, _pids())), since=since)

    def members(self, claim: Claim) -> dict[int, Proc]:
        """Living processes of this instance by pid. Never pid 1, this process or one it descends from."""
        found: dict[int, Proc] = {}
        seen: set[Ident] = set()
        queue = self._roots(claim)
        while queue:
            ident = queue.pop()
            if ident in seen or ident.pid in self._untouchable:
                continue
            seen.add(ident)
            proc = self._exact(ident)
            if proc is not None and proc.alive:
                found[proc.pid] = proc
                queue.extend(child.ident for child in self._children.get(proc.pid, ()))
            queue.extend(self._session_led_by(ident))
        return found

    def leaders(self, uuids: Iterable[str]) -> dict[str, Proc]:
        """The living process that each uuid was given to: the oldest that leads a session."""
        return {
            uuid: min(holders, key=lambda proc: (proc.sid != proc.pid, proc.start_time, proc.pid))
            for uuid in uuids
            if (holders := self._holders.get(uuid))
        }

    def _roots(self, claim: Claim) -> list[Ident]:
        begun = claim.leader.start_time
        holders = self._holders.get(claim.uuid, ()) if claim.uuid else ()
        holders = [proc for proc in holders if proc.start_time >= begun]
        roots = [*claim.known, *(proc.ident for proc in holders)]
        if claim.watched or self._exact(claim.leader) or any(proc.sid == claim.leader.pid for proc in holders):
            roots.append(claim.leader)
        return roots

    def _exact(self, ident: Ident) -> Proc | None:
        proc = self.procs.get(ident.pid)
        return proc if proc is not None and proc.start_time == ident.start_time else None

    def _session_led_by(self, ident: Ident) -> list[Ident]:
        """A session outlives its leader, and its number is not given away while one process is in it."""
        if ident.pid in self.procs and self._exact(ident) is None:
            return []  # the number belongs to somebody else by now
        members = self._sessions.get(ident.pid, ())
        return [proc.ident for proc in members if proc.start_time >= ident.start_time]

    @cached_property
    def _children(self) -> dict[int, list[Proc]]:
        index: dict[int, list[Proc]] = defaultdict(list)
        for proc in self.procs.values():
            index[proc.ppid].append(proc)
        return index

    @cached_property
    def _sessions(self) -> dict[int, list[Proc]]:
        index: dict[int, list[Proc]] = defaultdict(list)
        for proc in self.procs.values():
            if proc.alive:
                index[proc.sid].append(proc)
        return index

    @cached_property
    def _holders(self) -> dict[str, list[Proc]]:
        """Processes by the uuid in their environment."""
        index: dict[str, list[Proc]] = defaultdict(list)
        for proc in self.procs.values():
            if proc.start_time >= self._since and proc.alive and proc.pid not in self._untouchable:
                index[_uuid_of(proc.pid)].append(proc)
        index.pop("", None)
        return index

    @cached_property
    def _untouchable(self) -> frozenset[int]:
        """pid 1, ourselves and those we descend from: what keeps everything else alive."""
        return _own_line(self.procs.get)
