"""What is measured, as frozen values. Sizes are bytes, spans seconds, times seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass

from deploy_code.services.status import ServiceCircuit


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemMetrics:
    """The machine, as far as we may use it. ``*_usage`` is in per cent, 0 to 100.

    Where a control group bounds our memory, that bound counts as all memory there is. CPU usage is that of the whole
    machine; ``cpu_count`` is how many cores we may use, which a quota can make a fraction.
    """

    at: float
    cpu_usage: float
    memory_usage: float
    disk_usage: float  # of the disk of the project's state, else of /
    cpu_count: float
    load_average: tuple[float, float, float]  # over 1, 5 and 15 minutes
    memory_total_bytes: int
    memory_used_bytes: int
    disk_total_bytes: int
    disk_used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMetrics:
    """One instance, with everything that it has started and that still runs."""

    index: int
    revision: int
    uuid: str
    phase: str
    cpu_percent: float  # of one core, as in top: two busy threads are 200
    cpu_seconds: float  # since its start, ended children included
    memory_bytes: int  # proportional share: what several processes share counts once
    processes: int
    open_files: int | None  # None: the kernel does not let us look
    restarts: int
    uptime_seconds: float  # 0: it does not run
    probe_seconds: float | None  # how long its last known probe took; None: none yet
    circuit: str  # of its crash loop: closed, open, half-open


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMetrics:
    """All instances of a service, summed, and each."""

    service: str
    at: float
    cpu_percent: float
    cpu_seconds: float
    memory_bytes: int
    processes: int
    open_files: int | None  # None: of one of them it is not known
    restarts: int
    uptime_seconds: float  # of the oldest instance
    probe_seconds: float | None  # the slowest of its instances' last known probes
    circuit: ServiceCircuit
    instances: tuple[InstanceMetrics, ...]


def summed(service: str, at: float, circuit: ServiceCircuit, instances: tuple[InstanceMetrics, ...]) -> ServiceMetrics:
    """The metrics of a service from those of its instances."""
    files = [each.open_files for each in instances]
    probes = [each.probe_seconds for each in instances if each.probe_seconds is not None]
    return ServiceMetrics(
        service=service,
        at=at,
        cpu_percent=round(sum(each.cpu_percent for each in instances), 1),
        cpu_seconds=round(sum(each.cpu_seconds for each in instances), 2),
        memory_bytes=sum(each.memory_bytes for each in instances),
        processes=sum(each.processes for each in instances),
        open_files=None if None in files else sum(each or 0 for each in files),
        restarts=sum(each.restarts for each in instances),
        uptime_seconds=max((each.uptime_seconds for each in instances), default=0.0),
        probe_seconds=max(probes, default=None),
        circuit=circuit,
        instances=instances,
    )
