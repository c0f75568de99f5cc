"""Calls plugins so that nothing they do can harm a deployment: each call is bounded, each failure reported.

A plugin that keeps failing is left alone for a while (a circuit breaker stands before its hooks, another before its
``on_event``). Only ``AbortDeployment``, raised in a ``before_`` hook, changes what happens.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from deploy_code.errors import CircuitOpenError, DeploymentError, title
from deploy_code.events import Event, InstanceChanged
from deploy_code.model import Breaker
from deploy_code.orchestrator.own_loop import crossing
from deploy_code.orchestrator.plugin_seat import DroppedError, GivenUpError, Job, Seat
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.plugins import AbortDeployment, Extension, Plugin
from deploy_code.reliability.circuit import Call, Circuit, CircuitBreaker
from deploy_code.reliability.registry import event_of

GATHER_SECONDS = 0.05  # events are handed over in bundles: each hand-over costs more than a call
DRAIN_SECONDS = 5.0  # how long the end of a deployment waits for events still being delivered
CLOSE_SECONDS = 0.5
HOOKS = tuple(name for name, value in vars(Plugin).items() if name.startswith(("on_", "before_", "after_")))

Say = Callable[[str], None]


class PluginHost:
    """All plugins of one deployment.

    ``plugins``: those added in code, whose ``async`` hooks run in this very loop. ``report`` takes one line about a
    plugin that failed, ``publish`` the events of its circuits.
    """

    def __init__(
        self,
        plugins: Iterable[Plugin],
        report: Say,
        *,
        publish: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._report = report
        self._publish = publish
        self._guests = [_Guest(self, plugin, None, Breaker()) for plugin in plugins]
        self._hooks = frozenset[str]().union(*(guest.hooks for guest in self._guests))
        self._telling: _Guest | None = None
        self._heard: list[tuple[Event, _Guest | None]] = []  # with who is not to hear of it

    def seat(self, loaded: Iterable[tuple[Plugin, Extension]], limits: Breaker) -> None:
        """Those that the file or an installed package names join in. ``limits``: of every plugin's circuits."""
        for guest in self._guests:
            guest.limit(limits)
        self._guests += [_Guest(self, plugin, extension, limits) for plugin, extension in loaded]
        self._hooks = frozenset[str]().union(*(guest.hooks for guest in self._guests))

    def __bool__(self) -> bool:
        return bool(self._guests)

    def has(self, hook: str) -> bool:
        return hook in self._hooks

    async def call(self, hook: str, *arguments: Any) -> None:
        """One hook of every plugin that overrides it, all at the same time."""
        await self._round(hook, arguments)

    async def before_rollout(self, service: str, revision: int) -> None:
        """The hook that may refuse. Raises DeploymentError (E005) that names who did, and why."""
        refusals = await self._round("before_service_rollout", (service, revision))
        for guest, reason in refusals:
            raise DeploymentError(
                f"{guest} refused the rollout of {service} r{revision}: {reason}",
                service=service,
                code="E005",
                remedy="Do what it asks for, or take the plugin out",
            )

    async def _round(self, hook: str, arguments: tuple[Any, ...]) -> list[tuple[_Guest, str]]:
        guests = [guest for guest in self._guests if hook in guest.hooks]
        if not guests:
            return []
        meeting = _Meeting(len(guests))
        jobs = [guest.begin(hook, arguments, meeting) for guest in guests]
        try:
            await meeting.over
        except asyncio.CancelledError:
            for guest, job in zip(guests, jobs, strict=True):
                if job is not None:
                    guest.seat.give_up(job, DroppedError())
            raise
        return meeting.refusals

    def tell(self, guest: _Guest, line: str) -> None:
        """Report something about a plugin; it is not told about it itself, which might go on for ever."""
        self._telling, before = guest, self._telling
        try:
            self._report(line)
        finally:
            self._telling = before

    def circuit_changed(self, guest: _Guest, breaker: CircuitBreaker) -> None:
        if breaker.state is Circuit.OPEN:
            guest.seat.drop_waiting()
            seconds = breaker.limits.cooldown_seconds
            because = f" (last: {breaker.reason})" if breaker.reason else ""
            self.tell(
                guest,
                f"{title('E018')}: {breaker.protects} has failed too often{because}: "
                f"it is not called again before {seconds:g} s have passed",
            )
        self._publish(event_of(breaker))

    # ------------------------------------------------------------------------------------------------------- events

    def listen(self, event: Event) -> None:
        """A bus listener: queues, so that a slow plugin slows nobody. What was there before is no news."""
        if isinstance(event, InstanceChanged) and not event.deployment:
            return
        if self.has("on_event"):
            self._heard.append((event, self._telling))
            if len(self._heard) == 1:
                asyncio.get_running_loop().call_later(GATHER_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        heard, self._heard = self._heard, []
        for guest in self._guests:
            if "on_event" in guest.hooks:
                guest.hear([event for event, but in heard if but is not guest])

    async def drain(self) -> None:
        """Let queued events arrive, for a bounded time."""
        self._hand_over()
        quiet = [guest.quiet for guest in self._guests if guest.quiet is not None]
        if quiet:
            await asyncio.wait(quiet, timeout=DRAIN_SECONDS)
        for guest in self._guests:
            if lost := guest.forget_events():
                self.tell(guest, f"{lost} events were not delivered to {guest} within {DRAIN_SECONDS:g} s")

    async def close(self) -> None:
        """Let go of every thread and loop."""
        until = time.monotonic() + CLOSE_SECONDS
        for guest in self._guests:
            guest.seat.close(max(0.0, until - time.monotonic()))


class _Meeting:
    """One hook of several plugins: over when the last has answered, or was given up on."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refusals: list[tuple[_Guest, str]] = []

    def leave(self) -> None:
        self._missing -= 1
        if not self._missing and not self.over.done():
            self.over.set_result(None)


class _Guest:
    """One plugin: what it overrides, where it runs, and whether it may be called at present."""

    def __init__(self, host: PluginHost, plugin: Plugin, extension: Extension | None, limits: Breaker) -> None:
        self.plugin = plugin
        self.hooks = frozenset(hook for hook in HOOKS if _overrides(plugin, hook))
        self.quiet: asyncio.Future[None] | None = None  # while events are being delivered
        self._host = host
        self._where = f" ({extension.source}, {extension.where})" if extension is not None else ""
        self.seat = Seat(type(plugin).__name__, own=extension is not None)
        self._events: deque[Event] = deque()
        self._trying: Call | None = None  # events are delivered on trial
        self.limit(limits)

    def __str__(self) -> str:
        return f"plugin {type(self.plugin).__name__}{self._where}"

    def _named(self, hook: str) -> str:
        return f"plugin {type(self.plugin).__name__}.{hook}{self._where}"

    def limit(self, limits: Breaker) -> None:
        self._circuit = self._breaker(str(self), limits)
        self._ears = self._breaker(self._named("on_event"), limits)

    def _breaker(self, protects: str, limits: Breaker) -> CircuitBreaker:
        return CircuitBreaker(protects, limits, on_change=lambda breaker: self._host.circuit_changed(self, breaker))

    @property
    def _timeout(self) -> float:
        seconds = self.plugin.timeout_seconds
        usable = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0
        return float(seconds) if usable else Plugin.timeout_seconds

    # -------------------------------------------------------------------------------------------------------- hooks

    def begin(self, hook: str, arguments: tuple[Any, ...], meeting: _Meeting) -> Job | None:
        """Call one hook; None where its circuit is open."""
        try:
            call = self._circuit.admit()
        except CircuitOpenError:
            meeting.leave()
            return None

        def ended(_: Any, error: BaseException | None) -> None:
            if isinstance(error, AbortDeployment) and hook.startswith("before_"):
                call.succeeded()
                meeting.refusals.append((self, str(error.reason)))
            else:
                self._account(call, hook, error)
            meeting.leave()

        own = tuple(_copy(each) for each in arguments)
        job = Job(getattr(self.plugin, hook), own, self._timeout, ended)
        self.seat.begin(job)
        return job

    def _account(self, call: Call, hook: str, error: BaseException | None) -> None:
        if error is None:
            call.succeeded()
        elif isinstance(error, DroppedError):
            call.abandoned()
        else:
            self._host.tell(self, self._complaint(hook, error))
            call.failed(_said(error))

    def _complaint(self, hook: str, error: BaseException) -> str:
        if isinstance(error, GivenUpError):
            return f"{self._named(hook)} did not end within {self._timeout:g} s and was given up on"
        return f"{self._named(hook)} failed: {error!r}"

    # ------------------------------------------------------------------------------------------------------- events

    def hear(self, events: list[Event]) -> None:
        if not events:
            return
        if self._ears.state is not Circuit.CLOSED and self._trying is None:
            try:
                self._trying = self._ears.admit()
            except CircuitOpenError:
                return
        self._events.extend(events)
        if self.quiet is None:
            self.quiet = asyncio.get_running_loop().create_future()
            self._deliver()

    def forget_events(self) -> int:
        lost = len(self._events)
        self._events.clear()
        return lost

    def _deliver(self) -> None:
        delivery = _Delivery(self)
        delivery.job = Job(delivery.function, (), self._timeout, self._delivered)
        self.seat.begin(delivery.job)

    def take(self) -> Event | None:
        """From any thread."""
        try:
            return self._events.popleft()
        except IndexError:
            return None

    def _delivered(self, _: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, DroppedError):
            self.event_failed(error)
        elif self._trying is not None:
            self.event_arrived()
        if self._events:
            self._deliver()
        elif self.quiet is not None:
            self.quiet.set_result(None)
            self.quiet = None

    def event_failed(self, error: BaseException) -> None:
        if self._is_deaf():
            return  # it is left alone already
        self._host.tell(self, self._complaint("on_event", error))
        call, self._trying = self._trying, None
        (call or self._ears).failed(_said(error))
        if self._is_deaf():
            self._events.clear()

    def _is_deaf(self) -> bool:
        return self._ears.state is Circuit.OPEN

    def event_arrived(self) -> None:
        call, self._trying = self._trying, None
        (call or self._ears).succeeded()


class _Delivery:
    """Takes events one after the other, where the plugin's hooks run; each has the time of one call."""

    job: Job

    def __init__(self, guest: _Guest) -> None:
        self._guest = guest
        self._hook = guest.plugin.on_event
        self._failing = False
        self.function = self._all_async if inspect.iscoroutinefunction(self._hook) else self._all_plain

    def _next(self) -> Event | None:
        self.job.started = time.monotonic()
        return None if self.job.over else self._guest.take()

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
            self._guest.seat.tell(self._guest.event_failed, crossing(error))
        elif self._failing:
            self._failing = False
            self._guest.seat.tell(self._guest.event_arrived)


def _said(error: BaseException) -> str:
    return "time-out" if isinstance(error, GivenUpError) else repr(error)


def _copy(value: Any) -> Any:
    """What a plugin may keep or change without changing ours."""
    if isinstance(value, DeploymentReport):
        return replace(
            value,
            warnings=list(value.warnings),
            errors=list(value.errors),
            failures=list(value.failures),
            phases_completed=list(value.phases_completed),
        )
    return list(value) if isinstance(value, list) else value


def _overrides(plugin: Plugin, hook: str) -> bool:
    own = getattr(type(plugin), hook, None)
    return hook in vars(plugin) or own is not getattr(Plugin, hook)
