"""One engine as a driver knows it: its client, what runs there, its networks, its logs."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from deploy_code.drivers.engine.client import EngineClient, EngineError, protects
from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.drivers.engine.events import EngineWatch, Listed
from deploy_code.drivers.engine.follow import Followers
from deploy_code.drivers.engine.memory import MemoryAlarms
from deploy_code.drivers.engine.networks import Networks
from deploy_code.drivers.engine.order import INSTANCE, STATE
from deploy_code.errors import DeployCodeError
from deploy_code.reliability.registry import Breakers

STARTS_AT_ONCE = 10  # creates and starts; more make an engine slower, not faster
_IMAGES_KEPT = 200  # an agent may live through thousands of builds
DRAIN_SECONDS = 5.0  # so long after its end a container's last words are waited for


class Place:
    """One engine. Belongs to one event loop. ``returned`` is called each time that all there is has been seen anew."""

    def __init__(
        self,
        endpoint: Endpoint,
        state: str,
        breakers: Breakers,
        told: Callable[[str], None],
        returned: Callable[[], None] = lambda: None,
    ) -> None:
        self.endpoint = endpoint
        self.state = state
        self.told = told
        self._on_return = returned
        self.client = EngineClient(endpoint, breaker=breakers.of(protects(endpoint)))
        self.watch = EngineWatch(self.client, state, told=told, on_return=self._returned)
        self.client.unanswered = self.watch.doubt
        self.networks = Networks(self.client)
        self.memory = MemoryAlarms(self.watch.starved)
        self.turn = asyncio.Semaphore(STARTS_AT_ONCE)
        self.followers = Followers(
            self.client,
            os.path.join(state, "containers", f"{zlib.crc32(endpoint.url.encode()):08x}"),
            available=self.watch.back,
            ended=self.watch.ended,
            told=told,
        )
        self._images: dict[str, asyncio.Task[tuple[str, ...]]] = {}
        self._leftovers: set[str] = set()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def is_direct(self) -> bool:
        """Do containers answer at their own addresses here?"""
        return self.endpoint.is_local and not (await self.client.info()).rootless

    async def inspect(self, container: str) -> Mapping[str, Any] | None:
        """By id or name; None where there is none."""
        try:
            found: Mapping[str, Any] = await self.client.call("GET", f"/containers/{container}/json")
        except EngineError as exc:
            if exc.status == 404:
                return None
            raise
        return found

    async def listed(self, uuid: str = "") -> list[Listed]:
        """Ours, running or not; ``uuid``: of this instance."""
        labels = [f"{STATE}={self.state}", *([f"{INSTANCE}={uuid}"] if uuid else [])]
        found: list[Listed] = await self.client.call(
            "GET", "/containers/json", query={"all": 1, "filters": {"label": labels}}
        )
        return [each for each in found if {f"{name}={value}" for name, value in each["Labels"].items()} >= {*labels}]

    async def kept_paths(self, image: str) -> tuple[str, ...]:
        """Folders that an image wants to outlive its containers; asked once for each."""
        task = self._images.get(image)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            if len(self._images) >= _IMAGES_KEPT:
                self._images.pop(next(iter(self._images)))
            task = asyncio.get_running_loop().create_task(self._look_at(image), name=f"image {image}")
            self._images[image] = task
        return await asyncio.shield(task)

    async def _look_at(self, image: str) -> tuple[str, ...]:
        config = (await self.client.call("GET", f"/images/{image}/json")).get("Config") or {}
        return tuple(config.get("Volumes") or ())

    # ----------------------------------------------------------------------- removing

    async def remove(self, container: str, *, drain: bool = True) -> None:
        """Remove it, running or not, once all that it said is in our log; its volumes stay. One that is not there is no
        error. It is done once, however many ask at the same time, and to the end, also if they are cancelled."""
        task = self._removals.get(container)
        if task is None:
            work = self._remove(container, drain=drain)
            task = asyncio.get_running_loop().create_task(work, name=f"remove {container[:12]}")
            self._removals[container] = task
            task.add_done_callback(lambda done: self._removed(container, done))
        await asyncio.shield(task)

    def _removed(self, container: str, task: asyncio.Task[None]) -> None:
        self._removals.pop(container, None)
        if not task.cancelled():
            task.exception()  # told to those who wait; maybe nobody does any more

    async def _remove(self, container: str, *, drain: bool) -> None:
        if drain and self.watch.is_alive(container):
            await self._kill(container)
        if drain:
            await self.followers.drained(container, DRAIN_SECONDS)
        await self.followers.leave(container)
        try:
            await self.client.call("DELETE", f"/containers/{container}", query={"force": 1, "v": 0})
        except EngineError as exc:
            if exc.status != 404 and "already in progress" not in exc.message:
                raise
        self._leftovers.discard(container)
        self.memory.drop(container)
        self.followers.forget(container)

    async def _kill(self, container: str) -> None:
        """End it in a way that leaves its last words readable."""
        with suppress(EngineError, TimeoutError):
            await self.client.call("POST", f"/containers/{container}/kill", query={"signal": "SIGKILL"})
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.watch.ended(container)

    async def remove_some_day(self, container: str) -> None:
        """Remove it now, or else as soon as the engine can be asked again."""
        try:
            await self.remove(container)
        except DeployCodeError as exc:
            self._leftovers.add(container)
            if self.watch.in_sync:
                self.told(f"container {container[:12]} could not be removed and is left for now: {exc.text}")

    async def remove_if_ended(self, container: str) -> None:
        """Remove it unless it runs."""
        try:
            await self.client.call("DELETE", f"/containers/{container}", query={"force": 0, "v": 0})
        except DeployCodeError:
            return  # it runs, it is gone, or the engine is away: whatever is to be done about it, others do
        self.followers.forget(container)

    def _returned(self, now: Mapping[str, Listed]) -> None:
        self.networks.forget()
        self.followers.keep_only(set(now))
        self._leftovers &= now.keys()
        for container in self._leftovers:
            self.spawn(self.remove_some_day(container), f"remove {container[:12]}")
        self._on_return()

    def is_leftover(self, container: str) -> bool:
        """Has it ended and been done with, and could not be removed so far?"""
        return container in self._leftovers

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Let go of everything; nothing is stopped."""
        self.watch.close()
        self.followers.close()
        self.networks.close()
        self.memory.close()
        for task in (*self._tasks, *self._images.values(), *self._removals.values()):
            task.cancel()
        self.spawn(self.client.close(), f"close {self.client.protects}")
