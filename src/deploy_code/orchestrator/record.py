"""What a deployment leaves in the state: its row before the first step, its end after the last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from deploy_code.codec import to_data
from deploy_code.model import Settings
from deploy_code.plan.plan import Goal
from deploy_code.state.rows import MapEntry, NewDeployment
from deploy_code.state.store import policy_digest

if TYPE_CHECKING:
    from deploy_code.orchestrator.deployment import Order
    from deploy_code.orchestrator.parts import Parts
    from deploy_code.orchestrator.report import DeploymentReport
    from deploy_code.plan.observed import Observed


def begin(parts: Parts, order: Order) -> int:
    """Record the deployment as running, with every revision and policy it needs; its number. One transaction."""
    plan, options = order.plan, parts.options
    goals = [*plan.before.values(), *plan.after.values()]
    return parts.store.begin_deployment(
        NewDeployment(
            kind=plan.kind,
            who=options.who,
            origin=parts.redactor.clean(options.origin),
            environment=parts.identity.environment,
            services=tuple(plan.actions),
            before=entries(plan.before, order.observed),
            after=entries(plan.after),
            forced=order.forced,
            rollback_on_failure=order.settings.rollback_on_failure and not options.no_rollback,
            plan=parts.redactor.clean(str(plan)),
            revisions=[(goal.revision, goal.spec) for goal in goals],
            policies=[goal.spec.policy for goal in goals],
            settings=to_data(order.settings),
            started_at=time.time(),
        )
    )


def entries(goals: Mapping[str, Goal], observed: Observed | None = None) -> dict[str, MapEntry]:
    """Goals as a map for the state; with ``observed`` it also says which of them were ready."""
    return {name: _entry(goal, _was_ready(goal, observed)) for name, goal in goals.items()}


def _entry(goal: Goal, ready: bool) -> MapEntry:
    return MapEntry(goal.revision, policy_digest(goal.spec.policy), goal.replicas, goal.stopped, ready)


def _was_ready(goal: Goal, observed: Observed | None) -> bool:
    if observed is None or goal.stopped or goal.spec.content.one_shot:
        return True
    return observed.of(goal.spec.name).ready(goal.revision) >= goal.replicas


def finish(parts: Parts, number: int, report: DeploymentReport, *, good: bool, wanted: Mapping[str, Goal]) -> None:
    """Record the end, and what is wanted from now on."""
    parts.audit.flush()
    parts.store.finish_deployment(
        number,
        status=str(report.status),
        good=good,
        report=parts.redactor.clean_data({**report.to_dict(), "plan": None}),
        final_map=entries(wanted),
    )


def settings_of(row_settings: Mapping[str, object] | None) -> Settings:
    """How the last deployment went about it, for commands that do not read the file."""
    from deploy_code.codec import from_data

    return from_data(Settings, dict(row_settings or {}))
