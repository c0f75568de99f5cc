"""Plans of large graphs: the time they take, and how it grows."""

from __future__ import annotations

import gc
import random
from functools import partial

from measure import Figure, median, say, seconds_of, spread, take_turns

from deploy_code.model import Content, Dependency, Policy, ServiceSpec, Settings
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.plan import Goal
from deploy_code.plan.reconcile import reconcile

TITLE = "Large plans"
COMMAND = "python bench/run.py planner"
SIZES = (1_250, 2_500, 5_000, 10_000)
DEPENDENCIES_EACH = 3
ROUNDS = 5
LIMIT_SECONDS = 2.0
LINEAR = 2.0  # eight times the services: linear is 1, caches that overflow add some, quadratic would be 8


def measure() -> list[Figure]:
    say(f"plans of {', '.join(f'{size:,}' for size in SIZES)} services, {ROUNDS} rounds")
    targets = {size: _target(size) for size in SIZES}
    gc.freeze()  # the collector shall not walk the inputs of the other sizes
    contenders = {str(size): partial(_time, target) for size, target in targets.items()}
    times = take_turns(contenders, ROUNDS)
    largest, smallest = SIZES[-1], SIZES[0]
    seconds = median(times[str(largest)])
    growth = (seconds / largest) / (median(times[str(smallest)]) / smallest)
    return [
        *(Figure(name=f"plan of {size:,} services", value=spread(times[str(size)])) for size in SIZES[:-1]),
        Figure(
            name=f"plan of {largest:,} services, {largest * DEPENDENCIES_EACH:,} dependencies",
            value=spread(times[str(largest)]),
            target=f"< {LIMIT_SECONDS:g} s",
            met=seconds < LIMIT_SECONDS,
            command=COMMAND,
        ),
        Figure(
            name=f"time per service, {largest:,} against {smallest:,}",
            value=f"{growth:.2f} ×",
            target=f"linear (< {LINEAR:g})",
            met=growth < LINEAR,
            command=COMMAND,
        ),
    ]


def _target(size: int) -> Target:
    """Everything is new; each service needs three earlier ones, always the same ones in every run."""
    chosen = random.Random(size)
    goals = {f"s{number}": Goal(revision=1, replicas=1, spec=_spec(number, chosen)) for number in range(size)}
    return Target(project="bench", goals=goals, settings=Settings(strategy="Parallel"))


def _spec(number: int, chosen: random.Random) -> ServiceSpec:
    earlier = chosen.sample(range(number), min(number, DEPENDENCIES_EACH))
    dependencies = tuple(Dependency(service=f"s{each}") for each in earlier)
    return ServiceSpec(
        name=f"s{number}", content=Content(command="/bin/true"), policy=Policy(dependencies=dependencies)
    )


def _time(target: Target) -> float:
    return seconds_of(lambda: reconcile(target, Observed()))
