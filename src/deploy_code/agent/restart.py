"""Decides whether and when a dead instance comes back (DESIGN §7 "Restart"). Pure: time and chance are handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from deploy_code.model import Breaker, Exit, Restart
from deploy_code.reliability.circuit import Circuit, CircuitBreaker

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
    exits: int = 0  # within the window


class RestartBook:
    """Counts the ends of one instance and says what follows each. ``chance`` gives numbers in [0, 1).

    Its circuit is one like all others: an end is a failure, and a life of ``reset_after_seconds`` without a break in
    readiness a success. All times are seconds on one clock of the caller's.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._attempt = 0
        self._now = 0.0
        self._retry_at = 0.0
        self._circuit = self._closed()

    @property
    def is_trying(self) -> bool:
        """Is its present life the one try?"""
        return self._circuit.state is Circuit.HALF_OPEN

    def forgive(self) -> None:
        """Forget all ends: somebody asked for a fresh start, or it has proven itself."""
        self._attempt = 0
        self._circuit = self._closed()

    def opened(self) -> None:
        """The circuit was not closed when this agent adopted the instance: its present or next life is the one try."""
        self._circuit.limits = Breaker(failures=1, cooldown_seconds=0.0)
        self._circuit.failed()
        self._circuit.admit()

    def tries(self, now: float) -> None:
        """The cool-down is over, and the one start is made: the circuit is half-open."""
        self._now = max(now, self._retry_at)  # timers and clocks differ by a hair
        self._circuit.admit()

    def ended(self, policy: Restart, *, now: float, ok: bool, ready_for: float) -> Next:
        """An instance ended after being ready for ``ready_for`` seconds without a break (0: it was not ready)."""
        self._now = now
        if policy.policy == "never" or (policy.policy == "on-failure" and ok):
            self.forgive()
            return Next(Decision.STAY)
        if ready_for >= policy.reset_after_seconds:
            self.forgive()
        self._circuit.limits = _limits(policy)
        self._circuit.failed()
        exits = self._circuit.failures
        if self._circuit.state is not Circuit.CLOSED:
            self._retry_at = now + policy.cooldown_seconds
            return Next(Decision.CIRCUIT_OPEN, self._retry_at, exits)
        return Next(Decision.RESTART, now + self._wait(policy), exits)

    def _closed(self) -> CircuitBreaker:
        return CircuitBreaker("the instance", clock=lambda: self._now)

    def _wait(self, policy: Restart) -> float:
        wait = min(policy.backoff_max_seconds, policy.backoff_seconds * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return float(wait * (1 + JITTER * self._chance()))


def _limits(policy: Restart) -> Breaker:
    return Breaker(
        failures=policy.max_exits, window_seconds=policy.window_seconds, cooldown_seconds=policy.cooldown_seconds
    )


def counts_as_success(exit_: Exit | None) -> bool:
    """An unknown exit, a signal and a start that failed all count as failures."""
    return exit_ is not None and exit_.ok
