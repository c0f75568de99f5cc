"""The way to the objects of custom services: which host has each, and what it is asked (``drivers.custom.Hosts``).

An object is with one host at a time. While the process that holds it lives, no other host gets it, connected or not; so
nothing is ever run twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress
from dataclasses import fields
from typing import Any, Protocol

from deploy_code.codec import from_data, to_data
from deploy_code.drivers.base import Running
from deploy_code.drivers.custom import HOLDER, Begun, CustomOrder, memory_of
from deploy_code.errors import DeployCodeError, DriverError
from deploy_code.reliability.registry import Breakers
from deploy_code.services.handler import InstanceConfig
from deploy_code.wire import Started

from .links import Asker, HostLostError, Link
from .programs import Programs
from .registrars import Registrars, nobody
from .roster import HANG_SECONDS, Roster

log = logging.getLogger("deploy_code.agent")

ANSWER_SECONDS = 1.0  # how much longer than the host's own bound an answer may take
CLEAN_UP_SECONDS = 10.0
LEAST_STOP_SECONDS = 1.0  # nobody stops anything in no time


class HostSite(Protocol):
    """What hosts need of their agent."""

    def order_of(self, uuid: str) -> CustomOrder:
        """How an object of this instance is made. Raises DriverError for what is not kept."""
        ...

    def handler_moved(self, uuid: str, holder: str) -> None:
        """Another host holds it now."""
        ...

    def handler_lost(self, uuid: str, note: str) -> None:
        """Nobody can be asked about it any more."""
        ...

    def ask_again(self, uuid: str) -> None:
        """Its host went away, or can be asked again: ask now, not at the next interval."""
        ...


class Hosts:
    """All hosts of one agent. Set ``site`` before anything is asked.

    ``open_files``: the soft limit that programs begin with; the agent's own is higher.
    """

    site: HostSite

    def __init__(self, state: str, breakers: Breakers, open_files: int = 1024) -> None:
        self._roster = Roster()
        self._programs = Programs(state, breakers, self._roster, open_files)
        self._registrars = Registrars(self._roster)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._roster.on_arrival = self._programs.arrived
        self._roster.on_loss = self._lost
        self._roster.on_silence = self._silent
        self._roster.on_voice = self._ask_again

    # -- what the agent tells

    def look_in(self, python_path: str) -> None:
        """Where whoever deploys has Python look for modules."""
        self._programs.look_in(python_path)

    def try_now(self) -> None:
        """Somebody wants something."""
        self._programs.try_now()

    def offered(self, connection: Asker, data: Any) -> Link | None:
        """A host says what it runs; None for one that cannot run anything. Raises AgentError for one too foreign."""
        return self._roster.offered(connection, data)

    def gone(self, connection: Asker) -> None:
        """A connection ended; if it was a host's, what it held is seen to."""
        self._roster.gone(connection)

    def close(self) -> None:
        """Wait for nothing any more; hosts go on, and find the next agent."""
        self._programs.close()
        self._roster.close()

    # -- what becomes of the objects of a host that is lost or hangs

    def _lost(self, link: Link) -> None:
        self._programs.lost(link)
        if link.holds:
            self._roster.spawn(self._bereave(link), f"after the loss of host {link.pid}")

    async def _bereave(self, link: Link) -> None:
        """Its objects are asked for again: of a program at once, of a process that may yet come back a little later."""
        if not link.is_program:
            await self._registrars.back_or_ended(link)
        for uuid, order in self._known(link):
            if order.handler or self._registrars.may_hold(order, link.holder):
                self.site.ask_again(uuid)
            else:
                self.site.handler_lost(uuid, nobody(order, link.holder).message)

    def _silent(self, link: Link) -> None:
        for uuid, order in self._known(link):
            self.site.handler_lost(uuid, nobody(order, link.holder).message)

    def _ask_again(self, link: Link) -> None:
        for uuid in tuple(link.holds):
            self.site.ask_again(uuid)

    def _known(self, link: Link) -> list[tuple[str, CustomOrder]]:
        """The instances that it holds and that are still kept."""
        known = []
        for uuid in link.holds:
            try:
                known.append((uuid, self.site.order_of(uuid)))
            except DriverError:
                continue
        return known

    # -- drivers.custom.Hosts

    async def start(self, order: CustomOrder) -> Begun:
        """Start it, once: a host that has it, or is starting it, takes this for the same start."""
        async with self._locks[order.uuid]:
            link = await self._link_for(order, "")
            link.holds.add(order.uuid)
            try:
                answer = await link.ask("start", config=_config(order), clean=order.clean)
            except HostLostError as exc:
                await self._clean_up_elsewhere(order)
                raise DriverError(f"{_named(order)}: process {link.pid} ended while it ran start()") from exc
            except DriverError:
                self._roster.drop(link, order.uuid)
                raise
            started = from_data(Started, answer)
            return Begun(memory=started.memory, checked=started.checked, holder=link.holder)

    async def _clean_up_elsewhere(self, order: CustomOrder) -> None:
        """The host died in the middle of a start: whatever it had begun is stopped by another."""
        try:
            async with asyncio.timeout(2 * CLEAN_UP_SECONDS):
                link = await self._link_for(order, "")
                await self._make_anew(link, order, {})
                await self._stop_for_good(link, order.uuid)
        except (DeployCodeError, HostLostError, TimeoutError) as exc:
            log.warning("%s: nobody could clean up after its start: %s", _named(order), exc)

    async def reach(self, running: Running) -> None:
        """Make sure that somebody holds it, made anew if need be."""
        await self._resumed(running)

    async def health(self, running: Running, timeout: float) -> str:
        """The word its health check answers. What its host lost is made anew first."""
        try:
            async with asyncio.timeout(timeout + ANSWER_SECONDS):
                answer = await self._asked(running, "health", timeout)
        except TimeoutError as exc:
            order = self.site.order_of(running.uuid)
            raise DriverError(
                f"{_named(order)}: its host did not answer health_check() within {timeout:g} s", code="E008"
            ) from exc
        return str(answer["status"])

    async def stop(self, running: Running, timeout: float) -> bool:
        """Stop it; a host that dies meanwhile is replaced, and the next one is asked the same."""
        timeout = max(timeout, LEAST_STOP_SECONDS)
        try:
            async with asyncio.timeout(timeout + 2 * CLEAN_UP_SECONDS + HANG_SECONDS):
                answer = await self._asked(running, "stop", timeout)
        except TimeoutError as exc:
            order = self.site.order_of(running.uuid)
            raise DriverError(
                f"{_named(order)}: its host did not answer, and it could not be stopped", code="E008"
            ) from exc
        self._let_go(running.uuid)
        return bool(answer["gently"])

    async def clean_up(self, running: Running) -> bool:
        """Have an ended one stopped, where somebody still holds it; False where that went wrong."""
        link = self._roster.holder_of(running.uuid)
        if link is None:
            return True
        try:
            async with asyncio.timeout(2 * CLEAN_UP_SECONDS):
                return await self._stop_for_good(link, running.uuid)
        except (DriverError, HostLostError, TimeoutError) as exc:
            log.warning("%s: it could not clean up after itself: %s", running.uuid, exc)
            return False

    async def abandon(self, running: Running) -> None:
        """Whoever holds it lets go of it; nothing of it is called."""
        if link := self._roster.holder_of(running.uuid):
            with suppress(DriverError, HostLostError, TimeoutError):  # then it will not come back to us with it
                async with asyncio.timeout(ANSWER_SECONDS):
                    await link.ask("forget", uuid=running.uuid)
            self._roster.drop(link, running.uuid)

    def holder_pid(self, uuid: str) -> int:
        """pid of the host that has it; 0 where none does."""
        link = self._roster.holder_of(uuid)
        return link.pid if link is not None else 0

    def forget(self, uuid: str) -> None:
        """The instance is no more."""
        self._let_go(uuid)
        self._locks.pop(uuid, None)

    # -- the way to an object

    async def _asked(self, running: Running, do: str, timeout: float) -> dict[str, Any]:
        """The answer of whoever has the object; another host gets it and is asked when that one dies."""
        while True:
            link = await self._resumed(running)
            try:
                answer = await link.ask(do, uuid=running.uuid, timeout=timeout)
            except HostLostError:
                continue
            if answer:
                return answer
            self._roster.drop(link, running.uuid)  # it could not be made there: nobody waited for that answer

    async def _resumed(self, running: Running) -> Link:
        """The host that has the object; where nobody has, it is made anew with what it remembered."""
        order = self.site.order_of(running.uuid)
        async with self._locks[running.uuid]:
            while True:
                link = await self._link_for(order, running.handler.get(HOLDER, ""))
                if running.uuid in link.holds:
                    return link
                try:
                    await self._make_anew(link, order, memory_of(running))
                except HostLostError:
                    continue
                if link.holder != running.handler.get(HOLDER):
                    self.site.handler_moved(running.uuid, link.holder)
                return link

    async def _link_for(self, order: CustomOrder, holder: str) -> Link:
        """The host that has it, or else is to have it. Raises DriverError E005, E014, E018."""
        while True:
            if held := self._roster.holder_of(order.uuid):
                return held
            by_program = bool(order.handler)
            link = await (self._programs.reach(order) if by_program else self._registrars.reach(order, holder))
            if link in self._roster:
                return link

    async def _make_anew(self, link: Link, order: CustomOrder, memory: dict[str, str]) -> None:
        """Raises DriverError when its class cannot be made, HostLostError."""
        link.holds.add(order.uuid)
        try:
            await link.ask("resume", config=_config(order), memory=memory)
        except (DriverError, HostLostError):
            self._roster.drop(link, order.uuid)
            raise

    async def _stop_for_good(self, link: Link, uuid: str) -> bool:
        """The host has it no longer after that, stopped or not."""
        try:
            answer = await link.ask("stop", uuid=uuid, timeout=CLEAN_UP_SECONDS, last=True)
            return bool(answer.get("gently", True))
        finally:
            self._roster.drop(link, uuid)

    def _let_go(self, uuid: str) -> None:
        if link := self._roster.holder_of(uuid):
            self._roster.drop(link, uuid)


def _named(order: CustomOrder) -> str:
    where = order.handler or "registered in code"
    return f'service_type "{order.service_type}" ({where})'


def _config(order: CustomOrder) -> Any:
    """An ``InstanceConfig`` as data."""
    return to_data(InstanceConfig(**{each.name: getattr(order, each.name) for each in fields(InstanceConfig)}))
