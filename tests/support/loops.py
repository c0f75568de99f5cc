"""Runs a coroutine test on asyncio's own loop and on uvloop, as the agent may use either."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test as two: ``[asyncio]`` and ``[uvloop]``. Unraised errors of the loop fail it."""

    @functools.wraps(test)
    def run(loop_name: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=_factory(loop_name)) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    extra = inspect.Parameter("loop_name", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), extra])  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]  # it is no coroutine function any more
    return pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])(run)


def _factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop (extra: fast) is not installed")
    return uvloop.new_event_loop


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until ``condition()`` holds; for things that can only be looked at."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)
