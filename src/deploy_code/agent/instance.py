"""Keeps one instance as it is wanted, from its row to its removal: start, watch, restart, stop.

One task per instance. What is known of it is on its card, whether it is ready is its readiness; here is what is done.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Coroutine
from typing import Any

from deploy_code.drivers.base import Running
from deploy_code.errors import DeployCodeError, StateError, title
from deploy_code.model import Exit, Gate, Instance, Phase

from . import endings
from .card import Card
from .journal import label
from .launch import Launch
from .prober import Judgement
from .readiness import Readiness
from .restart import Decision, RestartBook, counts_as_success
from .site import Site
from .wanted import Entry

PORT_TRIES = 3
STOP_RETRY_SECONDS = 2.0
STOP_SIGNAL, STOP_TIMEOUT = "stop_signal", "stop_timeout"  # kept in the row: the wanted entry is gone by then
_ENDED = (Phase.EXITED, Phase.FAILED, Phase.BACKOFF)


class Supervisor:
    """One instance and the task that keeps it. Call ``begin`` once; ``retire`` or ``let_go`` ends it.

    ``running``: what an adopted instance runs as. ``predecessor``: the task that removes the instance in whose place
    this one comes; it is waited for.
    """

    def __init__(
        self,
        site: Site,
        entry: Entry,
        instance: Instance,
        *,
        running: Running | None = None,
        predecessor: asyncio.Task[None] | None = None,
    ) -> None:
        self.retiring = False
        self.running = running
        self.task: asyncio.Task[None] | None = None
        self._site = site
        self._card = Card(site, entry, instance)
        self._readiness = Readiness(self._card)
        self._predecessor = predecessor
        self._book = RestartBook(site.chance)
        self._woken = asyncio.Event()
        self._port_tries = 0
        if instance.phase is Phase.FAILED:
            self._book.opened()

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
            self._book.forgive()
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

    def retire(self, timeout: float | None) -> None:
        """Stop it for good and remove it. ``timeout`` replaces the policy's own; later calls change nothing."""
        if not self.retiring:
            self.retiring = True
            self.task = self._start_task(self._retire(self.task, timeout), "retire")

    async def let_go(self) -> None:
        """Stop watching; the instance itself is left as it is."""
        await self._readiness.let_go()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    # -- the life of it

    async def _keep(self) -> None:
        if self._predecessor is not None:
            await asyncio.wait([self._predecessor])
            self._predecessor = None
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
            else:
                await self._until(self.instance.next_start_at)

    async def _until(self, at: float) -> None:
        """Wait until it is time for the next start (0: for ever), or until somebody changes its phase."""
        self._woken.clear()
        try:
            async with asyncio.timeout(max(0.0, at - time.time()) if at else None):
                await self._woken.wait()
        except TimeoutError:
            self._card.set(phase=Phase.STARTING, next_start_at=0.0)

    # -- start

    async def _start(self) -> None:
        try:
            self._prepare_row()
            launch = self._site.launcher.launch(self.entry.wanted, self.instance)
            if await self._record():
                self._site.launcher.make_directories(launch)
                await self._spawn(launch)
        except DeployCodeError as exc:
            await self._could_not_start(exc)

    def _prepare_row(self) -> None:
        site = self._site
        path = site.launcher.folders.log_path(self.instance)
        self._card.note(
            phase=Phase.STARTING,
            pid=0,
            start_time=0,
            boot_id=site.boot_id,
            ports=site.assign_ports(self.entry, self.instance, anew=self._port_tries > 0),
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
        order = asyncio.ensure_future(self._site.driver.start(launch.order))
        try:
            self.running = await asyncio.shield(order)
        except asyncio.CancelledError:
            self.running = await order
            raise
        self._spawned(self.running, launch)

    def _spawned(self, running: Running, launch: Launch) -> None:
        _limit_open_files(running.pid, self._site.open_files)
        self._card.set(
            pid=running.pid,
            start_time=running.start_time,
            handler=running.handler,
            probe=None,
        )
        ports = endings.on_ports(self.instance.ports)
        self._card.happened("InstanceStarted", f"started, pid {running.pid}{ports}")
        if not self._card.is_one_shot:
            self._readiness.begin(running, launch)

    async def _could_not_start(self, exc: DeployCodeError) -> None:
        note = self._card.clean(f"{title(exc.code)}: {exc.text}")
        self._card.happened("InstanceStartFailed", note)
        self._card.note(exit=None)
        if not self._card.is_one_shot:
            self._follow(ok=False, ready_for=0.0, note=note)
            return
        if not isinstance(exc, StateError):
            await self._record_outcome("failed", None)
        self._card.set(phase=Phase.FAILED, note=note)

    # -- end

    async def _watch(self, running: Running) -> None:
        exit_ = await self._site.driver.wait(running)
        reason = await self._readiness.end()
        left = await self._site.driver.sweep(running)
        self.running = None
        if self._card.is_one_shot:
            await self._one_shot_ended(exit_)
        else:
            self._ended(exit_, left, reason)

    def _ended(self, exit_: Exit, left: int, reason: str) -> None:
        instance = self.instance
        note = self._card.clean(reason or endings.note(exit_, left))
        self._card.happened("InstanceExited", note)
        if self._try_other_port(exit_):
            return
        ready_for = exit_.at - instance.ready_at if instance.ready_at else 0.0
        self._card.note(exit=exit_, ready_at=0.0)
        self._follow(ok=counts_as_success(exit_) and not reason and not left, ready_for=ready_for, note=note)

    def _try_other_port(self, exit_: Exit) -> bool:
        """It died of a port that somebody took in between; the number was ours to choose, so choose another."""
        if exit_.ok or self.instance.gate is Gate.OPEN or self._port_tries >= PORT_TRIES:
            return False
        if not endings.died_of_port(self.entry.wanted, self.instance):
            return False
        self._port_tries += 1
        self._card.set(phase=Phase.STARTING, exit=exit_, restarts=self.instance.restarts + 1)
        self._card.happened("PortTaken", f"its port was taken: trying another ({self._port_tries} of {PORT_TRIES})")
        return True

    def _follow(self, *, ok: bool, ready_for: float, note: str) -> None:
        """It is dead: what now?"""
        if self.instance.gate is not Gate.OPEN and not self.entry.settled:
            self._card.set(phase=Phase.EXITED, note=note)
            return
        follow = self._book.ended(self._card.policy.restart, now=time.time(), ok=ok, ready_for=ready_for)
        if follow.decision is Decision.STAY:
            self._card.set(phase=Phase.EXITED, note=note)
        elif follow.decision is Decision.CIRCUIT_OPEN:
            note = f"{note}; it ended {follow.exits} times in a short while, the next try comes later"
            self._come_back(Phase.FAILED, follow.at, note, "CircuitOpened")
        else:
            self._come_back(Phase.BACKOFF, follow.at, note, "RestartScheduled")

    def _come_back(self, phase: Phase, at: float, note: str, event: str) -> None:
        self._card.set(phase=phase, note=note, next_start_at=at, restarts=self.instance.restarts + 1)
        self._card.happened(event, f"starts again in {at - time.time():.1f} s")

    async def _one_shot_ended(self, exit_: Exit) -> None:
        outcome = endings.outcome(exit_)
        await self._record_outcome(outcome, exit_)
        self._card.set(**endings.one_shot_end(exit_))
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
        if self.running is not None:
            await self._stop(self.running, self._card.policy.stop_timeout_seconds if timeout is None else timeout)
        await self._site.records.remove(self.instance.uuid)
        self._card.note(phase=Phase.GONE, ready_at=0.0)
        self._site.gone(self.instance)

    async def _stop(self, running: Running, timeout: float) -> None:
        how = {STOP_SIGNAL: self._card.policy.stop_signal, STOP_TIMEOUT: f"{timeout:g}"}
        self._card.set(phase=Phase.STOPPING, ready_at=0.0, handler={**self.instance.handler, **how})
        gently = await self._stop_at_last(running, timeout)
        if self._card.is_one_shot:
            await self._record_outcome("failed", None)
        text = "stopped" if gently else f"killed: it did not stop within {timeout:g} s"
        self._card.happened("InstanceStopped", text)

    async def _stop_at_last(self, running: Running, timeout: float) -> bool:
        """What cannot be stopped is said, and tried again until it can."""
        while True:
            try:
                return await self._site.driver.stop(running, self._card.policy.stop_signal, timeout)
            except DeployCodeError as exc:
                self._card.set(note=self._card.clean(str(exc)))
                self._card.happened("StopFailed", str(exc))
                await asyncio.sleep(STOP_RETRY_SECONDS)

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


def _limit_open_files(pid: int, soft: int) -> None:
    """Give a service the usual soft limit; it inherited ours."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        limit = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    except (ProcessLookupError, PermissionError):
        return  # it has ended, or runs as somebody we may not touch: a higher limit harms hardly anyone
