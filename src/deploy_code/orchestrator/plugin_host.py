"""Calls plugins so that nothing they do can harm a deployment: each call is bounded, each failure reported.

A plugin that keeps failing is left alone for a while (a circuit breaker stands before its hooks, another before its
``on_event``). Only ``AbortDeployment``, raised in a ``before_`` hook, changes what happens. How events reach it, is in
``plugin_events``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from deploy_code.errors import CircuitOpenError, DeploymentError, shown, title
from deploy_code.events import Event, InstanceChanged
from deploy_code.model import Breaker
from deploy_code.orchestrator.plugin_events import Ears
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
    plugin that failed, ``publish`` the events of its circuits. ``clean`` takes the secrets out of what it said.
    """

    def __init__(
        self,
        plugins: Iterable[Plugin],
        report: Say,
        *,
        publish: Callable[[Event], None] = lambda event: None,
        clean: Callable[[str], str] = str,
    ) -> None:
        self._report = report
        self._publish = publish
        self.clean = clean
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
                guest.ears.hear([event for event, but in heard if but is not guest])

    async def drain(self) -> None:
        """Let queued events arrive, for a bounded time."""
        self._hand_over()
        quiet = [guest.ears.quiet for guest in self._guests if guest.ears.quiet is not None]
        if quiet:
            await asyncio.wait(quiet, timeout=DRAIN_SECONDS)
        for guest in self._guests:
            if lost := guest.ears.forget():
                self.tell(guest, f"{lost} events were not delivered to {guest} within {DRAIN_SECONDS:g} s")

    async def close(self) -> None:
        """Let go of every thread and loop. Whatever happens from now on, no plugin hears of it."""
        until = time.monotonic() + CLOSE_SECONDS
        guests, self._guests, self._hooks = self._guests, [], frozenset()
        for guest in guests:
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
        self._host = host
        self._where = f" ({extension.source}, {extension.where})" if extension is not None else ""
        self.seat = Seat(type(plugin).__name__, own=extension is not None)
        self.limit(limits)

    def __str__(self) -> str:
        return f"plugin {type(self.plugin).__name__}{self._where}"

    def _named(self, hook: str) -> str:
        return f"plugin {type(self.plugin).__name__}.{hook}{self._where}"

    def limit(self, limits: Breaker) -> None:
        """Start anew with these limits."""
        self._circuit = self._breaker(str(self), limits)
        self.ears = Ears(
            self.seat,
            self._breaker(self._named("on_event"), limits),
            hook=lambda: _method(self.plugin, "on_event"),
            timeout=lambda: self._timeout,
            complain=lambda error: self.complain("on_event", error),
        )

    def _breaker(self, protects: str, limits: Breaker) -> CircuitBreaker:
        return CircuitBreaker(protects, limits, on_change=lambda breaker: self._host.circuit_changed(self, breaker))

    @property
    def _timeout(self) -> float:
        with suppress(Exception):  # what cannot be read is no number either
            seconds = self.plugin.timeout_seconds
            if isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0:
                return float(seconds)
        return Plugin.timeout_seconds

    def begin(self, hook: str, arguments: tuple[Any, ...], meeting: _Meeting) -> Job | None:
        """Call one hook; None where its circuit is open."""
        try:
            call = self._circuit.admit()
        except CircuitOpenError:
            meeting.leave()
            return None

        def ended(_: Any, error: BaseException | None) -> None:
            try:
                if isinstance(error, AbortDeployment) and hook.startswith("before_"):
                    call.succeeded()
                    meeting.refusals.append((self, _reason(error)))
                else:
                    self._account(call, hook, error)
            finally:
                meeting.leave()  # the deployment waits for this

        own = tuple(_copy(each) for each in arguments)
        job = Job(_method(self.plugin, hook), own, self._timeout, ended)
        self.seat.begin(job)
        return job

    def _account(self, call: Call, hook: str, error: BaseException | None) -> None:
        if error is None:
            call.succeeded()
        elif isinstance(error, DroppedError):
            call.abandoned()
        else:
            call.failed(self.complain(hook, error))

    def complain(self, hook: str, error: BaseException) -> str:
        """Report what a hook did wrong; gives back the same in a word or two, for its circuit."""
        if isinstance(error, GivenUpError):
            what, word = f"did not end within {self._timeout:g} s and was given up on", "time-out"
        else:
            word = self._host.clean(shown(error))
            what = f"failed: {word}"
        self._host.tell(self, f"{self._named(hook)} {what}")
        return word


def _method(plugin: Plugin, hook: str) -> Callable[..., Any]:
    """A hook of a plugin; one that cannot be had fails when it is called."""
    try:
        found: Callable[..., Any] = getattr(plugin, hook)
    except Exception as exc:
        return partial(_fail, exc)
    return found


def _fail(error: Exception, *_: Any) -> None:
    raise error


def _reason(refusal: AbortDeployment) -> str:
    """Whatever has become of it in a class derived from ours."""
    with suppress(Exception):
        return str(refusal.reason)
    return "no reason given"


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
