"""Services as containers of an engine, on this machine or elsewhere: what Docker and Podman have in common.

Engines only run containers; that one comes back, and when, is decided by whoever calls this. Each start is a fresh
container, and what has ended is removed. One list call and one event stream for each engine tell how all of them are.
"""

from __future__ import annotations

import asyncio
import re
import signal as signals
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

from deploy_code.drivers.base import Running, StartOrder
from deploy_code.drivers.engine import compare
from deploy_code.drivers.engine.body import create_body
from deploy_code.drivers.engine.client import EngineError, EngineGoneError
from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.drivers.engine.exec import ExecProbe
from deploy_code.drivers.engine.order import CONTAINER, ENGINE, ENGINE_TLS, INSTANCE, LOG, SERVICE, ContainerOrder
from deploy_code.drivers.engine.place import DRAIN_SECONDS, Place
from deploy_code.drivers.engine.processes import first_process, processes
from deploy_code.drivers.engine.start import Starts, running_of
from deploy_code.drivers.proctree import boot_id
from deploy_code.errors import CircuitOpenError, DriverError
from deploy_code.model import Exit
from deploy_code.reliability.registry import Breakers

_STREAM_SECONDS = 2.0  # a stream that broke off, of an engine that is there, is back sooner
_CALL_SECONDS = 30.0  # for a signal to be sent; an engine that is busy starting takes its time
_KILL_SECONDS = 10.0  # what has not ended so long after SIGKILL hangs in the kernel
_END_KNOWN_SECONDS = 2.0  # so long the event of an end may take that the engine has told us of
_PAUSE_KNOWN_SECONDS = 0.5  # likewise of a pause
_REALTIME = re.compile(r"RT(MIN|MAX)([+-]\d+)?")


class ContainerDriver:
    """``drivers.base.SlowDriver`` for containers. One serves all engines that its orders and handlers name.

    ``state``: the project's state folder, absolute. ``told`` hears, in words and rarely, what concerns an engine as a
    whole: that it was lost, that it is back. ``returned`` is called when an engine was reached, first or again, and
    what runs there is known. To be used from one event loop.
    """

    name = "container"
    starts_slowly = True
    log_driver: ClassVar[str] = "json-file"
    log_options: ClassVar[Mapping[str, str]] = {"max-size": "10m"}
    fixes_mac: ClassVar[bool] = False  # the engine would give a restarted container, at its old IP, another MAC
    tells_starvation: ClassVar[bool] = True  # the engine says when memory ran out

    def __init__(
        self,
        state: str,
        breakers: Breakers,
        *,
        told: Callable[[str], None] = lambda text: None,
        returned: Callable[[], None] = lambda: None,
    ) -> None:
        self._returned = returned
        self._state = state
        self._breakers = breakers
        self._told = told
        self._places: dict[tuple[str, str], Place] = {}
        self._starts: dict[Place, Starts] = {}

    # ----------------------------------------------------------------------- engines

    def know(self, engine: str, tls: str = "") -> None:
        """An engine on which instances of this project may run: ``find_spawned`` and ``orphans`` look there too."""
        self._place(engine, tls)

    def _place(self, engine: str, tls: str) -> Place:
        place = self._places.get((engine, tls))
        if place is None:
            place = Place(Endpoint(url=engine, tls=tls), self._state, self._breakers, self._told, self._returned)
            self._places[engine, tls] = place
            self._starts[place] = Starts(place)
        place.watch.begin()
        return place

    def _place_of(self, running: Running) -> Place:
        return self._place(running.handler[ENGINE], running.handler.get(ENGINE_TLS, ""))

    def close(self) -> None:
        """Forget everything that is watched; stops nothing. Those who wait are cancelled."""
        for place, starts in self._starts.items():
            starts.close()
            place.close()
        self._places.clear()
        self._starts.clear()

    # ----------------------------------------------------------------------- start and find

    async def start(self, order: StartOrder) -> Running:
        """Start one container; the image is there already. Raises DriverError: E003 no such image or command, E004 disk
        full, E010 network, E014 engine away for longer than ``order.patience``, S002 somebody else's container has the
        name, S004 port taken, S005 nothing to mount, E005 anything else that keeps it from starting."""
        assert isinstance(order, ContainerOrder)
        container = order.container
        place = self._place(container.engine, container.engine_tls)
        running = await self._starts[place].start(order, self.log_config(order), fixes_mac=self.fixes_mac)
        self._watch_memory(place, running)
        return running

    def _watch_memory(self, place: Place, running: Running) -> None:
        if running.pid and not self.tells_starvation:
            place.memory.add(running.pid, running.handler[CONTAINER])

    def begun(self, order: StartOrder) -> Running:
        """What stands for a start that nobody waits for any more: ``stop`` of it removes whatever came of it."""
        assert isinstance(order, ContainerOrder)
        container = order.container
        handler = {ENGINE: container.engine, ENGINE_TLS: container.engine_tls, LOG: order.log_path}
        return Running(uuid=order.uuid, pid=0, start_time=0, boot_id=boot_id(), handler=handler)

    def log_config(self, order: ContainerOrder) -> dict[str, object]:
        """The engine's own log is what ours is filled from; unless the file says otherwise it stays small."""
        driver, options = order.container.log_driver, dict(order.container.log_options)
        if driver and driver != self.log_driver:
            return {"Type": driver, "Config": options}
        return {"Type": self.log_driver, "Config": {**self.log_options, **options}}

    async def find(self, running: Running) -> bool:
        """Is this very one still alive? While the engine is away, what was started is taken to be there."""
        if _is_of_another_boot(running) or CONTAINER not in running.handler:
            return False
        place, container = self._place_of(running), running.handler[CONTAINER]
        is_there = not await place.watch.tried() or place.watch.is_alive(container)
        if is_there:
            place.followers.begin(container, running.handler.get(LOG, ""))
            self._watch_memory(place, running)
        return is_there

    async def find_spawned(self, uuids: Sequence[str]) -> dict[str, Running]:
        """Those of ``uuids`` that were started although nobody could record it, also those that have ended since."""
        found: dict[str, Running] = {}
        for place in tuple(self._places.values()):
            if not await place.watch.tried():
                continue  # a start of it waits for the engine, and takes over what is there
            for each in await place.listed():
                uuid = each["Labels"].get(INSTANCE, "")
                if uuid in uuids and each["State"] != "created" and (seen := await place.inspect(each["Id"])):
                    found[uuid] = running_of(place, seen, uuid)
        return found

    async def orphans(self, known: Collection[str]) -> list[Running]:
        """Containers of this project whose uuid is none of ``known``; ``stop`` removes them.

        ``handler`` says their ``service``, and their ``name``.
        """
        found = []
        for place in tuple(self._places.values()):
            if await place.watch.tried():
                for each in await place.listed():
                    uuid = each["Labels"].get(INSTANCE, "")
                    if uuid not in known:
                        handler = {
                            CONTAINER: each["Id"],
                            ENGINE: place.endpoint.url,
                            ENGINE_TLS: place.endpoint.tls,
                            "service": each["Labels"].get(SERVICE, ""),
                            "name": next(iter(each.get("Names") or ()), each["Id"][:12]).lstrip("/"),
                        }
                        found.append(Running(uuid=uuid, pid=0, start_time=0, boot_id=boot_id(), handler=handler))
        return found

    # ----------------------------------------------------------------------- wait

    async def wait(self, running: Running) -> Exit:
        """Wait until it has ended and all it said is in its log. How it ended is unknown if it was removed by hand."""
        if _is_of_another_boot(running) or CONTAINER not in running.handler:
            return Exit(at=time.time())
        place, container = self._place_of(running), running.handler[CONTAINER]
        exit_ = await place.watch.ended(container)
        place.followers.begin(container, running.handler.get(LOG, ""))
        await place.followers.drained(container, DRAIN_SECONDS)
        return exit_

    # ----------------------------------------------------------------------- stop and sweep

    async def stop(self, running: Running, signal: str, timeout: float) -> bool:
        """Ask with ``signal``, wait up to ``timeout`` seconds, kill, and remove the container; volumes stay. True when
        it went by itself. Raises DriverError: E014 when the engine is away, E005 when it does not end."""
        name = _signal_name(signal)
        if _is_of_another_boot(running):
            await self._remove_rest(running)
            return True
        place = self._place_of(running)
        is_named = CONTAINER in running.handler
        if not is_named and not await self._starts[place].broken_off(running.uuid):
            return True
        try:
            await place.watch.available(_STREAM_SECONDS)
            if is_named:
                return await self._stop(place, running.handler[CONTAINER], name, timeout)
            found = await place.listed(running.uuid)
            return all([await self._stop(place, each["Id"], name, timeout) for each in found])
        except CircuitOpenError as exc:
            raise EngineGoneError(exc.message, meaning=exc.meaning) from exc
        except EngineError as exc:
            raise DriverError(f"the container cannot be stopped: {exc.message}", retryable=True) from exc

    async def _stop(self, place: Place, container: str, signal: str, timeout: float) -> bool:
        gently = True
        if not place.watch.has_ended(container):
            place.watch.expect_end(container)
            if await self._send(place, container, signal):
                gently = await self._ends_soon(place, container, timeout)
                if not gently and await self._send(place, container, "SIGKILL"):
                    await _ends(place, container, _KILL_SECONDS)
            else:
                await _ends(place, container, _END_KNOWN_SECONDS)
        await place.remove(container)
        return gently

    async def _ends_soon(self, place: Place, container: str, timeout: float) -> bool:
        """Has it ended after ``timeout`` seconds? That it was paused just before may be known a moment later."""
        first = min(timeout, _PAUSE_KNOWN_SECONDS)
        if await _ends(place, container, first):
            return True
        if place.watch.is_paused(container):
            await self._call_it(place, container, "unpause")
        return await _ends(place, container, timeout - first)

    async def _send(self, place: Place, container: str, signal: str) -> bool:
        """False where it does not run. One that is paused hears nothing, and goes on first."""
        if place.watch.is_paused(container):
            await self._call_it(place, container, "unpause")
        return await self._call_it(place, container, "kill", {"signal": signal})

    async def _call_it(
        self, place: Place, container: str, verb: str, query: Mapping[str, object] | None = None
    ) -> bool:
        try:
            await place.client.call("POST", f"/containers/{container}/{verb}", query=query, timeout=_CALL_SECONDS)
        except EngineError as exc:
            found = None if exc.status == 404 else await place.inspect(container)
            if found is None or not found["State"]["Running"]:
                return False
            if verb == "kill" and found["State"]["Paused"]:
                await self._call_it(place, container, "unpause")
                return await self._call_it(place, container, verb, query)
            if verb != "unpause":
                raise
        return True

    async def sweep(self, running: Running) -> int:
        """Remove an ended container; its processes have gone with it. Raises DriverError when it still runs."""
        if _is_of_another_boot(running):
            await self._remove_rest(running)
            return 0
        if CONTAINER in running.handler:
            place, container = self._place_of(running), running.handler[CONTAINER]
            if place.watch.is_alive(container):
                raise DriverError(f"container {container[:12]} still runs and cannot be swept", remedy="Stop it first")
            await place.remove_some_day(container)
        return 0

    async def _remove_rest(self, running: Running) -> None:
        """A reboot ends containers and leaves them lying about."""
        if CONTAINER in running.handler:
            await self._place_of(running).remove_if_ended(running.handler[CONTAINER])

    # ----------------------------------------------------------------------- looking inside

    async def pids(self, running: Running) -> tuple[int, ...]:
        """All its processes as this machine numbers them, its own first; none where the engine is elsewhere."""
        container = running.handler.get(CONTAINER, "")
        if _is_of_another_boot(running) or not container:
            return ()
        first = first_process(running.pid, container)
        if first is None or first.start_time != running.start_time:
            return ()
        return processes(running.pid, container)

    def probe_command(self, running: Running, argv: Sequence[str], *, timeout: float) -> ExecProbe:
        """A probe that runs ``argv`` inside; ready when it ends with 0 within ``timeout`` seconds."""
        place = self._place_of(running)
        return ExecProbe(
            place.client, running.handler[CONTAINER], argv, timeout=timeout, is_local=place.endpoint.is_local
        )

    async def differences(self, running: Running, order: ContainerOrder) -> tuple[str, ...]:
        """How it differs from ``order``, in words, without any value of its environment. Raises DriverError E014."""
        place = self._place_of(running)
        found = await place.inspect(running.handler.get(CONTAINER, ""))
        if found is None:
            return ("missing: its container was removed",)
        return compare.differences(found, order, create_body(order, log=self.log_config(order)))

    async def tidy(self) -> None:
        """Remove this project's networks that nobody is on any more."""
        for place in tuple(self._places.values()):
            if place.watch.in_sync:
                await place.networks.tidy(self._state)


def _is_of_another_boot(running: Running) -> bool:
    return running.boot_id != boot_id()


async def _ends(place: Place, container: str, timeout: float) -> bool:
    try:
        async with asyncio.timeout(timeout):
            await place.watch.ended(container)
    except TimeoutError:
        return False
    return True


def _signal_name(text: str) -> str:
    """As the API takes it: ``SIGTERM``, a number, ``SIGRTMIN+3``. "" is SIGTERM. Raises DriverError."""
    name = text.strip().upper().removeprefix("SIG") or "TERM"
    if name.isdecimal() and 0 < int(name) <= signals.SIGRTMAX:
        return name
    if _REALTIME.fullmatch(name) or f"SIG{name}" in signals.Signals.__members__:
        return f"SIG{name}"
    raise DriverError(f'"{text}" is no signal', remedy='Use a name such as SIGTERM in "stop_signal"')
