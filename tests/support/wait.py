"""Waiting for a condition instead of for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_SECONDS = 0.01


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str | Callable[[], str] = "") -> T:
    """The first true answer of ``condition``; AssertionError after ``timeout`` seconds, naming ``what``."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {said or condition}")
        time.sleep(PAUSE_SECONDS)
    return answer
