"""Every host of custom services that is connected: who comes, who goes, who hangs, and who holds which object."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from deploy_code.codec import from_data
from deploy_code.errors import AgentError, DriverError
from deploy_code.wire import PROTOCOL, Offer

from .links import Asker, HostLostError, Link, ended, kill

log = logging.getLogger("deploy_code.agent")

PING_SECONDS = 3.0
HANG_SECONDS = 10.0  # a host that does not answer a ping for so long hangs
IDLE_SECONDS = 2.0  # a program that holds nothing is kept for so long


class Roster:
    """All hosts of one agent.

    ``on_arrival`` hears of each offer, also of one that failed; ``on_loss`` of a host that went without being let go.
    ``on_silence`` hears of a process that registered types in code when it hangs, ``on_voice`` when it answers again.
    """

    def __init__(self) -> None:
        self.on_arrival: Callable[[Link], None] = lambda link: None
        self.on_loss: Callable[[Link], None] = lambda link: None
        self.on_silence: Callable[[Link], None] = lambda link: None
        self.on_voice: Callable[[Link], None] = lambda link: None
        self._links: list[Link] = []
        self._came: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def close(self) -> None:
        """Watch nobody any more; hosts go on, and find the next agent."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    # -- who is there

    def __contains__(self, link: Link) -> bool:
        return link in self._links

    def holder_of(self, uuid: str) -> Link | None:
        """The host that has the object of this instance."""
        return next((each for each in reversed(self._links) if uuid in each.holds), None)

    def program(self, key: str) -> Link | None:
        """The program of this key."""
        return next((each for each in reversed(self._links) if each.offer.key == key), None)

    def registrars(self, service_type: str) -> list[Link]:
        """The processes that registered this type in code, the last one last."""
        return [each for each in self._links if service_type in each.offer.types]

    def has(self, holder: str) -> bool:
        """Is this very process connected?"""
        return any(each.holder == holder for each in self._links)

    def coming(self) -> asyncio.Future[None]:
        """Done when the next host comes."""
        if self._came is None or self._came.done():
            self._came = asyncio.get_running_loop().create_future()
        return self._came

    # -- who comes and goes

    def offered(self, connection: Asker, data: Any) -> Link | None:
        """A host says what it runs; None for one that cannot run anything. Raises AgentError for one too foreign."""
        offer = from_data(Offer, data)
        if offer.protocol != PROTOCOL:
            raise AgentError(f"a host speaks version {offer.protocol} of the protocol, this agent version {PROTOCOL}")
        if not connection.is_open:
            return None  # it has gone again already
        link = self._of(connection) or self._enter(Link(connection, offer))
        link.offer = offer
        self.on_arrival(link)
        if self._came is not None and not self._came.done():
            self._came.set_result(None)
        return None if offer.failed else link

    def gone(self, connection: Asker) -> None:
        """A connection ended."""
        link = self._of(connection)
        if link is not None:
            self._links.remove(link)
            if not self._closed:
                self.on_loss(link)

    def _of(self, connection: Asker) -> Link | None:
        return next((each for each in self._links if each.connection is connection), None)

    def _enter(self, link: Link) -> Link:
        if not link.offer.failed:
            self._links.append(link)
            self.spawn(self._watch(link), f"watch host {link.pid}")
            self._release_later(link)
        return link

    # -- what it holds

    def drop(self, link: Link, uuid: str) -> None:
        """It has this object no longer."""
        link.holds.discard(uuid)
        self._release_later(link)

    def _release_later(self, link: Link) -> None:
        if link.is_program and not link.holds:
            asyncio.get_running_loop().call_later(IDLE_SECONDS, self._release_if_idle, link)

    def _release_if_idle(self, link: Link) -> None:
        """A program that holds nothing ends when its connection does."""
        if link in self._links and not link.holds and not self._closed:
            self._links.remove(link)
            link.connection.close()

    # -- who hangs

    async def _watch(self, link: Link) -> None:
        """Ping it for as long as it lives: one that hangs is noticed whatever it was asked.

        Its end is watched too: what it forked may hold the connection open after it.
        """
        end = asyncio.ensure_future(ended(link.pid))
        try:
            while link in self._links and not end.done():
                await asyncio.wait({end}, timeout=PING_SECONDS)
                await self._ping(link, end)
        except HostLostError:
            return
        finally:
            end.cancel()
        if link in self._links:
            link.connection.abort()

    async def _ping(self, link: Link, end: asyncio.Future[None]) -> None:
        ping = asyncio.ensure_future(link.ask("ping"))
        either: set[asyncio.Future[Any]] = {ping, end}
        try:
            done, _ = await asyncio.wait(either, timeout=HANG_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                await self._hangs(link, either)
            if ping.done():
                with suppress(DriverError):  # whatever it says, it answers
                    ping.result()
        finally:
            ping.cancel()

    async def _hangs(self, link: Link, until: set[asyncio.Future[Any]]) -> None:
        if link.is_program:
            log.warning("the host with pid %d has not answered for %g s: killed", link.pid, HANG_SECONDS)
            await kill(link.holder)
            return
        self.on_silence(link)
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
        self.on_voice(link)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do this beside everything else, until ``close``."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
