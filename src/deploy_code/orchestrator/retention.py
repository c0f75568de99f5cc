"""Which revisions of a project somebody may still return to; all others ``prune`` may remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_code.orchestrator.record import settings_of

if TYPE_CHECKING:
    from deploy_code.state.rows import ServiceMap
    from deploy_code.state.store import Store

Pair = tuple[str, int]  # service, revision


def limit(store: Store) -> int:
    """``deployment.retained_revisions`` of the last deployment."""
    last = store.last_deployment()
    return settings_of(last.settings if last else None).retained_revisions


def retained(store: Store, keep: int | None = None) -> set[Pair]:
    """What stays, where ``keep`` (at least 1; None: ``limit``) revisions are retained:

    what is wanted or runs now, and what an unfinished deployment leads from and to; all that the newest ``keep``
    good deployments left, so that a rollback to any of them works; the newest ``keep`` of each service that is still
    there, and the newest one of each that is not, so that no number is ever given twice.
    """
    keep, current = max(1, limit(store) if keep is None else keep), store.current_map()
    kept = _pairs(current) | {(row.service, row.revision) for row in store.wanted_rows()}
    kept |= {(each.service, each.revision) for each in store.instances()}
    if (running := store.running_deployment()) is not None:
        kept |= _pairs(running.before) | _pairs(running.after)
    for entries in store.good_maps(keep):
        kept |= _pairs(entries)
    numbers: dict[str, list[int]] = {}
    for service, number in store.revisions():
        numbers.setdefault(service, []).append(number)
    for service, found in numbers.items():
        newest = sorted(found)[-keep if service in current else -1 :]
        kept |= {(service, number) for number in newest}
    return kept


def _pairs(entries: ServiceMap) -> set[Pair]:
    return {(service, entry.revision) for service, entry in entries.items()}
