"""How many probes are made, and how late: whether the prober keeps up, as a number anybody can look at."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ProberStats:
    """Over the last minute (or since the start, if that is shorter). Lag: when a probe began minus when it
    was due.
    """

    probes_per_second: float = 0.0
    lag_seconds: float = 0.0  # mean
    lag_max_seconds: float = 0.0
    watched: int = 0
    not_made: int = 0  # since the start: this machine was out of files, memory or ports


class _Second:
    __slots__ = ("count", "lag", "lag_max", "second")

    def __init__(self, second: int) -> None:
        self.second = second
        self.count = 0
        self.lag = 0.0
        self.lag_max = 0.0


class Meter:
    """Counts probes by the second; times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._seconds: deque[_Second] = deque(maxlen=WINDOW_SECONDS)
        self.not_made = 0

    def add(self, now: float, lag: float) -> None:
        """One probe began at ``now``, ``lag`` seconds after it was due."""
        second = int(now)
        if not self._seconds or self._seconds[-1].second != second:
            self._seconds.append(_Second(second))
        bucket = self._seconds[-1]
        bucket.count += 1
        bucket.lag += lag
        bucket.lag_max = max(bucket.lag_max, lag)

    def stats(self, now: float, watched: int) -> ProberStats:
        recent = [second for second in self._seconds if second.second > now - WINDOW_SECONDS]
        count = sum(second.count for second in recent)
        span = max(1.0, min(WINDOW_SECONDS, now - self._began))
        return ProberStats(
            probes_per_second=count / span,
            lag_seconds=sum(second.lag for second in recent) / count if count else 0.0,
            lag_max_seconds=max((second.lag_max for second in recent), default=0.0),
            watched=watched,
            not_made=self.not_made,
        )
