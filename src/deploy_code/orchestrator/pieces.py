"""What a custom strategy may ask of the engine: one piece of the deployment after the other, each a plan of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from deploy_code.errors import DeployCodeError, DeploymentError
from deploy_code.model import Drift
from deploy_code.orchestrator import operations, targets
from deploy_code.orchestrator.observe import observe
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.plan import Goal, Plan, redacted
from deploy_code.plan.reconcile import reconcile

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.orchestrator.executor import Outcome
    from deploy_code.orchestrator.parts import Parts

T = TypeVar("T")

Walk = Callable[[Plan, Observed], Awaitable[None]]


class PiecesOfRun:
    """The pieces of one deployment over ``services``; the strategy's calls arrive here, in the engine's loop.

    ``plan``, ``target`` and ``drifts``: of the whole deployment. ``outcome``: what has come of it so far, all pieces
    together.
    """

    def __init__(
        self,
        *,
        parts: Parts,
        plan: Plan,
        target: Target,
        services: Collection[str],
        drifts: Collection[Drift] = (),
        outcome: Outcome,
        walk: Walk,
        context: Callable[[Mapping[str, Goal]], operations.Context],
        config: Callable[[], DeploymentConfig],
    ) -> None:
        self._parts = parts
        self._plan = plan
        self._target = target
        self._services = services
        self._drifts = drifts
        self._outcome = outcome
        self._walk = walk
        self._context = context
        self.config = config
        self._given: set[str] = set()  # asked for, and there
        self._restarts: dict[str, int] = {}  # of each instance, by uuid, when its service was there
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = False

    async def deploy_services(self, names: Sequence[str]) -> None:
        """A plan afresh for these and what they lack, walked to its end. Raises what the first of them failed with."""
        self._known(names)
        await self._work(self._piece(frozenset(names)))

    async def check_health(self, names: Sequence[str]) -> bool:
        """Whether all of these are ready, have been for their ``min_ready_seconds``, and were not restarted since."""
        self._known(names)
        return await self._work(self._healthy(names))

    async def leave(self) -> None:
        """The strategy has ended: whatever it still had under way ends too."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def left_out(self) -> list[str]:
        """Services that were to change, and that the strategy never brought to their end."""
        there = self._given | self._outcome.done
        return [name for name in self._services if name in self._plan.actions and name not in there]

    def _known(self, names: Sequence[str]) -> None:
        targets.known(names, dict.fromkeys(self._services))

    async def _work(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` so that ``leave`` can end it."""
        if self._over:
            work.close()
            raise DeploymentError("this deployment is over: its strategy has no more say", code="E017")
        task = asyncio.create_task(work, name="piece of a strategy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await task

    async def _piece(self, names: frozenset[str]) -> None:
        async with self._turn:
            observed = observe(
                self._parts.store,
                await self._parts.platform.observe(),
                recorded=self._now(),
                drifts=[each for each in self._drifts if each.service not in self._given],
            )
            target = replace(
                self._target,
                only=names,
                strategy="",
                rerun=self._target.rerun - self._outcome.done,
                warnings=(),
            )
            plan = redacted(reconcile(target, observed), self._parts.redactor.clean)
            for name in (*plan.actions, *plan.unchanged):  # another try at what has failed before, or is there by now
                self._outcome.failures.pop(name, None)
                self._outcome.skipped.pop(name, None)
            self._outcome.done.difference_update(plan.actions)
            await self._walk(plan, observed)
            for name in plan.actions:
                if error := self._outcome.failures.get(name):
                    raise error
            self._given |= names
            self._remember(names)

    def _now(self) -> dict[str, Goal]:
        """The full map as it stands: what this deployment has begun is wanted already."""
        begun = {name: goal for name, goal in self._plan.after.items() if name in self._outcome.started}
        return {**self._plan.before, **begun}

    async def _healthy(self, names: Sequence[str]) -> bool:
        goals = dict(self._serving(names))
        if len(goals) < sum(1 for name in names if self._must_serve(name)):
            return False
        try:
            return await operations.are_ready(self._context(goals), goals) and not self._restarted(names)
        except DeployCodeError as exc:
            if exc.code in ("E005", "E006"):
                return False
            raise

    def _remember(self, names: Collection[str]) -> None:
        for name in names:
            self._restarts |= {each.uuid: each.restarts for each in self._parts.platform.instances(name)}

    def _restarted(self, names: Sequence[str]) -> bool:
        """Ready again is not healthy: something took it down after it had been brought here."""
        found = [each for name in names for each in self._parts.platform.instances(name)]
        return any(each.restarts > self._restarts.get(each.uuid, each.restarts) for each in found)

    def _serving(self, names: Sequence[str]) -> Iterator[tuple[str, Goal]]:
        now = self._now()
        for name in names:
            goal = now.get(name)
            if goal is not None and not goal.stopped and self._must_serve(name):
                yield name, goal

    def _must_serve(self, name: str) -> bool:
        """One-shots and services of no instances have no health."""
        goal = self._plan.after[name]
        return not goal.spec.content.one_shot and goal.replicas > 0
