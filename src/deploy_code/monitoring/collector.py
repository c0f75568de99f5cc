"""``MetricsCollector``: the machine and the services of one project, measured when asked.

Reads the project's state and /proc, so it works from any process and without an agent. Rates need two looks: the last
one is remembered, and where there is none a second one follows after a tenth of a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from deploy_code.monitoring.sampler import Sampler
from deploy_code.monitoring.values import ServiceMetrics, SystemMetrics
from deploy_code.state.rows import CircuitRow

T = TypeVar("T")


class MetricsCollector:
    """Measures the machine and, with ``state_dir`` (a project's own folder of state), its services.

    One object may be asked by many tasks at once; it blocks no event loop, binds none and needs no close.
    """

    def __init__(self, state_dir: str | None = None) -> None:
        self._sampler = Sampler(state_dir)

    async def get_system_metrics(self) -> SystemMetrics:
        """CPU, memory and disk of the machine; CPU since the last call, at first over a tenth of a second."""
        return await _settled(self._sampler.machine)

    async def get_service_metrics(self, name: str) -> ServiceMetrics:
        """One service: each instance with all its processes, and their sums.

        CPU use is since the last call, at first over a tenth of a second. Raises ServiceError S001 for a name that
        the project does not know, StateError.
        """
        return (await _settled(lambda: self._sampler.services([name])))[name]

    async def get_all_service_metrics(self) -> dict[str, ServiceMetrics]:
        """All services of the project by name; none where nothing was deployed. Raises StateError."""
        return await _settled(self._sampler.services) if self._sampler.has_project else {}

    async def get_circuits(self) -> tuple[CircuitRow, ...]:
        """Circuits of what the agent calls that are not closed; those of services are in their metrics."""
        return await asyncio.to_thread(self._sampler.circuits)


async def _settled(look: Callable[[], tuple[float, T]]) -> T:
    """What a look finds, or the second one where rates need two."""
    wait, found = await asyncio.to_thread(look)
    if wait:
        await asyncio.sleep(wait)
        _, found = await asyncio.to_thread(look)
    return found


def read_metrics(state_dir: str | None = None) -> dict[str, Any]:
    """What ``DeployCode.get_metrics()`` gives: plain data, synchronous, inside a running loop too. Takes 0.1 s.

    ``cpu_percent``, ``memory_percent``, ``disk_percent``, ``load_average`` of the machine; where ``state_dir`` holds a
    state, ``services`` by name, each with the fields of ``ServiceMetrics``, and ``circuits``, a list of those of the
    agent that are not closed. Raises StateError.
    """
    sampler = Sampler(state_dir)
    looks: list[Callable[[], tuple[float, Any]]] = [sampler.machine]
    if sampler.has_project:
        looks.append(sampler.services)
    time.sleep(max(wait for wait, _ in [look() for look in looks]))
    system, *services = [found for _, found in [look() for look in looks]]
    data = {
        "cpu_percent": system.cpu_usage,
        "memory_percent": system.memory_usage,
        "load_average": list(system.load_average),
        "disk_percent": system.disk_usage,
    }
    for each in services:
        data["services"] = {name: _plain(metrics) for name, metrics in each.items()}
        data["circuits"] = [circuit._asdict() for circuit in sampler.circuits()]
    return data


def _plain(metrics: ServiceMetrics) -> dict[str, Any]:
    data = asdict(metrics)
    return {**data, "circuit": metrics.circuit._asdict(), "instances": list(data["instances"])}
