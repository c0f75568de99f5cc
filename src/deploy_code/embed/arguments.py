"""What callers hand over, looked at before anything happens: a slip in a call must not become a wish of the agent.

Wrong types are TypeErrors, as from any Python function; wrong names and numbers are told by the operation itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

Seconds = float | timedelta


def seconds(value: Any, what: str = "timeout") -> float | None:
    """A duration as a number of seconds; one that is over already is 0. Raises TypeError, ValueError for NaN."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is a number of seconds or a timedelta, got {value!r}")
    if math.isnan(value):
        raise ValueError(f"{what} is a number of seconds, and NaN is none")
    return max(0.0, value)


def names(value: Any, what: str = "services") -> list[str] | None:
    """A list of names. Raises TypeError for text, which would be read as a list of letters, and for what is no name."""
    if value is None:
        return None
    if isinstance(value, str):
        raise TypeError(f"{what} is a list of names, got text: write [{value!r}]")
    if not isinstance(value, Iterable):
        raise TypeError(f"{what} is a list of names, got {value!r}")
    listed = list(value)
    for each in listed:
        if not isinstance(each, str):
            raise TypeError(f"{what} is a list of names, and {each!r} is none")
    return listed


def whole(value: Any, what: str) -> int | None:
    """A whole number. Raises TypeError."""
    return None if value is None else _number(value, what)


def counts(value: Any) -> dict[str, int]:
    """How many of each. Raises TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f'replicas are a mapping from names to numbers, such as {{"web": 3}}, got {value!r}')
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"replicas are a mapping from names to numbers, and {name!r} is no name")
    return {name: _number(each, f"the number of replicas of {name}") for name, each in value.items()}


def _number(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a whole number, got {value!r}")
    return value
