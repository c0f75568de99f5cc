"""What runs against what its revisions say, for ``status --drift`` and for a deploy that mends it.

The agent knows most of it. The code that was copied away for a release is looked at here, and without an agent what the
rows and /proc can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from deploy_code.errors import DeployCodeError
from deploy_code.model import OWN_TYPES, Drift, Drifts, Instance, Phase, ServiceSpec

if TYPE_CHECKING:
    from deploy_code.orchestrator.parts import Parts
    from deploy_code.state.rows import MapEntry
    from deploy_code.state.store import Store

_FILES_NAMED = 5
_DEAD = (Phase.EXITED, Phase.FAILED, Phase.BACKOFF)


async def drifts_of(parts: Parts) -> tuple[Drift, ...]:
    """All drift of a project whose agent serves. What cannot be compared is a warning."""
    if parts.store.last_deployment() is None:
        return ()
    try:
        told = await parts.platform.drift()
    except DeployCodeError as exc:
        told = Drifts(unseen=(f"what runs could not be compared: {exc}",))
    whole = _with_code(told, parts.store, parts.identity.directories.state)
    for each in whole.unseen:
        parts.warn(f"drift: {each}")
    return whole.found


def read_drift(store: Store, state: str) -> Drifts:
    """All drift, for whoever only looks. The agent is asked where one serves, and none is started.

    Raises AgentError when it does not answer in time.
    """
    from deploy_code.platforms.spawn import agent_drift

    told = agent_drift(state)
    return _with_code(_compared_alone(store, state) if told is None else told, store, state)


# --------------------------------------------------------------------------- code that was copied away


def _with_code(told: Drifts, store: Store, state: str) -> Drifts:
    import os

    if not os.path.isdir(os.path.join(state, "releases")):
        return told
    from deploy_code.orchestrator.releases import UnknownCodeError, altered

    entries = _serving(store)
    running = {(each.service, each.revision) for each in store.instances()}
    found, unseen = list(told.found), list(told.unseen)
    for name, spec in store.specs(entries).items():
        revision, release = entries[name].revision, spec.content.release
        if release is None or (name, revision) not in running:
            continue
        try:
            files = altered(release, state)
        except UnknownCodeError as exc:
            unseen.append(f"{name} r{revision}: {exc}")
        else:
            if files:
                text = f"its code in releases/{release.digest[:12]} was edited ({_listed(files)})"
                found.append(Drift(service=name, kind="changed", text=text, revision=revision))
    return Drifts(found=tuple(found), unseen=tuple(unseen))


def _serving(store: Store) -> dict[str, MapEntry]:
    return {name: entry for name, entry in store.current_map().items() if not entry.stopped}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _FILES_NAMED} more" if len(names) > _FILES_NAMED else ""
    return ", ".join(names[:_FILES_NAMED]) + more


# --------------------------------------------------------------------------- without an agent


def _compared_alone(store: Store, state: str) -> Drifts:
    from deploy_code.drivers.proctree import strangers
    from deploy_code.orchestrator.observe import recorded_instances

    entries = _serving(store)
    specs = store.specs(entries)
    instances = recorded_instances(store, agent_alive=False)
    found: list[Drift] = []
    for name, spec in sorted(specs.items()):
        if not spec.content.one_shot:
            of_it = [each for each in instances if _is_of(each, name, entries[name])]
            found.extend(_of_service(spec, entries[name], sorted(of_it, key=lambda each: each.index)))
    known = {each.uuid for each in instances}
    for stranger in strangers(state, known):
        text = f"extra: processes of no instance (pid {stranger.leader.pid})"
        found.append(Drift(service=stranger.service, kind="extra", text=text, instance=stranger.uuid))
    return Drifts(found=tuple(found), unseen=tuple(_not_asked(specs, entries, instances)))


def _is_of(instance: Instance, service: str, entry: MapEntry) -> bool:
    return instance.service == service and instance.revision == entry.revision


def _of_service(spec: ServiceSpec, entry: MapEntry, instances: list[Instance]) -> Iterator[Drift]:
    for each in instances:
        if each.phase in _DEAD:
            yield Drift.of(each, f"missing: {each.note or each.exit or 'it does not run'}")
        elif spec.content.service_type == "process" and each.pid:
            yield from (Drift.of(each, text) for text in _differences(each, spec))
    lacking = entry.replicas - len(instances)
    if lacking > 0:
        text = f"missing: {lacking} of {entry.replicas} instances"
        yield Drift(service=spec.name, kind="missing", text=text, revision=entry.revision)


def _differences(instance: Instance, spec: ServiceSpec) -> Iterator[str]:
    from deploy_code.drivers.base import Running
    from deploy_code.drivers.made import differences, said

    running = Running(
        uuid=instance.uuid,
        pid=instance.pid,
        start_time=instance.start_time,
        boot_id=instance.boot_id,
        handler=instance.handler,
    )
    yield from differences(running, said(spec.content, instance.uuid, spec.name))


def _not_asked(
    specs: Mapping[str, ServiceSpec], entries: Mapping[str, MapEntry], instances: Iterable[Instance]
) -> Iterator[str]:
    """Services of which only the agent can see how they are."""
    own = OWN_TYPES[0]
    for name, spec in sorted(specs.items()):
        runs = any(_is_of(each, name, entries[name]) and each.phase not in _DEAD for each in instances)
        if spec.content.service_type != own and not spec.content.one_shot and runs:
            yield f"{name}: only an agent can ask about it, and none is running"
