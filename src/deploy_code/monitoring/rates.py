"""From counters that only grow to rates: two looks at a counter, some time apart."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

LEAST_SECONDS = 0.1  # looks closer together say little: the kernel counts CPU time in hundredths
KEPT_SECONDS = 300.0  # a look so long ago is forgotten


class _Sample(NamedTuple):
    counter: float
    at: float
    rate: float | None


class Rates:
    """Remembers the last look at each counter. ``now``: seconds on any clock that does not jump."""

    def __init__(self) -> None:
        self._samples: dict[Hashable, _Sample] = {}

    def rate(self, key: Hashable, counter: float, now: float) -> float | None:
        """Growth a second since the last look, never negative; None when this was the first, or too soon after it."""
        last = self._samples.get(key)
        if last is not None and now - last.at < LEAST_SECONDS:
            return last.rate
        rate = None if last is None else max(0.0, counter - last.counter) / (now - last.at)
        self._samples[key] = _Sample(counter, now, rate)
        return rate

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds after which another look tells the rate; 0 where it is known."""
        sample = self._samples[key]
        return 0.0 if sample.rate is not None else max(0.0, sample.at + LEAST_SECONDS - now)

    def tidy(self, now: float) -> None:
        """Forget what was looked at too long ago: a rate over an hour says nothing about now."""
        self._samples = {key: each for key, each in self._samples.items() if now - each.at < KEPT_SECONDS}
