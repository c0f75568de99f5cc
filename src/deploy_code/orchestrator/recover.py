"""Finishes or undoes a deployment whose process died, from what was recorded: a plan like any other.

Level-triggered: nothing of the step trace is read. A stop and a rollback are finished; everything else goes back to
what was wanted before, or stays as it is where ``rollback_on_failure`` is off, or goes forward when asked to
(``--resume``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from deploy_code.errors import title
from deploy_code.orchestrator import operations
from deploy_code.orchestrator.deployment import DeploymentRun, Order, no_config
from deploy_code.orchestrator.observe import goals, observe
from deploy_code.orchestrator.record import settings_of
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.orchestrator.strategy import Registered
from deploy_code.plan.observed import Target
from deploy_code.plan.plan import Goal, redacted
from deploy_code.plan.reconcile import reconcile
from deploy_code.services.status import DeploymentStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.orchestrator.operations import Context
    from deploy_code.orchestrator.parts import Parts
    from deploy_code.plan.plan import Step
    from deploy_code.state.rows import DeploymentRow

FORWARD = ("stop", "rollback")
NOTHING = Registered()


def describe(row: DeploymentRow, *, resume: bool = False) -> str:
    """What happened to it and what is done about it, in one sentence."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.started_at))
    return f"{row.kind} {row.number} (begun {when} by {row.who}) was interrupted; {_intent(row, resume)}"


def unfinished(row: DeploymentRow, state: str) -> str:
    """The same for those who only look, and change nothing about it."""
    from deploy_code.state.lock import holder

    if by := holder(state):
        return f"{row.kind} {row.number} is still running ({by}): what it leaves may differ from what is seen now"
    return f"{row.kind} {row.number} was interrupted: whatever changes something next brings it to its end first"


def _intent(row: DeploymentRow, resume: bool) -> str:
    if row.kind in FORWARD or resume:
        return "it is finished now"
    return "it is undone now" if row.rollback_on_failure else "it is left as it stands (rollback_on_failure is off)"


async def recovery(
    parts: Parts,
    row: DeploymentRow,
    *,
    resume: bool = False,
    known: Registered = NOTHING,
    config: Callable[[], DeploymentConfig] = no_config,
) -> DeploymentRun | None:
    """The run that ends the interrupted deployment ``row`` under its own number; None: ``leave`` it as it stands.

    A custom strategy is never resumed in the middle: going forward, it starts anew.
    """
    parts.warn(describe(row, resume=resume), deployment=row.number)
    forward = row.kind in FORWARD or resume
    if not forward and not row.rollback_on_failure:
        return None
    wanted = goals(parts.store, row.after if forward else row.before)
    order = replace(await _order(parts, row, wanted, known, forward=forward), config=config)
    return RecoveryRun(parts, order, wanted, backwards=not forward)


async def _order(
    parts: Parts, row: DeploymentRow, wanted: Mapping[str, Goal], known: Registered, *, forward: bool
) -> Order:
    other = goals(parts.store, row.before if forward else row.after)
    observed = observe(parts.store, await parts.platform.observe(), recorded={**wanted, **other})
    settings = settings_of(row.settings)
    target = Target(
        project=parts.identity.name,
        kind="rollback" if not forward else row.kind,
        goals=wanted,
        settings=settings,
        only=frozenset(row.services),
        ungated=frozenset(name for name, entry in row.before.items() if not entry.ready),
        run_one_shots=forward and row.kind != "rollback",
        strategy=known.chosen if forward and row.kind == "deploy" else "",
    )
    return Order(
        plan=redacted(reconcile(target, observed), parts.redactor.clean),
        observed=observed,
        settings=settings,
        target=target,
        strategy=known.strategy if target.strategy else None,
        forced=row.forced and forward,
        number=row.number,
    )


async def leave(parts: Parts, row: DeploymentRow) -> DeploymentReport:
    """Everything stays as it stands, and is what is wanted from now on."""
    await parts.platform.settle(row.number)
    report = DeploymentReport(
        status=DeploymentStatus.FAILED,
        deployment=row.number,
        total_services=len(row.services),
        errors=[f"{title('E017')}: {row.kind} {row.number} was interrupted and left as it stood"],
    )
    parts.store.finish_deployment(row.number, status="failed", good=False, report=report.to_dict(), final_map=row.after)
    parts.reservations.settle(goals(parts.store, row.after))
    return report


class RecoveryRun(DeploymentRun):
    """Walks the recovery plan; it is never rolled back itself, and says of an undone deployment that it was.

    ``wanted``: the full map that it leads to. ``backwards``: to what was before the interrupted deployment.
    """

    def __init__(self, parts: Parts, order: Order, wanted: Mapping[str, Goal], *, backwards: bool) -> None:
        super().__init__(parts, order, going_back=True)
        self._wanted = wanted
        self._backwards = backwards

    def _wanted_now(self) -> Mapping[str, Goal]:
        return self._wanted

    async def _perform(self, context: Context, step: Step) -> None:
        """As every way back, an undoing asks no plugin: none may refuse it."""
        if self._backwards:
            await operations.perform(context, step)
        else:
            await super()._perform(context, step)

    async def _succeed(self) -> None:
        if not self._backwards:
            await super()._succeed()
            return
        self.report.status = DeploymentStatus.ROLLED_BACK
        self.report.errors.append(f"{title('E017')}: deployment {self.number} was interrupted and has been undone")
        self._count()
        await self._finish(good=False)
