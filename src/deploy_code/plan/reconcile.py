"""The only entry of the planner: ``reconcile(target, observed) -> Plan``.

Starts follow the new graph: each service waits for its own dependencies only. Stops follow the recorded one, dependents
first. Where an exclusive thing (a port, a directory) passes from one service to another, its old holder stops before
the new one starts, whatever else the order would be. What is left over goes last, when everything new is in place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from deploy_code.errors import ConfigError
from deploy_code.model import Condition, Phase, ServiceSpec, StrategyName
from deploy_code.plan.diff import Change, changes
from deploy_code.plan.drift import cleared, mended
from deploy_code.plan.graph import Graph, Handover, Rollout, first_needed, handles
from deploy_code.plan.holdings import places_held, ports_held
from deploy_code.plan.notes import notes
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.order import dependency_order
from deploy_code.plan.plan import Custom, Goal, Plan, Remove, Run, Settle, Step, Update, Want
from deploy_code.plan.rollouts.custom import STARTING, CustomRollout
from deploy_code.plan.rollouts.recreate import recreate

SETTLE = "all/in-place"
STRATEGY = "all/strategy"


def reconcile(target: Target, observed: Observed) -> Plan:
    """The plan that leads from what was found to what is to be. Raises ConfigError for a circle of dependencies."""
    specs = {name: goal.spec for name, goal in target.goals.items()}
    order = dependency_order(specs)
    wanted = _selected(target, observed, changes(target, observed))
    graph = Graph()
    rollouts = {name: _rollout(graph, wanted[name], target) for name in _in_order(wanted, order)}
    _start_after_dependencies(graph, rollouts, specs)
    parallel = _is_parallel(target.settings.strategy)
    _stop_dependents_first(graph, rollouts, wanted, parallel=parallel)
    handed = _hand_over(graph, rollouts, wanted)
    _remove_last(graph, rollouts, wanted, handed)
    if not parallel:
        _one_at_a_time(graph, rollouts, order)
    steps = _in_walking_order(graph, [name for name in rollouts if rollouts[name].late])
    coming = [name for name in order if name in wanted or _concerns(target, name)]
    if target.strategy and any(name in wanted for name in coming):
        steps = _opaque(target.strategy, coming, steps)
    steps = cleared(target, observed, steps)
    before = {name: service.goal for name, service in observed.services.items() if service.goal is not None}
    plan = Plan(
        project=target.project,
        kind=target.kind,
        steps=steps,
        actions={name: change.action for name, change in wanted.items()},
        causes={name: change.cause for name, change in wanted.items()},
        unchanged=tuple(name for name in order if name not in wanted and _concerns(target, name)),
        before=before,
        after=_map_after(target, before, wanted),
        warnings=(*target.warnings, *mended(target, observed, wanted)),
    )
    return replace(plan, notes=tuple(notes(target, plan, wanted, handed)))


def _in_walking_order(graph: Graph, side_by_side: Sequence[str]) -> tuple[Step, ...]:
    """Raises ConfigError where rollouts that keep the old beside the new hold what others need first."""
    try:
        return tuple(graph.walk())
    except ConfigError as exc:
        raise ConfigError(
            f"these steps wait for each other in a circle: {exc.message.partition(': ')[2]}",
            meaning=f"Old and new run side by side in the rollout of {', '.join(side_by_side) or 'none'}",
            remedy="Take `strategy` out of one of these services for this deployment",
        ) from exc


def _concerns(target: Target, name: str) -> bool:
    return target.only is None or name in target.only


def _in_order(wanted: Mapping[str, Change], order: list[str]) -> Iterator[str]:
    yield from (name for name in order if name in wanted)
    yield from sorted(name for name in wanted if wanted[name].new is None)


def _is_parallel(strategy: str) -> bool:
    return strategy != StrategyName.SEQUENTIAL


# ---------------------------------------------------------------------------------------------------------- selection


def _selected(target: Target, observed: Observed, found: dict[str, Change]) -> dict[str, Change]:
    """With ``only``: those services, and whatever they depend on that is not ready; nothing is removed."""
    if target.only is None:
        return found
    names = set(target.only)
    for name in _dependencies_of(target, target.only):
        change = found.get(name)
        if change is not None and not _serves(observed, change):
            names.add(name)
    kept = {name: change for name, change in found.items() if name in names}
    return {name: change for name, change in kept.items() if change.new is not None or name in target.only}


def _dependencies_of(target: Target, names: frozenset[str]) -> set[str]:
    """What ``names`` need, directly or not; who is to be stopped needs nothing."""
    seen: set[str] = set()
    todo = list(names)
    while todo:
        goal = target.goals.get(todo.pop())
        for each in goal.spec.policy.dependencies if goal and not goal.stopped else ():
            if each.service not in seen:
                seen.add(each.service)
                todo.append(each.service)
    return seen - names


def _serves(observed: Observed, change: Change) -> bool:
    """Is what runs of it good enough for a dependent, although its file has changed?"""
    if change.new is not None and change.new.spec.content.one_shot:
        return change.old is not None and (change.service, change.old.spec.run_hash) in observed.completed
    ready = [each for each in observed.of(change.service).instances if each.phase is Phase.READY]
    return change.old is not None and not change.old.stopped and len(ready) >= change.old.replicas


def _map_after(target: Target, before: Mapping[str, Goal], wanted: Mapping[str, Change]) -> dict[str, Goal]:
    """The full map this plan leads to: the target where it acts or where all is acted on, else what was."""
    if target.only is None:
        return dict(target.goals)
    touched = {*wanted, *target.only}
    kept = {name: goal for name, goal in before.items() if name not in touched or name in target.goals}
    return {**kept, **{name: target.goals[name] for name in touched if name in target.goals}}


# -------------------------------------------------------------------------------------------------------------- steps


def _rollout(graph: Graph, change: Change, target: Target) -> Rollout:
    steps = tuple(_steps(change, target))
    graph.add(steps)
    return handles(change.service, steps)


def _steps(change: Change, target: Target) -> Iterator[Step]:
    name, goal = change.service, change.new
    if goal is None:
        yield Remove(id=f"{name}/remove", service=name, cause=change.cause)
    elif change.action == "update":
        yield Update(id=f"{name}/update", service=name, cause=change.cause, revision=goal.revision)
    elif change.action == "run":
        yield from _run(change, goal, again=name in target.rerun)
    elif (own := _own_rollout(change, goal, target)) is not None:
        yield from own.steps(change)
    else:
        yield from recreate(change)


def _own_rollout(change: Change, goal: Goal, target: Target) -> CustomRollout | None:
    """The registered rollout that this service asks for. A way back has neither pauses nor cautious steps."""
    if target.kind in ("rollback", "stop") or goal.stopped or change.action not in STARTING:
        return None
    return target.rollouts.get(goal.spec.policy.strategy)


def _run(change: Change, goal: Goal, *, again: bool) -> Iterator[Step]:
    name = change.service
    stops = [
        Want(id=f"{name}/stop-r{each}", service=name, cause="a new revision runs", revision=each, replicas=0)
        for each in change.stale
    ]
    yield from stops
    after = tuple(step.id for step in stops)
    yield Run(id=f"{name}/run", service=name, cause=change.cause, after=after, revision=goal.revision, again=again)


def _opaque(strategy: str, services: Sequence[str], steps: Sequence[Step]) -> tuple[Step, ...]:
    """One step in place of all that brings something; removed services go around it as they would without it."""
    removed = [step for step in steps if isinstance(step, Remove)]
    ids = {step.id for step in removed}
    late = {step.id for step in removed if SETTLE in step.after}
    graph = Graph()
    graph.add(replace(step, after=tuple(ids.intersection(step.after))) for step in removed)
    graph.add([Custom(id=STRATEGY, service="", strategy=strategy, services=tuple(services))])
    graph.edge(ids - late, [STRATEGY])
    if late:
        graph.add([Settle(id=SETTLE, service="", after=(STRATEGY,))])
        graph.edge([SETTLE], late)
    return tuple(graph.walk())


# -------------------------------------------------------------------------------------------------------------- edges


def _start_after_dependencies(graph: Graph, rollouts: Mapping[str, Rollout], specs: Mapping[str, ServiceSpec]) -> None:
    for name, rollout in rollouts.items():
        for each in specs[name].policy.dependencies if rollout.start and name in specs else ():
            other = rollouts.get(each.service)
            if other is not None:
                graph.edge(other.start if each.condition is Condition.STARTED else other.done, rollout.start)


def _stop_dependents_first(
    graph: Graph, rollouts: Mapping[str, Rollout], wanted: Mapping[str, Change], *, parallel: bool
) -> None:
    """By the recorded graph: who depended on whom when it was started.

    What goes only when its successor is there does not hold up what has to go before its own comes: it lives through
    that as a service does that has not changed. One after the other, each has gone all the way before the next begins.
    """
    for name, change in wanted.items():
        for each in _recorded_dependencies(change) if rollouts[name].stops else ():
            other = rollouts.get(each)
            if other is not None:
                graph.edge(rollouts[name].early, other.stops)
                graph.edge(rollouts[name].late if parallel else (), other.late)


def _hand_over(graph: Graph, rollouts: Mapping[str, Rollout], wanted: Mapping[str, Change]) -> list[Handover]:
    """Ports and directories that pass on, and the edge stop → start for each."""
    holders: dict[str, list[str]] = defaultdict(list)
    for name, change in wanted.items():
        if change.old is not None and rollouts[name].stops:
            for thing in exclusive_things(change.old.spec):
                holders[thing].append(name)
    handed: list[Handover] = []
    for name, change in wanted.items():
        start = rollouts[name].start
        if change.new is None or not start:
            continue
        for thing in exclusive_things(change.new.spec):
            for holder in holders.get(thing, ()):
                if holder != name:
                    handed.append(Handover(thing, holder, name))
                    graph.edge(rollouts[holder].stops, start)
    return handed


def exclusive_things(spec: ServiceSpec) -> Iterator[str]:
    """What only one revision of one service may hold at a time: fixed ports, writable directories of its own."""
    yield from ports_held(spec.content)
    yield from places_held(spec.content)


def _remove_last(
    graph: Graph, rollouts: Mapping[str, Rollout], wanted: Mapping[str, Change], handed: list[Handover]
) -> None:
    """Removed services go when everything new is in place, except those that are in the way before."""
    leaving = {name for name, change in wanted.items() if change.new is None}
    staying_stops = {name for name, rollout in rollouts.items() if rollout.stops and name not in leaving}
    in_the_way = {each.old for each in handed} | {
        name for name in leaving if not staying_stops.isdisjoint(_recorded_dependencies(wanted[name]))
    }
    early = _with_dependents(in_the_way & leaving, wanted)
    late = [rollouts[name] for name in leaving - early]
    coming = [each for rollout in rollouts.values() if rollout.service not in leaving for each in rollout.last]
    if not late or not coming:
        return
    graph.add([Settle(id=SETTLE, service="", after=tuple(coming))])
    for rollout in late:
        graph.edge([SETTLE], rollout.stops)


def _recorded_dependencies(change: Change) -> list[str]:
    return [each.service for each in change.old.spec.policy.dependencies] if change.old else []


def _with_dependents(names: set[str], wanted: Mapping[str, Change]) -> set[str]:
    """Removed services that depended on one of ``names`` have to go before it."""
    dependents: dict[str, list[str]] = defaultdict(list)
    for name, change in wanted.items():
        for each in _recorded_dependencies(change):
            dependents[each].append(name)
    seen, todo = set(names), list(names)
    while todo:
        for each in dependents[todo.pop()]:
            if each not in seen:
                seen.add(each)
                todo.append(each)
    return seen


def _one_at_a_time(graph: Graph, rollouts: Mapping[str, Rollout], order: list[str]) -> None:
    """Sequential: each rollout begins when the one before has ended; only stops that others need come earlier."""
    chain = [rollouts[name] for name in order if name in rollouts]
    rank = {rollout.service: number for number, rollout in enumerate(chain)}
    needed = first_needed(graph, rank)
    for number, rollout in enumerate(chain):
        for stop in rollout.stops:
            if needed[stop] > 0:
                graph.edge(chain[needed[stop] - 1].last, [stop])
        if number > 0:
            graph.edge(chain[number - 1].last, rollout.start)
