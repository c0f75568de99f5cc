"""What changed about one service, and why: the input of its rollout."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deploy_code.model import Container, Content, Instance, Phase, Policy
from deploy_code.plan.drift import drifts
from deploy_code.plan.observed import Observed, ObservedService, Target
from deploy_code.plan.plan import Goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One service's difference.

    ``action`` is one of ``plan.ACTIONS``; ``stale`` are the revisions that must go; ``stops``: running instances of the
    wanted revision must go first too (restart).

    ``old``: what was wanted before (None: a new service); ``new``: what is wanted now (None: it goes). Both say
    ``revision``, ``replicas`` and, in ``spec``, everything about the service.
    """

    service: str
    action: str
    cause: str
    old: Goal | None
    new: Goal | None
    stale: tuple[int, ...] = ()
    gated: bool = True

    @property
    def stops(self) -> bool:
        return bool(self.stale)


def changes(target: Target, observed: Observed) -> dict[str, Change]:
    """All differences, by service name. Services that need nothing are not in it."""
    found: dict[str, Change] = {}
    for name, goal in target.goals.items():
        change = _change(target, goal, observed.of(name), observed)
        if change is not None:
            found[name] = change
    for name, service in observed.services.items():
        if name not in target.goals and (service.revisions or service.goal):
            found[name] = Change(
                service=name,
                action="remove",
                cause="removed from the file" if target.kind == "deploy" else "not wanted",
                old=service.goal,
                new=None,
                stale=tuple(sorted(service.revisions)),
            )
    return found


def _change(target: Target, goal: Goal, found: ObservedService, observed: Observed) -> Change | None:
    if goal.stopped:
        return _stop(target, goal, found)
    if goal.spec.content.one_shot:
        return _run(target, goal, found, observed)
    return _keep(target, goal, found)


def _stop(target: Target, goal: Goal, found: ObservedService) -> Change | None:
    if not found.revisions:
        return None
    cause = "stop requested" if target.kind == "stop" else "was stopped before"
    stale = tuple(sorted(found.revisions))
    return Change(service=goal.spec.name, action="stop", cause=cause, old=found.goal, new=goal, stale=stale)


def _run(target: Target, goal: Goal, found: ObservedService, observed: Observed) -> Change | None:
    name, done = goal.spec.name, (goal.spec.name, goal.spec.run_hash) in observed.completed
    if not target.run_one_shots:
        return _end_runs(target, goal, found)
    if done and name not in target.rerun:
        return None
    stale = tuple(sorted(revision for revision in found.revisions if revision != goal.revision))
    cause = _why_run(goal, found, asked=name in target.rerun)
    return Change(service=name, action="run", cause=cause, old=found.goal, new=goal, stale=stale)


def _end_runs(target: Target, goal: Goal, found: ObservedService) -> Change | None:
    """A rollback runs no one-shots, and does not let one run on that the undone deployment has begun."""
    going = {each.revision for each in found.instances if each.phase.is_alive}
    if target.kind != "rollback" or not going:
        return None
    return Change(
        service=goal.spec.name,
        action="stop",
        cause="a rollback does not let it run on",
        old=found.goal,
        new=replace(goal, stopped=True),
        stale=tuple(sorted(going)),
    )


def _why_run(goal: Goal, found: ObservedService, *, asked: bool) -> str:
    if asked:
        return "rerun requested"
    if found.goal is not None and found.goal.revision != goal.revision:
        return _join(content_causes(found.goal.spec.content, goal.spec.content))
    ended = [instance for instance in found.instances if instance.exit is not None]
    return f"did not complete last time ({ended[-1].exit})" if ended else "has not run yet"


def _keep(target: Target, goal: Goal, found: ObservedService) -> Change | None:
    name, present = goal.spec.name, found.revisions
    gated = name not in target.ungated
    anew = name in target.recreate or bool(drifts(target, goal, found))
    if present - {goal.revision} or (anew and present):
        action = "replace" if present - {goal.revision} else "restart"
        stale = present if anew else present - {goal.revision}
        return Change(
            service=name,
            action=action,
            cause=_why_replace(target, goal, found),
            old=found.goal,
            new=goal,
            stale=tuple(sorted(stale)),
            gated=gated,
        )
    action, cause = _adjustment(goal, found)
    if not action:
        return None
    return Change(service=name, action=action, cause=cause, old=found.goal, new=goal, gated=gated)


def _why_replace(target: Target, goal: Goal, found: ObservedService) -> str:
    if goal.spec.name in target.recreate and target.kind == "restart":
        return "restart requested"
    if target.kind == "rollback":
        return f"back to r{goal.revision}"
    if (drifted := drifts(target, goal, found)) and not found.revisions - {goal.revision}:
        return f"drifted: {_join(dict.fromkeys(each.text for each in drifted))}"
    if found.goal is None or found.goal.revision == goal.revision:
        return f"another revision is running (r{', r'.join(str(each) for each in sorted(found.revisions))})"
    return _join(content_causes(found.goal.spec.content, goal.spec.content))


def _adjustment(goal: Goal, found: ObservedService) -> tuple[str, str]:
    """What the wanted revision itself still lacks, as (action, cause); two empty strings: nothing."""
    if not found.revisions and not goal.replicas:
        return "", ""
    if not found.revisions:
        return ("create", "new service") if found.goal is None else ("start", _why_start(found.goal))
    count = found.wanted.get(goal.revision, 0)
    if count != goal.replicas:
        return "scale", f"replicas {count} → {goal.replicas}"
    if found.ready(goal.revision) != goal.replicas:
        return "start", _why_not_ready(found.instances, goal)
    old = found.goal.spec.policy if found.goal else None
    if old is not None and old != goal.spec.policy:
        causes = list(policy_causes(old, goal.spec.policy))
        return ("update", _join(causes)) if causes else ("", "")
    return "", ""


def _why_start(old: Goal) -> str:
    return "was stopped" if old.stopped else "nothing of it is running"


def _why_not_ready(instances: tuple[Instance, ...], goal: Goal) -> str:
    lacking = [each for each in instances if each.revision == goal.revision and each.phase is not Phase.READY]
    if not lacking:
        return f"only {len(instances)} of {goal.replicas} instances are there"
    first = lacking[0]
    ended = f" ({first.exit})" if first.exit is not None and not first.phase.is_alive else ""
    words = {Phase.BACKOFF: "died", Phase.EXITED: "ended", Phase.FAILED: "crash-looped"}
    return f"instance {first.index} {words.get(first.phase, f'is {first.phase}')}{ended}"


# ------------------------------------------------------------------------------------------------------------- causes


def content_causes(old: Content, new: Content) -> Iterator[str]:
    """Why the run hash differs, in words: names of env variables and files, never values of env."""
    for each in dataclasses.fields(Content):
        before, after = getattr(old, each.name), getattr(new, each.name)
        if before == after:
            continue
        if each.name == "env":
            yield f"env changed: {_keys(before, after)}"
        elif each.name == "files":
            yield f"file changed: {_keys(before, after)}"
        elif each.name == "release":
            yield "release changed"
        elif each.name == "container":
            yield from _container_causes(old, new)
        elif each.name in ("command", "image", "user", "service_type"):
            yield f"{each.name} {before or 'none'} → {after or 'none'}"
        else:
            yield f"{each.name} changed"


def _container_causes(old: Content, new: Content) -> Iterator[str]:
    """What only containers have. An image that was built is known by its build, every other one by its ID."""
    for each in dataclasses.fields(Container):
        if each.name == "image_digest" or getattr(old.container, each.name) == getattr(new.container, each.name):
            continue
        if each.name != "image_id":
            yield f"{each.name} changed"
        elif old.image == new.image and new.container.build is None:
            yield f"{new.image} is another image now"


def policy_causes(old: Policy, new: Policy) -> Iterator[str]:
    """What of the policy differs, one phrase for each field; nested ones by their own fields."""
    for each in dataclasses.fields(Policy):
        before, after = getattr(old, each.name), getattr(new, each.name)
        if before == after or each.name in ("replicas_in_file",):
            continue
        if dataclasses.is_dataclass(before):
            yield from _nested(each.name, before, after)
        elif isinstance(before, tuple):
            yield f"{each.name} changed"
        else:
            yield f"{each.name} {_shown(before)} → {_shown(after)}"


def _nested(name: str, before: Any, after: Any) -> Iterator[str]:
    for each in dataclasses.fields(before):
        one, other = getattr(before, each.name), getattr(after, each.name)
        if one != other and isinstance(one, tuple):
            yield f"{name}.{each.name} changed"  # a command: what is in it may be secret
        elif one != other:
            yield f"{name}.{each.name} {_shown(one)} → {_shown(other)}"


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if value != "" else "none"


def _keys(before: Mapping[str, str], after: Mapping[str, str], most: int = 5) -> str:
    names = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _join(causes: Any) -> str:
    return "; ".join(causes)
