"""How a deploy mends what has drifted: services start anew, what is missing starts, what belongs to nobody ends.

Only a deploy does so. A rollback, a restart and a scale say what they change, and that is all they change.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

from deploy_code.model import Drift
from deploy_code.plan.observed import Observed, ObservedService, Target
from deploy_code.plan.plan import Clear, Goal, Step

CLEAR = "all/clear"
_OF_COUNTS = ("missing", "extra")  # the first is seen by how many are ready, the second is no service's


def drifts(target: Target, goal: Goal, found: ObservedService) -> tuple[Drift, ...]:
    """Why this service has to start anew although nothing about it was changed in the file."""
    if target.kind != "deploy":
        return ()
    return tuple(each for each in found.drifts if each.revision == goal.revision and each.kind not in _OF_COUNTS)


def mended(target: Target, observed: Observed, acted_on: Container[str]) -> Iterator[str]:
    """A warning for each drift that the plan puts right."""
    for name, goal in target.goals.items():
        if name in acted_on and not goal.stopped:
            for each in drifts(target, goal, observed.of(name)):
                yield f"drift is mended: {each}"
    for each in _extra(target, observed):
        yield f"drift is mended: {each}"


def cleared(target: Target, observed: Observed, steps: Sequence[Step]) -> tuple[Step, ...]:
    """``steps``, and before all of them the end of what is extra: it may hold what others need."""
    extra = _extra(target, observed)
    if not extra:
        return tuple(steps)
    first = Clear(
        id=CLEAR, service="", cause="; ".join(map(str, extra)), instances=tuple(each.instance for each in extra)
    )
    return (first, *(step if step.after else replace(step, after=(CLEAR,)) for step in steps))


def _extra(target: Target, observed: Observed) -> list[Drift]:
    if target.kind != "deploy":
        return []
    return [each for each in observed.extra if target.only is None or each.service in target.only]
