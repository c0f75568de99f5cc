"""Stops one instance for good, and says so; also what becomes of one that cannot be stopped."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from deploy_code.drivers.base import Running
from deploy_code.drivers.custom import CustomDriver
from deploy_code.errors import DeployCodeError, DriverError, title
from deploy_code.model import Phase

from . import endings
from .card import Card

STOP_SIGNAL, STOP_TIMEOUT = "stop_signal", "stop_timeout"  # kept in the row: the wanted entry is gone by then
RETRY_SECONDS = 2.0  # grows
RETRY_MAX_SECONDS = 60.0
ENGINE_SECONDS = 10.0  # a container runtime that is away for no longer is only late: most are back in five
FORGET_SECONDS = 10.0  # on top of its time-out, for a runtime that hangs, where somebody wants it forgotten


class Stopping:
    """What cannot be stopped is tried again until it can, or forgotten if somebody asks for that."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._forget = False
        self._hurried = asyncio.Event()
        self._asked_at = 0.0
        self._seconds = 0.0
        self._bound: asyncio.Timeout | None = None  # of the try that is under way

    def hurry(self, *, forget: bool) -> None:
        """If it could not be stopped so far, try again now. ``forget``: for the last time."""
        self._forget = self._forget or forget
        self._asked_at = time.monotonic()
        self._hurried.set()
        self._bind()

    async def stop(self, running: Running, timeout: float) -> None:
        """Returns once it is stopped or forgotten. ``timeout``: seconds for each try."""
        card = self._card
        how = {STOP_SIGNAL: card.policy.stop_signal, STOP_TIMEOUT: f"{timeout:g}"}
        known = {**card.instance.handler, **running.handler}
        card.set(phase=Phase.STOPPING, ready_at=0.0, handler={**known, **how})
        wait = RETRY_SECONDS
        self._asked_at, self._seconds = time.monotonic(), timeout
        while (why := await self._try(running, timeout)) is not None:
            if self._forget:
                await self._abandon(running, why)
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), min(wait, self._patience or wait))
                wait = RETRY_SECONDS / 2
            wait = min(2 * wait, RETRY_MAX_SECONDS)

    async def sweep_rest(self) -> None:
        """It ended long ago; its container may lie about, as a reboot leaves it, or a runtime that was away."""
        instance = self._card.instance
        rest = Running(uuid=instance.uuid, pid=0, start_time=0, boot_id=instance.boot_id, handler=instance.handler)
        with suppress(DeployCodeError):  # what runs against all expectation is found when its runtime is next back
            await self._card.driver.sweep(rest)

    async def _try(self, running: Running, timeout: float) -> str | None:
        """None once it is stopped, else why it is not."""
        self._hurried.clear()
        try:
            async with asyncio.timeout(None) as self._bound:
                self._bind()
                gently = await self._card.driver.stop(running, self._card.policy.stop_signal, timeout)
        except DeployCodeError as exc:
            return self._failed(exc)
        except TimeoutError:
            return self._failed(DriverError("its runtime does not answer", code="E014"))
        finally:
            self._bound = None
        self._card.happened("InstanceStopped", "stopped" if gently else self._how_it_was_killed(timeout))
        return None

    def _bind(self) -> None:
        """A runtime that hangs does not keep anybody from forgetting what it runs."""
        if self._bound is not None and self._forget and self._card.is_container:
            self._bound.reschedule(asyncio.get_running_loop().time() + self._seconds + FORGET_SECONDS)

    @property
    def _patience(self) -> float:
        """So long, in seconds, a container runtime may still take to come back."""
        left = self._asked_at + ENGINE_SECONDS - time.monotonic()
        return max(0.0, left) if self._card.is_container else 0.0

    def _failed(self, exc: DeployCodeError) -> str:
        """Say so, the same thing once; why it was."""
        why = self._card.clean(exc.text)
        if exc.code == "E014":  # nobody can be asked: whoever waits for it must know too
            phase = Phase.STOPPING if self._patience else Phase.UNKNOWN
            note = f"{title(exc.code)}: {why}"
        else:
            phase, note = Phase.STOPPING, f"{endings.NOT_STOPPED}: {why}"
        is_news = note != self._card.instance.note
        self._card.set(phase=phase, note=note)
        if is_news:
            self._card.happened("StopFailed", note)
        return why

    def _how_it_was_killed(self, timeout: float) -> str:
        if not self._card.is_custom:
            return f"killed: it did not stop within {timeout:g} s"
        return f"its stop() did not return within {timeout:g} s; those of its processes that are known were killed"

    async def _abandon(self, running: Running, why: str) -> None:
        """It is not kept any more, whatever of it goes on."""
        driver, left = self._card.driver, "Processes of it that were killed: 0"
        if isinstance(driver, CustomDriver):
            left = f"Processes of it that were killed: {await driver.abandon(running)}"
        elif self._card.is_container:
            left = "Its container, if it is there, is removed when its runtime is back"
        self._card.note(note=f"forgotten, as it {endings.NOT_STOPPED}: {why}")
        self._card.happened("InstanceForgotten", f"{self._card.instance.note} {left}")
