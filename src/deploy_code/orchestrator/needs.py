"""How much of the machine a plan needs at its peak, and how much of it is needed once it is over. Pure.

For each service its steps are walked in order: stop-first needs the larger of old and new, new-before-old the sum of
both. What the plan leaves out counts as it is. What one service leaves to another counts once (``succession``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy_code.model import Resources
from deploy_code.orchestrator.succession import with_successors
from deploy_code.plan.plan import Custom, Goal, Plan, Remove, Run, Step, Want
from deploy_code.resources.amounts import most, times, total
from deploy_code.resources.recorded import Need, folders_of, steady_need


def steady(goals: Mapping[str, Goal]) -> dict[str, Need]:
    """What runs when all is as ``goals`` say; a one-shot has ended by then."""
    return {name: _need(goal) for name, goal in goals.items() if _asks(goal)}


def at_peak(plan: Plan) -> dict[str, Need]:
    """The most that each service of the project needs at any moment of ``plan``, beyond what it takes over."""
    names = sorted({*plan.before, *plan.after})
    peaks = {name: need for name in names if (need := _peak(plan, name)) is not None}
    held = {name: need.resources for name, need in steady(plan.before).items()}
    return with_successors(plan, peaks, held)


def _peak(plan: Plan, name: str) -> Need | None:
    goals = [goal for goal in (plan.before.get(name), plan.after.get(name)) if goal is not None]
    if not any(map(_asks, goals)):
        return None
    steps = [step for step in plan.steps if step.service == name]
    peak = most(*(_need(goal).resources for goal in goals), *_moments(steps, goals, plan.before.get(name)))
    if any(isinstance(step, Custom) and name in step.services for step in plan.steps):
        peak = most(peak, *(goal.spec.content.resources for goal in goals if goal.spec.content.one_shot))
    folders = dict.fromkeys(folder for goal in goals for folder in folders_of(goal.spec.content))
    return Need(peak, tuple(folders))


def _moments(steps: list[Step], goals: list[Goal], old: Goal | None) -> Iterator[Resources]:
    """What runs of one service after each of its steps. A revision that nothing is known of needs the most known."""
    known = {goal.revision: goal.spec.content.resources for goal in goals}
    unknown = most(*known.values())
    counts = {old.revision: old.replicas} if old is not None and _keeps_running(old) else {}
    for step in steps:
        if isinstance(step, Want):
            counts[step.revision] = step.replicas
        elif isinstance(step, Run):
            counts[step.revision] = 1
        elif isinstance(step, Remove):
            counts.clear()
        yield total(times(known.get(revision, unknown), count) for revision, count in counts.items())
        if isinstance(step, Run):
            del counts[step.revision]


def _need(goal: Goal) -> Need:
    return steady_need(goal.spec.content, goal.replicas, stopped=goal.stopped)


def _keeps_running(goal: Goal) -> bool:
    return not goal.stopped and not goal.spec.content.one_shot


def _asks(goal: Goal) -> bool:
    return goal.spec.content.resources != Resources()
