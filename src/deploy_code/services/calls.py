"""Calls methods that somebody else wrote, plain or ``async``, so that neither kind keeps a loop from its other work."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class EndedItselfError(Exception):
    """A method raised what would end the program or its task (SystemExit, CancelledError): a failure like any other."""


async def call(method: Callable[..., Any], *arguments: Any, late: Callable[[Any], None] = lambda result: None) -> Any:
    """What ``method`` returns, awaited where it is awaitable. Plain ones run in a thread of their own.

    Cancelling this cancels a coroutine; a thread goes on by itself, and ``late`` gets what it returns then.
    """
    if not is_async(method):
        result = await _in_thread(method, arguments, late)
    else:
        result = method(*arguments)
    return await _awaited(result) if inspect.isawaitable(result) else result


def is_async(method: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(getattr(method, "__call__", None))  # noqa: B004


async def _awaited(result: Any) -> Any:
    try:
        return await result
    except (SystemExit, KeyboardInterrupt) as exc:
        raise EndedItselfError(repr(exc)) from exc
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise EndedItselfError("it cancelled itself") from exc


async def _in_thread(method: Callable[..., Any], arguments: tuple[Any, ...], late: Callable[[Any], None]) -> Any:
    """A daemon thread, not the loop's executor: one that hangs keeps neither the others nor the program's end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            setter(value)
        elif setter == future.set_result:
            late(value)

    def work() -> None:
        try:
            outcome, setter = method(*arguments), future.set_result
        except BaseException as exc:  # crosses the thread: raised again where it is awaited
            outcome, setter = _crossing(exc), future.set_exception
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            loop.call_soon_threadsafe(settle, setter, outcome)

    threading.Thread(target=work, name=getattr(method, "__qualname__", "call"), daemon=True).start()
    return await future


def _crossing(error: BaseException) -> Exception:
    """No future can carry a StopIteration, and what ends a program must not end this one."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    ended = EndedItselfError(repr(error))
    ended.__cause__ = error
    return ended
