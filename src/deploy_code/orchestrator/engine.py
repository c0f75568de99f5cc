"""``Engine``: the operations of a project, each a recorded deployment under the lock, from a plan.

Every call opens what it needs and closes it again, so that one object lives through several event loops.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deploy_code.errors import ConfigError, DeploymentError, ServiceError
from deploy_code.events import Bus
from deploy_code.model import Drift, Project, Settings
from deploy_code.orchestrator import targets
from deploy_code.orchestrator.brake import interrupted_before
from deploy_code.orchestrator.deployment import DeploymentRun, Order
from deploy_code.orchestrator.drift import drifts_of, read_drift
from deploy_code.orchestrator.engine_facts import engine_facts
from deploy_code.orchestrator.failure import scrubbed
from deploy_code.orchestrator.limits import unenforced
from deploy_code.orchestrator.observe import goals, observe, recorded_instances
from deploy_code.orchestrator.preflight import preflight, starts
from deploy_code.orchestrator.record import entries, settings_of
from deploy_code.orchestrator.recover import leave, recovery, unfinished
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.orchestrator.strategy import Registered, registered, remembered
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.plan import Goal, Plan, redacted
from deploy_code.plan.reconcile import reconcile
from deploy_code.plugins import Plugin, load_extensions

if TYPE_CHECKING:
    from deploy_code.orchestrator.parts import Host, Parts
    from deploy_code.security.redact import Redactor
    from deploy_code.state.rows import DeploymentRow
    from deploy_code.state.store import Store

    FromRecord = Callable[[Store, Mapping[str, Goal]], "MakeTarget"]

PHASES = ("validation", "resources", "network", "storage", "services", "health", "monitoring", "logging")

MakeTarget = Callable[[Observed], Target]


class Engine:
    """Brings a project from what runs to what its file says, and back. ``bus`` carries every event of its runs.

    ``plugins`` and ``strategies`` (by name; rollout functions too) are those that were registered in code.
    """

    def __init__(
        self, host: Host, *, plugins: Iterable[Plugin] = (), strategies: Mapping[str, Any] | None = None
    ) -> None:
        self.bus = Bus()
        self._host = host
        self._plugins = list(plugins)
        self._strategies = dict(strategies or {})
        self._known = Registered()
        self._run: DeploymentRun | None = None
        self._preparation = host.preparation()
        self._asked_to_end = False

    # ------------------------------------------------------------------------------------------------------ operations

    async def deploy(
        self,
        services: Sequence[str] | None = None,
        skip_phases: Sequence[str] | None = None,
        *,
        rerun: Sequence[str] = (),
    ) -> DeploymentReport:
        """Make the project as its file says; with ``services`` only those, and what they need that is not healthy.

        Raises DeployCodeError for everything found before the first step. Once a step has run, what went wrong is in
        the report (``success`` False), rollback included. On a dry run nothing is changed and ``report.plan`` is set.
        """
        skipped = _phases(skip_phases)
        self._host.prestart(self.bus)
        try:
            project = self._host.load()
            known = self._registered(project)
            make = partial(targets.deploy, services=services, rerun=rerun, strategy=known.chosen)
            make(project)  # names that are not there are told before anything else
            dry = self._host.options.dry_run or project.settings.dry_run
            with scrubbed(lambda: self._host.redactor(project)):
                _ = dry or known.extensions.constructed  # one that cannot be is a mistake in the file
        except BaseException:
            await self._host.forget_prestarted()
            raise
        if dry:
            project, plan = await self._plan(project, known, make, services, skipped)
            return _planned(plan, project.warnings)
        async with self._session(project, known) as parts:
            self._heed()
            project = await self._preparation.settled(project, only=services, book=parts.store, publish=parts.publish)
            return await self._deploy(parts, project, known, make(project), skipped)

    async def plan(self, services: Sequence[str] | None = None, *, rerun: Sequence[str] = ()) -> Plan:
        """What ``deploy`` would do, preflight included. Opens the state read-only, starts no agent, creates nothing."""
        project = self._host.load()
        known = self._registered(project)
        make = partial(targets.deploy, services=services, rerun=rerun, strategy=known.chosen)
        make(project)
        return (await self._plan(project, known, make, services, frozenset()))[1]

    async def stop(
        self, timeout: float | None = None, services: Sequence[str] | None = None
    ) -> DeploymentReport | None:
        """Stop all services, dependents first, and remember the wish. ``timeout``: seconds for each, not its own.

        None when the project was never deployed. Works whatever is wrong with the file. By force, what cannot be
        stopped (a custom service whose ``stop`` raises, or that nobody can run) is forgotten, whatever of it goes on.
        """
        if not self._host.has_state():
            return None
        return await self._recorded(
            lambda _, now: targets.stop(self._name, now, services), stop_timeout=timeout, stopping=True
        )

    async def restart(self, services: Sequence[str] | None = None) -> DeploymentReport:
        """Recreate services at their revision, in dependency order, gated; the others are left alone."""
        return await self._recorded(lambda _, now: targets.restart(self._name, now, services))

    async def scale(self, replicas: Mapping[str, int]) -> DeploymentReport:
        """Run so many instances of these services. The file's number wins at the next deploy, where it has one."""
        return await self._recorded(lambda _, now: targets.scale(self._name, now, replicas))

    async def rollback(self, to: int | None = None) -> DeploymentReport:
        """Restore exactly what deployment ``to`` left; without it the last good one that differs from now."""

        def make(store: Store, now: Mapping[str, Goal]) -> MakeTarget:
            wanted = goals(store, targets.rollback_row(store, to).wanted)
            warnings = (*targets.changed_files(wanted, self._host.root()), *targets.one_shots_kept(now, wanted))
            return targets.rollback(self._name, wanted, warnings=warnings)

        return await self._recorded(make)

    async def recover(self, number: int | None = None, *, resume: bool = False) -> DeploymentReport | None:
        """Finish or undo the interrupted deployment ``number`` (None: whichever there is); None when there is none."""
        if not self._host.has_state():
            return None
        async with self._session(None, None, recover=False) as parts:
            row = parts.store.running_deployment()
            if row is None or number not in (None, row.number):
                return None
            return await self._finish_interrupted(parts, row, resume=resume)

    def interrupt(self) -> None:
        """First call: an orderly rollback. Second: stop at once; what is left is recorded and can be recovered."""
        self._asked_to_end = True
        self._preparation.interrupt()
        if self._run is not None:
            self._run.interrupt()

    # ---------------------------------------------------------------------------------------------------------- pieces

    @asynccontextmanager
    async def _session(
        self, project: Project | None, known: Registered | None, *, recover: bool = True, stopping: bool = False
    ) -> AsyncIterator[Parts]:
        """Everything open and locked, and whatever was interrupted before brought to its end."""
        self._asked_to_end = False
        async with self._host.session(self.bus, project, self._plugins) as parts:
            self._known = known or self._remembered(parts)
            parts.plugins.seat(self._known.extensions.constructed, self._known.limits)
            row = parts.store.running_deployment() if recover else None
            if row is not None:
                await self._finish_interrupted(parts, row)
                await self._nothing_open(parts, stopping=stopping)
            yield parts

    async def _nothing_open(self, parts: Parts, *, stopping: bool) -> None:
        """What cannot be brought to its end now keeps everything from being changed, but not from being stopped."""
        row = parts.store.running_deployment()
        if row is None:
            return
        if stopping:
            await leave(parts, row)
            return
        raise DeploymentError(
            f"{row.kind} {row.number} is not brought to its end yet: a container runtime is away",
            code="E014",
            remedy="Start the runtime; the agent goes on by itself then. `deploy-code stop` works all the same",
        )

    async def _finish_interrupted(self, parts: Parts, row: DeploymentRow, *, resume: bool = False) -> DeploymentReport:
        run = await recovery(parts, row, resume=resume, known=self._known, config=self._host.config)
        return await leave(parts, row) if run is None else await self._carry_out(run)

    async def _carry_out(self, run: DeploymentRun) -> DeploymentReport:
        self._heed()
        self._run = run
        try:
            return await run.run()
        finally:
            self._run = None

    def _heed(self) -> None:
        """An interruption may come while nothing is under way, as after the recovery of another deployment."""
        if self._asked_to_end:
            raise interrupted_before()

    @property
    def _name(self) -> str:
        return self._host.identity.name

    def _registered(self, project: Project) -> Registered:
        """What the file and this process registered, all of it loaded. Raises ConfigError for what cannot be."""
        files = self._host.identity.files
        with scrubbed(lambda: self._host.redactor(project)):
            extensions = load_extensions(
                project.plugins, root=project.root, file=os.path.basename(files[0]) if files else ""
            )
            return registered(project, extensions, self._strategies)

    def _remembered(self, parts: Parts) -> Registered:
        """For operations without the file: what the last deployment used. What cannot be had any more only warns."""
        last = parts.store.last_deployment()
        return remembered(settings_of(last.settings if last else None), self._strategies, parts.warn)

    async def _deploy(
        self, parts: Parts, project: Project, known: Registered, make: MakeTarget, skipped: frozenset[str]
    ) -> DeploymentReport:
        parts.warnings.extend(map(parts.redactor.clean, project.warnings))
        order = await self._order(parts, make, project.settings, known, drifts=await drifts_of(parts))
        parts.warnings.extend(order.plan.warnings)
        order = replace(
            order,
            config=self._host.config,
            hooks=project.hooks,
            root=project.root,
            env=dict(project.env),
            skip_phases=skipped,
        )
        await self._preflight(parts, order)
        return await self._execute(parts, order)

    async def _recorded(
        self, make: FromRecord, *, stop_timeout: float | None = None, stopping: bool = False
    ) -> DeploymentReport:
        """An operation on what was deployed before; it needs no file."""
        if self._host.options.dry_run:
            return self._preview(make)
        async with self._session(None, None, stopping=stopping) as parts:
            store = parts.store
            last = store.last_deployment()
            target = make(store, goals(store, store.current_map()))
            order = await self._order(parts, target, settings_of(last.settings if last else None), self._known)
            order = replace(order, stop_timeout=stop_timeout, root=self._host.root())
            parts.warnings.extend(order.plan.warnings)
            await self._preflight(parts, order)
            self._heed()
            await self._preparation.present(starts(order.plan).values(), book=parts.store, publish=parts.publish)
            return await self._execute(parts, order)

    async def _order(
        self,
        parts: Parts,
        make: MakeTarget,
        settings: Settings,
        known: Registered,
        *,
        drifts: Iterable[Drift] = (),
    ) -> Order:
        observed = observe(parts.store, await parts.platform.observe(), drifts=drifts)
        target = replace(make(observed), settings=settings, rollouts=known.rollouts)
        return Order(
            plan=self._annotated(_reconciled(target, observed, parts.redactor)),
            observed=observed,
            settings=settings,
            target=target,
            strategy=known.strategy if target.strategy else None,
            forced=parts.options.force,
        )

    async def _preflight(self, parts: Parts, order: Order) -> None:
        if order.plan.kind != "stop":
            await self._look_ahead(
                order.plan, order.observed, order.root, order.skip_phases, parts.redactor, self._known
            )

    async def _look_ahead(
        self,
        plan: Plan,
        observed: Observed,
        root: str,
        skipped: Collection[str],
        redactor: Redactor,
        known: Registered,
    ) -> None:
        if "validation" in skipped:
            return
        state = self._host.identity.directories.state
        with scrubbed(lambda: redactor):
            preflight(
                plan,
                state=state,
                root=root,
                held=_held(observed),
                code_types={*self._host.code_types, *_served(observed)},
                known_types=known.extensions.types,
                engines=await engine_facts(starts(plan).values(), project=self._name, state=state),
            )

    async def _execute(self, parts: Parts, order: Order) -> DeploymentReport:
        if order.plan.is_empty and _nothing_to_record(parts, order.plan):
            parts.reservations.confirm(order.plan.after)
            return _unchanged(parts, order)
        if order.plan.kind != "stop":
            self._reserve(parts, order)
        run = DeploymentRun(parts, order)
        try:
            return await self._carry_out(run)
        finally:
            if not run.number:  # refused before it was recorded: what was set aside for it is free again
                parts.reservations.settle(order.plan.before)

    def _reserve(self, parts: Parts, order: Order) -> None:
        """Phase "resources", all or nothing. Raises PreflightError (E004) before anything was changed."""
        for warning in parts.reservations.reserve(
            order.plan, order.settings, force=order.forced, check="resources" not in order.skip_phases
        ):
            parts.warn(warning)

    # --------------------------------------------------------------------------------------------------------- dry run

    async def _plan(
        self,
        project: Project,
        known: Registered,
        make: Callable[[Project], MakeTarget],
        only: Collection[str] | None,
        skipped: Collection[str],
    ) -> tuple[Project, Plan]:
        """The plan, and the project it is for: with all that its images say, as far as they are there."""
        with ExitStack() as stack:
            store = self._reader(stack)
            told = len(project.warnings)
            project = await self._preparation.settled(project, only=only, book=store, look_only=True)
            observed = self._look(store, drift=True) if store else Observed()
            warnings = (*self._unfinished(store), *project.warnings[told:])
            target = replace(make(project)(observed), rollouts=known.rollouts, warnings=warnings)
        redactor = self._host.redactor(project)
        plan = self._annotated(_reconciled(target, observed, redactor))
        await self._look_ahead(plan, observed, project.root, skipped, redactor, known)
        if "resources" not in skipped and not self._host.options.force:
            self._host.reservations().check(plan, project.settings)
        return project, plan

    def _unfinished(self, store: Store | None) -> tuple[str, ...]:
        """A deployment that was left behind, which somebody who only looks leaves as it is."""
        row = store.running_deployment() if store else None
        return (unfinished(row, self._host.identity.directories.state),) if row else ()

    def _preview(self, make: FromRecord) -> DeploymentReport:
        with ExitStack() as stack:
            store = self._reader(stack)
            if store is None:
                raise ServiceError(
                    f"nothing of {self._name} was ever deployed", remedy="Run `deploy-code deploy` first"
                )
            observed = self._look(store)
            target = make(store, goals(store, store.current_map()))(observed)
            last, told = store.last_deployment(), list[str]()
            settings = settings_of(last.settings if last else None)
            known = remembered(settings, self._strategies, told.append)
            warnings = (*self._unfinished(store), *told, *target.warnings)
            target = replace(target, settings=settings, rollouts=known.rollouts, warnings=warnings)
        plan = _reconciled(target, observed, self._host.redactor())
        if plan.kind != "stop" and not self._host.options.force:
            self._host.reservations().check(plan, settings)
        return _planned(plan, ())

    def _reader(self, stack: ExitStack) -> Store | None:
        store = self._host.reader()
        if store is not None:
            stack.enter_context(store)
            self._host.check_owner(store)
        return store

    def _annotated(self, plan: Plan) -> Plan:
        return replace(plan, notes=(*plan.notes, *unenforced(plan, self._host.identity.directories.state)))

    def _look(self, store: Store, *, drift: bool = False) -> Observed:
        alive = self._host.agent_is_alive()
        told = read_drift(store, self._host.identity.directories.state).found if drift and alive else ()
        return observe(store, recorded_instances(store, agent_alive=alive), drifts=told)


def _reconciled(target: Target, observed: Observed, redactor: Redactor) -> Plan:
    """Without secrets, as whatever it raises: a rollout of somebody else's may say anything."""
    with scrubbed(lambda: redactor):
        return redacted(reconcile(target, observed), redactor.clean)


def _planned(plan: Plan, warnings: Sequence[str]) -> DeploymentReport:
    total = len([name for name in plan.services if name in plan.after])
    told = [*dict.fromkeys([*warnings, *plan.warnings])]
    return DeploymentReport.succeeded(total_services=total, plan=plan, warnings=told)


def _held(observed: Observed) -> dict[str, set[int]]:
    """Ports that instances hold now, by service."""
    return {
        name: {number for each in found.instances if each.phase.is_alive for number in each.held_ports}
        for name, found in observed.services.items()
    }


def _served(observed: Observed) -> set[str]:
    """Types that another process registered in code and serves: what runs of them is known."""
    return {
        found.goal.spec.content.service_type
        for found in observed.services.values()
        if found.goal is not None and any(each.phase.is_alive for each in found.instances)
    }


def _nothing_to_record(parts: Parts, plan: Plan) -> bool:
    """An unchanged deploy is no deployment, unless it makes a forced or failed one good."""
    last = parts.store.last_deployment()
    return last is not None and (last.good or plan.kind != "deploy") and entries(plan.before) == entries(plan.after)


def _unchanged(parts: Parts, order: Order) -> DeploymentReport:
    plan, last = order.plan, parts.store.last_deployment()
    return DeploymentReport.succeeded(
        total_services=len(plan.unchanged),
        deployed_services=len([name for name in plan.unchanged if not plan.after[name].stopped]),
        warnings=list(dict.fromkeys(parts.warnings)),
        phases_completed=[phase for phase in PHASES if phase not in order.skip_phases],
        deployment=last.number if last else 0,
        plan=plan,
    )


def _phases(names: Sequence[str] | None) -> frozenset[str]:
    """Check the names given to ``skip_phases``. Raises ConfigError for unknown ones and for ``services``."""
    chosen = frozenset(names or ())
    if unknown := chosen - {*PHASES}:
        raise ConfigError(f"no such phase: {', '.join(sorted(unknown))}", remedy=f"Phases are {', '.join(PHASES)}")
    if "services" in chosen:
        raise ConfigError("the phase services cannot be skipped", remedy="To look without touching, use --dry-run")
    return chosen
