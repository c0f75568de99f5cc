"""Looks at the machine and at the processes of a project, and remembers just enough to tell rates."""

from __future__ import annotations

import time
from collections.abc import Collection
from threading import Lock

from deploy_code.errors import ServiceError
from deploy_code.model import Instance
from deploy_code.monitoring.machine import busy_seconds, read_machine
from deploy_code.monitoring.processes import Usage, members, usage
from deploy_code.monitoring.rates import Rates
from deploy_code.monitoring.values import InstanceMetrics, ServiceMetrics, SystemMetrics, summed
from deploy_code.security.redact import Redactor
from deploy_code.services.status import service_circuit
from deploy_code.state.rows import CircuitRow
from deploy_code.state.store import Store

_MACHINE = "machine"


class Sampler:
    """Synchronous, for any number of threads. Each look gives what it found, and the seconds after which another look
    knows the rates; 0: these are right."""

    def __init__(self, state_dir: str | None) -> None:
        self._state_dir = state_dir
        self._lock = Lock()
        self._machine = Rates()
        self._instances = Rates()

    @property
    def has_project(self) -> bool:
        """Is there a state to read? Raises StateError when that cannot be told."""
        return self._state_dir is not None and Store.exists(self._state_dir)

    def machine(self) -> tuple[float, SystemMetrics]:
        """Look at the machine."""
        with self._lock:
            now = time.monotonic()
            self._machine.tidy(now)
            rate = self._machine.rate(_MACHINE, busy_seconds(), now)
            return self._machine.wait(_MACHINE, now), read_machine(rate or 0.0, self._state_dir or "/")

    def services(self, names: Collection[str] | None = None) -> tuple[float, dict[str, ServiceMetrics]]:
        """Look at these services, or at all. Raises ServiceError S001 for unknown names, StateError."""
        found = self._recorded(names)
        everyone = [each for instances in found.values() for each in instances]
        with self._lock:
            at, now = time.time(), time.monotonic()
            self._instances.tidy(now)
            used = {uuid: usage(procs) for uuid, procs in members(everyone).items()}
            lives = {each.uuid: (each.uuid, each.start_time) for each in everyone if each.uuid in used}
            rates = {uuid: self._instances.rate(life, used[uuid].cpu_seconds, now) for uuid, life in lives.items()}
            wait = max((self._instances.wait(life, now) for life in lives.values()), default=0.0)
        metrics = {
            name: summed(
                name,
                at,
                service_circuit(instances),
                tuple(_measured(each, at, used.get(each.uuid, Usage()), rates.get(each.uuid)) for each in instances),
            )
            for name, instances in found.items()
        }
        return wait, metrics

    def circuits(self) -> tuple[CircuitRow, ...]:
        """The agent's breakers that are not closed, as it last wrote them, without secrets. Raises StateError."""
        if self._state_dir is None or not self.has_project:
            return ()
        with Store.open(self._state_dir, read_only=True) as store:
            clean = Redactor(store.secrets()).clean
            return tuple(row._replace(reason=clean(row.reason)) for row in store.circuits())

    def _recorded(self, names: Collection[str] | None) -> dict[str, list[Instance]]:
        """The instances of each of these services, or of all, as they are recorded."""
        if self._state_dir is None or not self.has_project:
            raise _unknown(names or ("",), ())
        with Store.open(self._state_dir, read_only=True) as store:
            running = store.running_deployment()
            known = {**running.before, **running.after} if running else store.current_map()
            instances = store.instances()
        found: dict[str, list[Instance]] = {name: [] for name in sorted({*known, *(i.service for i in instances)})}
        for each in sorted(instances, key=lambda each: (each.revision, each.index)):
            found[each.service].append(each)
        if names is None:
            return found
        if any(name not in found for name in names):
            raise _unknown(names, found)
        return {name: found[name] for name in names}


def _measured(instance: Instance, at: float, used: Usage, cores: float | None) -> InstanceMetrics:
    runs = bool(used.processes) or (instance.phase.is_alive and not instance.pid)  # custom types may name no pid
    uptime = max(0.0, at - instance.started_at) if runs and instance.started_at else 0.0
    if cores is None:  # it has just begun: nothing is known but its whole life
        cores = used.cpu_seconds / uptime if uptime else 0.0
    return InstanceMetrics(
        index=instance.index,
        revision=instance.revision,
        uuid=instance.uuid,
        phase=str(instance.phase),
        cpu_percent=round(100 * cores, 1),
        cpu_seconds=round(used.cpu_seconds, 2),
        memory_bytes=used.memory_bytes,
        processes=used.processes,
        open_files=used.open_files,
        restarts=instance.restarts,
        uptime_seconds=round(uptime, 1),
        probe_seconds=instance.probe.duration if instance.probe is not None else None,
        circuit=instance.circuit or "closed",
    )


def _unknown(names: Collection[str], known: Collection[str]) -> ServiceError:
    wrong = next((name for name in names if name not in known), "")
    if not known:
        return ServiceError(
            f'there is no service "{wrong}": nothing was deployed here yet',
            remedy="Deploy first, or ask the metrics of an orchestrator",
        )
    return ServiceError(f'there is no service "{wrong}" in this project', remedy=f"It has {', '.join(known)}")
