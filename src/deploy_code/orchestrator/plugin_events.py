"""How events reach a plugin's ``on_event``: in order, one after the other, and never in the way of a deployment.

They queue here and are delivered in bundles, each event with the time of one call. A plugin that keeps failing on them
is deaf for a while; its other hooks are called all the same.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from deploy_code.errors import CircuitOpenError
from deploy_code.events import Event
from deploy_code.orchestrator.own_loop import crossing
from deploy_code.orchestrator.plugin_seat import DroppedError, Job, Seat
from deploy_code.reliability.circuit import Call, Circuit, CircuitBreaker


class Ears:
    """Of one plugin. ``quiet`` is there while events are being delivered, and done when all have been.

    ``hook`` gives its ``on_event``, ``timeout`` the seconds of one call. ``complain`` reports an error and gives it
    back in a word or two.
    """

    def __init__(
        self,
        seat: Seat,
        circuit: CircuitBreaker,
        *,
        hook: Callable[[], Callable[[Event], Any]],
        timeout: Callable[[], float],
        complain: Callable[[BaseException], str],
    ) -> None:
        self.seat = seat
        self.quiet: asyncio.Future[None] | None = None
        self._circuit = circuit
        self._hook = hook
        self._timeout = timeout
        self._complain = complain
        self._events: deque[Event] = deque()
        self._trying: Call | None = None  # events are delivered on trial

    def hear(self, events: list[Event]) -> None:
        if not events:
            return
        if self._circuit.state is not Circuit.CLOSED and self._trying is None:
            try:
                self._trying = self._circuit.admit()
            except CircuitOpenError:
                return
        self._events.extend(events)
        if self.quiet is None:
            self.quiet = asyncio.get_running_loop().create_future()
            self._deliver()

    def forget(self) -> int:
        """Drop what has not been delivered; so many events are lost."""
        lost = len(self._events)
        self._events.clear()
        return lost

    def take(self) -> Event | None:
        """The next one, from any thread."""
        try:
            return self._events.popleft()
        except IndexError:
            return None

    def _deliver(self) -> None:
        delivery = _Delivery(self, self._hook())
        delivery.job = Job(delivery.function, (), self._timeout(), self._delivered)
        self.seat.begin(delivery.job)

    def _delivered(self, _: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, DroppedError):
            self.failed(error)
        elif self._trying is not None:
            self.arrived()
        if self._events:
            self._deliver()
        elif self.quiet is not None:
            self.quiet.set_result(None)
            self.quiet = None

    def failed(self, error: BaseException) -> None:
        if self._is_deaf():
            return  # it is left alone already
        word = self._complain(error)
        call, self._trying = self._trying, None
        (call or self._circuit).failed(word)
        if self._is_deaf():
            self._events.clear()

    def arrived(self) -> None:
        call, self._trying = self._trying, None
        (call or self._circuit).succeeded()

    def _is_deaf(self) -> bool:
        return self._circuit.state is Circuit.OPEN


class _Delivery:
    """Takes events one after the other, where the plugin's hooks run; each has the time of one call."""

    job: Job

    def __init__(self, ears: Ears, hook: Callable[[Event], Any]) -> None:
        self._ears = ears
        self._hook = hook
        self._failing = False
        self.function = self._all_async if inspect.iscoroutinefunction(self._hook) else self._all_plain

    def _next(self) -> Event | None:
        self.job.started = time.monotonic()
        return None if self.job.over else self._ears.take()

    def _all_plain(self) -> Any:
        while (event := self._next()) is not None:
            try:
                result = self._hook(event)
            except BaseException as exc:  # crosses the thread: told where plugins are reported on
                self._tell(exc)
            else:
                if result is not None and hasattr(result, "__await__"):
                    return self._rest_async(result)
                self._tell(None)
        return None

    async def _rest_async(self, first: Any) -> None:
        try:
            await first
        except Exception as exc:
            self._tell(exc)
        while (event := self._next()) is not None:
            await self._one(event)

    async def _all_async(self) -> None:
        while (event := self._next()) is not None:
            await self._one(event)

    async def _one(self, event: Event) -> None:
        try:
            result: Any = self._hook(event)
            if result is not None:
                await result
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._tell(exc)
        else:
            self._tell(None)

    def _tell(self, error: BaseException | None) -> None:
        """Successes are news only after a failure; what comes too late is none."""
        if self.job.over:
            return
        if error is not None:
            self._failing = True
            self._ears.seat.tell(self._ears.failed, crossing(error))
        elif self._failing:
            self._failing = False
            self._ears.seat.tell(self._ears.arrived)
