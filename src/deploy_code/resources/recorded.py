"""What a project needs as its own state says: the last word where a deployment died before it settled the ledger."""

from __future__ import annotations

from typing import NamedTuple

from deploy_code.errors import StateError
from deploy_code.model import Content, Resources
from deploy_code.resources.amounts import NOTHING, times


class Need(NamedTuple):
    """What one service needs. ``folders``: where what it stores lies, absolute."""

    resources: Resources
    folders: tuple[str, ...] = ()


def steady_need(content: Content, replicas: int, *, stopped: bool) -> Need:
    """So many instances that keep running; a one-shot has ended."""
    count = 0 if stopped or content.one_shot else replicas
    return Need(times(content.resources, count), folders_of(content))


def folders_of(content: Content) -> tuple[str, ...]:
    """Where a service stores what it was promised disk for."""
    if not content.resources.storage_gb:
        return ()
    return tuple(volume.mount_path for volume in content.volumes if not volume.read_only)


def recorded_needs(state: str) -> dict[str, Need] | None:
    """By service. None while a deployment is recorded as running, whoever died of it, and when it cannot be read."""
    from deploy_code.state.store import Store

    if not Store.exists(state):
        return {}
    try:
        with Store.open(state, read_only=True) as store:
            if store.running_deployment() is not None:
                return None
            entries = store.current_map()
            contents = store.contents((name, entry.revision) for name, entry in entries.items())
    except StateError:
        return None
    needs = {}
    for name, entry in entries.items():
        content, _ = contents.get((name, entry.revision), (Content(), ()))
        if content.resources != NOTHING:
            needs[name] = steady_need(content, entry.replicas, stopped=entry.stopped)
    return needs
