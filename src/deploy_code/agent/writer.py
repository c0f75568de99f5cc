"""One thread that owns the database connection and commits in groups.

A commit waits for the disk; the loop, which probes and answers, must not. All jobs that arrived while the last commit
was under way share the next one, so that two hundred rows cost as much as one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from deploy_code.errors import DeployCodeError
from deploy_code.state.connection import Connection

T = TypeVar("T")
Job = Callable[[Connection], Any]
_Task = tuple[Job, "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Writer:
    """Runs jobs inside transactions, many to a commit, in the order they came.

    A job that refuses raises a ``DeployCodeError`` before it has written anything; the others of its group are not
    harmed. When the group cannot be committed, each job is tried alone.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._pending: list[_Task] = []
        self._queue: SimpleQueue[list[_Task] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run ``job`` in the next group; done once it is on disk. Raises what the job refused with, or StateError."""
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._pending:
            self._loop.call_soon(self._hand_over)
        self._pending.append((job, cast("asyncio.Future[Any]", future)))
        return future

    def close(self) -> None:
        """Commit what is pending, then let go of the file."""
        if self._pending:
            self._hand_over()
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _hand_over(self) -> None:
        if self._pending:
            self._queue.put(self._pending)
            self._pending = []

    def _run(self) -> None:
        more = True
        while more:
            group = self._queue.get()
            tasks = group or []
            more = group is not None
            while more and not self._queue.empty():
                group = self._queue.get()
                more = group is not None
                tasks = tasks + (group or [])
            if tasks:
                self._answer(self._commit(tasks))

    def _commit(self, tasks: list[_Task]) -> list[_Outcome]:
        try:
            with self._connection.transaction():
                return [self._attempt(task) for task in tasks]
        except Exception as exc:  # whatever it was, the callers must hear of it
            if len(tasks) == 1:
                return [(tasks[0][1], None, exc)]
            return [outcome for task in tasks for outcome in self._commit([task])]

    def _attempt(self, task: _Task) -> _Outcome:
        job, future = task
        try:
            return future, job(self._connection), None
        except Refusal as refusal:
            return future, None, refusal.error

    def _answer(self, outcomes: list[_Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, outcomes)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more


class Refusal(Exception):
    """Raised by a job, before it has written anything, to hand ``error`` to its caller without undoing the group."""

    def __init__(self, error: DeployCodeError) -> None:
        super().__init__(str(error))
        self.error = error


def _resolve(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            future.exception()  # marked as seen: not every caller waits for its write
