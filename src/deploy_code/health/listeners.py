"""Who listens where on this machine: whether a port that answers belongs to the instance, and what to show if
not.

The kernel is asked by netlink (sock_diag) for the sockets of one port, which costs the same however many
connections there are; where that is not to be had, /proc/net is read. Sockets are matched to processes by
inode. "Cannot be told" is an answer of its own: only what is proven is acted on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from deploy_code.health import sockdiag


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds a listening socket."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.name})"


class Listeners:
    """Answers about TCP listeners; remembers which sockets listen on a port, so that proofs are cheap.

    A remembered socket that the asked process still holds is proof; anything else is looked up anew.
    """

    def __init__(self) -> None:
        self._inodes_of_port: dict[int, frozenset[int]] = {}

    def owns(self, port: int, pids: Iterable[int]) -> bool | None:
        """Does one of ``pids`` listen on TCP ``port``? None: it cannot be told.

        ``pids`` must be all processes of the instance: False means that each of them was looked into.
        """
        held, complete = _sockets_of(pids)
        if held & self._inodes_of_port.get(port, frozenset()):
            return True
        listening = self._look_up(port)
        if held & listening:
            return True
        return False if listening and complete else None

    def holders(self, port: int) -> tuple[Holder, ...]:
        """The processes that listen on TCP ``port``, as far as we may see. Walks /proc: milliseconds."""
        return _holders(self._look_up(port))

    def stranger(self, port: int) -> str:
        """Words for a port that somebody else answers."""
        holders = _named(self.holders(port)) or "another process"
        return f"port {port} is answered by {holders}, not by this service"

    def _look_up(self, port: int) -> frozenset[int]:
        found = frozenset(entry.inode for entry in sockdiag.tcp_listeners(port))
        self._inodes_of_port[port] = found
        return found


def owns(port: int, pids: Iterable[int]) -> bool | None:
    """``Listeners.owns`` for a single question."""
    return Listeners().owns(port, pids)


def holder(port: int) -> str:
    """Who listens on TCP ``port``, as ``pid 123 (nginx)``; empty where nobody does or we may not see who."""
    return _named(Listeners().holders(port))


def listening_ports(pids: Iterable[int]) -> tuple[str, ...]:
    """What ``pids`` listen on, as ``tcp 127.0.0.1:8080``, ``tcp [::]:80`` or ``udp 0.0.0.0:53``, sorted.

    They all live in one network, which may be another one than ours.
    """
    held, _ = _sockets_of(pids := tuple(pids))
    if not held:
        return ()
    known = sockdiag.listeners() if _in_our_network(pids[0]) else sockdiag.listeners_in_network_of(pids[0])
    found = {entry for entry in known if entry.inode in held}
    return tuple(str(entry) for entry in sorted(found, key=lambda entry: (entry.protocol, entry.port, entry.address)))


def _in_our_network(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
    except OSError:  # gone, or not ours to look into
        return True


def listening_inodes() -> dict[int, sockdiag.Listener]:
    """Every listening TCP and bound UDP socket of this network namespace, by inode."""
    return {entry.inode: entry for entry in sockdiag.listeners()}


def _sockets_of(pids: Iterable[int]) -> tuple[set[int], bool]:
    """Inodes of all sockets that ``pids`` hold; False where one of them could not be looked into."""
    inodes: set[int] = set()
    complete = False
    for pid in pids:
        try:
            inodes |= _sockets_of_one(pid)
        except OSError:
            return inodes, False
        complete = True
    return inodes, complete


def _sockets_of_one(pid: int) -> set[int]:
    inodes: set[int] = set()
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            link = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:  # closed in between
            continue
        if link.startswith("socket:["):
            inodes.add(int(link[8:-1]))
    return inodes


def _holders(inodes: frozenset[int]) -> tuple[Holder, ...]:
    found = []
    for name in os.listdir("/proc") if inodes else ():
        if not name.isdigit():
            continue
        try:
            if inodes & _sockets_of_one(int(name)):
                found.append(Holder(pid=int(name), name=_name(int(name))))
        except OSError:  # gone, or not ours to look into
            continue
    return tuple(found)


def _named(holders: Iterable[Holder]) -> str:
    return ", ".join(map(str, holders))


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
