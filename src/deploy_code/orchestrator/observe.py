"""Gathers what is: the recorded map, the agent's wanted set, and the instances, into the planner's ``Observed``."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from deploy_code.model import Exit, Instance, Phase
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


def observe(store: Store, instances: Iterable[Instance], *, recorded: Mapping[str, Goal] | None = None) -> Observed:
    """Everything the planner needs. ``recorded`` replaces the map of the state (a rollback in the middle of a run)."""
    last = goals(store, store.current_map()) if recorded is None else recorded
    wanted: dict[str, dict[int, int]] = defaultdict(dict)
    for row in store.wanted_rows():
        wanted[row.service][row.revision] = row.replicas
    found: dict[str, list[Instance]] = defaultdict(list)
    for each in instances:
        if each.phase is not Phase.GONE:
            found[each.service].append(each)
    return Observed(
        services={
            name: ObservedService(
                goal=last.get(name), wanted=wanted.get(name, {}), instances=tuple(found.get(name, ()))
            )
            for name in {*last, *wanted, *found}
        },
        revisions=store.known_revisions(),
        latest=store.latest_revisions(),
        completed=frozenset(store.completed_one_shots()),
    )


def recorded_instances(store: Store, *, agent_alive: bool) -> list[Instance]:
    """The instances as rows say; without an agent nobody updates them, so each pid is looked at."""
    instances = store.instances()
    return instances if agent_alive else [_looked_at(each) for each in instances]


def _looked_at(instance: Instance) -> Instance:
    if not instance.phase.is_alive or is_running(instance):
        return instance
    end = instance.exit or Exit(at=0.0)
    return instance.but(phase=Phase.EXITED, exit=end, note="it ended while no agent was running")


def is_running(instance: Instance) -> bool:
    """Is the process of this very instance still there (same pid, same start time, same boot)?"""
    if not instance.pid or instance.boot_id != boot_id():
        return False
    try:
        with open(f"/proc/{instance.pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == instance.start_time


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def agent_is_alive(state: str) -> bool:
    """Does somebody hold the agent's flock? Asks without taking it."""
    import fcntl

    try:
        fd = os.open(os.path.join(state, "agent.lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
