"""Decides whether and when a dead instance comes back (DESIGN §7 "Restart"). Pure: time and chance are handed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from deploy_code.model import Exit, Restart

JITTER = 0.25


class Decision(Enum):
    STAY = "stay"  # not to be restarted
    RESTART = "restart"
    CIRCUIT_OPEN = "circuit open"


@dataclass(frozen=True, slots=True)
class Next:
    """What follows an end. ``at``: when to try again (for an open circuit: half-open); 0 for ``STAY``."""

    decision: Decision
    at: float = 0.0
    exits: int = 0


class RestartBook:
    """Counts the ends of one instance and says what follows each. ``chance`` gives numbers in [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._attempt = 0
        self._half_open = False
        self._ends: deque[float] = deque()

    def forgive(self) -> None:
        """Forget all ends: somebody asked for a fresh start."""
        self._attempt = 0
        self._half_open = False
        self._ends.clear()

    def opened(self) -> None:
        """The circuit was open when this agent adopted the instance: the next try is the half-open one."""
        self._half_open = True

    def ended(self, policy: Restart, *, now: float, ok: bool, ready_for: float) -> Next:
        """An instance ended after being ready for ``ready_for`` seconds without a break (0: it was not ready)."""
        if policy.policy == "never" or (policy.policy == "on-failure" and ok):
            return Next(Decision.STAY)
        if ready_for >= policy.reset_after_seconds:
            self.forgive()
        self._count(now, policy.window_seconds)
        if self._half_open or len(self._ends) >= policy.max_exits:
            self._half_open = True
            return Next(Decision.CIRCUIT_OPEN, now + policy.cooldown_seconds, len(self._ends))
        return Next(Decision.RESTART, now + self._wait(policy), len(self._ends))

    def _count(self, now: float, window: float) -> None:
        self._ends.append(now)
        while self._ends[0] < now - window:
            self._ends.popleft()

    def _wait(self, policy: Restart) -> float:
        wait = min(policy.backoff_max_seconds, policy.backoff_seconds * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return float(wait * (1 + JITTER * self._chance()))


def counts_as_success(exit_: Exit | None) -> bool:
    """An unknown exit, a signal and a start that failed all count as failures."""
    return exit_ is not None and exit_.ok
