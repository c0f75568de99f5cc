"""From instances to one word per service, and from services to one word per project. Pure; shared by CLI and API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from deploy_code.model import Instance, Phase


class ServiceStatus(StrEnum):
    """How a service as a whole is doing."""

    NOT_STARTED = "not_started"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"


class DeploymentStatus(StrEnum):
    """How a deployment is doing, or ended."""

    NOT_STARTED = "not_started"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


_DEAD = (Phase.EXITED, Phase.FAILED)


def service_status(instances: Sequence[Instance], *, replicas: int, stopped: bool, one_shot: bool) -> ServiceStatus:
    """One word for a service of which ``replicas`` are wanted (or which is to be stopped)."""
    alive = [each for each in instances if each.phase.is_alive]
    if any(each.phase is Phase.UNKNOWN for each in instances):
        return ServiceStatus.UNKNOWN
    if stopped or replicas == 0:
        return ServiceStatus.STOPPING if alive else ServiceStatus.STOPPED
    if one_shot:
        return _one_shot_status(instances)
    if not instances:
        return ServiceStatus.NOT_STARTED
    phases = {each.phase for each in instances}
    if not alive and phases & {*_DEAD}:
        return ServiceStatus.FAILED
    if phases <= {Phase.STOPPING}:
        return ServiceStatus.STOPPING
    serving = sum(1 for each in instances if each.phase in (Phase.READY, Phase.UNREADY))
    if serving or phases & {*_DEAD}:
        return (
            ServiceStatus.RUNNING if serving >= replicas or phases & {*_DEAD, Phase.BACKOFF} else ServiceStatus.STARTING
        )
    return ServiceStatus.STARTING


def _one_shot_status(instances: Sequence[Instance]) -> ServiceStatus:
    phases = {each.phase for each in instances}
    if phases & {*_DEAD}:
        return ServiceStatus.FAILED
    return ServiceStatus.STARTING if phases & {Phase.STARTING, Phase.WAITING} else ServiceStatus.STOPPED


def service_health(
    instances: Sequence[Instance], *, replicas: int, stopped: bool, one_shot: bool, checked: bool
) -> str:
    """``healthy``, ``unhealthy``, ``starting``, ``none`` (nothing to be healthy) or ``unknown``."""
    status = service_status(instances, replicas=replicas, stopped=stopped, one_shot=one_shot)
    if status is ServiceStatus.FAILED:
        return "unhealthy"
    if status is ServiceStatus.UNKNOWN:
        return "unknown"
    if stopped or one_shot or replicas == 0 or status is ServiceStatus.NOT_STARTED:
        return "none"
    ready = sum(1 for each in instances if each.phase is Phase.READY)
    if ready >= replicas:
        return "healthy" if checked else "none"
    bad = any(each.phase in (Phase.UNREADY, Phase.BACKOFF, *_DEAD) or each.gate == "failed" for each in instances)
    return "unhealthy" if bad else "starting"


class ServiceCircuit(NamedTuple):
    """The circuit of a service's crash loop: ``closed``, ``open`` or ``half-open``.

    ``retry_at``: seconds since the epoch, 0 where no time is set. ``reason``: how it last ended.
    """

    state: str = "closed"
    retry_at: float = 0.0
    reason: str = ""


def service_circuit(instances: Iterable[Instance]) -> ServiceCircuit:
    """Each instance has a circuit; what counts for the service is the worst: the open one that is tried first."""
    unclosed = (each for each in instances if each.circuit)
    worst = min(unclosed, key=lambda each: (each.circuit != "open", each.next_start_at), default=None)
    if worst is None:
        return ServiceCircuit()
    return ServiceCircuit(worst.circuit, worst.next_start_at, str(worst.exit) if worst.exit else worst.note)


def overall_health(services: Iterable[tuple[str, str]]) -> str:
    """From (status, health) of every service: ``healthy``, ``degraded``, ``unhealthy``, ``stopped`` or ``unknown``."""
    words = list(services)
    if not words:
        return "unknown"
    if any(status == ServiceStatus.UNKNOWN or health == "unknown" for status, health in words):
        return "unknown"
    bad = [status for status, health in words if status == ServiceStatus.FAILED or health == "unhealthy"]
    active = [status for status, _ in words if status not in (ServiceStatus.STOPPED, ServiceStatus.NOT_STARTED)]
    if not active:
        return "stopped"
    if len(bad) == len(active):
        return "unhealthy"
    unsettled = (ServiceStatus.STARTING, ServiceStatus.STOPPING, ServiceStatus.NOT_STARTED)
    waiting = any(status in unsettled or health == "starting" for status, health in words)
    return "degraded" if bad or waiting else "healthy"
