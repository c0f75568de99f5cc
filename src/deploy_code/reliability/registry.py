"""The breakers of one process by what they protect: all who call the same thing share one, and all can be shown.

``async with breakers.of("docker socket /run/docker.sock"): …``
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from deploy_code.model import Breaker

from .circuit import Circuit, CircuitBreaker, Reading

if TYPE_CHECKING:
    from deploy_code.events import Event


class Breakers:
    """Makes a breaker when its name is first asked for. ``limits``: for those that bring none of their own.

    ``on_change(breaker)`` hears of every new state of each, under that breaker's lock.
    """

    def __init__(
        self,
        limits: Breaker = Breaker(),  # noqa: B008 - a frozen value
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[CircuitBreaker], None] | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._on_change = on_change
        self._lock = Lock()
        self._breakers: dict[str, CircuitBreaker] = {}

    def of(self, protects: str, limits: Breaker | None = None) -> CircuitBreaker:
        """The breaker before ``protects``. ``limits`` count only where it is new."""
        with self._lock:
            breaker = self._breakers.get(protects)
            if breaker is None:
                breaker = CircuitBreaker(protects, limits or self._limits, clock=self._clock, on_change=self._on_change)
                self._breakers[protects] = breaker
            return breaker

    def limit(self, limits: Breaker) -> None:
        """From here on these limits hold, for those that are there too."""
        with self._lock:
            self._limits = limits
            for breaker in self._breakers.values():
                breaker.limits = limits

    def forget(self, protects: str) -> None:
        """What it protected is no more."""
        with self._lock:
            self._breakers.pop(protects, None)

    def snapshot(self) -> list[Reading]:
        """All of them, by name."""
        with self._lock:
            breakers = sorted(self._breakers.items())
        return [breaker.read() for _, breaker in breakers]


def event_of(breaker: CircuitBreaker, *, deployment: int = 0) -> Event:
    """The event that tells the state a breaker has just entered."""
    # Imported late: it takes 10 ms, and an agent rarely needs it.
    from deploy_code.events import CircuitClosed, CircuitHalfOpened, CircuitOpened

    _, state, retry_at, reason = breaker.read()
    if state is Circuit.OPEN:
        return CircuitOpened(protects=breaker.protects, reason=reason, retry_at=retry_at, deployment=deployment)
    if state is Circuit.HALF_OPEN:
        return CircuitHalfOpened(protects=breaker.protects, deployment=deployment)
    return CircuitClosed(protects=breaker.protects, deployment=deployment)
