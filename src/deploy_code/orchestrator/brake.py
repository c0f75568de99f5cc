"""Who may end a run, and when: Ctrl-C and cancellation reach the work in hand, and never the telling of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from deploy_code.errors import DeployCodeError, DeploymentError


class Brake:
    """The interruptions of one run, by ``pull`` or by cancelling the task it runs in.

    ``pulled`` counts both; ``cancelled`` says that the caller's task was, so that it must end as cancelled.
    """

    def __init__(self) -> None:
        self.pulled = 0
        self.cancelled = False
        self._work: asyncio.Task[None] | None = None

    @property
    def at_once(self) -> bool:
        """Somebody asked twice: whatever is left is left to a recovery."""
        return self.pulled > 1

    def pull(self) -> None:
        """End the work in hand, if there is any."""
        self.pulled += 1
        if self._work is not None:
            self._work.cancel()

    async def guard(self, work: Coroutine[Any, Any, None], name: str) -> DeployCodeError | None:
        """Run ``work`` to its end or to the next pull; the error it ended with, if any. Raises what is a bug."""
        self._work = task = asyncio.create_task(work, name=name)
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                self.cancelled = True
                self.pull()
        self._work = None
        return _end_of(task)

    async def outlast(self, work: Coroutine[Any, Any, None], *, timeout: float | None = None) -> None:
        """Run ``work`` to its end whoever cancels us, at most ``timeout`` seconds: the truth must be told."""
        task = asyncio.create_task(_bounded(work, timeout), name="last words")
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                self.cancelled = True
                self.pulled += 1
        task.result()


async def _bounded(work: Coroutine[Any, Any, None], timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout):
            await work
    except TimeoutError:
        return  # what was to be said could not be; the end itself is written all the same


def _end_of(task: asyncio.Task[None]) -> DeployCodeError | None:
    if task.cancelled():
        return interrupted()
    error = task.exception()
    if error is None or isinstance(error, DeployCodeError):
        return error
    raise error


def interrupted_before() -> DeploymentError:
    """Before anything of the deployment was recorded."""
    return DeploymentError(
        "the deployment was interrupted before it began",
        code="E017",
        meaning="Nothing of this project was changed",
        remedy="Run the command again",
    )


def called_off() -> DeploymentError:
    """Interrupted once: there is time to put everything back."""
    return DeploymentError("the deployment was interrupted", code="E017", meaning="What it had begun is undone")


def interrupted() -> DeploymentError:
    return DeploymentError(
        "the deployment was interrupted",
        code="E017",
        meaning="What it had begun is recorded",
        remedy="The next deploy, stop, restart, scale or rollback finishes or undoes it, or run `deploy-code recover`",
    )
