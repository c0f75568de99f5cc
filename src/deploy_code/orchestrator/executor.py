"""Walks a plan: each step begins when those before it are done. Carries no decision but when to stop walking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy_code.errors import DeployCodeError, title
from deploy_code.events import Event, ServiceSkipped, StepFinished, StepStarted
from deploy_code.plan.plan import Plan, Run, Step, Want

if TYPE_CHECKING:
    from deploy_code.orchestrator.audit import Audit

Perform = Callable[[Step], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a walk. ``failures``: service → its error, in the order of time; ``skipped``: service → root."""

    failures: dict[str, DeployCodeError] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)  # services all of whose steps are done


class Executor:
    """One walk over one plan.

    ``keep_going``: a failure only skips what depends on it (rollbacks); otherwise the first one ends the walk.
    ``max_parallel`` bounds how many services are on their way between their start and their gate. ``offset``: where the
    positions of this walk begin in the trace of the deployment. ``outcome``: of a walk that this one is a part of.
    """

    def __init__(
        self,
        plan: Plan,
        perform: Perform,
        *,
        deployment: int,
        max_parallel: int,
        publish: Callable[[Event], None],
        trace: Audit | None = None,
        offset: int = 0,
        keep_going: bool = False,
        outcome: Outcome | None = None,
    ) -> None:
        self._plan = plan
        self._perform = perform
        self._deployment = deployment
        self._publish = publish
        self._trace = trace
        self._position = {step.id: offset + number for number, step in enumerate(plan.steps, 1)}
        self._keep_going = keep_going
        self._slots = asyncio.Semaphore(max(1, max_parallel))
        self._holding: set[str] = set()
        self._busy: dict[str, int] = {}  # steps under way
        self._at_the_gate: dict[str, asyncio.Lock] = {}
        self._waiting = {step.id: len(step.after) for step in plan.steps}
        self._followers: dict[str, list[Step]] = {step.id: [] for step in plan.steps}
        for step in plan.steps:
            for each in step.after:
                self._followers[each].append(step)
        self._left: dict[str, int] = {}
        for step in plan.steps:
            self._left[step.service] = self._left.get(step.service, 0) + 1
        self.outcome = Outcome() if outcome is None else outcome

    async def walk(self) -> Outcome:
        """Walk to the end, or to the first failure. Cancelling cancels the steps in flight, and only those."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for step in self._plan.steps:
                    if not step.after:
                        self._launch(step)
        except* _WalkEnded:
            pass  # the outcome says why; the group has cancelled the steps in flight
        return self.outcome

    def _launch(self, step: Step) -> None:
        self._busy[step.service] = self._busy.get(step.service, 0) + 1
        self._group.create_task(self._take(step), name=f"step {step.id}")

    async def _take(self, step: Step) -> None:
        if _needs_slot(step):
            await self._take_slot(step.service)
        self.outcome.started.add(step.service)
        self._begun(step)
        began = time.monotonic()
        try:
            await self._perform(step)
        except DeployCodeError as exc:
            self._finished(step, began, exc)
            self._failed(step, exc)
        else:
            self._finished(step, began, None)
            self._succeeded(step)
        finally:
            self._rest(step.service)

    def _rest(self, service: str) -> None:
        """Where the next step of a service waits for others, these must find a slot."""
        self._busy[service] -= 1
        if not self._busy[service]:
            self._release(service)

    async def _take_slot(self, service: str) -> None:
        """One for each service, however many of its steps are under way."""
        async with self._at_the_gate.setdefault(service, asyncio.Lock()):
            if service not in self._holding:
                await self._slots.acquire()
                self._holding.add(service)

    def _begun(self, step: Step) -> None:
        self._publish(StepStarted(deployment=self._deployment, service=step.service, step=str(step), cause=step.cause))
        if self._trace is not None:
            self._trace.step_started(self._deployment, self._position[step.id], str(step), step.cause)

    def _finished(self, step: Step, began: float, error: DeployCodeError | None) -> None:
        if self._trace is not None:
            self._trace.step_finished(self._deployment, self._position[step.id], str(error) if error else "")
        if error is not None or not _needs_slot(step) or isinstance(step, Run):
            self._release(step.service)
        self._publish(
            StepFinished(
                deployment=self._deployment,
                service=step.service,
                step=str(step),
                duration=time.monotonic() - began,
                error=str(error) if error else "",
            )
        )

    def _release(self, service: str) -> None:
        if service in self._holding:
            self._holding.discard(service)
            self._slots.release()

    def _succeeded(self, step: Step) -> None:
        self._left[step.service] -= 1
        if not self._left[step.service] and step.service:
            self._release(step.service)
            self.outcome.done.add(step.service)
        for each in self._followers[step.id]:
            self._waiting[each.id] -= 1
            if not self._waiting[each.id]:
                self._launch(each)

    def _failed(self, step: Step, error: DeployCodeError) -> None:
        if error not in self.outcome.failures.values():  # a strategy fails with what a service of it failed with
            self.outcome.failures[step.service] = error
        self._skip_followers(step)
        if not self._keep_going:
            raise _WalkEnded

    def _skip_followers(self, failed: Step) -> None:
        """Whatever waits for the failed step, directly or not, never starts: E007, and whose fault it is."""
        todo, seen = list(self._followers[failed.id]), {failed.id}
        while todo:
            step = todo.pop()
            if step.id in seen:
                continue
            seen.add(step.id)
            todo.extend(self._followers[step.id])
            self._skip(step.service, failed.service)

    def _skip(self, service: str, root: str) -> None:
        if service in ("", root) or service in self.outcome.skipped or service in self.outcome.failures:
            return
        self.outcome.skipped[service] = root
        reason = f"{title('E007')}: {root or 'the strategy'} failed"
        self._publish(ServiceSkipped(deployment=self._deployment, service=service, reason=reason))


class _WalkEnded(Exception):
    """The first failure ended the walk."""


def _needs_slot(step: Step) -> bool:
    """A service takes its slot when its new instances are asked for, and gives it back at its gate."""
    return isinstance(step, Run) or (isinstance(step, Want) and step.replicas > 0 and not step.keeps)
