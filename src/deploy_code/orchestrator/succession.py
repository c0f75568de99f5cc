"""Who uses what another has left: for how much less than the sum of its services a plan needs. Pure.

A one-shot has ended before those that wait for it begin, and a removed service is gone before the one that takes over
its port or directory (a renamed one, mostly). What each of them had is counted once, and passed on: whole along a chain
of one-shots, and to one successor only, so that at no moment more is in use than is counted.

The way back must fit too. It runs no one-shots, and it hands ports and directories back in the same order; so what a
removed service leaves goes only to the service that took these over, which is new or was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy_code.model import Resources
from deploy_code.plan.plan import Custom, Plan, Remove, Run, Step, Want
from deploy_code.plan.reconcile import exclusive_things
from deploy_code.resources.amounts import NOTHING, least, minus
from deploy_code.resources.recorded import Need, folders_of


def with_successors(plan: Plan, needs: Mapping[str, Need], held: Mapping[str, Resources]) -> dict[str, Need]:
    """``needs`` less what each service takes over. ``held``: what each has before the plan begins, and keeps."""
    left = {name: _left_by(plan, name, needs[name], held) for name in _transient(plan) if name in needs}
    found = dict(needs)
    if not left:
        return found
    for name, over in _over_at_start(plan, left):
        need = needs.get(name)
        if need is None:
            continue
        growth = minus(need.resources, held.get(name, NOTHING))
        for other in over:
            taken = least(growth, left[other], _passed_on(plan, other, name))
            growth, left[other] = minus(growth, taken), minus(left[other], taken)
            found[name] = found[name]._replace(resources=minus(found[name].resources, taken))
    return found


def _transient(plan: Plan) -> set[str]:
    """Services that are over before the plan is."""
    return {step.service for step in plan.steps if isinstance(step, Run | Remove)}


def _left_by(plan: Plan, name: str, need: Need, held: Mapping[str, Resources]) -> Resources:
    """What a service that becomes a one-shot had as a service stays its own: the way back needs it."""
    return need.resources if name not in plan.after else minus(need.resources, held.get(name, NOTHING))


def _over_at_start(plan: Plan, transient: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    """Each service that the plan starts, in that order, and those of ``transient`` that are over whenever it starts."""
    last = {step.service: step.id for step in plan.steps if step.service in transient}
    over: dict[str, frozenset[str]] = {}
    at_start: dict[str, frozenset[str]] = {}
    for step in plan.steps:
        found = [over.get(each, frozenset()) for each in step.after]
        found.append(frozenset(name for name, each in last.items() if each in step.after))
        over[step.id] = frozenset().union(*found)
        for name in _started_by(step):
            at_start[name] = over[step.id] & at_start.get(name, over[step.id])
    for name, names in at_start.items():
        yield name, sorted(names - {name})


def _started_by(step: Step) -> tuple[str, ...]:
    if isinstance(step, Custom):
        return step.services
    return (step.service,) if isinstance(step, Run) or (isinstance(step, Want) and step.replicas) else ()


def _passed_on(plan: Plan, old: str, new: str) -> Resources:
    """The most of each kind that ``new`` may take over from ``old``. Not GPUs: those are dealt out by service."""
    before, after = plan.before.get(old), plan.after.get(new)
    if after is None:
        return NOTHING
    everything = Resources(cpu_cores=float("inf"), memory_mb=1 << 62)
    if old in plan.after:
        return everything  # a one-shot
    known = plan.before.get(new)
    is_new = known is None or known.stopped
    if before is None or after.spec.content.one_shot or not is_new:
        return NOTHING
    if set(exclusive_things(before.spec)).isdisjoint(exclusive_things(after.spec)):
        return NOTHING
    stored = folders_of(after.spec.content)
    same_data = stored and set(stored) <= set(folders_of(before.spec.content))
    return Resources(cpu_cores=float("inf"), memory_mb=1 << 62, storage_gb=1 << 62 if same_data else 0)
