"""Keeps one instance as it is wanted, from its row to its removal: start, watch, restart, stop.

One task per instance. What is known of it is on its card, whether it is ready is its readiness; here is what is done.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any

from deploy_code.drivers.base import Running, SlowDriver, StartOrder
from deploy_code.drivers.custom import HOLDER, CustomDriver
from deploy_code.drivers.engine.order import CONTAINER
from deploy_code.errors import DeployCodeError, DriverError, StateError, title
from deploy_code.model import Exit, Gate, Instance, Phase

from . import endings
from .card import Card
from .circuit import LoopCircuit
from .journal import label
from .launch import Launch
from .ports import chosen_freely
from .prober import Judgement
from .readiness import Readiness
from .restart import Decision, RestartBook, counts_as_success
from .site import Site
from .stopping import Stopping
from .ulimit import limit_open_files
from .wanted import Entry

PORT_TRIES = 3
ENGINE_SECONDS = 30.0  # a container runtime that is away is waited for so long
PATIENT_SHARE = 0.8  # but not so long that the gate, which says less, is over before
FOR_EVER = 365 * 86_400.0
START_GRACE_SECONDS = 5.0  # in a deployment its gate is the judge, and comes first
STOP_SIGNAL, STOP_TIMEOUT = "stop_signal", "stop_timeout"  # kept in the row: the wanted entry is gone by then
WAITS_AFTER_REBOOT = "waits for its dependencies after a reboot"
_ENDED = (Phase.EXITED, Phase.FAILED, Phase.BACKOFF)


class Supervisor:
    """One instance and the task that keeps it. Call ``begin`` once; ``retire`` or ``let_go`` ends it.

    ``running``: what an adopted instance runs as. ``predecessors``: tasks that remove the instances in whose place this
    one comes; they are waited for. ``rebooted``: if it turns out to have ended, the machine's reboot was why.
    """

    def __init__(
        self,
        site: Site,
        entry: Entry,
        instance: Instance,
        *,
        running: Running | None = None,
        predecessors: Collection[asyncio.Task[None]] = (),
        rebooted: bool = False,
    ) -> None:
        self.retiring = False
        self.running = running
        self.task: asyncio.Task[None] | None = None
        self._site = site
        self._card = Card(site, entry, instance)
        self._readiness = Readiness(self._card)
        self._stopping = Stopping(self._card)
        self._predecessors = predecessors
        self._book = RestartBook(site.chance)
        self.circuit = LoopCircuit(self._card, self._book)
        self._woken = asyncio.Event()
        self._port_tries = 0
        self._rebooted = rebooted
        self._doubtful: Running | None = None  # a start that failed, and that something may have come of all the same

    @property
    def instance(self) -> Instance:
        return self._card.instance

    @property
    def entry(self) -> Entry:
        return self._card.entry

    # -- what the keeper calls

    def begin(self) -> None:
        self.task = self._start_task(self._keep(), "keep")

    def judged(self, judgement: Judgement) -> None:
        """The prober has something to say."""
        if not self.retiring:
            self._readiness.judged(judgement)
            self.circuit.watch()

    def settled(self) -> None:
        """The deployment is over: the restart policy holds from now on, also for what was never ready."""
        if self.retiring:
            return
        if self.instance.phase is Phase.EXITED and self.running is None and not self._card.is_one_shot:
            self._follow(ok=counts_as_success(self.instance.exit), ready_for=0.0, note=self.instance.note)
            self._woken.set()
        elif self.instance.gate is Gate.FAILED:
            self._readiness.consider_replacing()

    def renew(self, *, rerun: bool) -> None:
        """A newer deployment wants it: what has ended gets a new chance, a failed gate is tried again."""
        phase = self.instance.phase
        if phase in _ENDED or (phase is Phase.COMPLETED and rerun):
            self.circuit.close("circuit closed: a newer deployment wants it")
            self._port_tries = 0
            self._card.set(phase=Phase.STARTING, gate=Gate.WAITING, note="", next_start_at=0.0)
            self._woken.set()
        elif self.instance.gate is Gate.FAILED and self.running is not None:
            self._card.set(gate=Gate.WAITING, note="")
            self._readiness.again()

    def adjust(self, entry: Entry) -> None:
        """Its policy may have changed."""
        self._card.entry = entry
        self._readiness.adjust()

    def resume(self) -> None:
        """It was adopted alive: watch it."""
        if self.running is not None and not self._card.is_one_shot:
            self._readiness.begin(self.running)

    def unknown(self, note: str) -> None:
        """Nobody can be asked about it: neither probed nor restarted until somebody can."""
        if self.running is not None and not self.retiring and self.instance.phase is not Phase.UNKNOWN:
            self._readiness.forget()
            self._card.set(phase=Phase.UNKNOWN, ready_at=0.0, probe=None, note=note)
            self._card.happened("InstanceUnknown", note)

    def known_again(self) -> None:
        """Somebody can be asked about it: watch it, or start it if it only waits for its next start; or stop it."""
        if self.retiring:
            if self.instance.phase is Phase.UNKNOWN:
                self._card.set(phase=Phase.STOPPING, note="")
                self._stopping.hurry(forget=False)
            return
        phase = self.instance.phase
        if phase is Phase.UNKNOWN and self.running is not None:
            was_proven = self.instance.gate is Gate.OPEN
            self._card.set(phase=Phase.UNREADY if was_proven else Phase.STARTING, note="")
            self._readiness.begin(self.running)
        elif phase is Phase.BACKOFF:
            self._card.set(phase=Phase.STARTING, next_start_at=0.0)
            self._woken.set()

    async def look(self, timeout: float) -> None:
        """Ask a custom one once how it is; what nobody can be asked about is unknown."""
        driver, running = self._card.driver, self.running
        if running is None or not isinstance(driver, CustomDriver):
            return
        try:
            await driver.look(running, min(timeout, self._card.policy.health.timeout_seconds))
        except DeployCodeError as exc:
            if exc.code == "E014":
                self.unknown(self._card.clean(exc.message))
        else:
            self.known_again()

    def moved(self, holder: str) -> None:
        """Another host has its object now."""
        handler = {**self.instance.handler, HOLDER: holder}
        self._card.set(handler=handler)
        if self.running is not None:
            self.running = dataclasses.replace(self.running, handler={**self.running.handler, HOLDER: holder})

    def lost_a_process(self) -> None:
        """Its memory ran out, and not its leader was killed for it."""
        text = f"{endings.OUT_OF_MEMORY.format(limit=self._memory_mb)}; a process of it was killed, the others go on"
        self._card.happened("OutOfMemory", text)

    @property
    def _memory_mb(self) -> int:
        return self.entry.wanted.content.resources.memory_mb

    def retire(self, timeout: float | None) -> None:
        """Stop it for good and remove it. ``timeout`` replaces the policy's own; later calls change nothing."""
        if not self.retiring:
            self.retiring = True
            self.task = self._start_task(self._retire(self.task, timeout), "retire")

    def hurry(self, *, forget: bool) -> None:
        """It is being stopped: if that has failed so far, try again now. ``forget``: then let it be."""
        if self._card.is_container and self.instance.phase is Phase.UNKNOWN:
            self._card.set(phase=Phase.STOPPING, note="")
        self._stopping.hurry(forget=forget)

    def engine_returned(self) -> None:
        """The runtime of its container can be asked again."""
        if self.retiring:
            self.hurry(forget=False)
        elif self.running is not None:
            self._site.prober.probe_now(self.instance.uuid)

    async def let_go(self) -> None:
        """Stop watching; the instance itself is left as it is."""
        await self._readiness.let_go()
        self.circuit.forget()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    # -- the life of it

    async def _keep(self) -> None:
        if self._predecessors:
            await asyncio.wait(self._predecessors)
            self._predecessors = ()
        while True:
            if self.running is None:
                await self._until_due()
                await self._start()
            if self.running is not None:
                await self._watch(self.running)

    async def _until_due(self) -> None:
        while (phase := self.instance.phase) is not Phase.STARTING:
            if phase is Phase.WAITING:
                await self._site.dependencies_met(self._card.policy)
                self._card.set(phase=Phase.STARTING, note="")
            elif await self._until(self.instance.next_start_at):
                await self._come()

    async def _come(self) -> None:
        """It is time for the next start."""
        if self.instance.circuit:
            await self.circuit.turn()
        else:
            self._card.set(phase=Phase.STARTING, next_start_at=0.0)

    async def _until(self, at: float) -> bool:
        """Wait until it is time for the next start (0: for ever); False when somebody changed its phase before."""
        self._woken.clear()
        try:
            async with asyncio.timeout(max(0.0, at - time.time()) if at else None):
                await self._woken.wait()
        except TimeoutError:
            return True
        return False

    # -- start

    async def _start(self) -> None:
        try:
            self._prepare_row()
            launch = self._site.launcher.launch(self.entry.wanted, self.instance)
            self._card.note(handler={})
            if await self._record():
                self._site.launcher.make_directories(launch)
                await self._spawn(launch)
        except DeployCodeError as exc:
            await self._could_not_start(exc)

    def _prepare_row(self) -> None:
        site = self._site
        path = site.launcher.folders.log_path(self.instance)
        numbers = site.assign_ports(self.entry, self.instance, anew=self._port_tries > 0)
        self._card.note(
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
        records = self._site.records
        if not self._card.is_one_shot:
            await records.commit(self.instance)
            return True
        if await records.begin_one_shot(self.instance, self.entry.wanted.content):
            return True
        self._card.set(phase=Phase.COMPLETED, gate=Gate.OPEN, note="completed before")
        return False

    async def _spawn(self, launch: Launch) -> None:
        """Start it. Whoever cancels this still leaves ``running`` telling the truth."""
        self._card.note(started_at=time.time())
        driver = self._card.driver
        if isinstance(driver, CustomDriver):
            await self._have_started(driver, launch)
            return
        if isinstance(driver, SlowDriver):
            await self._have_made(driver, launch)
            return
        order = asyncio.ensure_future(driver.start(launch.order))
        try:
            self.running = await asyncio.shield(order)
        except asyncio.CancelledError:
            self.running = await order
            raise
        limit_open_files(self.running.pid, self._site.open_files)
        self._spawned(self.running, launch)

    async def _have_started(self, driver: CustomDriver, launch: Launch) -> None:
        """As ``_spawn``; this start may take long, so it is told, and who cancels it does not wait for its end."""
        self._card.set(note="in its start()")
        bound = self.entry.start_timeout + START_GRACE_SECONDS
        try:
            async with asyncio.timeout(bound):
                self.running = await driver.start(launch.order)
        except TimeoutError as exc:
            await self._break_off(driver.begun(launch.order))
            raise DriverError(f"its start() did not return within {bound:g} s", code="E008") from exc
        except asyncio.CancelledError:
            self.running = driver.begun(launch.order)
            raise
        self._card.note(note="")
        self._spawned(self.running, launch)
        await self._site.records.commit_or_save(self.instance)  # what it remembers exists nowhere else

    async def _have_made(self, driver: SlowDriver, launch: Launch) -> None:
        """As ``_spawn``, where making one takes a while: who cancels it leaves what came of it to be stopped."""
        self._card.set(note="its container is being made")
        try:
            self.running = await self._made(driver, launch.order)
        except asyncio.CancelledError:
            self.running = driver.begun(launch.order)
            raise
        except DriverError as exc:
            if exc.code == "E014":
                self._doubtful = driver.begun(launch.order)
            raise
        self._doubtful = None
        self._card.note(note="", started_at=time.time())
        self._spawned(self.running, launch)

    async def _made(self, driver: SlowDriver, order: StartOrder) -> Running:
        """Its runtime may be away. Once no deployment waits for it, it is no fault of its own, and no end that counts:
        it starts as soon as the runtime is back."""
        patience = min(ENGINE_SECONDS, PATIENT_SHARE * self.entry.start_timeout)
        try:
            return await driver.start(dataclasses.replace(order, patience=patience))
        except DriverError as exc:
            if exc.code != "E014" or not exc.retryable or not self.entry.settled:
                raise
            note = self._card.clean(f"{title(exc.code)}: {exc.text}")
        self._card.set(note=note)
        self._card.happened("InstanceStartFailed", f"{note}. It is started once its runtime is back")
        return await driver.start(dataclasses.replace(order, patience=FOR_EVER))

    async def _break_off(self, running: Running) -> None:
        """Have a start that takes too long broken off and cleaned up after. Whoever cancels this leaves it to stop."""
        self.running = running
        try:
            await self._card.driver.stop(running, "", self._card.policy.stop_timeout_seconds)
        except DeployCodeError as exc:
            self._card.happened("StopFailed", exc.text)
        self.running = None

    def _spawned(self, running: Running, launch: Launch) -> None:
        self._card.set(
            pid=running.pid,
            start_time=running.start_time,
            handler=running.handler,
            address=running.address,
            ports=running.ports or self.instance.ports,
            published=running.published or self.instance.published,
            probe=None,
        )
        ports = endings.on_ports(self.instance.ports, running.address)
        pid = f", pid {running.pid}" if running.pid else ""
        self._card.happened("InstanceStarted", f"started{pid}{ports}")
        if not self._card.is_one_shot:
            self._readiness.begin(running, launch)

    async def _could_not_start(self, exc: DeployCodeError) -> None:
        note = self._card.clean(f"{title(exc.code)}: {exc.text}")
        self._card.happened("InstanceStartFailed", note)
        if exc.code == "S004" and self._may_try_other_port():
            self._port_tries += 1
            self._card.set(phase=Phase.STARTING, note=note)
            return
        self._card.note(exit=None)
        if not self._card.is_one_shot:
            self._follow(ok=False, ready_for=0.0, note=note)
            return
        if not isinstance(exc, StateError):
            await self._record_outcome("failed", None)
        self._card.set(phase=Phase.FAILED, note=note)

    # -- end

    async def _watch(self, running: Running) -> None:
        exit_ = await self._card.driver.wait(running)
        self.circuit.forget()
        reason = await self._readiness.end()
        left = await self._card.driver.sweep(running)
        self.running = None
        if self._card.is_one_shot:
            await self._one_shot_ended(exit_)
        else:
            self._ended(exit_, left, reason)

    def _ended(self, exit_: Exit, left: int, reason: str) -> None:
        instance = self.instance
        how = endings.own_word(exit_) if self._card.is_custom else endings.note(exit_, left, self._memory_mb)
        note = self._card.clean(reason or how)
        self._card.happened("InstanceExited", note)
        if self._rebooted and not instance.ready_at:
            self._rebooted = False
            self._card.set(phase=Phase.WAITING, note=WAITS_AFTER_REBOOT)
            return
        if self._try_other_port(exit_):
            return
        ready_for = exit_.at - instance.ready_at if instance.ready_at else 0.0
        self._card.note(exit=exit_, ready_at=0.0)
        self._follow(ok=counts_as_success(exit_) and not reason and not left, ready_for=ready_for, note=note)

    def _try_other_port(self, exit_: Exit) -> bool:
        """It died of a port that somebody took in between; the number was ours to choose, so choose another."""
        if exit_.ok or not self._may_try_other_port():
            return False
        if not endings.died_of_port(self.entry.wanted, self.instance):
            return False
        self._port_tries += 1
        self._card.set(phase=Phase.STARTING, exit=exit_, restarts=self.instance.restarts + 1)
        self._card.happened("PortTaken", f"its port was taken: trying another ({self._port_tries} of {PORT_TRIES})")
        return True

    def _may_try_other_port(self) -> bool:
        wanted = self.entry.wanted
        tries_left = self.instance.gate is not Gate.OPEN and self._port_tries < PORT_TRIES
        return tries_left and chosen_freely(wanted.content, wanted.policy)

    def _follow(self, *, ok: bool, ready_for: float, note: str) -> None:
        """It is dead: what now?"""
        if self.instance.gate is not Gate.OPEN and not self.entry.settled:
            self._card.set(phase=Phase.EXITED, note=note)
            return
        follow = self._book.ended(self._card.policy.restart, now=time.time(), ok=ok, ready_for=ready_for)
        if follow.decision is Decision.CIRCUIT_OPEN:
            self.circuit.open(follow, note)
            return
        self.circuit.closed("circuit closed: it had proven itself" if follow.at else "circuit closed: it stays ended")
        if follow.decision is Decision.STAY:
            self._card.set(phase=Phase.EXITED, note=note)
        else:
            self._come_back(follow.at, note)

    def _come_back(self, at: float, note: str) -> None:
        self._card.set(phase=Phase.BACKOFF, note=note, next_start_at=at, restarts=self.instance.restarts + 1)
        self._card.happened("RestartScheduled", f"starts again in {at - time.time():.1f} s")

    async def _one_shot_ended(self, exit_: Exit) -> None:
        outcome = endings.outcome(exit_)
        await self._record_outcome(outcome, exit_)
        self._card.set(**endings.one_shot_end(exit_, self._memory_mb))
        self._card.happened("OneShotEnded", f"{outcome}: {exit_}")

    async def _record_outcome(self, outcome: str, exit_: Exit | None) -> None:
        content = self.entry.wanted.content
        try:
            await self._site.records.end_one_shot(self.instance.service, content, outcome, exit_)
        except StateError as exc:
            self._site.journal.trouble(f"{label(self.instance)}: its outcome could not be recorded: {exc}")

    # -- removal

    async def _retire(self, keeping: asyncio.Task[None] | None, timeout: float | None) -> None:
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        self._readiness.forget()
        self.circuit.forget()
        running = self.running or self._doubtful
        if running is not None:
            await self._stop(running, self._card.policy.stop_timeout_seconds if timeout is None else timeout)
        elif CONTAINER in self.instance.handler:
            await self._sweep_rest()
        await self._site.records.remove(self.instance.uuid)
        self._card.note(phase=Phase.GONE, ready_at=0.0)
        self._site.gone(self.instance)

    async def _sweep_rest(self) -> None:
        """It ended long ago; its container may lie about, as a reboot leaves it, or a runtime that was away."""
        instance = self.instance
        rest = Running(uuid=instance.uuid, pid=0, start_time=0, boot_id=instance.boot_id, handler=instance.handler)
        with suppress(DeployCodeError):  # what runs against all expectation is found when its runtime is next back
            await self._card.driver.sweep(rest)

    async def _stop(self, running: Running, timeout: float) -> None:
        how = {STOP_SIGNAL: self._card.policy.stop_signal, STOP_TIMEOUT: f"{timeout:g}"}
        known = {**self.instance.handler, **running.handler}
        self._card.set(phase=Phase.STOPPING, ready_at=0.0, handler={**known, **how})
        await self._stopping.stop(running, timeout)
        if self._card.is_one_shot:
            await self._record_outcome("failed", None)

    # -- tasks

    def _start_task(self, work: Coroutine[Any, Any, None], verb: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"{verb} {label(self.instance)}")
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A bug in one supervisor is said and harms no other."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._site.journal.trouble(f"{task.get_name()} failed: {error!r}")
        self._card.set(phase=Phase.FAILED, note=f"the agent failed on it: {error!r}")
        self.retiring = False  # whoever wants it gone may ask again
