"""One look at /proc serves everybody who asks within the same few milliseconds.

Two hundred instances that stop at once need two hundred answers, each from a look taken after their
question, but not two hundred looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from deploy_code.drivers.proctree import Table

_REST = 2.0  # a look is followed by a pause this many times as long, so that looking never takes a whole core
_PAUSE_MAX = 0.1  # seconds


class SharedScan:
    """Hands out process tables that are fresh, scanned after the call, and shared."""

    def __init__(self, scan: Callable[..., Table] = Table.scan) -> None:
        self._scan = scan
        self._askers: list[asyncio.Future[Table]] = []
        self._since = 0
        self._not_before = 0.0

    async def fresh(self, since: int) -> Table:
        """All processes as they are after this call; ``since`` as in ``Table``."""
        loop = asyncio.get_running_loop()
        asker: asyncio.Future[Table] = loop.create_future()
        self._since = min(self._since, since) if self._askers else since
        self._askers.append(asker)
        if len(self._askers) == 1:
            loop.call_at(max(loop.time(), self._not_before), self._look, loop)
        return await asker

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        askers, self._askers = self._askers, []
        begun = loop.time()
        try:
            table = self._scan(since=self._since)
        except OSError as exc:
            for asker in _waiting(askers):
                asker.set_exception(exc)
        else:
            for asker in _waiting(askers):
                asker.set_result(table)
        ended = loop.time()
        self._not_before = ended + min(_REST * (ended - begun), _PAUSE_MAX)


def _waiting(askers: list[asyncio.Future[Table]]) -> list[asyncio.Future[Table]]:
    return [asker for asker in askers if not asker.done()]  # done: its task was cancelled
