"""Keeps one instance as it is wanted, from its row to its removal: start, watch, restart, stop.

One task per instance. What is known of it is on its card; how it starts, whether it is ready, what becomes of it after
its end and how it is stopped are parts of their own. Here is the life that these make up, and what may come into it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Collection, Coroutine
from typing import Any

from deploy_code.drivers.base import Running
from deploy_code.drivers.custom import HOLDER, CustomDriver
from deploy_code.drivers.engine.order import CONTAINER
from deploy_code.errors import DeployCodeError
from deploy_code.model import Gate, Instance, Phase

from . import endings
from .aftermath import Aftermath
from .card import Card
from .circuit import LoopCircuit
from .journal import label
from .port_tries import PortTries
from .prober import Judgement
from .readiness import Readiness
from .restart import RestartBook
from .site import Site
from .starting import Starting
from .stopping import Stopping
from .wanted import Entry

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
        self.task: asyncio.Task[None] | None = None
        self._site = site
        self._predecessors = predecessors
        self._woken = asyncio.Event()
        self._card = Card(site, entry, instance, running)
        book = RestartBook(site.chance)
        self.circuit = LoopCircuit(self._card, book)
        self._port_tries = PortTries(self._card)
        self._readiness = Readiness(self._card)
        self._starting = Starting(self._card, self._readiness)
        self._aftermath = Aftermath(self._card, book, self.circuit, self._port_tries, rebooted=rebooted)
        self._stopping = Stopping(self._card)

    @property
    def instance(self) -> Instance:
        return self._card.instance

    @property
    def entry(self) -> Entry:
        return self._card.entry

    @property
    def running(self) -> Running | None:
        """What runs of it, or may; None when nothing does."""
        return self._card.running

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
            self._aftermath.settled()
            self._woken.set()
        elif self.instance.gate is Gate.FAILED:
            self._readiness.consider_replacing()

    def renew(self, *, rerun: bool) -> None:
        """A newer deployment wants it: what has ended gets a new chance, a failed gate is tried again."""
        phase = self.instance.phase
        if phase in _ENDED or (phase is Phase.COMPLETED and rerun):
            self.circuit.close("circuit closed: a newer deployment wants it")
            self._port_tries.again()
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
        if (running := self.running) is not None:
            self._card.running = dataclasses.replace(running, handler={**running.handler, HOLDER: holder})

    def lost_a_process(self) -> None:
        """Its memory ran out, and not its leader was killed for it."""
        cause = endings.OUT_OF_MEMORY.format(limit=self._card.memory_mb)
        self._card.happened("OutOfMemory", f"{cause}; a process of it was killed, the others go on")

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
                await self._site.dependencies.met(self._card.policy)
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

    async def _start(self) -> None:
        try:
            await self._starting.start(other_ports=self._port_tries.is_other)
        except DeployCodeError as exc:
            await self._aftermath.could_not_start(exc)

    async def _watch(self, running: Running) -> None:
        exit_ = await self._card.driver.wait(running)
        self.circuit.forget()
        reason = await self._readiness.end()
        left = await self._card.driver.sweep(running)
        self._card.running = None
        await self._aftermath.ended(exit_, left, reason)

    # -- removal

    async def _retire(self, keeping: asyncio.Task[None] | None, timeout: float | None) -> None:
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        self._readiness.forget()
        self.circuit.forget()
        running = self.running or self._starting.doubtful
        if running is not None:
            await self._stop(running, self._card.policy.stop_timeout_seconds if timeout is None else timeout)
        elif CONTAINER in self.instance.handler:
            await self._stopping.sweep_rest()
        await self._site.records.remove(self.instance.uuid)
        self._card.note(phase=Phase.GONE, ready_at=0.0)
        self._site.gone(self.instance)

    async def _stop(self, running: Running, timeout: float) -> None:
        await self._stopping.stop(running, timeout)
        if self._card.is_one_shot:
            await self._aftermath.record_outcome("failed", None)

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
