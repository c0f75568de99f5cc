"""What hosts of custom services ask of their agent (``hosts.HostSite``), and how it looks at what they hold."""

from __future__ import annotations

import asyncio

from deploy_code.drivers.custom import CustomOrder
from deploy_code.errors import DriverError

from .instance import Supervisor
from .keeper import Keeper

LOOK_SECONDS = 4.0  # a first look at custom services may take so long; it includes the start of their hosts


class CustomSite:
    """The custom ones among the instances of ``keeper``."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._looks: set[asyncio.Future[None]] = set()

    # -- what hosts ask for

    def order_of(self, uuid: str) -> CustomOrder:
        """How an object of this instance is made. Raises DriverError for what is not kept."""
        supervisor = self._keeper.supervisor(uuid)
        if supervisor is not None:
            launcher = self._keeper.launcher
            order = launcher.launch(supervisor.entry.wanted, supervisor.instance, lenient=True).order
            if isinstance(order, CustomOrder):
                return order
        raise DriverError(f"no custom service has the instance {uuid}")

    def handler_moved(self, uuid: str, holder: str) -> None:
        """Another host holds it now."""
        if supervisor := self._keeper.supervisor(uuid):
            supervisor.moved(holder)

    def handler_lost(self, uuid: str, note: str) -> None:
        """Nobody can be asked about it any more."""
        if supervisor := self._keeper.supervisor(uuid):
            supervisor.unknown(note)

    def ask_again(self, uuid: str) -> None:
        """Its host went away, or can be asked again: ask now, not at the next interval."""
        if supervisor := self._keeper.supervisor(uuid):
            supervisor.known_again()
            self._keeper.prober.probe_now(uuid)

    # -- looking at them

    async def handlers_came(self, types: tuple[str, ...]) -> None:
        """A process that registered these types is there: what runs of them is asked, for a bounded time."""
        concerned = [
            each
            for each in self._keeper.supervisors()
            if not each.entry.wanted.content.handler and each.entry.wanted.content.service_type in types
        ]
        for supervisor in concerned:
            if supervisor.running is None:
                supervisor.known_again()
        await self._look_at(concerned)

    async def look_at_all(self) -> None:
        """Ask all custom services how they are, for a bounded time, so that what is shown first is true."""
        is_custom = self._keeper.drivers.is_custom
        await self._look_at([s for s in self._keeper.supervisors() if is_custom(s.entry.wanted.content)])

    async def _look_at(self, supervisors: list[Supervisor]) -> None:
        looks = {asyncio.ensure_future(each.look(LOOK_SECONDS)) for each in supervisors}
        for look in looks:
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        if looks:
            await asyncio.wait(looks, timeout=LOOK_SECONDS)  # one that takes longer goes on
