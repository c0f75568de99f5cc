"""Where one plugin's hooks run, and what comes of each call: at most its time-out is waited for, whatever it does.

Plain hooks run in daemon threads, ``async`` ones in a thread with an event loop of the plugin's own, or, for a plugin
that was added in code, in the loop of who added it. What hangs is left to itself, and its place is taken by another.
Many calls at once are handed over, and their ends handed back, in one go: that is what makes them cheap.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from deploy_code.orchestrator.own_loop import EndedError, OwnLoop, called, crossing

MOST_THREADS = 8  # for the plain hooks of one plugin
GROW_SECONDS = 0.02  # a call that waits for so long gets a thread of its own
ANSWER_SECONDS = 0.5  # what a loop that is not blocked needs to answer

Ended = Callable[[Any, "BaseException | None"], None]


class GivenUpError(Exception):
    """It took too long."""


class DroppedError(Exception):
    """It is not wanted any more: that says nothing about it."""


class Job:
    """One call. ``ended(result, error)`` is called once, in the engine's loop, with what it raised or one of the above.

    ``started``: by the monotonic clock, 0 where it waits for its turn; a job of many parts moves it on with each.
    """

    __slots__ = ("arguments", "cancel", "ended", "function", "given_at", "over", "place", "started", "timeout")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float, ended: Ended) -> None:
        self.function = function
        self.arguments = arguments
        self.timeout = timeout
        self.ended = ended
        self.given_at = time.monotonic()
        self.started = 0.0
        self.over = False
        self.place: OwnLoop | None = None
        self.cancel: Callable[[], object] | None = None

    def left(self, now: float) -> float:
        """Seconds until it is too late; one that waits for its turn has twice the time."""
        return self.started + self.timeout - now if self.started else self.given_at + 2 * self.timeout - now

    def end(self, result: Any, error: BaseException | None) -> None:
        if not self.over:
            self.over = True
            self.ended(result, error)


class Seat:
    """The threads and the loop of one plugin. ``own``: its ``async`` hooks get a loop of their own."""

    def __init__(self, name: str, *, own: bool) -> None:
        self._name = name
        self._own = own
        self._here = asyncio.get_running_loop()
        self._jobs: set[Job] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._new: list[Job] = []
        self._lock = threading.Lock()  # of what comes back
        self._back: list[tuple[Job, Any, BaseException | None]] = []
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: dict[threading.Thread, Job | None] = {}
        self._growing = False
        self._loop: OwnLoop | None = None
        self._mail: list[Job] = []

    def begin(self, job: Job) -> None:
        """Hand a call over; its end is told to ``job.ended``."""
        if self._watch is None:
            self._watch = self._here.call_later(job.timeout, self._look)
        self._jobs.add(job)
        self._new.append(job)
        if len(self._new) == 1:
            self._here.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """All that was begun in one turn of the loop: each time another thread is woken, it takes its time."""
        new, self._new = self._new, []
        for job in new:
            if not job.over:
                self._place(job)
        self._post()

    def _place(self, job: Job) -> None:
        try:
            if not inspect.iscoroutinefunction(job.function):
                self._begin_plain(job)
            elif self._own:
                self._begin_there(job)
            else:
                self._begin_here(job)
        except RuntimeError as exc:  # this machine has no thread left
            self._end(job, None, exc)

    def drop_waiting(self) -> None:
        """What has not been begun is not wanted any more."""
        for job in [each for each in self._jobs if not each.started]:
            self.give_up(job, DroppedError())

    def _end(self, job: Job, result: Any, error: BaseException | None) -> None:
        self._jobs.discard(job)
        job.end(result, error)

    def give_up(self, job: Job, error: BaseException) -> None:
        """Whatever it is doing: it is not waited for any longer."""
        if job.over:
            return
        if job.cancel is not None:
            job.cancel()
        for thread, at_work in [*self._threads.items()]:
            if at_work is job:
                del self._threads[thread]  # it goes when it comes back, if ever
        self._end(job, None, error)
        if not self._queue.empty():
            self._grow()

    def close(self, seconds: float) -> None:
        """Let the threads end; waits a moment for those that have nothing to do."""
        until = time.monotonic() + seconds
        if self._watch is not None:
            self._watch.cancel()
        for _ in self._threads:
            self._queue.put(None)
        if self._loop is not None:
            self._loop.close()
            self._loop.join(max(0.0, until - time.monotonic()))
        for thread, at_work in [*self._threads.items()]:
            if at_work is None:
                thread.join(max(0.0, until - time.monotonic()))

    def _look(self) -> None:
        """Whose time is up? And where something has long been waiting for its turn, does the loop still answer?"""
        now = time.monotonic()
        late = [job for job in self._jobs if job.left(now) <= 0]
        stuck = any(job.place is not None and now - job.given_at >= job.timeout for job in self._jobs)
        for job in late:
            self.give_up(job, GivenUpError())
        if stuck and self._loop is not None:
            self._check_loop(self._loop)
        soon = min((min(job.left(now), job.timeout) for job in self._jobs), default=0.0)
        self._watch = self._here.call_later(soon, self._look) if self._jobs else None

    # ----------------------------------------------------------------------------------------------- the ends come back

    def _bring(self, job: Job, result: Any, error: BaseException | None) -> None:
        """From another thread."""
        with self._lock:
            self._back.append((job, result, error))
            is_first = len(self._back) == 1
        if is_first:
            self.tell(self._collect)

    def _collect(self) -> None:
        with self._lock:
            back, self._back = self._back, []
        for job, result, error in back:
            self._end(job, result, error)

    def tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call something in the engine's loop, from another thread; nobody listens any more once that is closed."""
        with suppress(RuntimeError):
            self._here.call_soon_threadsafe(function, *arguments)

    # ------------------------------------------------------------------------------------------------------------ plain

    def _begin_plain(self, job: Job) -> None:
        self._queue.put(job)
        if not self._threads:
            self._start_thread()
        if not self._growing:
            self._growing = True
            self._here.call_later(GROW_SECONDS, self._grow)

    def _grow(self) -> None:
        self._growing = False
        if self._queue.empty() or len(self._threads) >= MOST_THREADS:
            return
        self._start_thread()
        self._growing = True
        self._here.call_later(GROW_SECONDS, self._grow)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"plugin {self._name}", daemon=True)
        self._threads[thread] = None
        thread.start()

    def _work(self) -> None:
        thread = threading.current_thread()
        while thread in self._threads and (job := self._queue.get()) is not None:
            if job.over:
                continue
            self._threads[thread] = job
            job.started = time.monotonic()
            try:
                result, error = job.function(*job.arguments), None
            except BaseException as exc:  # crosses the thread: handled where the end is told
                result, error = None, crossing(exc)
            if thread in self._threads:
                self._threads[thread] = None
            if inspect.isawaitable(result):
                self.tell(self._await_too, job, result)
            else:
                self._bring(job, result, error)
        self._threads.pop(thread, None)

    def _await_too(self, job: Job, result: Any) -> None:
        """A plain hook that gives back something to wait for."""
        if job.over:
            getattr(result, "close", lambda: None)()
            return
        job.function, job.arguments = _awaiting, (result,)
        (self._begin_there if self._own else self._begin_here)(job)
        self._post()

    # ----------------------------------------------------------------------------------------------------- asynchronous

    def _begin_here(self, job: Job) -> None:
        job.started = time.monotonic()
        task = asyncio.create_task(called(job.function, job.arguments), name=f"plugin {self._name}")
        job.cancel = task.cancel
        task.add_done_callback(lambda done: self._end(job, *_end_of(done)))

    def _begin_there(self, job: Job) -> None:
        if self._loop is None:
            self._loop = OwnLoop(f"plugin {self._name}")
        job.place = self._loop
        self._mail.append(job)

    def _post(self) -> None:
        mail, self._mail = self._mail, []
        if mail and self._loop is not None:
            self._loop.submit(self._open, self._loop, mail)

    def _open(self, loop: OwnLoop, mail: list[Job]) -> None:
        """In the plugin's loop."""
        for job in mail:
            if not job.over:
                task = asyncio.get_running_loop().create_task(self._run_there(job, loop))
                job.cancel = partial(loop.submit, task.cancel)
                task.add_done_callback(partial(self._ended_there, job))

    async def _run_there(self, job: Job, loop: OwnLoop) -> Any:
        if job.over or job.place is not loop:
            raise DroppedError  # while this loop was blocked
        job.started = time.monotonic()
        return await called(job.function, job.arguments)

    def _ended_there(self, job: Job, task: asyncio.Task[Any]) -> None:
        result, error = _end_of(task)
        if not isinstance(error, DroppedError):
            self._bring(job, result, error)

    def _check_loop(self, loop: OwnLoop) -> None:
        """A loop that does not answer is blocked: another takes its place, and what it has not begun."""
        answered = threading.Event()
        loop.submit(answered.set)
        self._here.call_later(ANSWER_SECONDS, self._replace_unless, answered, loop)

    def _replace_unless(self, answered: threading.Event, loop: OwnLoop) -> None:
        if answered.is_set() or loop is not self._loop:
            return
        self._loop = None
        loop.close()
        for job in [each for each in self._jobs if each.place is loop and not each.started]:
            self._begin_there(job)
        self._post()


async def _awaiting(awaitable: Any) -> Any:
    return await awaitable


def _end_of(task: asyncio.Task[Any]) -> tuple[Any, BaseException | None]:
    if task.cancelled():
        return None, EndedError("it cancelled itself")
    return (None, error) if (error := task.exception()) is not None else (task.result(), None)
