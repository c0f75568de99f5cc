"""Stops one instance for good, and says so; also what becomes of one that cannot be stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from deploy_code.drivers.base import Running
from deploy_code.drivers.custom import CustomDriver
from deploy_code.errors import DeployCodeError, title
from deploy_code.model import Phase

from . import endings
from .card import Card

RETRY_SECONDS = 2.0  # grows
RETRY_MAX_SECONDS = 60.0


class Stopping:
    """What cannot be stopped is tried again until it can, or forgotten if somebody asks for that."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._forget = False
        self._hurried = asyncio.Event()

    def hurry(self, *, forget: bool) -> None:
        """If it could not be stopped so far, try again now. ``forget``: for the last time."""
        self._forget = self._forget or forget
        self._hurried.set()

    async def stop(self, running: Running, timeout: float) -> None:
        """Returns once it is stopped or forgotten. ``timeout``: seconds for each try."""
        wait = RETRY_SECONDS
        while (why := await self._try(running, timeout)) is not None:
            if self._forget:
                await self._abandon(running, why)
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), wait)
                wait = RETRY_SECONDS / 2
            wait = min(2 * wait, RETRY_MAX_SECONDS)

    async def _try(self, running: Running, timeout: float) -> str | None:
        """None once it is stopped, else why it is not."""
        self._hurried.clear()
        try:
            gently = await self._card.driver.stop(running, self._card.policy.stop_signal, timeout)
        except DeployCodeError as exc:
            return self._failed(exc)
        self._card.happened("InstanceStopped", "stopped" if gently else self._how_it_was_killed(timeout))
        return None

    def _failed(self, exc: DeployCodeError) -> str:
        """Say so, the same thing once; why it was."""
        why = self._card.clean(exc.text)
        if exc.code == "E014" and self._card.is_custom:  # nobody can be asked: whoever waits for it must know too
            phase, note = Phase.UNKNOWN, f"{title(exc.code)}: {why}"
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
        driver, killed = self._card.driver, 0
        if isinstance(driver, CustomDriver):
            killed = await driver.abandon(running)
        self._card.note(note=f"forgotten, as it {endings.NOT_STOPPED}: {why}")
        self._card.happened(
            "InstanceForgotten", f"{self._card.instance.note} Processes of it that were killed: {killed}"
        )
