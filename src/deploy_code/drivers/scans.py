"""One look at /proc serves everybody who asks within the same few milliseconds.

Two hundred instances that stop at once need two hundred answers, each from a look taken after their
question, but not two hundred looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from deploy_code.drivers.proctree import Table

_SHARE = 3.0  # one part looking, two parts pause: looking never takes a whole core for long
_BURST = 0.03  # seconds by which a few looks in a row may run ahead of that


class SharedScan:
    """Hands out process tables that are fresh, scanned after the call, and shared."""

    def __init__(self, scan: Callable[..., Table] = Table.scan) -> None:
        self._scan = scan
        self._askers: list[asyncio.Future[Table]] = []
        self._since = 0
        self._paid_until = 0.0

    async def fresh(self, since: int) -> Table:
        """All processes as they are after this call; ``since`` as in ``Table``."""
        loop = asyncio.get_running_loop()
        asker: asyncio.Future[Table] = loop.create_future()
        self._since = min(self._since, since) if self._askers else since
        self._askers.append(asker)
        if len(self._askers) == 1:
            loop.call_at(max(loop.time(), self._paid_until - _BURST), self._look, loop)
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
        self._paid_until = max(self._paid_until, begun) + _SHARE * (loop.time() - begun)


def _waiting(askers: list[asyncio.Future[Table]]) -> list[asyncio.Future[Table]]:
    return [asker for asker in askers if not asker.done()]  # done: its task was cancelled
