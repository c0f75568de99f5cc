"""A thread with an event loop of its own, for code that is not ours: whatever it does there, ours goes on.

Code that blocks holds up its own thread only. It cannot be ended from outside; it is left to itself, and as the thread
is a daemon it keeps no program from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from deploy_code.apart import begun
from deploy_code.errors import shown

T = TypeVar("T")

CLOSE_SECONDS = 1.0  # what tasks that are left over have to end in


class EndedError(Exception):
    """Somebody's code raised what would end the program, or what no future can carry: its failure, like any other."""

    def __repr__(self) -> str:
        return str(self)


def crossing(error: BaseException) -> Exception:
    """``error`` as one that a future can carry from thread to thread."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return EndedError(shown(error))


async def called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call it here and wait for it, if it is to be waited for. Raises only what a future can carry."""
    try:
        result = function(*arguments)
        return await result if inspect.isawaitable(result) else result
    except asyncio.CancelledError:
        raise
    except BaseException as exc:
        raise crossing(exc) from exc


class _Daemons(ThreadPoolExecutor):
    """For ``to_thread`` there. Python waits at its end for the threads of any other pool."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return begun(partial(fn, *args, **kwargs), "to_thread")


class OwnLoop:
    """One such thread, from its construction to ``close``."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Daemons())
        self._closing = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> tuple[asyncio.Future[T], Callable[[], None]]:
        """Run a coroutine there. Gives a future of this loop, and what cancels the coroutine from here."""
        here = asyncio.get_running_loop()
        future: asyncio.Future[T] = here.create_future()
        task: list[asyncio.Task[T]] = []
        context = contextvars.copy_context()

        def begin() -> None:
            task.append(self._loop.create_task(make(), context=context))
            task[0].add_done_callback(ended)

        def ended(done: asyncio.Task[T]) -> None:
            with suppress(RuntimeError):  # the loop over here is closed: nobody waits for it any more
                here.call_soon_threadsafe(_settle, future, *_end_of(done))

        def cancel() -> None:
            self.submit(lambda: task and task[0].cancel())

        self.submit(begin)
        return future, cancel

    def submit(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a plain function there, soon."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Let it end; it is not waited for."""
        self._closing = True
        self.submit(self._loop.stop)

    def join(self, timeout: float) -> None:
        """Wait until it has ended, after ``close``; blocks."""
        self._thread.join(timeout)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            with suppress(SystemExit, KeyboardInterrupt):  # raised in a task of somebody's: it ends that task
                self._loop.run_forever()
            if self._closing:  # looked at last, so that what was submitted before has been called
                break
        with suppress(SystemExit, KeyboardInterrupt):
            self._loop.run_until_complete(self._clear())
        self._loop.close()

    async def _clear(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_SECONDS)
        await self._loop.shutdown_asyncgens()


def _end_of(task: asyncio.Task[T]) -> tuple[T | None, BaseException | None]:
    if task.cancelled():
        return None, EndedError("it cancelled itself")
    return (None, error) if (error := task.exception()) is not None else (task.result(), None)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
