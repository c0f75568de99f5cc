"""How long to wait before the next probe (DESIGN §6). Pure arithmetic.

Before the first success the wait grows with the age of the instance: one that is ready after 100 ms is
noticed within a few milliseconds, one that takes a minute is asked once a second. Afterwards it is the
interval, give or take a tenth, so that instances that started together are not asked together for ever.
"""

from __future__ import annotations

STARTING_SHARE = 0.02  # of the age so far: the most that noticing adds to a start
STARTING_MIN_SECONDS = 0.005
STARTING_MIN_COMMAND_SECONDS = 0.050  # a process each
STARTING_MAX_SECONDS = 1.0
STARTING_PROBES_PER_SECOND = 4000  # of all starting instances together
JITTER = 0.10


def starting_wait(age: float, interval: float, *, starting: int, costly: bool) -> float:
    """Seconds to wait while an instance of this ``age`` starts, ``starting`` others with it."""
    least = STARTING_MIN_COMMAND_SECONDS if costly else STARTING_MIN_SECONDS
    least = max(least, starting / STARTING_PROBES_PER_SECOND)
    return max(least, min(age * STARTING_SHARE, interval, STARTING_MAX_SECONDS))


def steady_wait(interval: float, chance: float) -> float:
    """Seconds to wait afterwards; ``chance`` is a number from 0 to 1."""
    return interval * (1 + JITTER * (2 * chance - 1))
