"""Circuit breaker: what keeps failing is left alone for a while, then tried once, and only then by everybody again.

Ours, because each of the libraries lets all waiting callers through when the circuit is half-open (DESIGN §11); here
exactly one is. It stands before calls to what belongs to somebody else (plugins, runtimes, webhooks), never before a
probe. Pure but for its clock: it decides, and the caller makes the call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from enum import StrEnum
from threading import RLock
from types import TracebackType
from typing import NamedTuple

from deploy_code.errors import CircuitOpenError
from deploy_code.model import Breaker

REASON_LENGTH = 300  # of a failure only the beginning is kept: it ends up in tables and events


class Circuit(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"  # calls go through
    OPEN = "open"  # none does, until the cool-down is over
    HALF_OPEN = "half-open"  # one does, and decides


class Reading(NamedTuple):
    """What a breaker shows: the state it entered last. ``retry_at``: seconds since the epoch; 0 unless it is open.

    Open with a ``retry_at`` that has passed means that the next call will be the try.
    """

    protects: str
    state: Circuit
    retry_at: float
    reason: str


class CircuitBreaker:
    """One circuit, for any number of tasks and threads.

    ``protects``: what is behind it, for people. ``clock``: seconds, monotonic. ``on_change(breaker)`` hears of every
    new state in order, under the breaker's lock: it must be quick.

    Use it around the call, time-out inside, because an exception is a failure and a cancellation says nothing::

        async with breaker:
            async with asyncio.timeout(5):
                await call()

    Or ask with ``admit()`` and tell the ``Call`` that it gives how it went. The methods of the same names here are for
    callers that make one call at a time.

    The circuit opens after ``limits.failures`` failures without a success in between, all within ``window_seconds``.
    A call counts only in the state that let it through. A try that says nothing for ``cooldown_seconds`` is taken for
    lost, and another may be made.
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
        self._lock = RLock()
        self._state = Circuit.CLOSED
        self._until = 0.0  # open: when the cool-down ends; half-open: when the try counts as lost
        self._era = 0  # grows with each state and each try: what was let through in another one is out of date
        self._failures: deque[float] = deque()

    @property
    def state(self) -> Circuit:
        with self._lock:
            cooled_down = self._state is Circuit.OPEN and self._clock() >= self._until
            return Circuit.HALF_OPEN if cooled_down else self._state

    @property
    def retry_in(self) -> float:
        """Seconds until the next try; 0 where one is under way or may be made now."""
        with self._lock:
            return max(0.0, self._until - self._clock()) if self._state is Circuit.OPEN else 0.0

    @property
    def failures(self) -> int:
        """Failures that count at present."""
        return len(self._failures)

    def read(self) -> Reading:
        with self._lock:
            retry_at = time.time() + self._until - self._clock() if self._state is Circuit.OPEN else 0.0
            return Reading(self.protects, self._state, retry_at, self.reason)

    def admit(self) -> Call:
        """Ask before a call, then report to what this gives. Raises CircuitOpenError (E018) if it may not be made."""
        with self._lock:
            if self._state is not Circuit.CLOSED:
                if self._clock() < self._until:
                    raise self._refusal()
                self._enter(Circuit.HALF_OPEN, self.limits.cooldown_seconds)
            return Call(self, self._era)

    def try_now(self) -> None:
        """The cool-down is over: somebody who may have mended it asks for a try."""
        with self._lock:
            if self._state is Circuit.OPEN:
                self._until = self._clock()

    def succeeded(self) -> None:
        """The one call that was under way went well: a half-open circuit closes."""
        self._succeeded(self._era)

    def failed(self, reason: str = "") -> None:
        """It went wrong: too many of these open the circuit, and a half-open one opens again."""
        self._failed(self._era, reason)

    def abandoned(self) -> None:
        """It was cancelled: that says nothing, and another may be the one that is let through."""
        self._abandoned(self._era)

    def _succeeded(self, era: int) -> None:
        with self._lock:
            if era != self._era or self._state is Circuit.OPEN:
                return
            self.reason = ""
            self._failures.clear()
            if self._state is Circuit.HALF_OPEN:
                self._enter(Circuit.CLOSED)

    def _failed(self, era: int, reason: str) -> None:
        with self._lock:
            if era != self._era or self._state is Circuit.OPEN:
                return
            now = self._clock()
            self.reason = " ".join(reason.split())[:REASON_LENGTH]
            self._failures.append(now)
            while self._failures[0] < now - self.limits.window_seconds:
                self._failures.popleft()
            if self._state is Circuit.HALF_OPEN or len(self._failures) >= self.limits.failures:
                self._enter(Circuit.OPEN, self.limits.cooldown_seconds)

    def _abandoned(self, era: int) -> None:
        with self._lock:
            if era == self._era and self._state is Circuit.HALF_OPEN:
                self._until = self._clock()

    def _enter(self, state: Circuit, seconds: float = 0.0) -> None:
        changed = state is not self._state
        self._era += 1
        self._state, self._until = state, self._clock() + seconds
        if changed and self._on_change is not None:
            self._on_change(self)

    def _refusal(self) -> CircuitOpenError:
        trying = self._state is Circuit.HALF_OPEN
        wait = self._until - self._clock()
        when = "when the one that is under way has ended" if trying else f"in {wait:.0f} s"
        because = f" (last: {self.reason})" if self.reason else ""
        return CircuitOpenError(
            f"{self.protects} was not called: it has failed too often{because}",
            meaning=f"The next try comes {when}",
            retry_at=time.time() + wait,
        )

    def __enter__(self) -> CircuitBreaker:
        _calls.set((self.admit(), *_calls.get()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        calls = _calls.get()
        own = next((call for call in calls if call.breaker is self), None)
        if own is not None:  # else it was left in another task than it was entered in, and is taken for lost
            _calls.set(tuple(call for call in calls if call is not own))
            own.ended(error)

    async def __aenter__(self) -> CircuitBreaker:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class Call:
    """One call that was let through. Its first report counts, and only while the circuit is as it was then."""

    __slots__ = ("_era", "breaker")

    def __init__(self, breaker: CircuitBreaker, era: int) -> None:
        self.breaker = breaker
        self._era = era

    def succeeded(self) -> None:
        self.breaker._succeeded(self._spend())

    def failed(self, reason: str = "") -> None:
        self.breaker._failed(self._spend(), reason)

    def abandoned(self) -> None:
        self.breaker._abandoned(self._spend())

    def ended(self, error: BaseException | None) -> None:
        """Report by what the call raised: nothing, an error, or what only cancels."""
        if error is None:
            self.succeeded()
        elif isinstance(error, Exception):
            self.failed(str(error) or type(error).__name__)
        else:
            self.abandoned()

    def _spend(self) -> int:
        era, self._era = self._era, -1
        return era


_calls: ContextVar[tuple[Call, ...]] = ContextVar("calls under way", default=())
"""Calls of the ``with`` blocks that this task or thread is in, the innermost first."""
