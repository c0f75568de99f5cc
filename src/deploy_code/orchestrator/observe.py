"""Gathers what is: the recorded map, the agent's wanted set, and the instances, into the planner's ``Observed``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from deploy_code.model import Drift, Exit, Instance, Phase
from deploy_code.plan.observed import Observed, ObservedService
from deploy_code.plan.plan import Goal

if TYPE_CHECKING:
    from deploy_code.state.rows import MapEntry
    from deploy_code.state.store import Store


def goals(store: Store, entries: Mapping[str, MapEntry]) -> dict[str, Goal]:
    """A recorded map with contents and policies looked up."""
    specs = store.specs(entries)
    return {
        name: Goal(spec=specs[name], revision=entry.revision, replicas=entry.replicas, stopped=entry.stopped)
        for name, entry in entries.items()
    }


def observe(
    store: Store,
    instances: Iterable[Instance],
    *,
    recorded: Mapping[str, Goal] | None = None,
    drifts: Iterable[Drift] = (),
) -> Observed:
    """Everything the planner needs. ``recorded`` replaces the map of the state (a rollback in the middle of a run).

    ``drifts``: what was found to be not as it should; what is said of an instance that is gone does not count.
    """
    last = goals(store, store.current_map()) if recorded is None else recorded
    wanted: dict[str, dict[int, int]] = defaultdict(dict)
    for row in store.wanted_rows():
        wanted[row.service][row.revision] = row.replicas
    found: dict[str, list[Instance]] = defaultdict(list)
    for each in instances:
        if each.phase is not Phase.GONE:
            found[each.service].append(each)
    extra, drifted = _sorted(drifts, {each.uuid for group in found.values() for each in group})
    return Observed(
        services={
            name: ObservedService(
                goal=last.get(name),
                wanted=wanted.get(name, {}),
                instances=tuple(found.get(name, ())),
                drifts=tuple(drifted.get(name, ())),
            )
            for name in {*last, *wanted, *found}
        },
        extra=tuple(extra),
        revisions=store.known_revisions(),
        latest=store.latest_revisions(),
        completed=frozenset(store.completed_one_shots()),
    )


def _sorted(drifts: Iterable[Drift], there: Collection[str]) -> tuple[list[Drift], dict[str, list[Drift]]]:
    """What is extra, and the others by service."""
    extra: list[Drift] = []
    by_service: dict[str, list[Drift]] = defaultdict(list)
    for each in drifts:
        if each.kind == "extra":
            extra.append(each)
        elif not each.instance or each.instance in there:
            by_service[each.service].append(each)
    return extra, by_service


def recorded_instances(store: Store, *, agent_alive: bool) -> list[Instance]:
    """The instances as rows say; without an agent nobody updates them, so each pid is looked at."""
    instances = store.instances()
    return instances if agent_alive else [_looked_at(each) for each in instances]


def _looked_at(instance: Instance) -> Instance:
    if not instance.phase.is_alive or is_running(instance):
        return instance
    if instance.container and not instance.pid:
        return instance.but(phase=Phase.UNKNOWN, ready_at=0.0, note="no agent is running that could ask its runtime")
    if "memory" in instance.handler:  # of a custom type: only its handler knows, and only the agent can ask it
        return instance.but(phase=Phase.UNKNOWN, ready_at=0.0, note="no agent is running that could ask its handler")
    end = instance.exit or Exit(at=0.0)
    return instance.but(phase=Phase.EXITED, exit=end, note="it ended while no agent was running")


def is_running(instance: Instance) -> bool:
    """Is the process of this very instance still there (same pid, same start time, same boot)?"""
    from deploy_code.drivers.proctree import boot_id, look_up

    if not instance.pid or instance.boot_id != boot_id():
        return False
    proc = look_up(instance.pid)
    return proc is not None and proc.alive and proc.start_time == instance.start_time
