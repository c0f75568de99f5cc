"""Processes that registered types in code: which of them may have an object, and for how long one is waited for."""

from __future__ import annotations

import asyncio
import time

from deploy_code.drivers.custom import CustomOrder
from deploy_code.errors import DriverError

from .links import Link, ended, is_alive, pid_of
from .program import RETURN_SECONDS
from .roster import Roster


class Registrars:
    """Finds one for an object. While the process that holds it lives, no other gets it, connected or not."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._began = time.monotonic()

    async def reach(self, order: CustomOrder, holder: str) -> Link:
        """One that may have the object, whose ``holder`` is known ("": it has none). Raises DriverError E014."""
        patience = self._until_old if not holder or order.clean else RETURN_SECONDS * is_alive(holder)
        deadline = time.monotonic() + patience
        while True:
            held = self._roster.holder_of(order.uuid)
            found = [] if order.clean and not held and self._until_old else self.may_hold(order, holder)
            if found:  # before: whoever was starting it may still be on its way to us
                return held or found[-1]
            left = deadline - time.monotonic()
            if left <= 0:
                raise nobody(order, holder)
            await asyncio.wait({self._roster.coming()}, timeout=left)

    def may_hold(self, order: CustomOrder, holder: str) -> list[Link]:
        """Those that registered the type; while ``holder`` lives, none but that one."""
        links = self._roster.registrars(order.service_type)
        return [each for each in links if each.holder == holder] if is_alive(holder) else links

    async def back_or_ended(self, link: Link) -> None:
        """Wait until this process, whose connection is lost, is connected again or has ended; not for long."""
        end = asyncio.ensure_future(ended(link.pid))
        try:
            async with asyncio.timeout(RETURN_SECONDS):
                while not end.done() and not self._roster.has(link.holder):
                    await asyncio.wait({end, self._roster.coming()}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return
        finally:
            end.cancel()

    @property
    def _until_old(self) -> float:
        """For how long yet hosts of the former agent may be on their way to this one, in seconds."""
        return max(0.0, self._began + RETURN_SECONDS - time.monotonic())


def nobody(order: CustomOrder, holder: str) -> DriverError:
    """No such process is there."""
    if not holder:
        what = f'service_type "{order.service_type}" is registered in code, and no process that did so is there'
    else:
        how = "does not answer" if is_alive(holder) else "has ended"
        what = f'service_type "{order.service_type}" was registered in process {pid_of(holder)}, which {how}'
    return DriverError(
        what,
        code="E014",
        meaning="Nobody can start, stop or ask it",
        remedy="Run the program that registers it, or name the type under `plugins:`",
        retryable=True,
    )
