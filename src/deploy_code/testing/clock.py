"""A clock that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """Monotonic seconds under the test's hand; fits every ``clock=`` argument, such as ``CircuitBreaker``'s.

    ``now`` is what it shows; it begins at ``start`` seconds.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Let so many seconds pass; what it shows then. Raises ValueError for a step back: no such clock goes back."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock does not go back by {-seconds:g} s")
        self.now += seconds
        return self.now
