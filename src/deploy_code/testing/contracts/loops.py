"""Runs coroutine tests without a plugin of pytest: each in a loop of its own, whose unraised errors fail it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

Test = Callable[..., Coroutine[Any, Any, None]]

LOOK_SECONDS = 0.002


def in_a_loop(test: Test) -> Callable[..., None]:
    """The test on asyncio's own loop."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        asyncio.run(test(*args, **fixtures))

    return _as_plain(run, inspect.signature(test))


def on_both_loops(test: Test) -> Callable[..., None]:
    """The test as two: ``[asyncio]`` and ``[uvloop]``, as the agent may use either. Without uvloop that one skips."""

    @functools.wraps(test)
    def run(*args: Any, loop_name: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=_factory(loop_name)) as runner:
            runner.run(test(*args, **fixtures))

    signature = inspect.signature(test)
    extra = inspect.Parameter("loop_name", inspect.Parameter.KEYWORD_ONLY)
    plain = _as_plain(run, signature.replace(parameters=[*signature.parameters.values(), extra]))
    both: Callable[..., None] = pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])(plain)
    return both


def _as_plain(run: Callable[..., None], signature: inspect.Signature) -> Callable[..., None]:
    """``run`` for pytest: with these arguments, and no coroutine function any more."""
    run.__signature__ = signature  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def _factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop (extra: fast) is not installed")
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def until(condition: Callable[[], object], timeout: float = 10.0, what: str = "it") -> None:
    """Wait until ``condition()`` holds; for things that can only be looked at. AssertionError after ``timeout`` s."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110 - a condition of any kind: there is no event to wait for
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen within {timeout:g} s") from None
