"""Keeps one instance as it is wanted, from its row to its removal: start, probe, restart, stop.

One task per instance. It owns the ``model.Instance`` of it; every change goes through ``_set``, which mirrors it to the
state and to everyone who watches.
"""

from __future__ import annotations

import asyncio
import functools
import resource
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from deploy_code.drivers.base import Driver, Running
from deploy_code.errors import DeployCodeError, StateError, title
from deploy_code.health.probes import Probe, port_asked
from deploy_code.model import Exit, Gate, Instance, Phase, Policy, ProbeResult

from . import endings
from .journal import Journal, label
from .launch import Launch, Launcher
from .prober import Judgement, Prober
from .records import Records
from .restart import Decision, RestartBook, counts_as_success
from .wanted import Entry

PORT_TRIES = 3
STOP_RETRY_SECONDS = 2.0
STOP_SIGNAL, STOP_TIMEOUT = "stop_signal", "stop_timeout"  # kept in the row: the wanted entry is gone by then
_ENDED = (Phase.EXITED, Phase.FAILED, Phase.BACKOFF)


class Site(Protocol):
    """Where a supervisor works: what all of them share (the keeper)."""

    driver: Driver
    prober: Prober
    records: Records
    journal: Journal
    launcher: Launcher
    boot_id: str
    open_files: int

    def changed(self, instance: Instance) -> None: ...
    def gone(self, instance: Instance) -> None: ...
    def assign_ports(self, entry: Entry, instance: Instance, *, anew: bool) -> dict[str, int]: ...
    def chance(self) -> float: ...
    def unready_dependency(self, policy: Policy) -> str: ...
    async def dependencies_met(self, policy: Policy) -> None: ...


class Supervisor:
    """One instance and the task that keeps it. Call ``begin`` once; ``retire`` or ``let_go`` ends it."""

    def __init__(
        self,
        site: Site,
        entry: Entry,
        instance: Instance,
        *,
        running: Running | None = None,
        predecessor: asyncio.Task[None] | None = None,
    ) -> None:
        self.entry = entry
        self.instance = instance
        self.retiring = False
        self._site = site
        self._running = running
        self._predecessor = predecessor
        self._book = RestartBook(site.chance)
        self._woken = asyncio.Event()
        self._replacing: asyncio.Task[bool] | None = None
        self._port_tries = 0
        self._watched_check = entry.wanted.policy.health
        self._task: asyncio.Task[None] | None = None
        if instance.phase is Phase.FAILED:
            self._book.opened()

    # -- what the keeper calls

    def begin(self) -> None:
        self._task = self._spawn_task(self._keep(), "keep")

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task

    @property
    def running(self) -> Running | None:
        return self._running

    def judged(self, judgement: Judgement) -> None:
        """The prober has something to say."""
        if self.retiring or self._running is None or self._replacing is not None:
            return
        probe = self._site.journal.clean_probe(judgement.result, self.entry.wanted.secrets)
        match judgement.verdict:
            case "ready":
                self._became_ready(probe)
            case "unready":
                self._became_unready(probe)
            case "gate_failed":
                self._gate_failed(probe)
            case _:
                self._set(probe=probe)

    def settled(self) -> None:
        """The deployment is over: the restart policy holds from now on, also for what was never ready."""
        if self.retiring:
            return
        if self.instance.phase is Phase.EXITED and self._running is None and not self._one_shot:
            self._follow(ok=counts_as_success(self.instance.exit), ready_for=0.0, note=self.instance.note)
            self._woken.set()
        elif self.instance.gate is Gate.FAILED:
            self._consider_replacing()

    def renew(self, *, rerun: bool) -> None:
        """A newer deployment wants it: what has ended gets a new chance, a failed gate is tried again."""
        phase = self.instance.phase
        if phase in _ENDED or (phase is Phase.COMPLETED and rerun):
            self._book.forgive()
            self._set(phase=Phase.STARTING, gate=Gate.WAITING, note="", next_start_at=0.0)
            self._woken.set()
        elif self.instance.gate is Gate.FAILED and self._running is not None:
            self._set(gate=Gate.WAITING, note="")
            self.watch_again()

    def adjust(self, entry: Entry) -> None:
        """Its policy may have changed: another health check holds from now on."""
        self.entry = entry
        if self._policy.health != self._watched_check:
            self.watch_again()

    def watch_again(self) -> None:
        """Probe anew what runs."""
        if self._running is not None and not self._one_shot:
            self._begin_probing()

    def retire(self, timeout: float | None) -> None:
        """Stop it for good and remove it. ``timeout`` replaces the policy's own; later calls change nothing."""
        if self.retiring:
            return
        self.retiring = True
        self._task = self._spawn_task(self._retire(self._task, timeout), "retire")

    async def let_go(self) -> None:
        """Stop watching; the instance itself is left as it is."""
        tasks = [task for task in (self._task, self._replacing) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- the life of it

    async def _keep(self) -> None:
        if self._predecessor is not None:
            await asyncio.wait([self._predecessor])
            self._predecessor = None
        while True:
            if self._running is None:
                await self._until_due()
                await self._start()
            if self._running is not None:
                await self._watch(self._running)

    async def _until_due(self) -> None:
        while (phase := self.instance.phase) is not Phase.STARTING:
            if phase is Phase.WAITING:
                await self._site.dependencies_met(self._policy)
                self._set(phase=Phase.STARTING, note="")
            elif self.instance.next_start_at:
                await self._until(self.instance.next_start_at)
            else:
                await self._until(None)

    async def _until(self, at: float | None) -> None:
        """Wait until it is time for the next start, or until somebody changes its phase."""
        self._woken.clear()
        try:
            async with asyncio.timeout(None if at is None else max(0.0, at - time.time())):
                await self._woken.wait()
        except TimeoutError:
            self._set(phase=Phase.STARTING, next_start_at=0.0)

    async def _start(self) -> None:
        launch: Launch | None = None
        try:
            self._prepare_row()
            launch = self._site.launcher.launch(self.entry.wanted, self.instance)
            if not await self._record():
                return
            self._site.launcher.make_directories(launch)
            await self._spawn(launch)
        except DeployCodeError as exc:
            await self._could_not_start(exc)

    def _prepare_row(self) -> None:
        site = self._site
        ports = site.assign_ports(self.entry, self.instance, anew=self._port_tries > 0)
        path = site.launcher.folders.log_path(self.instance)
        self._change(
            phase=Phase.STARTING,
            pid=0,
            start_time=0,
            boot_id=site.boot_id,
            ports=ports,
            log_path=path,
            log_offset=site.launcher.begin_log(path),
            ready_at=0.0,
            next_start_at=0.0,
        )

    async def _record(self) -> bool:
        """Commit the row; False for a one-shot that has completed before."""
        if not self._one_shot:
            await self._site.records.commit(self.instance)
            return True
        if await self._site.records.begin_one_shot(self.instance, self.entry.wanted.content):
            return True
        self._set(phase=Phase.COMPLETED, gate=Gate.OPEN, note="completed before")
        return False

    async def _spawn(self, launch: Launch) -> None:
        """Start it. Whoever cancels this still leaves ``_running`` telling the truth."""
        order = asyncio.ensure_future(self._site.driver.start(launch.order))
        try:
            self._running = await asyncio.shield(order)
        except asyncio.CancelledError:
            self._running = await order
            raise
        running = self._running
        _limit_open_files(running.pid, self._site.open_files)
        self._set(
            pid=running.pid,
            start_time=running.start_time,
            started_at=time.time(),
            handler=running.handler,
            probe=None,
        )
        self._happened("InstanceStarted", f"started, pid {running.pid}{endings.on_ports(self.instance.ports)}")
        if not self._one_shot:
            self._begin_probing(launch)

    def _begin_probing(self, launch: Launch | None = None) -> None:
        self._watched_check = self._policy.health
        try:
            launch = launch or self._site.launcher.launch(self.entry.wanted, self.instance)
            probe = launch.probe(lambda: self._running is not None)
        except DeployCodeError as exc:
            self._set(gate=self._failed_gate(), note=self._clean(str(exc)))
            return
        self._site.prober.watch(
            self.instance.uuid,
            probe,
            launch.check,
            born_at=self.instance.started_at,
            min_ready=self._policy.min_ready_seconds,
            open_gate=self.instance.phase in (Phase.READY, Phase.UNREADY),
            owner_check=self._owner_check(probe),
        )

    def _owner_check(self, probe: Probe) -> Callable[[], Awaitable[bool | None]] | None:
        """Asks whether the port that is probed is listened on by this very instance."""
        port = port_asked(probe)
        if port is None or (self.instance.ports and port not in self.instance.ports.values()):
            return None
        return functools.partial(self._owns, port)

    async def _owns(self, port: int) -> bool | None:
        running = self._running
        if running is None:
            return None
        listeners = self._site.prober.listeners
        if listeners.owns(port, (running.pid,)):
            return True  # the usual case, without a look at every process
        return listeners.owns(port, await self._site.driver.pids(running))

    async def _watch(self, running: Running) -> None:
        site = self._site
        exit_ = await site.driver.wait(running)
        site.prober.forget(self.instance.uuid)
        reason = await self._replaced()
        left = await site.driver.sweep(running)
        self._running = None
        if self._one_shot:
            await self._one_shot_ended(exit_)
        else:
            self._ended(exit_, left, reason)

    async def _replaced(self) -> str:
        """Why we ended it ourselves; empty when it ended by itself."""
        if self._replacing is None:
            return ""
        await asyncio.wait([self._replacing])
        self._replacing = None
        return "restarted because it was not ready"

    # -- how it ends

    def _ended(self, exit_: Exit, left: int, reason: str) -> None:
        instance = self.instance
        ready_for = exit_.at - instance.ready_at if instance.ready_at else 0.0
        note = self._clean(reason or endings.note(exit_, left))
        self._happened("InstanceExited", note)
        if self._try_other_port(exit_):
            return
        self._change(exit=exit_, ready_at=0.0)
        self._follow(ok=counts_as_success(exit_) and not reason and not left, ready_for=ready_for, note=note)

    def _try_other_port(self, exit_: Exit) -> bool:
        """It died of a port that somebody took in between; the number was ours to choose, so choose another."""
        if exit_.ok or self.instance.gate is Gate.OPEN or self._port_tries >= PORT_TRIES:
            return False
        if not endings.died_of_port(self.entry.wanted, self.instance):
            return False
        self._port_tries += 1
        self._set(phase=Phase.STARTING, exit=exit_, restarts=self.instance.restarts + 1)
        self._happened("PortTaken", f"its port was taken, trying another ({self._port_tries} of {PORT_TRIES})")
        return True

    def _follow(self, *, ok: bool, ready_for: float, note: str) -> None:
        """It is dead: what now?"""
        if self.instance.gate is not Gate.OPEN and not self.entry.settled:
            self._set(phase=Phase.EXITED, note=note)
            return
        follow = self._book.ended(self._policy.restart, now=time.time(), ok=ok, ready_for=ready_for)
        if follow.decision is Decision.STAY:
            self._set(phase=Phase.EXITED, note=note)
            return
        is_open = follow.decision is Decision.CIRCUIT_OPEN
        if is_open:
            note = f"{note}; ended {follow.exits} times in a short while, next try later"
        self._set(
            phase=Phase.FAILED if is_open else Phase.BACKOFF,
            note=note,
            next_start_at=follow.at,
            restarts=self.instance.restarts + 1,
        )
        wait = follow.at - time.time()
        self._happened("CircuitOpened" if is_open else "RestartScheduled", f"starts again in {wait:.1f} s")

    async def _could_not_start(self, exc: DeployCodeError) -> None:
        if self._one_shot and not isinstance(exc, StateError):
            await self._record_outcome("failed", None)
        note = self._clean(f"{title(exc.code)}: {exc.text}")
        self._happened("InstanceStartFailed", note)
        self._change(exit=None)
        if self._one_shot:
            self._set(phase=Phase.FAILED, note=note)
        else:
            self._follow(ok=False, ready_for=0.0, note=note)

    async def _one_shot_ended(self, exit_: Exit) -> None:
        known = exit_.code is not None or exit_.signal is not None
        outcome = "unknown" if not known else "completed" if exit_.ok else "failed"
        await self._record_outcome(outcome, exit_)
        if outcome == "completed":
            self._set(phase=Phase.COMPLETED, gate=Gate.OPEN, exit=exit_, note="")
        else:
            self._set(phase=Phase.FAILED, gate=Gate.FAILED, exit=exit_, note=endings.one_shot_note(exit_))
        self._happened("OneShotEnded", f"{outcome}: {exit_}")

    async def _record_outcome(self, outcome: str, exit_: Exit | None) -> None:
        try:
            await self._site.records.end_one_shot(self.instance.service, self.entry.wanted.content, outcome, exit_)
        except StateError as exc:
            self._site.journal.trouble(f"{label(self.instance)}: its outcome could not be recorded: {exc}")

    # -- readiness

    def _became_ready(self, probe: ProbeResult | None) -> None:
        if self.instance.phase is Phase.READY:
            self._set(probe=probe)
            return
        self._port_tries = 0
        now = time.time()
        self._set(phase=Phase.READY, gate=Gate.OPEN, ready_at=now, probe=probe, note="")
        self._happened("InstanceReady", f"ready {now - self.instance.started_at:.2f} s after its start")

    def _became_unready(self, probe: ProbeResult | None) -> None:
        if self.instance.phase is Phase.READY:
            self._set(phase=Phase.UNREADY, ready_at=0.0, probe=probe, note="fails its health check")
            self._happened("InstanceUnready", endings.probe_note(probe))
        else:
            self._set(probe=probe)
        self._consider_replacing()

    def _gate_failed(self, probe: ProbeResult | None) -> None:
        if self.instance.gate is Gate.WAITING:
            self._happened("GateFailed", endings.probe_note(probe))
        self._set(gate=self._failed_gate(), probe=probe, note="did not become ready")
        self._consider_replacing()

    def _failed_gate(self) -> Gate:
        return Gate.OPEN if self.instance.gate is Gate.OPEN else Gate.FAILED

    def _consider_replacing(self) -> None:
        """Restart what is not ready, by policy; but not while something it needs is itself not ready."""
        running = self._running
        held = self.instance.gate is not Gate.OPEN and not self.entry.settled
        if running is None or held or self._policy.restart.policy == "never" or self._replacing is not None:
            return
        if cause := self._site.unready_dependency(self._policy):
            self._set(note=f"fails its health check; not restarted, because {cause} is not ready either")
            return
        policy = self._policy
        self._replacing = asyncio.get_running_loop().create_task(
            self._site.driver.stop(running, policy.stop_signal, policy.stop_timeout_seconds),
            name=f"replace {label(self.instance)}",
        )

    # -- the end of it

    async def _retire(self, keeping: asyncio.Task[None] | None, timeout: float | None) -> None:
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        self._site.prober.forget(self.instance.uuid)
        if self._running is not None:
            timeout = self._policy.stop_timeout_seconds if timeout is None else timeout
            how = {STOP_SIGNAL: self._policy.stop_signal, STOP_TIMEOUT: f"{timeout:g}"}
            self._set(phase=Phase.STOPPING, ready_at=0.0, handler={**self.instance.handler, **how})
            await self._stop(self._running, timeout)
        await self._site.records.remove(self.instance.uuid)
        self.instance = self.instance.but(phase=Phase.GONE, ready_at=0.0)
        self._site.gone(self.instance)

    async def _stop(self, running: Running, timeout: float) -> None:
        """Until it is done: what cannot be stopped is said, and tried again."""
        while True:
            try:
                gently = await self._site.driver.stop(running, self._policy.stop_signal, timeout)
                break
            except DeployCodeError as exc:
                self._set(note=self._clean(str(exc)))
                self._happened("StopFailed", str(exc))
                await asyncio.sleep(STOP_RETRY_SECONDS)
        how = "stopped" if gently else f"killed: it did not stop within {timeout:g} s"
        if self._one_shot:
            await self._record_outcome("failed", None)
        self._happened("InstanceStopped", how)

    # -- small things

    @property
    def _policy(self) -> Policy:
        return self.entry.wanted.policy

    @property
    def _one_shot(self) -> bool:
        return self.entry.wanted.content.one_shot

    def _change(self, **changes: Any) -> None:
        self.instance = self.instance.but(**changes)

    def _set(self, **changes: Any) -> None:
        self._change(**changes)
        self._site.records.save(self.instance)
        self._site.changed(self.instance)

    def _clean(self, text: str) -> str:
        return self._site.journal.clean(text, self.entry.wanted.secrets)

    def _happened(self, name: str, text: str) -> None:
        self._site.journal.happened(name, text, instance=self.instance, secrets=self.entry.wanted.secrets)

    def _spawn_task(self, work: Coroutine[Any, Any, None], verb: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"{verb} {label(self.instance)}")
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A bug in one supervisor is said and harms no other."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._site.journal.trouble(f"{task.get_name()} failed: {error!r}")
        self._set(phase=Phase.FAILED, note=f"the agent failed on it: {error!r}")


def _limit_open_files(pid: int, soft: int) -> None:
    """Give a service the usual soft limit; it inherited ours."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, hard) if hard >= 0 else soft, hard))
    except (ProcessLookupError, PermissionError):
        return  # it has ended, or runs as somebody we may not touch: a higher limit harms hardly anyone
