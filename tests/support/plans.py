"""Short ways to say what is wanted and what was found, for tests of the planner."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deploy_code.model import Condition, Content, Dependency, Instance, Phase, Policy, ServiceSpec
from deploy_code.plan.observed import Observed, ObservedService, Target
from deploy_code.plan.plan import Goal, Plan
from deploy_code.plan.reconcile import reconcile

CONTENT = {"command", "env", "ports", "volumes", "one_shot", "files", "args", "resources"}


def service(name: str, *dependencies: str, **options: Any) -> ServiceSpec:
    """``service("api", "db", "migrate:completed", command="x", replicas=2)``."""
    content = {key: value for key, value in options.items() if key in CONTENT}
    policy = {key: value for key, value in options.items() if key not in CONTENT}
    return ServiceSpec(
        name=name,
        content=Content(**{"command": name, **content}),
        policy=Policy(dependencies=tuple(_dependency(each) for each in dependencies), **policy),
    )


def _dependency(text: str) -> Dependency:
    name, _, condition = text.partition(":")
    return Dependency(service=name, condition=Condition(condition or "healthy"))


def goal(spec: ServiceSpec, revision: int = 1, **options: Any) -> Goal:
    return Goal(spec=spec, revision=revision, replicas=spec.policy.replicas, **options)


def live(spec: ServiceSpec, revision: int = 1, index: int = 0, **options: Any) -> Instance:
    values = {"phase": Phase.READY, **options}
    return Instance(uuid=f"{spec.name}-{revision}-{index}", service=spec.name, revision=revision, index=index, **values)


def deployed(
    specs: Sequence[ServiceSpec],
    *,
    instances: Iterable[Instance] | None = None,
    known: Iterable[tuple[ServiceSpec, int]] = (),
    completed: Iterable[ServiceSpec] = (),
    stopped: bool = False,
) -> Observed:
    """A world in which all of ``specs`` were deployed and are ready, unless ``instances`` says otherwise."""
    completed = list(completed)
    numbers = {(each.name, each.run_hash): 1 for each in [*specs, *completed]}
    numbers |= {(each.name, each.run_hash): number for each, number in known}
    found = _all_ready(specs, numbers, stopped=stopped) if instances is None else list(instances)
    names = {each.name for each in specs} | {each.service for each in found}
    by_name = {each.name: each for each in specs}
    return Observed(
        services={
            name: _observed(by_name.get(name), numbers, [i for i in found if i.service == name], stopped)
            for name in names
        },
        revisions=numbers,
        latest={name: max(n for (other, _), n in numbers.items() if other == name) for name, _ in numbers},
        completed=frozenset((each.name, each.run_hash) for each in completed),
    )


def _all_ready(
    specs: Sequence[ServiceSpec], numbers: Mapping[tuple[str, str], int], *, stopped: bool
) -> list[Instance]:
    if stopped:
        return []
    return [
        live(each, numbers[(each.name, each.run_hash)], index)
        for each in specs
        for index in range(each.policy.replicas)
    ]


def _observed(
    spec: ServiceSpec | None, numbers: Mapping[tuple[str, str], int], instances: list[Instance], stopped: bool
) -> ObservedService:
    if spec is None:
        return ObservedService(instances=tuple(instances))
    revision = numbers[(spec.name, spec.run_hash)]
    wanted = {} if stopped else {revision: spec.policy.replicas}
    return ObservedService(goal=goal(spec, revision, stopped=stopped), wanted=wanted, instances=tuple(instances))


def target(specs: Sequence[ServiceSpec], observed: Observed | None = None, **options: Any) -> Target:
    seen = observed or Observed()
    goals = options.pop("goals", None) or {each.name: goal(each, seen.revision_of(each)) for each in specs}
    return Target(project="shop", goals=goals, **options)


def planned(specs: Sequence[Any], observed: Observed | None = None, **options: Any) -> Plan:
    seen = observed or Observed()
    return reconcile(target(specs, seen, **options), seen)


class text(str):
    """A plan as text that compares without regard to indentation and column widths; notes are left out."""

    def __new__(cls, plan: Plan) -> text:
        return super().__new__(cls, "\n".join(line for line in str(plan).splitlines() if "note:" not in line))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and _squeezed(self) == _squeezed(other)

    __hash__ = str.__hash__


def _squeezed(value: str) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in textwrap.dedent(str(value)).strip().splitlines()]
