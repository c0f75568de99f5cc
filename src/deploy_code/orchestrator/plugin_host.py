"""Calls plugins so that nothing they do can harm a deployment: each call is bounded, each failure reported."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from deploy_code.events import Event, InstanceChanged
from deploy_code.plugins import Plugin

DRAIN_SECONDS = 5.0  # how long the end of a deployment waits for events still being delivered


class PluginHost:
    """All plugins of one engine. ``report`` takes one line about a plugin that failed."""

    def __init__(self, plugins: Iterable[Plugin], report: Callable[[str], None]) -> None:
        self._plugins = list(plugins)
        self._report = report
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._delivery: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._plugins)

    async def call(self, hook: str, *arguments: Any) -> None:
        """One hook of every plugin that overrides it, one after the other, in the order they were added."""
        for plugin in self._plugins:
            if _overrides(plugin, hook):
                await self._call(plugin, hook, arguments)

    async def _call(self, plugin: Plugin, hook: str, arguments: tuple[Any, ...]) -> None:
        name = f"plugin {type(plugin).__name__}.{hook}"
        task = asyncio.create_task(_run(getattr(plugin, hook), arguments), name=name)
        try:
            done, _ = await asyncio.wait({task}, timeout=plugin.timeout_seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()  # not waited for: it may refuse
            self._report(f"{name} did not end within {plugin.timeout_seconds:g} s and was given up on")
        elif task.cancelled():
            self._report(f"{name} cancelled itself")
        elif (error := task.exception()) is not None:
            self._report(f"{name} failed: {error!r}")

    # ------------------------------------------------------------------------------------------------------- events

    def listen(self, event: Event) -> None:
        """A bus listener: queues, so that a slow plugin slows nobody. What was there before is no news."""
        if isinstance(event, InstanceChanged) and not event.deployment:
            return
        if any(_overrides(each, "on_event") for each in self._plugins):
            self._events.put_nowait(event)
            if self._delivery is None or self._delivery.done():
                self._delivery = asyncio.get_running_loop().create_task(self._deliver(), name="plugin events")

    async def _deliver(self) -> None:
        while not self._events.empty():
            await self.call("on_event", self._events.get_nowait())

    async def drain(self) -> None:
        """Let queued events arrive, for a bounded time."""
        if self._delivery is not None and not self._delivery.done():
            _, late = await asyncio.wait({self._delivery}, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
                self._report(f"{self._events.qsize()} events were not delivered to plugins within {DRAIN_SECONDS:g} s")


def _overrides(plugin: Plugin, hook: str) -> bool:
    own = getattr(type(plugin), hook, None)
    return hook in vars(plugin) or own is not getattr(Plugin, hook)


class _HookEndedError(Exception):
    """A hook raised what would end the program, or what no future can carry: its failure, like any other."""

    def __repr__(self) -> str:
        return str(self)


async def _run(hook: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        result = hook(*arguments) if inspect.iscoroutinefunction(hook) else await _in_thread(hook, arguments)
        if inspect.isawaitable(result):
            await result
    except (SystemExit, KeyboardInterrupt) as exc:
        raise _HookEndedError(repr(exc)) from exc


def _crossing(error: BaseException) -> Exception:
    carried = isinstance(error, Exception) and not isinstance(error, StopIteration)
    return error if carried else _HookEndedError(repr(error))  # type: ignore[return-value]


async def _in_thread(hook: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A daemon thread, not the loop's executor: one that hangs must not keep the program from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            setter(value)

    def work() -> None:
        try:
            outcome, setter = hook(*arguments), future.set_result
        except BaseException as exc:  # crosses the thread: raised again where it is awaited
            outcome, setter = _crossing(exc), future.set_exception
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            loop.call_soon_threadsafe(settle, setter, outcome)

    threading.Thread(target=work, name="plugin hook", daemon=True).start()
    return await future
