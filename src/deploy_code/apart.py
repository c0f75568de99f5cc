"""Calls code that is not ours in a thread of its own: what hangs there is left to itself, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def begun(call: Callable[[], T], name: str) -> Future[T]:
    """Make the call in a daemon thread of its own; the future has what it gave back or raised, whatever that is."""
    future: Future[T] = Future()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except BaseException as exc:  # crosses the thread: raised again where it is awaited
            future.set_exception(exc)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


def in_time(call: Callable[[], T], seconds: float, name: str) -> T:
    """Wait for the call, so long and no longer. Raises TimeoutError, and whatever it raised itself."""
    future = begun(call, name)
    try:
        return future.result(timeout=seconds)
    except TimeoutError as exc:
        if future.done():
            raise  # its own
        raise TimeoutError(f"no answer after {seconds:g} s") from exc
