"""The wanted set: the agent's only instruction.

Compare-and-set: a message changes it only if its deployment is the one that the state records as in progress, and it is
on disk before it is answered (``records.record_want``). This is its mirror in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from deploy_code.model import Wanted
from deploy_code.wire import Want

from .ports import fixed_ports
from .records import Pair, Records, WantedRow


@dataclass(slots=True)
class Entry:
    """So many instances of one revision of one service. Shared by their supervisors, and changed in place.

    ``settled``: the deployment that wanted it is over, so that the restart policy holds even for what was never ready.
    ``start_timeout``: seconds that one ``start`` of a custom service may take.
    """

    wanted: Wanted
    deployment: int
    settled: bool = False
    start_timeout: float = 300.0

    @property
    def pair(self) -> Pair:
        return self.wanted.service, self.wanted.revision


class WantedSet:
    """All entries, by service and revision."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._entries: dict[Pair, Entry] = {}
        self._bound: Counter[int] = Counter()
        self.port_range = (30000, 40000)

    def load(self, rows: list[WantedRow]) -> None:
        """Take over what the last agent recorded."""
        for row in rows:
            self._bound.update(fixed_ports(row.wanted.content))
            entry = Entry(row.wanted, row.deployment, row.settled, row.start_timeout)
            self._entries[entry.pair] = entry
            self.port_range = row.port_range

    async def change(self, want: Want) -> set[Pair]:
        """Record ``want`` and take it over; the pairs for which this is a new wish, not a repetition.

        Raises StalePlanError E012 (another deployment is in progress) and StateError; then nothing has changed.
        """
        fresh = {(w.service, w.revision) for w in want.wanted if self._is_news(want, w)}
        await self._records.record_want(want, fresh)
        self.port_range = want.port_range
        for wanted in want.wanted:
            self._take(want, wanted)
        return fresh

    async def settle(self, deployment: int) -> None:
        """The deployment is over. Raises as ``change``."""
        await self._records.settle(deployment)
        for entry in self._entries.values():
            entry.settled = True

    def binds(self, number: int) -> bool:
        """Does one of these services bind this port by itself?"""
        return self._bound[number] > 0

    def get(self, pair: Pair) -> Entry | None:
        return self._entries.get(pair)

    def of_service(self, service: str) -> list[Entry]:
        return [entry for pair, entry in self._entries.items() if pair[0] == service]

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def _is_news(self, want: Want, wanted: Wanted) -> bool:
        entry = self._entries.get((wanted.service, wanted.revision))
        return entry is None or entry.deployment != want.deployment

    def _take(self, want: Want, wanted: Wanted) -> None:
        pair = wanted.service, wanted.revision
        if (old := self._entries.get(pair)) is not None:
            self._bound.subtract(fixed_ports(old.wanted.content))
        if wanted.replicas:
            self._bound.update(fixed_ports(wanted.content))
        if not wanted.replicas:
            self._entries.pop(pair, None)
        elif (entry := self._entries.get(pair)) is None:
            self._entries[pair] = Entry(wanted, want.deployment, start_timeout=want.start_timeout)
        else:
            entry.wanted, entry.deployment, entry.settled = wanted, want.deployment, False
            entry.start_timeout = want.start_timeout
