"""Old stops, new starts: the rollout of exclusive services, and of Sequential and Parallel."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_code.plan.diff import Change
from deploy_code.plan.plan import Step, WaitReady, Want


def recreate(change: Change) -> Iterator[Step]:
    """Stop what is stale, start the new revision, wait until it is ready. Edges to other services come later."""
    stops = [
        Want(
            id=f"{change.service}/stop-r{revision}",
            service=change.service,
            cause=change.cause,
            revision=revision,
            replicas=0,
        )
        for revision in change.stale
    ]
    yield from stops
    if change.new is None or change.new.stopped:
        return
    start = Want(
        id=f"{change.service}/start",
        service=change.service,
        cause=change.cause,
        after=tuple(step.id for step in stops),
        revision=change.new.revision,
        replicas=change.new.replicas,
    )
    yield start
    yield WaitReady(
        id=f"{change.service}/ready",
        service=change.service,
        after=(start.id,),
        revision=change.new.revision,
        replicas=change.new.replicas,
        gated=change.gated,
    )
