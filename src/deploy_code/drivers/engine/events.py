"""What runs of this project on one engine, and what has ended: one event stream, and one list whenever it was broken.

Whoever waits for an end waits here, and nobody asks twice. While the engine is away everything stays as it was last
seen; when it is back, the list tells what happened meanwhile.
"""

from __future__ import annotations

import asyncio
import signal as signals
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from deploy_code.drivers.engine.client import EngineClient, EngineError, EngineGoneError
from deploy_code.drivers.engine.order import STATE
from deploy_code.errors import CircuitOpenError, DeployCodeError
from deploy_code.model import Exit

FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0  # seconds between two tries to reach an engine that is away
_OVERLAP_SECONDS = 1.0  # events of so long before the stream are asked for too: it begins a moment after its head
_LASTS = 30.0  # a stream that lasted so long is worth another at once
_ANSWER_SECONDS = 30.0  # so long the first words of the stream and the list may take
_ENDS_KEPT = 1000  # remembered for whoever asks late; the engine may be asked about older ones
_KINDS = ("die", "destroy", "oom", "pause", "unpause")
_DIED, _REMOVED = ("die", "died"), ("destroy", "remove")  # Docker's word, Podman's word
_RUNS = ("running", "paused", "restarting")

Listed = Mapping[str, Any]


class EngineWatch:
    """Watches from ``begin`` to ``close``. ``told`` hears, in words, of an engine that is lost and of its return.

    ``on_return`` is called, in the loop, each time that the list was read: with what is there now, by id.
    """

    def __init__(
        self,
        client: EngineClient,
        state: str,
        *,
        told: Callable[[str], None],
        on_return: Callable[[Mapping[str, Listed]], None] = lambda listed: None,
    ) -> None:
        self.in_sync = False
        self._client = client
        self._filter = {"label": [f"{STATE}={state}"]}
        self._told = told
        self._on_return = on_return
        self._alive: set[str] = set()
        self._paused: set[str] = set()
        self._fresh: set[str] = set()  # started since the list was asked for: it may not know of them
        self._starved: set[str] = set()  # memory ran out
        self._expected: set[str] = set()  # we have told them to end
        self._waits: dict[str, asyncio.Future[Exit]] = {}
        self._ends: OrderedDict[str, Exit] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Timeout | None = None  # of the stream, while there is one
        self._is_closed = False
        self._looks: set[asyncio.Task[None]] = set()
        self._news: asyncio.Future[None] | None = None
        self._why: EngineGoneError | None = None  # since when it is lost; None: not tried yet, or there
        self._kind = ""  # docker | podman, as last seen
        self._asked = asyncio.Event()  # somebody wants to know now whether it is back
        self._was_there = False
        self._was_told = False

    # ----------------------------------------------------------------------- asking

    def begin(self) -> None:
        """Watch from now on; once is enough."""
        if self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"watch {self._client.protects}")
            self._task.add_done_callback(self._broke)

    async def tried(self) -> bool:
        """Is the engine there? Waits for the first try only."""
        self.begin()
        while not self.in_sync and self._why is None:
            await self._change()
        return self.in_sync

    async def available(self, patience: float) -> None:
        """Wait up to ``patience`` seconds for the engine. Raises EngineGoneError."""
        self._asked.set()
        deadline = time.monotonic() + patience
        while not await self.tried():
            why = self._why
            if why is not None and not why.retryable:
                raise _again(why)
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._change()
            except TimeoutError as exc:
                raise _again(self._why) from exc

    async def back(self) -> None:
        """Wait until the engine is there, however long that takes. Asks for no try of its own."""
        while not await self.tried():
            await self._change()

    def doubt(self) -> None:
        """It did not answer somebody, or what is known may not be all: begin anew, with a list."""
        if self._reading is not None and self.in_sync:
            self._reading.reschedule(asyncio.get_running_loop().time())

    def is_alive(self, container: str) -> bool:
        """As last seen."""
        return container in self._alive

    def is_paused(self, container: str) -> bool:
        return container in self._paused

    def has_ended(self, container: str) -> bool:
        return container in self._ends

    def started(self, container: str) -> None:
        """We have just started it. It may have ended already."""
        if not self.has_ended(container):
            self._alive.add(container)
            self._fresh.add(container)

    def expect_end(self, container: str) -> None:
        """We have told it to end: why it does needs no asking."""
        if container in self._alive:
            self._expected.add(container)

    def not_running(self, container: str) -> None:
        """Somebody has seen that it has ended: that is known before the engine tells us."""
        if not self.has_ended(container):
            self._alive.discard(container)
            self._look(container, Exit(at=time.time()))

    def starved(self, container: str) -> None:
        """Its memory has run out."""
        self._starved.add(container)

    async def ended(self, container: str) -> Exit:
        """Wait for its end. Cancelling the wait harms nothing."""
        self.begin()
        if (known := self._ends.get(container)) is not None:
            return known
        end = self._waits.get(container)
        if end is None:
            end = self._waits[container] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            end.cancel()
        elif self.in_sync and container not in self._alive:
            self._look(container, Exit(at=time.time()))
        return await asyncio.shield(end)

    def close(self) -> None:
        """Forget everything; those who wait for an end are cancelled, and nobody is watched any more."""
        self._is_closed = True
        for task in (self._task, *self._looks):
            if task is not None:
                task.cancel()
        for end in self._waits.values():
            end.cancel()
        self.in_sync, self._why = False, EngineGoneError(f"{self._client.protects} is not watched any more")
        self._task = None
        for known in (self._waits, self._ends, self._alive, self._paused, self._starved, self._expected, self._fresh):
            known.clear()
        self._wake()

    # ----------------------------------------------------------------------- the stream

    async def _keep(self) -> None:
        wait = FIRST_WAIT
        while True:
            began = time.monotonic()
            why = await self._follow()
            if time.monotonic() - began > _LASTS:
                wait = FIRST_WAIT
            self._lost(why)
            await self._pause(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _follow(self) -> DeployCodeError:
        """Read the stream until it ends; why it did."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS) as self._reading:
                async with self._client.json_lines("GET", "/events", query=await self._query()) as events:
                    await self._read_list()
                    self._reading.reschedule(None)
                    async for event in events:
                        self._heard(event)
        except DeployCodeError as exc:
            return exc
        except TimeoutError:
            return EngineGoneError(f"{self._client.protects} does not answer")
        finally:
            self._reading = None
        return EngineGoneError(f"{self._client.protects}: its event stream ended")

    async def _pause(self, seconds: float) -> None:
        """Until the next try is due, or somebody asks; but not at once, however many ask."""
        self._asked.clear()
        await asyncio.sleep(FIRST_WAIT)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - FIRST_WAIT):
                await self._asked.wait()

    def _broke(self, task: asyncio.Task[None]) -> None:
        """A bug of ours, or an answer beyond all expectation, is said; somebody may wait for an end, so it goes on."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._task = None
            self._lost(EngineGoneError(f"{self._client.protects} cannot be watched: {error!r}"))
            asyncio.get_running_loop().call_later(LONGEST_WAIT, self.begin)

    async def _query(self) -> dict[str, object]:
        """Podman knows a die only where it is not asked for; what runs inside Docker's containers makes much noise."""
        try:
            self._kind = (await self._client.info()).name
        except CircuitOpenError:  # its cool-down is not ours: the stream, which passes no breaker, ends it
            if not self._kind:
                raise
        kinds = {"event": list(_KINDS)} if self._kind == "docker" else {}
        since = f"{time.time() - _OVERLAP_SECONDS:.9f}"
        return {"filters": {"type": ["container"], **self._filter, **kinds}, "since": since}

    async def _read_list(self) -> None:
        """What there is now. What somebody waits for and does not run has ended meanwhile."""
        self._fresh.clear()
        listed = await self._client.call("GET", "/containers/json", query={"all": 1, "filters": self._filter})
        now = {each["Id"]: each for each in listed}
        running = {each for each in now if now[each]["State"] in _RUNS}
        self._alive = (running | self._fresh) - self._ends.keys()
        self._paused = {each for each in running & self._alive if now[each]["State"] == "paused"}
        self._starved &= now.keys()
        self._expected &= self._alive
        for container in self._waits.keys() - self._alive:
            self._look(container, Exit(at=time.time()))
        self._found()
        self._on_return(now)

    def _found(self) -> None:
        self.in_sync, self._was_there, self._why = True, True, None
        if self._was_told:
            self._told(f"{self._client.protects}: it is back")
        self._was_told = False
        self._wake()

    def _lost(self, why: DeployCodeError) -> None:
        """Told when it cannot be had again at once: Podman's streams end now and then, and it is there all the same."""
        is_certain = self._was_there and not self.in_sync
        self.in_sync = False
        self._why = why if isinstance(why, EngineGoneError) else _as_gone(why)
        if is_certain and not self._was_told:
            self._was_told = True
            self._told(f"lost: {self._why.text} Its containers are taken to run on")
        self._wake()

    def _heard(self, event: Mapping[str, Any]) -> None:
        actor = event.get("Actor") or {}
        container = actor.get("ID") or event.get("id", "")
        kind = str(event.get("Action") or event.get("status", ""))
        at = event.get("timeNano", 0) / 1e9 or time.time()
        if kind in _DIED:
            attributes = actor.get("Attributes") or {}
            self._died(container, at, attributes.get("exitCode") or attributes.get("containerExitCode") or "")
        elif kind in _REMOVED:
            self._removed(container, at)
        elif kind == "oom":
            self.starved(container)
        elif kind == "pause":
            self._paused.add(container)
        elif kind == "unpause":
            self._paused.discard(container)

    def _died(self, container: str, at: float, code: str) -> None:
        self._gone(container)
        exit_ = exit_of(at, int(code) if code.isdecimal() else None)
        if exit_.ok or container in self._expected or self.has_ended(container):
            self._settle(container, self._with_cause(container, exit_))
        else:
            self._look(container, exit_)

    def _removed(self, container: str, at: float) -> None:
        self._gone(container)
        if not any(look.get_name() == _look_name(container) for look in self._looks):
            self._settle(container, Exit(at=at))
        self._starved.discard(container)

    def _gone(self, container: str) -> None:
        for known in (self._alive, self._fresh, self._paused):
            known.discard(container)

    # ----------------------------------------------------------------------- ends

    def _settle(self, container: str, exit_: Exit) -> None:
        self._gone(container)
        self._expected.discard(container)
        exit_ = self._ends.setdefault(container, exit_)
        if len(self._ends) > _ENDS_KEPT:
            self._ends.popitem(last=False)
        end = self._waits.pop(container, None)
        if end is not None and not end.done():
            end.set_result(exit_)

    def _look(self, container: str, known: Exit) -> None:
        """Ask the engine once how it ended; ``known``: what the stream said."""
        if any(look.get_name() == _look_name(container) for look in self._looks):
            return
        self._spawn(self._look_at(container, known), _look_name(container))

    async def _look_at(self, container: str, known: Exit) -> None:
        try:
            found = (await self._client.call("GET", f"/containers/{container}/json"))["State"]
        except EngineError:
            self._settle(container, self._with_cause(container, known))
            return
        except DeployCodeError:  # it is away: the list that follows its return tells
            if known.code is not None or known.signal is not None:
                self._settle(container, self._with_cause(container, known))
            self.doubt()
            return
        if found["Status"] in _RUNS and known.code is None and known.signal is None:
            self._alive.add(container)
            return
        if known.code is None and known.signal is None and found["Status"] != "created":
            known = exit_of(_seconds(found.get("FinishedAt", ""), known.at), found.get("ExitCode"))
        if found.get("OOMKilled"):
            self._starved.add(container)
        self._settle(container, self._with_cause(container, known))

    def _with_cause(self, container: str, exit_: Exit) -> Exit:
        if container not in self._starved or exit_.ok:
            return exit_
        self._starved.discard(container)
        return Exit(at=exit_.at, code=exit_.code, signal=exit_.signal, out_of_memory=True)

    # ----------------------------------------------------------------------- plumbing

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _change(self) -> None:
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def exit_of(at: float, code: int | None) -> Exit:
    """Engines tell an end by a signal as 128 and its number, as shells do."""
    if code is not None and code > 128:
        with suppress(ValueError):
            return Exit(at=at, signal=signals.Signals(code - 128).value)
    return Exit(at=at, code=code)


def _seconds(text: str, otherwise: float) -> float:
    """A point in time as the API writes it."""
    from datetime import datetime

    try:
        found = datetime.fromisoformat(text).timestamp()
    except ValueError:
        return otherwise
    return found if found > 0 else otherwise


def _look_name(container: str) -> str:
    return f"look at {container}"


def _as_gone(why: DeployCodeError) -> EngineGoneError:
    return EngineGoneError(why.message, meaning=why.meaning, remedy=why.remedy)


def _again(why: EngineGoneError | None) -> EngineGoneError:
    """The same error for one more caller: an exception that is raised twice grows."""
    if why is None:
        return EngineGoneError("the engine does not answer")
    return EngineGoneError(why.message, meaning=why.meaning, remedy=why.remedy, retryable=why.retryable)
