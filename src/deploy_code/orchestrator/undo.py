"""The way back from a deployment that failed: from what is now to what was wanted before, a plan like any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from deploy_code.errors import DeploymentError
from deploy_code.orchestrator.observe import observe
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.plan import Plan
from deploy_code.plan.reconcile import reconcile

if TYPE_CHECKING:
    from deploy_code.model import Settings
    from deploy_code.orchestrator.executor import Outcome
    from deploy_code.orchestrator.parts import Parts


async def plan_back(parts: Parts, plan: Plan, found_before: Observed, outcome: Outcome, settings: Settings) -> Plan:
    """Undo whatever of ``plan`` was begun; ``found_before`` tells what was healthy when it began."""
    begun = frozenset(name for name in outcome.started if name)
    recorded = {**plan.before, **{name: goal for name, goal in plan.after.items() if name in begun}}
    target = Target(
        project=plan.project,
        kind="rollback",
        goals=plan.before,
        settings=replace(settings, strategy="Parallel"),
        only=begun,
        ungated=frozenset(_was_unhealthy(plan, found_before)),
        run_one_shots=False,
    )
    return reconcile(target, observe(parts.store, await parts.platform.observe(), recorded=recorded))


def _was_unhealthy(plan: Plan, found: Observed) -> Iterator[str]:
    for name, goal in plan.before.items():
        if found.of(name).ready(goal.revision) < goal.replicas:
            yield name


def one_shots_run(plan: Plan, outcome: Outcome) -> list[str]:
    """What no rollback takes back: one-shots that ended well."""
    return sorted(name for name, action in plan.actions.items() if action == "run" and name in outcome.done)


def present_now(parts: Parts) -> dict[str, set[int]]:
    """Revisions of each service that the agent keeps."""
    present: dict[str, set[int]] = {}
    for row in parts.store.wanted_rows():
        present.setdefault(row.service, set()).add(row.revision)
    return present


def runtime_away(outcome: Outcome) -> bool:
    """Did a way back fail only because a runtime cannot be asked now?"""
    return bool(outcome.failures) and all(error.code == "E014" for error in outcome.failures.values())


def rollback_failed(outcome: Outcome) -> DeploymentError:
    listed = "; ".join(f"{service}: {error.message}" for service, error in outcome.failures.items())
    return DeploymentError(
        f"the rollback could not restore everything: {listed}.{_not_restored(outcome.skipped)}",
        code="E009",
        meaning="Services are in a mixed state",
        remedy="See it with `deploy-code status --detailed`, correct the cause, then `deploy-code rollback`",
    )


def _not_restored(names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f" Not restored because of that: {listed}." if listed else ""
