"""The control groups of one driver's instances: made for those with limits, kept in mind, asked, and removed.

Without limits, or on a machine where groups cannot be made, an instance has none, and its process tree says what
belongs to it (``proctree``).
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from deploy_code.drivers.base import Running, StartOrder
from deploy_code.drivers.cgroup import Found, find, limited
from deploy_code.drivers.group import TOP, Folder, Group
from deploy_code.drivers.proctree import Ident
from deploy_code.errors import DriverError

_RECENT_SECONDS = 5.0  # an end so soon after one of its processes ran out of memory has that cause
_SETTLE_SECONDS = 0.2  # so long after memory ran out it shows whether the leader outlives it
_REMOVE_SECONDS = 2.0  # what has ended is gone from its group after that
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(slots=True)
class _Kept:
    group: Group
    uuid: str
    kills: int  # of its processes, for want of memory, as last seen
    noticed: float = float("-inf")  # when that last happened while its leader lived on
    signal: int | None = None  # tells that memory ran out, as long as the leader is watched


def domain(state: str) -> str:
    """What the groups of one project lie in: two projects of the same name have two."""
    import hashlib

    path = os.path.realpath(state)
    return f"{_UNSAFE.sub('-', os.path.basename(path))}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"


class Groups:
    """``state``: the project's own folder; its groups are told from those of all others by it.

    ``on_out_of_memory`` hears the uuid of an instance that lives on although one of its processes was killed.
    """

    def __init__(self, state: str = "", look: Callable[[], Found] = find) -> None:
        self.on_out_of_memory: Callable[[str], None] = lambda _: None
        self.state = state
        self._look = look
        self._kept: dict[Ident, _Kept] = {}
        self._is_tidy = False

    @cached_property
    def _found(self) -> Found:
        return self._look()

    @cached_property
    def _domain(self) -> str:
        return domain(self.state)

    # -- one instance

    def make(self, order: StartOrder) -> Group | None:
        """A group with the limits of ``order``; None where there are none to enforce. Raises DriverError."""
        if not limited(order.resources):
            return None
        try:
            return Group.make(self._found, self._domain, order.uuid, order.resources)
        except OSError as exc:
            raise DriverError(
                f"{order.service}: its limits cannot be enforced: {exc.filename}: {exc.strerror}",
                meaning="Control groups can be made on this machine, but not this one; it was not started without",
                remedy="See what limits the group above that file, or take `resources` out of this service",
                retryable=True,
            ) from exc

    def keep(self, ident: Ident, uuid: str, group: Group) -> None:
        """The living process ``ident`` leads the instance in ``group``."""
        kept = self._kept[ident] = _Kept(group, uuid, group.oom_kills(), signal=group.oom_signal())
        if kept.signal is not None:
            asyncio.get_running_loop().add_reader(kept.signal, self._memory_ran_out, ident)

    def know(self, running: Running, *, alive: bool = False) -> None:
        """Another agent started this one; its group is in what it remembered."""
        ident = Ident(running.pid, running.start_time)
        if ident in self._kept or (group := Group.remembered(running.handler)) is None:
            return
        if alive:
            self.keep(ident, running.uuid, group)
        else:  # how often it ran out of memory before is not known: then that is why it ended
            self._kept[ident] = _Kept(group, running.uuid, kills=0)

    def of(self, leader: Ident) -> Group | None:
        kept = self._kept.get(leader)
        return kept.group if kept else None

    def ended(self, ident: Ident) -> bool:
        """The leader has ended. Was it for want of memory, if it did not end well?"""
        kept = self._kept.get(ident)
        if kept is None:
            return False
        self._stop_listening(kept)
        return kept.group.oom_kills() > kept.kills or time.monotonic() - kept.noticed < _RECENT_SECONDS

    async def remove(self, leader: Ident) -> None:
        """Remove the group of an instance of which nothing is left; now, or when the kernel lets us (``tidy``)."""
        kept = self._kept.get(leader)
        if kept is None:
            return
        deadline = time.monotonic() + _REMOVE_SECONDS
        pause = 0.001
        while not self.discard(kept.group) and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)
        self._stop_listening(kept)
        self._kept.pop(leader, None)

    def discard(self, group: Group) -> bool:
        """Remove this one now, if it can be."""
        removed = group.remove()
        self._is_tidy &= removed
        return removed

    # -- all of them

    def tidy(self) -> None:
        """Remove empty groups of this project that belong to no instance: an agent died before it could."""
        if self._is_tidy or not self.state:
            return
        self._is_tidy = True
        known = {folder.path for kept in self._kept.values() for folder in kept.group.folders}
        for folder in self._all():
            if folder.path not in known:
                self.discard(Group([folder]))

    def _all(self) -> Iterator[Folder]:
        for hierarchy in self._found.hierarchies:
            with suppress(OSError), os.scandir(os.path.join(hierarchy.folder, TOP, self._domain)) as entries:
                yield from [Folder(entry.path, hierarchy.unified) for entry in entries if entry.is_dir()]

    def close(self) -> None:
        for kept in self._kept.values():
            self._stop_listening(kept)
        self._kept.clear()

    # -- memory that runs out while the leader lives on

    def _memory_ran_out(self, ident: Ident) -> None:
        kept = self._kept[ident]
        if kept.signal is not None:
            with suppress(BlockingIOError):
                os.eventfd_read(kept.signal)
            asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._tell, ident)

    def _tell(self, ident: Ident) -> None:
        kept = self._kept.get(ident)
        if kept is None or kept.signal is None or (kills := kept.group.oom_kills()) <= kept.kills:
            return  # it has ended meanwhile, or was told of already
        kept.kills, kept.noticed = kills, time.monotonic()
        self.on_out_of_memory(kept.uuid)

    def _stop_listening(self, kept: _Kept) -> None:
        if kept.signal is not None:
            asyncio.get_running_loop().remove_reader(kept.signal)
            os.close(kept.signal)
            kept.signal = None
