"""One object of a custom type: made, asked and ended by calls that are bounded, and whose answers are checked.

Nothing here trusts the class: what it raises, and what it returns that is no answer, becomes an error that names the
type, the method, and where the type was registered.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from deploy_code.errors import DriverError
from deploy_code.services.calls import EndedItselfError, call, is_async
from deploy_code.services.handler import InstanceConfig, Service
from deploy_code.services.status import ServiceStatus

log = logging.getLogger("deploy_code.services")

Factory = Callable[..., Any]

MEMORY_BYTES = 16 * 1024  # of all that start() gives back, as JSON
CLEAN_UP_SECONDS = 10.0  # what a start that is broken off may take to end, and then stop() to clean up
LATE_SECONDS = 60.0  # so long a plain start(), which nobody can break off, may yet return to be cleaned up after


class Held:
    """One object. ``where``: who registered the type, for people.

    ``start`` and ``stop`` may be called by several at once: they share one call of the method.
    """

    def __init__(self, config: InstanceConfig, factory: Factory, where: str) -> None:
        self.config = config
        self._factory = factory
        self._where = where
        self._object: Any = None
        self._begun: asyncio.Task[dict[str, str]] | None = None
        self._asking: asyncio.Task[Any] | None = None
        self._stopping: asyncio.Task[bool] | None = None
        self._is_anew = False
        self._late_until = 0.0  # a start() that was broken off goes on in its thread
        self._told_failures: dict[str, str] = {}

    @property
    def is_busy(self) -> bool:
        """Is its start under way?"""
        return self._begun is not None and not self._begun.done()

    @property
    def is_late(self) -> bool:
        """Was its start broken off, and may yet return?"""
        return asyncio.get_running_loop().time() < self._late_until

    @property
    def is_made(self) -> bool:
        """Is there an object?"""
        return self._object is not None

    @property
    def is_checked(self) -> bool:
        """Does its class say itself how it is?"""
        own = getattr(self._object, "health_check", None)
        return own is not None and getattr(own, "__func__", own) is not Service.health_check

    # -- start

    async def start(self, *, clean: bool = False) -> dict[str, str]:
        """Make it and start it: its memory. Who cancels this wait leaves the start alone. Raises DriverError (E005).

        ``clean``: an earlier start was broken off where nobody knows; ``stop`` cleans up after it first.
        """
        return await self._once(lambda: self._start(clean))

    async def resume(self, memory: Mapping[str, str]) -> dict[str, str]:
        """Make it anew, with what it remembered. Raises DriverError (E005)."""
        self._is_anew = True
        return await self._once(lambda: self._resume(memory))

    async def _once(self, work: Callable[[], Coroutine[Any, Any, dict[str, str]]]) -> dict[str, str]:
        if self._begun is None:
            self._begun = asyncio.get_running_loop().create_task(work(), name=f"start {self.config.uuid}")
            self._begun.add_done_callback(_looked_at)
        begun = self._begun
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            if begun.cancelled():
                raise self._error("start() was broken off") from None
            raise

    async def _start(self, clean: bool) -> dict[str, str]:
        await self._make({})
        if clean:
            await self._clean_up()
        try:
            memory = self._checked(await self._call("start", late=self._came_late))
        except DriverError:
            await self._clean_up()
            raise
        self._object.memory = memory
        return memory

    async def _resume(self, memory: Mapping[str, str]) -> dict[str, str]:
        await self._make(memory)
        return dict(memory)

    async def _make(self, memory: Mapping[str, str]) -> None:
        arguments = (self.config,) if _takes_config(self._factory) else ()
        made = await self._told(call(self._factory, *arguments), "its constructor")
        missing = [name for name in ("start", "stop") if not callable(getattr(made, name, None))]
        if missing:
            raise self._error(f"makes {made!r:.80}, which has no {' and no '.join(missing)}()")
        try:
            made.config, made.memory = self.config, dict(memory)
        except AttributeError as exc:
            raise self._error(f"makes {made!r:.80}, which takes neither config nor memory") from exc
        self._object = made

    def _checked(self, memory: Any) -> dict[str, str]:
        """What start() gave back, if that can be remembered."""
        if memory is None:
            return {}
        if not isinstance(memory, Mapping):
            raise self._error(f"start() returned {memory!r:.80}, and not a mapping of text to text")
        for key, value in memory.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise self._error(f"start() returned a mapping with {key!r:.40}: {value!r:.40}, which is not text")
        if (size := len(json.dumps(dict(memory)))) > MEMORY_BYTES:
            raise self._error(f"start() returned {size} bytes to remember, and the limit is {MEMORY_BYTES}")
        return dict(memory)

    # -- stop

    async def stop(self, timeout: float) -> bool:
        """Break off a start that is under way, then stop it. True when it stopped by itself within ``timeout`` seconds.

        Raises DriverError (E005) when ``stop`` raised, and the object does not say that it has ended all the same, and
        when the object could not be made anew.
        """
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.get_running_loop().create_task(
                self._stop(timeout), name=f"stop {self.config.uuid}"
            )
            self._stopping.add_done_callback(_looked_at)
        return await asyncio.shield(self._stopping)

    async def _stop(self, timeout: float) -> bool:
        if self._begun is not None and not self._begun.done():
            await self._break_off(self._begun, timeout)
            timeout = min(timeout, CLEAN_UP_SECONDS)
        if self._object is None and self._is_anew:
            raise self._error("its constructor did not return")
        if self._object is None:
            return True  # it was never made: there is nothing to stop
        try:
            return await self._bounded("stop", timeout)
        except DriverError:
            if await self._has_ended():
                return True
            raise

    async def _break_off(self, begun: asyncio.Task[dict[str, str]], timeout: float) -> None:
        """A coroutine is cancelled. A thread cannot be: it gets a little time to end, else it is left behind."""
        if self._object is not None and not is_async(self._object.start):
            done, _ = await asyncio.wait({begun}, timeout=min(timeout, CLEAN_UP_SECONDS))
            if done:
                return
            self._late_until = asyncio.get_running_loop().time() + LATE_SECONDS
        begun.cancel()
        await asyncio.wait({begun}, timeout=CLEAN_UP_SECONDS)

    def _came_late(self, memory: Any) -> None:
        """start() has returned after it was broken off: what it made is stopped, too."""
        try:
            self._object.memory = self._checked(memory)
        except DriverError as exc:
            log.warning("%s", exc.text)
        self._late_until = asyncio.get_running_loop().time() + CLEAN_UP_SECONDS
        self._cleaning = asyncio.get_running_loop().create_task(self._clean_up(), name=f"clean {self.config.uuid}")
        self._cleaning.add_done_callback(self._cleaned)

    def _cleaned(self, task: asyncio.Task[None]) -> None:
        self._late_until = 0.0
        _looked_at(task)

    async def _clean_up(self) -> None:
        """After a start that failed or was broken off; what goes wrong here changes nothing any more."""
        try:
            if not await self._bounded("stop", CLEAN_UP_SECONDS):
                log.warning("%s", self._error(f"stop() did not return within {CLEAN_UP_SECONDS:g} s").text)
        except DriverError as exc:
            log.warning("%s", exc.text)

    async def _bounded(self, method: str, timeout: float) -> bool:
        """Call ``method``; False when it does not return in time. One that refuses to be cancelled is left behind."""
        task = asyncio.ensure_future(self._call(method))
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            task.result()
            return True
        task.cancel()
        task.add_done_callback(_looked_at)
        return False

    async def _has_ended(self) -> bool:
        if not self.is_checked:
            return False
        try:
            return await self.health(CLEAN_UP_SECONDS) in (ServiceStatus.FAILED, ServiceStatus.STOPPED)
        except DriverError:
            return False

    # -- health

    async def health(self, timeout: float) -> ServiceStatus:
        """What ``health_check`` answers within ``timeout`` seconds. Raises DriverError (E005) otherwise."""
        if self.is_busy:
            return ServiceStatus.STARTING
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._call("health_check"))
            self._asking.add_done_callback(_looked_at)
        asking = self._asking  # one that has not returned yet is not called a second time
        done, _ = await asyncio.wait({asking}, timeout=timeout)
        if not done:
            if inspect.iscoroutinefunction(self._object.health_check):
                asking.cancel()  # a thread cannot be: whoever asks next waits for it
            raise self._error(f"health_check() did not answer within {timeout:g} s")
        return self._status(asking.result())

    def _status(self, answer: Any) -> ServiceStatus:
        try:
            return ServiceStatus(answer)
        except ValueError:
            words = ", ".join(word.name for word in ServiceStatus)
            raise self._error(f"health_check() answered {answer!r:.80}, which is no ServiceStatus ({words})") from None

    # -- calls

    async def _call(self, method: str, **options: Any) -> Any:
        return await self._told(call(getattr(self._object, method), **options), f"{method}()")

    async def _told(self, work: Coroutine[Any, Any, Any], what: str) -> Any:
        try:
            return await work
        except Exception as exc:  # somebody else's code: whatever it raises is its failure, told with its name
            self._log(what, exc)
            raise self._error(f"{what} raised {_said(exc)}") from exc

    def _log(self, what: str, exc: Exception) -> None:
        """Where it came from, for the author; once, because a health check may fail the same way for days."""
        if self._told_failures.get(what) != repr(exc):
            self._told_failures[what] = repr(exc)
            log.warning("%s of %s failed", what, self._named, exc_info=exc)

    @property
    def _named(self) -> str:
        return f'service_type "{self.config.service_type}" ({self._where})'

    def _error(self, what: str) -> DriverError:
        return DriverError(f"{self._named}: {what}")


def _said(error: Exception) -> str:
    if isinstance(error, EndedItselfError) or not str(error):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _takes_config(factory: Factory) -> bool:
    """Is it called with an InstanceConfig? A class without a constructor of its own is called without."""
    try:
        inspect.signature(factory).bind(None)
    except TypeError:
        return False
    except ValueError:  # it has no signature that could be read
        return True
    return True


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Who waited for it may have gone: its error is not to be told as one that nobody looked at."""
    if not task.cancelled():
        task.exception()
