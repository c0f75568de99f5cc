"""Dependency order: who starts after whom, and a cycle named where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from deploy_code.errors import ConfigError
from deploy_code.model import ServiceSpec


def dependency_order(specs: Mapping[str, ServiceSpec]) -> list[str]:
    """Names so that each comes after all it depends on; equals keep the order of the file.

    Raises ConfigError (E002) that spells the cycle out. Dependencies outside ``specs`` are ignored.
    """
    graph = {
        name: [each.service for each in spec.policy.dependencies if each.service in specs]
        for name, spec in specs.items()
    }
    return sort(graph, specs)


def sort(graph: Mapping[str, Iterable[str]], order: Iterable[str]) -> list[str]:
    """Topological order of ``graph`` (node → what comes before it), stable with respect to ``order``."""
    rank = {name: number for number, name in enumerate(order)}
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as exc:
        circle = " → ".join(reversed(exc.args[1]))
        raise ConfigError(
            f"services depend on each other in a circle: {circle}",
            remedy="Take one of these dependencies out",
        ) from exc
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: rank.get(name, len(rank)))
        found.extend(ready)
        sorter.done(*ready)
    return found
