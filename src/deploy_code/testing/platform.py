"""A machine in memory, as the engine sees one: instances that come up, hang and fail as a test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deploy_code.errors import DeployCodeError, StalePlanError
from deploy_code.events import Bus, InstanceChanged
from deploy_code.model import Drift, Drifts, Exit, Gate, Instance, Phase, Wanted

if TYPE_CHECKING:
    from deploy_code.testing.records import FakeRecords

__all__ = ["FakePlatform", "Start"]

Pair = tuple[str, int]  # service, revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How one start of an instance goes: the phase it ends up in, and what else is seen of it.

    ``Start.ready()``, ``Start.hangs()``, ``Start.exits(code)``, ``Start.sick()`` and ``Start.completes()`` say what
    they are. ``goes`` False: it does not go away when it is told to stop.
    """

    phase: Phase = Phase.READY
    gate: Gate = Gate.OPEN
    code: int | None = None
    note: str = ""
    goes: bool = True

    @classmethod
    def ready(cls) -> Start:
        return cls()

    @classmethod
    def hangs(cls) -> Start:
        """Alive, and neither ready nor failed: until the test says ``become``."""
        return cls(phase=Phase.STARTING, gate=Gate.WAITING)

    @classmethod
    def exits(cls, code: int, note: str = "") -> Start:
        return cls(phase=Phase.EXITED, gate=Gate.WAITING, code=code, note=note)

    @classmethod
    def sick(cls, note: str = "") -> Start:
        """Alive, and its gate has been given up on."""
        return cls(phase=Phase.STARTING, gate=Gate.FAILED, note=note)

    @classmethod
    def completes(cls, code: int = 0) -> Start:
        """A one-shot that ends."""
        return cls(phase=Phase.FAILED if code else Phase.COMPLETED, gate=Gate.FAILED if code else Gate.OPEN, code=code)

    @classmethod
    def stays(cls) -> Start:
        """Ready, and deaf to every signal."""
        return cls(goes=False)


@dataclass(slots=True)
class FakePlatform:
    """A ``platforms.base.Platform`` whose instances do as ``plan`` says, start after start (the last one for ever).

    Like the agent it takes a repeated message for the same wish, starts what is dead anew only for another deployment,
    and refuses what an older one wants. ``wishes`` holds all that was wanted, as ``api r2 ×1``; ``settled`` the
    deployments that are over. ``refuses``: raised by the next ``want``. ``bus``, where set, hears of every new phase.
    ``drifted``: what ``drift`` finds beside what has ended.
    """

    plan: dict[str, list[Start]] = field(default_factory=dict)
    wishes: list[str] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    refuses: DeployCodeError | None = None
    drifted: list[Drift] = field(default_factory=list)
    is_open: bool = False
    bus: Bus | None = None
    records: FakeRecords | None = None
    _deployment: int = 0
    _wanted: dict[Pair, tuple[int, Wanted]] = field(default_factory=dict)
    _found: dict[str, Instance] = field(default_factory=dict)
    _starts: dict[str, Start] = field(default_factory=dict)
    _waiters: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _made: int = 0

    # -- Platform

    def prestart(self) -> None:
        """Nothing to start."""

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def observe(self) -> tuple[Instance, ...]:
        return self.all()

    async def want(
        self,
        deployment: int,
        wanted: Sequence[Wanted],
        *,
        stop_timeout: float | None = None,
        rerun: Sequence[str] = (),
        port_range: tuple[int, int] = (30000, 40000),
        forget: bool = False,
        start_timeout: float = 300.0,
    ) -> None:
        """Recorded at once; what comes of it is seen a moment later."""
        if self.refuses is not None:
            error, self.refuses = self.refuses, None
            raise error
        self._refuse_stale(deployment)
        if self.records is not None:
            self.records.want(deployment, wanted, rerun)
        for each in wanted:
            self.wishes.append(f"{each.service} r{each.revision} ×{each.replicas}")
            self._take(deployment, each, rerun=each.service in rerun)

    async def settle(self, deployment: int) -> None:
        self._refuse_stale(deployment)
        self.settled.append(deployment)
        if self.records is not None:
            self.records.settle()

    def instances(self, service: str) -> tuple[Instance, ...]:
        return tuple(each for each in self._found.values() if each.service == service)

    async def changed(self, service: str) -> None:
        waiter = self._waiters.get(service)
        if waiter is None or waiter.done():
            waiter = self._waiters[service] = asyncio.get_running_loop().create_future()
        await asyncio.shield(waiter)

    async def drift(self) -> Drifts:
        """What the test put into ``drifted``, of instances that are still there, and what has ended."""
        there = {*self._found, ""}
        ended = (each for each in self.all() if each.phase in (Phase.EXITED, Phase.FAILED))
        missing = [each for each in ended if not self._runs_once(each)]
        seen = [each for each in self.drifted if each.kind == "extra" or each.instance in there]
        return Drifts(found=(*(Drift.of(each, f"missing: {each.exit or each.note}") for each in missing), *seen))

    async def clear(self, instances: Sequence[str]) -> None:
        self.drifted = [each for each in self.drifted if each.kind != "extra" or each.instance not in instances]

    async def inspect(self, instance: Instance) -> dict[str, Any]:
        return {"pids": (), "listening": (), "cpu_percent": 0.0, "memory_bytes": 0}

    # -- what a test sees of it, and does to it

    def all(self) -> tuple[Instance, ...]:
        """Every instance, now."""
        return tuple(self._found.values())

    def will(self, service: str, *starts: Start) -> None:
        """From now on starts of ``service`` go like this, one after the other; the last one for ever."""
        for start in starts:
            if not isinstance(start, Start):
                raise TypeError(f"starts are made by Start.ready() and its like, got {start!r}")
        self.plan[service] = list(starts)

    def become(self, service: str, phase: Phase, *, index: int = 0, **changes: Any) -> None:
        """The instance with that index enters a phase; ``Phase.GONE`` takes it away. KeyError where there is none."""
        found = {each.index: each for each in self.instances(service)}[index]
        opened = {"gate": Gate.OPEN, "ready_at": time.time()} if phase is Phase.READY else {"ready_at": 0.0}
        self._put(found.but(phase=phase, **{**opened, **changes}))

    # -- pieces

    def _refuse_stale(self, deployment: int) -> None:
        if deployment < self._deployment:
            raise StalePlanError(
                f"deployment {deployment} wants something, and deployment {self._deployment} came after it",
                meaning="Nothing was changed by this message",
            )
        self._deployment = deployment

    def _take(self, deployment: int, wanted: Wanted, *, rerun: bool) -> None:
        pair = wanted.service, wanted.revision
        known = self._wanted.get(pair)
        if wanted.replicas:
            self._wanted[pair] = deployment, wanted
        else:
            self._wanted.pop(pair, None)
        if known is None or known[0] != deployment:
            self._renew(pair, rerun=rerun)
        self._fit(wanted)

    def _renew(self, pair: Pair, *, rerun: bool) -> None:
        for each in self._of(pair):
            dead = each.phase in (Phase.EXITED, Phase.FAILED, Phase.BACKOFF) or each.gate is Gate.FAILED
            if dead or (rerun and each.phase is Phase.COMPLETED):
                self._start(each)

    def _fit(self, wanted: Wanted) -> None:
        """As many as are wanted: unready ones go first, then the highest index."""
        kept = sorted(self._of((wanted.service, wanted.revision)), key=lambda e: (e.phase is Phase.READY, -e.index))
        for each in kept[: max(0, len(kept) - wanted.replicas)]:
            self._stop(each)
        taken = {each.index for each in kept}
        free = (index for index in range(wanted.replicas + len(taken)) if index not in taken)
        for _ in range(wanted.replicas - len(kept)):
            self._made += 1
            uuid = f"{wanted.service}-{self._made}"
            self._start(Instance(uuid=uuid, service=wanted.service, revision=wanted.revision, index=next(free)))

    def _of(self, pair: Pair) -> list[Instance]:
        found = [each for each in self._found.values() if (each.service, each.revision) == pair]
        return [each for each in found if each.phase is not Phase.STOPPING]

    def _start(self, instance: Instance) -> None:
        coming = self.plan.get(instance.service) or [self._usual(instance)]
        start = self._starts[instance.uuid] = coming.pop(0) if len(coming) > 1 else coming[0]
        now = time.time()
        self._put(instance.but(phase=Phase.STARTING, gate=Gate.WAITING, exit=None, note="", started_at=now))
        self._later(instance.uuid, start)

    def _usual(self, instance: Instance) -> Start:
        return Start.completes() if self._runs_once(instance) else Start()

    def _runs_once(self, instance: Instance) -> bool:
        known = self._wanted.get((instance.service, instance.revision))
        return known is not None and known[1].content.one_shot

    def _later(self, uuid: str, start: Start) -> None:
        def happen() -> None:
            instance = self._found.get(uuid)
            if instance is not None and instance.phase is Phase.STARTING:
                end = Exit(at=time.time(), code=start.code) if start.code is not None else None
                ready_at = time.time() if start.phase is Phase.READY else 0.0
                self._put(
                    instance.but(phase=start.phase, gate=start.gate, exit=end, note=start.note, ready_at=ready_at)
                )

        asyncio.get_running_loop().call_soon(happen)

    def _stop(self, instance: Instance) -> None:
        self._put(instance.but(phase=Phase.STOPPING, ready_at=0.0))
        if self._starts[instance.uuid].goes:
            asyncio.get_running_loop().call_soon(self._put, instance.but(phase=Phase.GONE))

    def _put(self, instance: Instance) -> None:
        before = self._found.get(instance.uuid)
        if instance.phase is Phase.GONE:
            self._found.pop(instance.uuid, None)
        else:
            self._found[instance.uuid] = instance
        if self.records is not None:
            known = self._wanted.get((instance.service, instance.revision))
            self.records.put(instance, known[1].content if known else None)
        self._announce(before, instance)
        waiter = self._waiters.pop(instance.service, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _announce(self, before: Instance | None, now: Instance) -> None:
        if self.bus is not None and (before is None or before.phase is not now.phase):
            name = f"{now.service} r{now.revision} #{now.index}"
            event = InstanceChanged(
                deployment=self._deployment, service=now.service, instance=name, phase=now.phase, detail=now.note
            )
            self.bus.publish(event)
