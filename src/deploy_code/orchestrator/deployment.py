"""One deployment from its first change to its last word: record, walk, prove, and undo as one unit if it must be.

What is wanted is recorded before anything is done, and every step is a "make it so": killed at any point, the next command
or the agent finishes or undoes it from the record (see ``recover``).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy_code.errors import DeployCodeError, DeploymentError, title
from deploy_code.events import DeploymentFinished, DeploymentStarted, PhaseCompleted, RollbackStarted
from deploy_code.model import Hooks, Settings
from deploy_code.orchestrator import operations
from deploy_code.orchestrator.executor import Executor, Outcome
from deploy_code.orchestrator.failure import explain
from deploy_code.orchestrator.hooks import run_hook
from deploy_code.orchestrator.observe import observe
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.plan import Goal, Plan, Run, Step, WaitReady, Want
from deploy_code.plan.reconcile import reconcile
from deploy_code.services.status import DeploymentStatus

if TYPE_CHECKING:
    from deploy_code.orchestrator.parts import Parts

FINISH_SECONDS = 10.0  # how long the last writes of a cancelled deployment may take
UNDO_PARALLEL = 50  # a rollback is not throttled by max_parallel: it wants to be over


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one deployment is to do, all decided. ``gates``: False leaves the joint health check out."""

    plan: Plan
    observed: Observed
    settings: Settings
    hooks: Hooks = Hooks()
    root: str = ""
    env: dict[str, str] | None = None
    skip_phases: frozenset[str] = frozenset()
    stop_timeout: float | None = None
    number: int = 0  # of an interrupted deployment that is finished under its own number


class DeploymentRun:
    """One run of one order. ``run()`` once."""

    def __init__(self, parts: Parts, order: Order, *, going_back: bool = False) -> None:
        self._parts = parts
        self._order = order
        self._going_back = going_back or order.plan.kind == "rollback"  # never rolled back itself
        self._plan = order.plan
        self._began = time.time()
        self._cancelled = False
        self._current: asyncio.Task[Any] | None = None
        self._outcome = Outcome()
        self.number = order.number
        self.report = DeploymentReport(
            total_services=len(self._scope()),
            status=DeploymentStatus.IN_PROGRESS,
            plan=order.plan,
            phases_completed=[],
        )

    def _scope(self) -> list[str]:
        """The services this run answers for: what is removed counts no more."""
        return [name for name in self._plan.services if name in self._plan.after]

    # ------------------------------------------------------------------------------------------------- interruptions

    def interrupt(self) -> None:
        """First call: stop going forward, roll back in order. Second: stop at once; the record says how to go on."""
        if self._current is not None:
            self._current.cancel()

    async def _guarded(self, work: Awaitable[None], name: str) -> DeployCodeError | None:
        """Run ``work`` as a task that ``interrupt`` (or a cancellation of ours) ends; the error it ended with, if any."""
        self._current = asyncio.ensure_future(work)
        self._current.set_name(name)
        try:
            await asyncio.wait({self._current})
        except asyncio.CancelledError:
            self._cancelled = True
            self._current.cancel()
            await asyncio.wait({self._current})
        task, self._current = self._current, None
        if task.cancelled():
            return _interrupted()
        error = task.exception()
        if error is None or isinstance(error, DeployCodeError):
            return error
        raise error

    # ----------------------------------------------------------------------------------------------------- the story

    async def run(self) -> DeploymentReport:
        """The whole story. Raises only for what is found before the first step, and when interrupted twice."""
        await self._parts.plugins.call("on_deployment_start", self._scope())
        try:
            await self._hooks("pre_deploy")
            self._record()
            error = await self._guarded(self._forward(), "deployment forward")
            if error is not None:
                await self._fail(error)
            else:
                await self._succeed()
        except BaseException as exc:
            self._note_end(exc)
            raise
        finally:
            await self._say_goodbye()
        if self._cancelled:
            raise asyncio.CancelledError
        return self.report

    def _record(self) -> None:
        if not self.number:
            from deploy_code.orchestrator.record import begin

            self.number = begin(self._parts, self._order)
        self.report.deployment = self.number
        self._parts.publish(
            DeploymentStarted(deployment=self.number, kind=self._plan.kind, services=tuple(self._scope()))
        )

    async def _forward(self) -> None:
        bound = self._order.settings.total_timeout_seconds or (
            self._order.settings.timeout_seconds * max(1, len(self._plan.actions))
        )
        try:
            async with asyncio.timeout(bound):
                await self._phases()
        except TimeoutError as exc:
            raise DeploymentError(
                f"the deployment was not over after {bound:g} s (deployment.total_timeout_seconds)",
                code="E008",
            ) from exc

    async def _phases(self) -> None:
        for phase in ("validation", "resources", "network"):
            self._completed(phase)  # checked before the record was made; nothing is set aside by this version
        self._store_code()
        self._completed("storage")
        await self._walk()
        self._completed("services")
        await self._prove()
        for phase in ("monitoring", "logging"):
            self._completed(phase)

    def _completed(self, phase: str) -> None:
        if phase not in self._order.skip_phases:
            self.report.phases_completed.append(phase)
            self._parts.publish(PhaseCompleted(deployment=self.number, phase=phase, duration=time.time() - self._began))

    def _store_code(self) -> None:
        from deploy_code.orchestrator.releases import keep

        kept = [
            (goal.spec.content.release, goal.spec.content.user)
            for name, goal in self._plan.after.items()
            if name in self._plan.actions and goal.spec.content.release is not None
        ]
        if kept:
            keep([release for release, _ in kept if release], self._parts.identity.directories.state)
            self._open_to_users({user for _, user in kept} - {""})

    def _open_to_users(self, users: set[str]) -> None:
        """A service that runs as somebody else must reach its code: passing through the folder is all it may."""
        if users:
            os.chmod(self._parts.identity.directories.state, 0o711)

    async def _walk(self) -> None:
        context = self._context(self._plan.after, self._plan.before, force=self._parts.options.force)
        executor = Executor(
            self._plan,
            lambda step: self._perform(context, step),
            deployment=self.number,
            max_parallel=self._order.settings.max_parallel,
            publish=self._parts.publish,
            trace=self._parts.writer,
            keep_going=self._going_back,
        )
        self._outcome = executor.outcome
        await executor.walk()
        if self._outcome.failures:
            raise (_rollback_failed(self._outcome) if self._going_back else next(iter(self._outcome.failures.values())))

    async def _perform(self, context: operations.Context, step: Step) -> None:
        plugins = self._parts.plugins
        if plugins and isinstance(step, (Run, Want)) and (isinstance(step, Run) or step.replicas):
            await plugins.call("before_service_rollout", step.service, step.revision)
        await operations.perform(context, step)
        if plugins and isinstance(step, (Run, WaitReady)):
            await plugins.call("after_service_rollout", step.service, step.revision)

    def _context(self, new: Any, old: Any, *, force: bool = False) -> operations.Context:
        return operations.Context(
            platform=self._parts.platform,
            deployment=self.number,
            goals=new,
            old=old,
            present={name: found.revisions for name, found in self._order.observed.services.items()},
            timeout=self._order.settings.timeout_seconds,
            force=force,
            stop_timeout=self._order.stop_timeout,
            port_range=self._order.settings.port_range,
            warn=lambda message, service="": self._parts.warn(message, deployment=self.number, service=service),
        )

    async def _prove(self) -> None:
        if "health" in self._order.skip_phases or self._plan.kind == "stop":
            return
        touched = [name for name in self._touched() if _serves(self._plan.after.get(name))]
        context = self._context(self._plan.after, self._plan.before)
        try:
            await operations.ready_together(context, touched)
        except DeployCodeError as exc:
            if not (self._parts.options.force and exc.code == "E006"):
                self._outcome.failures.setdefault(getattr(exc, "service", ""), exc)
                raise
            self._parts.warn(f"{exc} (forced)", deployment=self.number)
        else:
            self._completed("health")

    def _touched(self) -> Iterable[str]:
        return self._plan.actions

    # ------------------------------------------------------------------------------------------------------- the ends

    async def _succeed(self) -> None:
        self.report.success = True
        self.report.status = DeploymentStatus.COMPLETED
        self.report.deployed_services = self.report.total_services
        good = not self._parts.options.force and "health" not in self._order.skip_phases
        await self._finish(good=good)
        await self._hooks("post_deploy")

    async def _fail(self, error: DeployCodeError) -> None:
        if self._going_back and error.code == "E017":
            raise error  # a way back that was interrupted stays recorded as running: it can be taken up again
        await self._evidence(error)
        await self._hooks("on_failure")
        undo = self._order.settings.rollback_on_failure and not self._parts.options.no_rollback
        if undo and not self._going_back and self._plan.kind != "stop":
            await self._undo(error)
        else:
            self.report.status = DeploymentStatus.FAILED
        self._count()
        await self._finish(good=False)

    async def _evidence(self, error: DeployCodeError) -> None:
        """Root cause first: everything about the failed services, before a rollback wipes it."""
        failures = dict(self._outcome.failures) or {getattr(error, "service", ""): error}
        for service, each in failures.items():
            skipped = tuple(sorted(name for name, root in self._outcome.skipped.items() if root == service))
            failure = await explain(self._parts, service, each, skipped)
            self.report.failures.append(failure)
            self.report.errors.append(str(failure))
            await self._parts.plugins.call("on_failure", failure)
        if error not in failures.values():
            self.report.errors.insert(0, self._parts.redactor.clean(str(error)))
        for name, root in sorted(self._outcome.skipped.items()):
            self.report.errors.append(f"{title('E007')}: {name} was not started: {root}, which it needs, failed")

    async def _undo(self, reason: DeployCodeError) -> None:
        self._parts.publish(RollbackStarted(deployment=self.number, reason=self._parts.redactor.clean(reason.message)))
        error = await self._guarded(self._back(), "deployment back")
        if error is not None and error.code == "E017":
            raise error
        if error is not None:
            self.report.errors.append(self._parts.redactor.clean(str(error)))
        self.report.status = DeploymentStatus.FAILED if error is not None else DeploymentStatus.ROLLED_BACK
        await self._parts.plugins.call("on_rollback", self.report)

    async def _back(self) -> None:
        """The way back is a plan like any other, from what is now to what was wanted before."""
        plan = await self._plan_back()
        context = replace(self._context(plan.after, self._plan.after), present=self._present_now())
        executor = Executor(
            plan,
            lambda step: operations.perform(context, step),
            deployment=self.number,
            max_parallel=max(UNDO_PARALLEL, self._order.settings.max_parallel),
            publish=self._parts.publish,
            trace=self._parts.writer,
            offset=len(self._plan.steps),
            keep_going=True,
        )
        outcome = await executor.walk()
        if outcome.failures:
            raise _rollback_failed(outcome)

    async def _plan_back(self) -> Plan:
        plan = self._plan
        started = frozenset(name for name in self._outcome.started if name)
        touched = {**plan.before, **{name: goal for name, goal in plan.after.items() if name in started}}
        observed = observe(self._parts.store, await self._parts.platform.observe(), recorded=touched)
        target = Target(
            project=plan.project,
            kind="rollback",
            goals=plan.before,
            settings=replace(self._order.settings, strategy="Parallel"),
            only=started,
            ungated=frozenset(self._was_unhealthy()),
            run_one_shots=False,
        )
        return reconcile(target, observed)

    def _was_unhealthy(self) -> Iterable[str]:
        for name, goal in self._plan.before.items():
            found = self._order.observed.of(name)
            if found.ready(goal.revision) < goal.replicas:
                yield name

    def _present_now(self) -> dict[str, set[int]]:
        present: dict[str, set[int]] = {}
        for row in self._parts.store.wanted_rows():
            present.setdefault(row.service, set()).add(row.revision)
        return present

    def _count(self) -> None:
        self.report.failed_services = len([name for name in self._outcome.failures if name])
        kept = set(self._plan.unchanged)
        if self.report.status is DeploymentStatus.FAILED:
            kept |= self._outcome.done & set(self._plan.after)
        self.report.deployed_services = len(kept)

    async def _finish(self, *, good: bool) -> None:
        """The outcome is written even when everything around is being cancelled, and for a bounded time only."""
        from deploy_code.orchestrator.record import finish

        with suppress(asyncio.CancelledError):
            await asyncio.wait({asyncio.ensure_future(self._settle())}, timeout=FINISH_SECONDS)
        self.report.duration = time.time() - self._began
        self.report.warnings = list(dict.fromkeys(self._parts.warnings))
        finish(self._parts, self.number, self.report, good=good, plan=self._plan)
        self._parts.publish(
            DeploymentFinished(
                deployment=self.number,
                kind=self._plan.kind,
                status=str(self.report.status),
                duration=self.report.duration,
                errors=tuple(self.report.errors),
            )
        )

    async def _settle(self) -> None:
        try:
            await self._parts.platform.settle(self.number)
        except DeployCodeError as exc:
            self._parts.warn(f"the agent was not told that deployment {self.number} is over: {exc}")

    def _note_end(self, exc: BaseException) -> None:
        """For whoever is told about the end although it was no regular one."""
        self.report.success = False
        if self.report.status is DeploymentStatus.IN_PROGRESS:
            self.report.status = DeploymentStatus.FAILED
        text = str(exc) if isinstance(exc, DeployCodeError) else f"{title('E017')}: {type(exc).__name__}"
        if text not in self.report.errors:
            self.report.errors.append(self._parts.redactor.clean(text))

    async def _say_goodbye(self) -> None:
        self.report.duration = time.time() - self._began
        self.report.warnings = list(dict.fromkeys(self._parts.warnings))
        await self._parts.plugins.call("on_deployment_complete", self.report)
        await self._parts.plugins.drain()
        self.report.warnings = list(dict.fromkeys(self._parts.warnings))

    async def _hooks(self, name: str) -> None:
        hooks, order = self._order.hooks, self._order
        for argv in getattr(hooks, name):
            try:
                await run_hook(name, argv, folder=order.root, env=order.env or {}, timeout=hooks.timeout_seconds)
            except DeploymentError as exc:
                if name == "pre_deploy":
                    raise
                self._parts.warn(str(exc), deployment=self.number)


def _serves(goal: Goal | None) -> bool:
    return goal is not None and not goal.stopped and not goal.spec.content.one_shot and goal.replicas > 0


def _interrupted() -> DeployCodeError:
    return DeploymentError(
        "the deployment was interrupted",
        code="E017",
        meaning="What it had begun is recorded",
        remedy="The next deploy, stop, restart, scale or rollback finishes or undoes it, or run `deploy-code recover`",
    )


def _rollback_failed(outcome: Outcome) -> DeploymentError:
    listed = "; ".join(f"{service}: {error.message}" for service, error in outcome.failures.items())
    skipped = f" Not restored because of that: {', '.join(sorted(outcome.skipped))}." if outcome.skipped else ""
    return DeploymentError(
        f"the rollback could not restore everything: {listed}.{skipped}",
        code="E009",
        meaning="Services are in a mixed state",
        remedy="See it with `deploy-code status --detailed`, correct the cause, then `deploy-code rollback`",
    )
