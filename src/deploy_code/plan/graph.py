"""The steps of a plan while it is being made: edges are added between the rollouts of different services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from deploy_code.plan.order import sort
from deploy_code.plan.plan import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The handles of one service's steps to which edges are tied.

    ``stops``: what takes away the old; ``start``: what brings the new (None: nothing comes); ``done``: its last step.
    """

    service: str
    stops: tuple[str, ...] = ()
    start: str | None = None
    done: str | None = None

    @property
    def last(self) -> tuple[str, ...]:
        return (self.done,) if self.done else self.stops


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
