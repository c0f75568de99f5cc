"""The steps of a plan while it is being made: edges are added between the rollouts of different services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from deploy_code.plan.order import sort
from deploy_code.plan.plan import Remove, Step, Want


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The handles of one service's steps to which edges are tied.

    ``early``: what takes away the old before the new comes; ``late``: what does so when the new is there; ``start``:
    where it begins to bring the new (nothing comes: empty); ``done``: where the new is proven; ``last``: after which
    nothing is left to do.
    """

    service: str
    early: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    @property
    def stops(self) -> tuple[str, ...]:
        return (*self.early, *self.late)


def handles(service: str, steps: Sequence[Step]) -> Rollout:
    """The handles of ``steps``, of which each stands behind those it comes after."""
    above = _above(steps)
    stops = [each.id for each in steps if _is_stop(each)]
    others = {each.id for each in steps} - {*stops}
    waited_for = {before for each in steps for before in each.after}
    followed = {before for each in others for before in above[each] if before in others}
    return Rollout(
        service=service,
        early=tuple(each for each in stops if others.isdisjoint(above[each])),
        late=tuple(each for each in stops if not others.isdisjoint(above[each])),
        start=tuple(each.id for each in steps if each.id in others and others.isdisjoint(above[each.id])),
        done=tuple(each.id for each in steps if each.id in others - followed),
        last=tuple(each.id for each in steps if each.id not in waited_for),
    )


def _is_stop(step: Step) -> bool:
    return isinstance(step, Remove) or (isinstance(step, Want) and step.replicas == 0)


def _above(steps: Sequence[Step]) -> dict[str, set[str]]:
    """For each step all those before it, directly or not."""
    found: dict[str, set[str]] = {}
    for each in steps:
        found[each.id] = {up for direct in each.after for up in (direct, *found[direct])}
    return found


class Handover(NamedTuple):
    """An exclusive thing (``port 80/tcp``, ``directory /data``) passes from one service to another."""

    thing: str
    old: str
    new: str


class Graph:
    """Steps by id, and what each comes after."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.after: dict[str, set[str]] = {}

    def add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.steps[step.id] = step
            self.after[step.id] = set(step.after)

    def edge(self, first: Iterable[str], then: Iterable[str]) -> None:
        """Everything in ``then`` comes after everything in ``first``."""
        before = tuple(first)
        for each in then:
            self.after[each].update(before)

    def followers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {step: [] for step in self.steps}
        for step, before in self.after.items():
            for each in before:
                found[each].append(step)
        return found

    def walk(self) -> Iterator[Step]:
        """All steps, each after those it waits for, and knowing them."""
        for each in sort(self.after, self.steps):
            yield replace(self.steps[each], after=tuple(sorted(self.after[each])))


def first_needed(graph: Graph, rank: Mapping[str, int]) -> dict[str, int]:
    """For each step the smallest rank of a service whose steps wait for it, directly or through others."""
    followers = graph.followers()
    needed: dict[str, int] = {}
    for each in reversed(sort(graph.after, graph.steps)):
        own = rank.get(graph.steps[each].service, len(rank))
        needed[each] = min([own, *(needed[follower] for follower in followers[each])])
    return needed
