"""Starts one instance: its row first, then what runs of it, then the watch over that.

What can be started at once is; what takes a while is bounded and told meanwhile. Whoever breaks a start off still finds
on the card what has come of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time

from deploy_code.drivers.base import Driver, Running, SlowDriver, StartOrder
from deploy_code.drivers.custom import CustomDriver
from deploy_code.errors import DeployCodeError, DriverError, title
from deploy_code.model import Gate, Phase

from . import endings
from .card import Card
from .launch import Launch
from .readiness import Readiness
from .ulimit import limit_open_files

ENGINE_SECONDS = 30.0  # a container runtime that is away is waited for so long
PATIENT_SHARE = 0.8  # but not so long that the gate, which says less, is over before
FOR_EVER = 365 * 86_400.0
START_GRACE_SECONDS = 5.0  # in a deployment its gate is the judge, and comes first


class Starting:
    """Of one instance. ``doubtful``: a start that failed, and that something may have come of all the same."""

    def __init__(self, card: Card, readiness: Readiness) -> None:
        self.doubtful: Running | None = None
        self._card = card
        self._readiness = readiness

    async def start(self, *, other_ports: bool) -> None:
        """Start it, unless it is a one-shot that has completed before. Raises DeployCodeError when it cannot be.

        ``other_ports``: not with those that it had. Whoever cancels this finds ``Card.running`` telling the truth.
        """
        site = self._card.site
        self._prepare_row(other_ports=other_ports)
        launch = site.launcher.launch(self._card.entry.wanted, self._card.instance)
        self._card.note(handler={})
        if await self._record():
            site.launcher.make_directories(launch)
            await self._spawn(launch)

    # -- its row

    def _prepare_row(self, *, other_ports: bool) -> None:
        card, site = self._card, self._card.site
        path = site.launcher.folders.log_path(card.instance)
        numbers = site.addresses.assign(card.entry, card.instance, anew=other_ports)
        card.note(
            phase=Phase.STARTING,
            pid=0,
            start_time=0,
            boot_id=site.boot_id,
            ports=numbers.bound,
            published=numbers.published,
            log_path=path,
            log_offset=site.launcher.begin_log(path),
            ready_at=0.0,
            next_start_at=0.0,
        )

    async def _record(self) -> bool:
        """Commit the row; False for a one-shot that has completed before."""
        records = self._card.site.records
        if not self._card.is_one_shot:
            await records.commit(self._card.instance)
            return True
        if await records.begin_one_shot(self._card.instance, self._card.content):
            return True
        self._card.set(phase=Phase.COMPLETED, gate=Gate.OPEN, note="completed before")
        return False

    # -- what runs of it, by the kind of its driver

    async def _spawn(self, launch: Launch) -> None:
        self._card.note(started_at=time.time())
        driver = self._card.driver
        if isinstance(driver, CustomDriver):
            await self._have_started(driver, launch)
        elif isinstance(driver, SlowDriver):
            await self._have_made(driver, launch)
        else:
            await self._start_at_once(driver, launch)

    async def _start_at_once(self, driver: Driver, launch: Launch) -> None:
        """Who cancels this waits for the end of the start: it is near."""
        order = asyncio.ensure_future(driver.start(launch.order))
        try:
            running = self._card.running = await asyncio.shield(order)
        except asyncio.CancelledError:
            self._card.running = await order
            raise
        limit_open_files(running.pid, self._card.site.open_files)
        self._started(running, launch)

    async def _have_started(self, driver: CustomDriver, launch: Launch) -> None:
        """This start may take long, so it is told, and who cancels it does not wait for its end."""
        card = self._card
        card.set(note="in its start()")
        bound = card.entry.start_timeout + START_GRACE_SECONDS
        try:
            async with asyncio.timeout(bound):
                running = card.running = await driver.start(launch.order)
        except TimeoutError as exc:
            await self._break_off(driver.begun(launch.order))
            raise DriverError(f"its start() did not return within {bound:g} s", code="E008") from exc
        except asyncio.CancelledError:
            card.running = driver.begun(launch.order)
            raise
        card.note(note="")
        self._started(running, launch)
        await card.site.records.commit_or_save(card.instance)  # what it remembers exists nowhere else

    async def _break_off(self, running: Running) -> None:
        """Have a start that takes too long broken off and cleaned up after. Whoever cancels this leaves it to stop."""
        self._card.running = running
        try:
            await self._card.driver.stop(running, "", self._card.policy.stop_timeout_seconds)
        except DeployCodeError as exc:
            self._card.happened("StopFailed", exc.text)
        self._card.running = None

    async def _have_made(self, driver: SlowDriver, launch: Launch) -> None:
        """Making one takes a while: who cancels this leaves what came of it to be stopped."""
        card = self._card
        card.set(note="its container is being made")
        try:
            running = card.running = await self._made(driver, launch.order)
        except asyncio.CancelledError:
            card.running = driver.begun(launch.order)
            raise
        except DriverError as exc:
            if exc.code == "E014":
                self.doubtful = driver.begun(launch.order)
            raise
        self.doubtful = None
        card.note(note="", started_at=time.time())
        self._started(running, launch)

    async def _made(self, driver: SlowDriver, order: StartOrder) -> Running:
        """Its runtime may be away. Once no deployment waits for it, it is no fault of its own, and no end that counts:
        it starts as soon as the runtime is back."""
        patience = min(ENGINE_SECONDS, PATIENT_SHARE * self._card.entry.start_timeout)
        try:
            return await driver.start(dataclasses.replace(order, patience=patience))
        except DriverError as exc:
            if exc.code != "E014" or not exc.retryable or not self._card.entry.settled:
                raise
            note = self._card.clean(f"{title(exc.code)}: {exc.text}")
        self._card.set(note=note)
        self._card.happened("InstanceStartFailed", f"{note}. It is started once its runtime is back")
        return await driver.start(dataclasses.replace(order, patience=FOR_EVER))

    # -- it runs

    def _started(self, running: Running, launch: Launch) -> None:
        card = self._card
        card.set(
            pid=running.pid,
            start_time=running.start_time,
            handler=running.handler,
            address=running.address,
            ports=running.ports or card.instance.ports,
            published=running.published or card.instance.published,
            probe=None,
        )
        ports = endings.on_ports(card.instance.ports, running.address)
        pid = f", pid {running.pid}" if running.pid else ""
        card.happened("InstanceStarted", f"started{pid}{ports}")
        if not card.is_one_shot:
            self._readiness.begin(running, launch)
