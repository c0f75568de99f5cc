"""What has to be done about once a second, besides keeping instances: logs indexed and rotated, orphans reaped.

Disk work happens in a thread. A full disk is said once, not every second, and no service suffers from it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from deploy_code.errors import StateError
from deploy_code.logs.index import TICK_SECONDS, LogIndex
from deploy_code.logs.rotate import Rotator
from deploy_code.model import Instance
from deploy_code.wire import AGENT_LOG

from .boot import bound_log
from .journal import Journal

REPEAT_SECONDS = 300.0  # the same trouble is told again after so long


class Housekeeping:
    """``instances``: those whose logs are looked after; ``reap``: reaps orphans handed to us."""

    def __init__(
        self,
        *,
        state: str,
        index: LogIndex,
        journal: Journal,
        instances: Callable[[], list[Instance]],
        reap: Callable[[], object],
    ) -> None:
        self._own_log = os.path.join(state, AGENT_LOG)
        self._logs = _Logs(index)
        self._journal = journal
        self._instances = instances
        self._reap = reap
        self._told: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work(), name="housekeeping")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._reap()
            paths = {instance.log_path for instance in self._instances() if instance.log_path}
            try:
                troubles = await asyncio.to_thread(self._look_after, paths)
            except Exception as exc:  # whatever breaks here, the next second is another try
                troubles = [f"housekeeping failed: {exc!r}"]
            for text in troubles:
                self._tell(text)

    def _look_after(self, paths: set[str]) -> list[str]:
        bound_log(self._own_log)
        return self._logs.look_after(paths)

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        if now - self._told.get(text, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._told = {known: at for known, at in self._told.items() if now - at < REPEAT_SECONDS}
            self._told[text] = now
            self._journal.trouble(text)


class _Logs:
    """The logs of all instances, in the housekeeping's thread."""

    def __init__(self, index: LogIndex) -> None:
        self._index = index
        self._rotators: dict[str, Rotator] = {}

    def look_after(self, paths: set[str]) -> list[str]:
        """Index and rotate what is due; what could not be done, in words."""
        steps: list[Callable[[], object]] = []
        for path in self._rotators.keys() - paths:
            del self._rotators[path]
            self._index.forget(path)
        for path in paths - self._rotators.keys():
            self._rotators[path] = rotator = Rotator(path)
            self._index.watch(path)
            steps.append(rotator.recover)
        steps.append(self._index.tick)
        steps.extend(rotator.rotate for rotator in self._rotators.values() if rotator.is_due())
        return [trouble for step in steps if (trouble := _attempt(step))]


def _attempt(step: Callable[[], object]) -> str:
    try:
        step()
    except StateError as exc:
        return str(exc)
    return ""
