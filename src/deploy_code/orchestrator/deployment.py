"""One deployment from its first change to its last word: record, walk, prove, and undo as one unit if it must be.

What is wanted is recorded before anything is done, and every step is a "make it so": killed at any point, the next
command or the agent finishes or undoes it from the record (see ``recover``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploy_code.errors import ConfigError, DeployCodeError, DeploymentError, title
from deploy_code.events import DeploymentFinished, DeploymentStarted, PhaseCompleted, RollbackStarted
from deploy_code.model import Hooks, Phase, Settings
from deploy_code.orchestrator import operations, undo
from deploy_code.orchestrator.brake import Brake, called_off, interrupted
from deploy_code.orchestrator.executor import Executor, Outcome
from deploy_code.orchestrator.failure import evidence, out_of_time, scrub, skip_error
from deploy_code.orchestrator.hooks import run_hook
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.orchestrator.rollout_hooks import RolloutHooks
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.plan import Custom, Goal, Plan, Step, WaitReady
from deploy_code.plugins import Extension
from deploy_code.services.status import DeploymentStatus

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.orchestrator.parts import Parts

FINISH_SECONDS = 10.0  # how long the agent has to hear that a deployment is over
UNDO_PARALLEL = 50  # a rollback is not throttled by max_parallel: it wants to be over
SLACK_SECONDS = 1.0  # so that the deadline of a single gate, which says more, comes before that of the whole


def no_config() -> DeploymentConfig:
    """For operations that need no file. Raises ConfigError."""
    raise ConfigError("this operation has no configuration file", remedy="Deploy with one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one deployment is to do, all decided but for what a custom ``strategy`` decides on the way.

    ``target``: what the plan was made from, and each piece of a strategy is made from again.
    """

    plan: Plan
    observed: Observed
    settings: Settings
    target: Target | None = None
    strategy: Extension | None = None
    hooks: Hooks = Hooks()
    root: str = ""
    env: dict[str, str] | None = None
    skip_phases: frozenset[str] = frozenset()
    stop_timeout: float | None = None
    forced: bool = False
    config: Callable[[], DeploymentConfig] = no_config
    number: int = 0  # of an interrupted deployment that is finished under its own number


class DeploymentRun:
    """One run of one order. ``run()`` once."""

    def __init__(self, parts: Parts, order: Order, *, going_back: bool = False) -> None:
        self._parts = parts
        self._order = order
        self._plan = order.plan
        self._going_back = going_back or order.plan.kind == "rollback"  # never rolled back itself
        self._brake = Brake()
        self._began = time.time()
        self._outcome = Outcome()
        self._undone = False
        self._runtime_away = False  # so that not everything could be undone
        self._forced: set[str] = set()  # services whose gate was passed by force
        self._hooked = RolloutHooks(parts.plugins, order.plan)
        self._steps = len(order.plan.steps)  # so many positions of the trace are taken
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

    def interrupt(self) -> None:
        """First call: stop going forward, roll back in order. Second: stop at once; the record says how to go on."""
        self._brake.pull()

    # ----------------------------------------------------------------------------------------------------- the story

    async def run(self) -> DeploymentReport:
        """The whole story. Raises only for what is found before the first step, and when interrupted twice."""
        try:
            await self._story()
        except BaseException as exc:
            self._note_end(exc)
            await self._brake.outlast(self._say_goodbye())
            if self._brake.cancelled and isinstance(exc, DeployCodeError):
                raise asyncio.CancelledError from exc
            raise
        await self._brake.outlast(self._say_goodbye())
        if self._brake.cancelled:
            raise asyncio.CancelledError
        return self.report

    async def _story(self) -> None:
        error = await self._brake.guard(self._tell_start(), "hooks before")
        if error is not None:
            raise error
        self._record()
        error = await self._brake.guard(self._forward(), "deployment forward")
        await (self._succeed() if error is None else self._fail(error))

    async def _tell_start(self) -> None:
        """Whoever is told may take its time: it can be interrupted."""
        await self._parts.plugins.call("on_deployment_start", self._scope())
        await self._hooks("pre_deploy")

    def _record(self) -> None:
        if not self.number:
            from deploy_code.orchestrator.record import begin

            self.number = begin(self._parts, self._order)
        self.report.deployment = self.number
        self._parts.publish(
            DeploymentStarted(deployment=self.number, kind=self._plan.kind, services=tuple(self._scope()))
        )

    async def _forward(self) -> None:
        settings = self._order.settings
        bound = settings.total_timeout_seconds or (
            settings.timeout_seconds * max(1, len(self._plan.actions)) + SLACK_SECONDS
        )
        try:
            async with asyncio.timeout(bound):
                await self._phases()
        except TimeoutError as exc:
            self._outcome.failures.update(out_of_time(self._parts.platform, self._plan, self._outcome))
            by = f": {self._order.strategy} had not ended" if self._order.strategy is not None else ""
            raise DeploymentError(
                f"the deployment was not over after {bound:g} s (deployment.total_timeout_seconds){by}",
                code="E008",
            ) from exc

    async def _phases(self) -> None:
        from deploy_code.orchestrator.releases import keep_code

        for phase in ("validation", "resources", "network"):
            self._completed(phase)  # checked and set aside before the record was made
        keep_code(self._plan, self._parts.identity.directories.state, self._order.observed)
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

    # ------------------------------------------------------------------------------------------------------- forward

    async def _walk(self) -> None:
        context = self._context(self._plan.after, self._plan.before, again=bool(self._order.number))
        executor = self._executor(
            self._plan,
            lambda step: self._perform(context, step),
            max_parallel=self._order.settings.max_parallel,
            keep_going=self._going_back or self._plan.kind == "stop",
            outcome=self._outcome,
        )
        await executor.walk()
        if self._outcome.failures:
            raise self._walk_failed()

    def _walk_failed(self) -> DeployCodeError:
        if self._plan.kind == "rollback":
            return undo.rollback_failed(self._outcome)
        return next(iter(self._outcome.failures.values()))

    def _executor(
        self,
        plan: Plan,
        perform: Callable[[Step], Awaitable[None]],
        *,
        max_parallel: int,
        keep_going: bool,
        offset: int = 0,
        outcome: Outcome | None = None,
    ) -> Executor:
        async def told(step: Step) -> None:
            try:
                await perform(step)
            except DeployCodeError as exc:
                scrub(exc, self._parts.redactor)
                raise

        return Executor(
            plan,
            told,
            deployment=self.number,
            max_parallel=max_parallel,
            publish=self._parts.publish,
            trace=self._parts.audit,
            offset=offset,
            keep_going=keep_going,
            outcome=outcome,
        )

    async def _perform(self, context: operations.Context, step: Step) -> None:
        if isinstance(step, Custom):
            await self._follow(step)
            return
        await self._hooked.before(step)
        await operations.perform(context, step)
        await self._hooked.after(step)

    async def _follow(self, step: Custom) -> None:
        """Let the custom strategy decide; what it left undone is a failure, whatever it says."""
        from deploy_code.orchestrator import strategy
        from deploy_code.orchestrator.pieces import PiecesOfRun

        order = self._order
        if order.strategy is None or order.target is None:
            raise DeploymentError(f'the strategy "{step.strategy}" is not there')
        pieces = PiecesOfRun(
            parts=self._parts,
            plan=self._plan,
            target=order.target,
            services=step.services,
            drifts=[each for found in order.observed.services.values() for each in found.drifts],
            outcome=self._outcome,
            walk=self._walk_piece,
            context=lambda goals: self._context(goals, self._plan.before),
            config=order.config,
        )
        report = await strategy.follow(order.strategy, order.settings.strategy_options, step.services, pieces)
        for warning in report.warnings:
            self._parts.warn(warning, deployment=self.number)
        if self._outcome.failures:  # caught by the strategy, and a failure all the same
            raise next(iter(self._outcome.failures.values()))
        if not report.success:
            raise strategy.failed(order.strategy, "; ".join(report.errors) or "it reports no success")
        if left := pieces.left_out():
            raise strategy.failed(order.strategy, f"it ended without deploying {', '.join(left)}")

    async def _walk_piece(self, plan: Plan, observed: Observed) -> None:
        again = self._steps > len(self._plan.steps) or bool(self._order.number)
        context = replace(
            self._context(plan.after, plan.before, again=again),
            present={name: found.revisions for name, found in observed.services.items()},
        )
        executor = self._executor(
            plan,
            lambda step: self._perform(context, step),
            max_parallel=self._order.settings.max_parallel,
            keep_going=False,
            offset=self._steps,
            outcome=self._outcome,
        )
        self._steps += len(plan.steps)
        await executor.walk()

    def _context(self, new: Mapping[str, Goal], old: Mapping[str, Goal], *, again: bool = False) -> operations.Context:
        return operations.Context(
            platform=self._parts.platform,
            deployment=self.number,
            goals=new,
            old=old,
            present={name: found.revisions for name, found in self._order.observed.services.items()},
            timeout=self._order.settings.timeout_seconds,
            again=again,
            force=self._order.forced,
            forced=self._forced,
            stop_timeout=self._order.stop_timeout,
            port_range=self._order.settings.port_range,
            forget=self._order.forced and self._plan.kind == "stop",
            warn=lambda message, service="": self._parts.warn(message, deployment=self.number, service=service),
        )

    async def _prove(self) -> None:
        if "health" in self._order.skip_phases or self._plan.kind == "stop":
            return
        context = self._context(self._plan.after, self._plan.before)
        try:
            await operations.ready_together(context, self._to_prove())
        except DeployCodeError as exc:
            scrub(exc, self._parts.redactor)
            if not (self._order.forced and exc.code == "E006"):
                self._outcome.failures.setdefault(getattr(exc, "service", ""), exc)
                raise
            self._parts.warn(f"{exc} (forced)", deployment=self.number)
        else:
            self._completed("health")

    def _to_prove(self) -> list[str]:
        """What this run touched and waited for: a target that was sick before is not asked to be well."""
        ungated = {step.service for step in self._plan.steps if isinstance(step, WaitReady) and not step.gated}
        passed = ungated | self._forced
        return [name for name in self._plan.actions if name not in passed and _serves(self._plan.after.get(name))]

    # ------------------------------------------------------------------------------------------------------- the ends

    async def _succeed(self) -> None:
        self.report.success = True
        self.report.status = DeploymentStatus.COMPLETED
        self._count()
        await self._finish(good=self._is_good())
        await self._brake.guard(self._hooks("post_deploy"), "hooks after")

    def _is_good(self) -> bool:
        """Was everything that it touched ready together? A stop proves nothing, and none returns to it unasked."""
        carried = set(self._plan.after) - set(self._plan.services)  # with `services`: what was left alone
        return (
            not self._order.forced
            and "health" not in self._order.skip_phases
            and self._plan.kind != "stop"
            and all(self._is_deployed(name) for name in carried if _serves(self._plan.after[name]))
        )

    async def _fail(self, error: DeployCodeError) -> None:
        if error.code == "E017" and (self._going_back or self._plan.kind == "stop"):
            raise error  # it stays recorded as running, and is finished when it is taken up again
        wanted_back = self._order.settings.rollback_on_failure and not self._parts.options.no_rollback
        goes_back = wanted_back and not self._going_back and self._plan.kind != "stop"
        if error.code == "E017" and goes_back:
            error = called_off()
        await self._brake.guard(self._tell(error), "telling of the failure")
        if not self.report.errors:  # interrupted before the evidence was there
            self.report.errors.append(self._parts.redactor.clean(str(error)))
        if goes_back:
            await self._undo(error)
        else:
            self.report.status = DeploymentStatus.FAILED
            self._runtime_away |= self._going_back and undo.runtime_away(self._outcome)
        self._count()
        if self._runtime_away:
            self._leave_open()
        else:
            await self._finish(good=False)

    def _leave_open(self) -> None:
        """What was to go back could not, because nobody could be asked: it stays recorded as running, and whoever
        comes next, the agent above all, brings it to its end when the runtime is there again.
        """
        self._parts.warn(
            f"{self._plan.kind} {self.number} stays open: a container runtime is away, and what is left to undo is "
            "undone when it is back, by the agent or by the next command that changes something",
            deployment=self.number,
        )
        self._sum_up()
        self._publish_end()

    async def _tell(self, error: DeployCodeError) -> None:
        """Root cause first: everything about the failed services, before a rollback wipes it."""
        failures = dict(self._outcome.failures) or {getattr(error, "service", ""): error}
        if error not in failures.values():
            self.report.errors.append(self._parts.redactor.clean(str(error)))
        async for failure in evidence(self._parts, self._plan, failures, self._outcome):
            self.report.failures.append(failure)
            self.report.errors.append("\n".join(failure.render()))
            await self._parts.plugins.call("on_failure", failure)
        for name, root in sorted(self._outcome.skipped.items()):
            self.report.errors.append(skip_error(self._plan, name, root))
        await self._hooks("on_failure")

    async def _undo(self, reason: DeployCodeError) -> None:
        if self._brake.at_once:
            raise interrupted()
        self._undone = True
        self._parts.publish(RollbackStarted(deployment=self.number, reason=self._parts.redactor.clean(reason.message)))
        error = await self._brake.guard(self._back(), "deployment back")
        if error is not None and error.code == "E017":
            raise error
        if error is not None:
            self.report.errors.append(self._parts.redactor.clean(str(error)))
        self.report.status = DeploymentStatus.FAILED if error is not None else DeploymentStatus.ROLLED_BACK
        await self._brake.outlast(self._parts.plugins.call("on_rollback", self.report))

    async def _back(self) -> None:
        """The way back is a plan like any other, from what is now to what was wanted before."""
        if ran := undo.one_shots_run(self._plan, self._outcome):
            self._parts.warn(f"one-shots that ran are not undone: {', '.join(ran)}", deployment=self.number)
        order = self._order
        plan = await undo.plan_back(self._parts, self._plan, order.observed, self._outcome, order.settings)
        context = replace(
            self._context(plan.after, self._plan.after, again=True),
            present=undo.present_now(self._parts),
            force=False,
        )
        executor = self._executor(
            plan,
            lambda step: operations.perform(context, step),
            max_parallel=max(UNDO_PARALLEL, order.settings.max_parallel),
            keep_going=True,
            offset=self._steps,
        )
        outcome = await executor.walk()
        if outcome.failures:
            self._runtime_away = undo.runtime_away(outcome)
            raise undo.rollback_failed(outcome)

    def _count(self) -> None:
        """``deployed`` is at the wanted revision and ready, as last heard; after a rollback only what is untouched."""
        self.report.failed_services = len([name for name in self._outcome.failures if name])
        kept = self._scope() if not self._undone else self._plan.unchanged
        self.report.deployed_services = len([name for name in kept if self._is_deployed(name)])

    def _is_deployed(self, name: str) -> bool:
        goal = self._plan.after[name]
        if goal.spec.content.one_shot:
            return name in self._plan.unchanged or name in self._outcome.done
        found = self._parts.platform.instances(name)
        ready = [each for each in found if each.revision == goal.revision and each.phase is Phase.READY]
        return not goal.stopped and len(ready) >= goal.replicas

    def _wanted_now(self) -> Mapping[str, Goal]:
        """What is wanted from here on. Left as it stands, a deployment has changed only what it began."""
        if self._undone:
            return self._plan.before
        if self.report.success or self._going_back:
            return self._plan.after
        waiting = set(self._plan.actions) - self._outcome.started
        begun = {name: goal for name, goal in self._plan.after.items() if name not in waiting}
        return begun | {name: goal for name, goal in self._plan.before.items() if name in waiting}

    async def _finish(self, *, good: bool) -> None:
        """The outcome is written even when everything around is being cancelled, and for a bounded time only."""
        from deploy_code.orchestrator.record import finish

        await self._brake.outlast(self._settle(), timeout=FINISH_SECONDS)
        self._sum_up()
        finish(self._parts, self.number, self.report, good=good, wanted=self._wanted_now())
        self._parts.reservations.settle(self._wanted_now())
        self._publish_end()

    def _publish_end(self) -> None:
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
        self._sum_up()
        await self._parts.plugins.call("on_deployment_complete", self.report)
        await self._parts.plugins.drain()
        self._sum_up()

    def _sum_up(self) -> None:
        self.report.duration = time.time() - self._began
        self.report.warnings = list(dict.fromkeys((*self._parts.warnings, *self._parts.bus.failures)))

    async def _hooks(self, name: str) -> None:
        hooks, order = self._order.hooks, self._order
        for argv in getattr(hooks, name):
            try:
                await run_hook(name, argv, folder=order.root, env=order.env or {}, timeout=hooks.timeout_seconds)
            except DeploymentError as exc:
                scrub(exc, self._parts.redactor)
                if name == "pre_deploy":
                    raise
                self._parts.warn(str(exc), deployment=self.number)


def _serves(goal: Goal | None) -> bool:
    return goal is not None and not goal.stopped and not goal.spec.content.one_shot and goal.replicas > 0
