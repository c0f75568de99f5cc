"""Rollouts of somebody else's: a plain function from a ``Change`` to steps, whose answer is checked before it counts.

Whatever the function gives back, the plan it becomes part of leads from what runs to what is wanted, with a gate
before it is called done.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from deploy_code.errors import ConfigError, shown
from deploy_code.model import ServiceSpec
from deploy_code.plan.diff import Change
from deploy_code.plan.holdings import places_held
from deploy_code.plan.order import sort
from deploy_code.plan.plan import Goal, Step, WaitReady, Want

STARTING = ("create", "replace", "start", "restart", "scale")  # actions that a rollout function is asked about
MOST_STEPS = 1_000  # each knows all those before it

Make = Callable[[Change], Iterable[Step]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomRollout:
    """A registered rollout. ``where``: its source and who registered it, for people."""

    name: str
    where: str
    make: Make

    def steps(self, change: Change) -> tuple[Step, ...]:
        """Its steps for one change, complete and checked. Raises ConfigError (E002) that says what is wrong."""
        if change.new is None:
            raise self._error(change, "it was asked about a service that goes")
        try:
            made = _completed(change, listed(self.make(change)))
            above = _Above(made)
            _check(change, change.new, made, above)
        except _NonsenseError as exc:
            raise self._error(change, str(exc)) from exc
        except Exception as exc:  # somebody else's function: whatever it raises is its failure
            raise self._error(change, f"it raised {shown(exc)}") from exc
        return above.sorted(made)

    def _error(self, change: Change, what: str) -> ConfigError:
        return ConfigError(
            f'rollout "{self.name}" ({self.where}) cannot be used for {change.service}: {what}',
            meaning="Nothing was changed",
            remedy=f"Correct it, or take `strategy: {self.name}` out of services.{change.service}",
        )


class _NonsenseError(Exception):
    """What the function gave back is no rollout; the text says why."""


def listed(given: object) -> list[Step]:
    """What a rollout function gave back as a list, of bounded length."""
    if isinstance(given, Coroutine):
        given.close()
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise _NonsenseError(f"it gives {type(given).__name__} where steps are wanted")
    return list(islice(given, MOST_STEPS + 1))


def _completed(change: Change, given: list[Step]) -> tuple[Step, ...]:
    """With full ids, causes and gates. Where no step names another, they come one after the other as given."""
    if len(given) > MOST_STEPS:
        raise _NonsenseError(f"it gives more than {MOST_STEPS} steps")
    for step in given:
        _check_step(change, step)
    in_order = not any(step.after for step in given)
    steps: list[Step] = []
    for step in given:
        after = tuple(_full(change, each) for each in step.after)
        if in_order and steps:
            after = (steps[-1].id,)
        full = replace(step, id=_full(change, step.id), cause=step.cause or change.cause, after=after)
        steps.append(_told_apart(change, full))
    return tuple(steps)


def _told_apart(change: Change, step: Step) -> Step:
    if isinstance(step, WaitReady):
        return replace(step, gated=change.gated)
    is_old = change.new is not None and isinstance(step, Want) and step.revision != change.new.revision
    return replace(step, keeps=True) if is_old and isinstance(step, Want) and step.replicas else step


def _full(change: Change, name: str) -> str:
    prefix = f"{change.service}/"
    return name if name.startswith(prefix) else prefix + name


def _check_step(change: Change, step: object) -> None:
    if not isinstance(step, Want | WaitReady) or type(step) not in (
        Want,
        WaitReady,
    ):  # one of its own: who could do it?
        raise _NonsenseError(f"it gives {_shown(step)}: only Want and WaitReady are steps of a rollout")
    if step.service != change.service:
        raise _NonsenseError(f'its step "{step.id}" is about another service, {step.service!r}')
    if not isinstance(step.id, str) or not step.id:
        raise _NonsenseError("one of its steps has no id")
    if not isinstance(step.after, tuple | list) or not all(isinstance(each, str) for each in step.after):
        raise _NonsenseError(f'"after" of its step "{step.id}" is no tuple of ids')
    if not isinstance(step.cause, str):
        raise _NonsenseError(f'the cause of its step "{step.id}" is no text')
    if type(step.replicas) is not int or step.replicas < 0:
        raise _NonsenseError(f'its step "{step.id}" wants {step.replicas!r} instances')
    known = {goal.revision for goal in (change.old, change.new) if goal is not None}
    is_known = step.revision in known or (step.revision in change.stale and not step.replicas)
    if type(step.revision) is not int or not is_known:
        raise _NonsenseError(
            f'its step "{step.id}" is about revision {step.revision!r}, which {change.service} does not have'
        )


def _shown(step: object) -> str:
    return f"a step of kind {step.kind}" if isinstance(step, Step) else f"{type(step).__name__} as a step"


def _check(change: Change, new: Goal, steps: tuple[Step, ...], above: _Above) -> None:
    wants = [step for step in steps if isinstance(step, Want)]
    last = {step.revision: step for step in above.in_turn(wants)}
    brought = last.get(new.revision)
    if brought is None or brought.replicas != new.replicas:
        count = "none" if brought is None else str(brought.replicas)
        raise _NonsenseError(f"it ends with {count} of r{new.revision}, and {new.replicas} are wanted")
    for revision in change.stale:
        gone = [step for step in wants if step.revision == revision and step.replicas == 0]
        if not gone or (revision != new.revision and last[revision].replicas):
            raise _NonsenseError(f"it leaves r{revision} behind, which has to go")
        if revision == new.revision and not any(above.comes_after(brought, step) for step in gone):
            raise _NonsenseError(f"r{revision} is to be started anew, and it does not stop it first")
    gates = [step for step in steps if isinstance(step, WaitReady)]
    _check_gates(new, brought, gates, wants, above)
    _check_exclusive(change, new, wants, above)


def _check_gates(new: Goal, brought: Want, gates: list[WaitReady], wants: list[Want], above: _Above) -> None:
    for gate in gates:
        earlier = [each for each in wants if each.revision == gate.revision and above.comes_after(gate, each)]
        most = above.in_turn(earlier)[-1].replicas if earlier else gate.replicas
        if gate.replicas > most:
            raise _NonsenseError(f'its step "{gate.id}" waits for {gate.replicas} where only {most} are wanted')
    proven = [each for each in gates if each.revision == new.revision and each.replicas == new.replicas]
    if new.replicas and not any(above.comes_after(each, brought) for each in proven):
        raise _NonsenseError(f"it does not wait until all {new.replicas} of r{new.revision} are ready")


def _check_exclusive(change: Change, new: Goal, wants: list[Want], above: _Above) -> None:
    """Where two revisions may not run at once, the old one is gone before the new one comes."""
    reason = exclusive_reason(change.old.spec, new.spec) if change.old is not None else ""
    if not reason:
        return
    for revision in set(change.stale) - {new.revision}:
        gone = [step for step in wants if step.revision == revision and not step.replicas]
        for step in wants:
            if step.revision == new.revision and step.replicas and not any(above.comes_after(step, g) for g in gone):
                raise _NonsenseError(f"it runs r{revision} and r{new.revision} side by side, and {reason}")


def exclusive_reason(old: ServiceSpec, new: ServiceSpec) -> str:
    """Why ``old`` and ``new`` of one service cannot run at once; empty: they can."""
    if new.policy.exclusive or old.policy.exclusive:
        return "the service is exclusive"
    shared = sorted({*_held(old)} & {*_held(new)})
    return f"both need {shared[0]}" if shared else ""


def _held(spec: ServiceSpec) -> Iterator[str]:
    content = spec.content
    handed = "${PORT" in " ".join((content.command, *content.args, *content.env.values()))
    several = spec.policy.replicas > 1
    for port in content.ports:
        if port.host_port:
            yield f"port {port.host_port}/{port.protocol}"
        elif port.container_port and not (port.dynamic or handed or content.has_own_network or several):
            yield f"port {port.container_port}/{port.protocol}"
    yield from places_held(content)


class _Above:
    """Which steps come before which. Raises when ids are taken twice, unknown, or go round in a circle."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        after = {step.id: step.after for step in steps}
        if len(after) != len(steps):
            raise _NonsenseError("two of its steps have the same id")
        for step in steps:
            if unknown := [each for each in step.after if each not in after]:
                raise _NonsenseError(f'its step "{step.id}" comes after "{unknown[0]}", which it does not have')
        try:
            order = sort(after, after)
        except ConfigError as exc:
            raise _NonsenseError(exc.message.replace("services depend on", "its steps wait for")) from exc
        self._rank = {each: number for number, each in enumerate(order)}
        self._before: dict[str, set[str]] = {}
        for each in order:
            self._before[each] = {up for direct in after[each] for up in (direct, *self._before[direct])}

    def sorted(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(sorted(steps, key=lambda step: self._rank[step.id]))

    def comes_after(self, step: Step, other: Step) -> bool:
        return other.id in self._before[step.id]

    def in_turn(self, wants: list[Want]) -> list[Want]:
        """In the order in which they are walked, which must be certain for those of one revision."""
        found = sorted(wants, key=lambda step: self._rank[step.id])
        latest: dict[int, Want] = {}
        for step in found:
            earlier = latest.get(step.revision)
            if earlier is not None and not self.comes_after(step, earlier):
                raise _NonsenseError(f'of its steps "{earlier.id}" and "{step.id}" neither comes after the other')
            latest[step.revision] = step
        return found
