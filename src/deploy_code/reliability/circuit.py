"""Circuit breaker: what keeps failing is left alone for a while, then tried once, and only then by everybody again.

Ours, because each of the libraries lets all waiting callers through when the circuit is half-open (DESIGN §11); here
exactly one is. It stands before calls to what belongs to somebody else (plugins, runtimes, webhooks), never before a
probe. Pure but for its clock: it decides, and the caller makes the call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType

from deploy_code.errors import CircuitOpenError
from deploy_code.model import Breaker


class Circuit(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"  # calls go through
    OPEN = "open"  # none does, until the cool-down is over
    HALF_OPEN = "half-open"  # one does, and decides


class CircuitBreaker:
    """One circuit, in one event loop or thread.

    ``protects``: what is behind it, for people. ``clock``: seconds, monotonic. ``on_change(breaker)`` hears of every
    new state. Use it as ``with breaker:`` (or ``async with``) around the call: every exception is a failure, but a
    cancellation is not.
    """

    def __init__(
        self,
        protects: str,
        limits: Breaker = Breaker(),  # noqa: B008 - a frozen value
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[CircuitBreaker], None] | None = None,
    ) -> None:
        self.protects = protects
        self.limits = limits
        self.reason = ""  # the last failure, in words
        self._clock = clock
        self._on_change = on_change
        self._failures: deque[float] = deque()
        self._retry_at = 0.0  # by the clock; 0: closed
        self._trying = False  # half-open, and the one call is under way

    @property
    def state(self) -> Circuit:
        if not self._retry_at:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if self._trying or self._clock() >= self._retry_at else Circuit.OPEN

    @property
    def retry_in(self) -> float:
        """Seconds until the next try; 0 where one may be made now."""
        return max(0.0, self._retry_at - self._clock()) if self._retry_at else 0.0

    def admit(self) -> None:
        """Ask before a call; ``succeeded``, ``failed`` or ``abandoned`` must follow.

        Raises CircuitOpenError (E018) when the call may not be made.
        """
        if not self._retry_at:
            return
        if self._trying or self._clock() < self._retry_at:
            raise self._refusal()
        self._trying = True
        self._tell()

    def succeeded(self) -> None:
        """The call went well: a half-open circuit closes."""
        if self._retry_at and not self._trying:
            return  # admitted before it opened: says nothing about now
        was_closed = not self._retry_at
        self._failures.clear()
        self._retry_at, self._trying, self.reason = 0.0, False, ""
        if not was_closed:
            self._tell()

    def failed(self, reason: str = "") -> None:
        """The call went wrong: too many of these open the circuit, and a half-open one opens again."""
        now = self._clock()
        if self._retry_at and not self._trying:
            return  # admitted before it opened
        self.reason = reason
        self._failures.append(now)
        while self._failures[0] < now - self.limits.window_seconds:
            self._failures.popleft()
        if self._trying or len(self._failures) >= self.limits.failures:
            self._trying = False
            self._retry_at = now + self.limits.cooldown_seconds
            self._tell()

    def abandoned(self) -> None:
        """The call was cancelled: it says nothing, and another may be the one that is let through."""
        self._trying = False

    def _refusal(self) -> CircuitOpenError:
        wait = self.retry_in
        when = f"in {wait:.0f} s" if wait else "when the one that is under way has ended"
        because = f" (last: {self.reason})" if self.reason else ""
        return CircuitOpenError(
            f"{self.protects} was not called: it has failed too often{because}",
            meaning=f"The next try comes {when}",
            retry_at=time.time() + wait,
        )

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(self)

    def __enter__(self) -> CircuitBreaker:
        self.admit()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.succeeded()
        elif isinstance(error, Exception):
            self.failed(str(error) or type(error).__name__)
        else:
            self.abandoned()

    async def __aenter__(self) -> CircuitBreaker:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
