"""How long to wait before the next try: doubling, bounded, spread so that not all return at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential back-off (DESIGN §7). In seconds; ``jitter`` is the largest share that chance adds.

    It is added after ``ceiling`` was applied, so that the longest waits are spread too.
    """

    first: float = 0.5
    factor: float = 2.0
    ceiling: float = 60.0
    jitter: float = 0.25

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after ``attempt`` earlier waits; ``random`` gives numbers in [0, 1)."""
        return self._base(attempt) * (1.0 + self.jitter * random())

    def _base(self, attempt: int) -> float:
        try:
            return min(self.ceiling, self.first * self.factor**attempt)
        except OverflowError:  # after a thousand tries the power is beyond a float
            return self.ceiling
