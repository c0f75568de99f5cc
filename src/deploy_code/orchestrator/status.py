"""The mappings behind ``status`` and ``health``: read from the state alone, so that they cost no start-up.

Shapes: DESIGN §9. Neither asyncio nor the agent is needed; where no agent runs, each pid is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploy_code.model import Instance, Phase, ServiceSpec
from deploy_code.services.status import ServiceStatus, overall_health, service_circuit, service_health, service_status

if TYPE_CHECKING:
    from deploy_code.state.rows import CircuitRow, DeploymentRow, MapEntry
    from deploy_code.state.store import Store

NOT_SUPERVISED = "no agent is running: nothing is probed or restarted (deploy-code agent start)"


def empty_status(project: str, environment: str) -> dict[str, Any]:
    """Of a project that was never deployed."""
    return _headline(project, environment, {}, None, [], agent_alive=False)


def read_status(store: Store, *, detailed: bool = False, agent_alive: bool) -> dict[str, Any]:
    """The status mapping of CONTRACTS §3; ``detailed`` adds instances, probes, revisions and usage."""
    from deploy_code.orchestrator.observe import recorded_instances

    running = store.running_deployment()
    entries = _wanted_map(store, running)
    specs = store.specs(entries)
    completed = store.completed_one_shots() if any(spec.content.one_shot for spec in specs.values()) else set()
    instances = recorded_instances(store, agent_alive=agent_alive)
    pids = _pids(instances) if detailed else None
    by_service: dict[str, list[Instance]] = {}
    for each in instances:
        by_service.setdefault(each.service, []).append(each)
    services = {
        name: _service(specs.get(name), entries.get(name), by_service.get(name, []), completed, pids)
        for name in sorted({*entries, *by_service})
    }
    project = store.project()
    name, environment = (project.name, project.environment) if project else ("", "")
    circuits = store.circuits() if agent_alive else []  # they are the agent's: without one there are none
    last = running or store.last_deployment()
    return _headline(name, environment, services, last, circuits, agent_alive=agent_alive)


def _wanted_map(store: Store, running: DeploymentRow | None) -> dict[str, MapEntry]:
    if running is None:
        return store.current_map()
    return {**running.before, **running.after}


def _headline(
    project: str,
    environment: str,
    services: dict[str, Any],
    last: DeploymentRow | None,
    circuits: Sequence[CircuitRow],
    *,
    agent_alive: bool,
) -> dict[str, Any]:
    words = [(each["status"], each["health"]) for each in services.values()]
    in_progress = last is not None and last.status == "in_progress"
    return {
        "project": project,
        "environment": environment,
        "overall_health": overall_health(words),
        "total_services": len(services),
        "deployed_services": sum(1 for each in services.values() if each["deployed"]),
        "running_services": sum(1 for status, _ in words if status == ServiceStatus.RUNNING),
        "failed_services": sum(1 for status, _ in words if status == ServiceStatus.FAILED),
        "deployment": last.number if last else 0,
        "deployment_status": last.status if last else "not_started",
        "deployment_complete": not in_progress,
        "agent_running": agent_alive,
        "notes": _notes(services, agent_alive=agent_alive),
        "circuits": [each._asdict() for each in circuits],
        "services": services,
    }


def _notes(services: dict[str, Any], *, agent_alive: bool) -> list[str]:
    active = [name for name, each in services.items() if each["status"] not in ("stopped", "not_started")]
    return [NOT_SUPERVISED] if active and not agent_alive else []


def _service(
    spec: ServiceSpec | None,
    entry: MapEntry | None,
    instances: list[Instance],
    completed: Collection[tuple[str, str]],
    pids: Mapping[str, Iterable[int]] | None,
) -> dict[str, Any]:
    """``pids``: all processes of each instance by its uuid; None: not asked for."""
    replicas = entry.replicas if entry else 0
    stopped = entry is None or entry.stopped
    one_shot = spec is not None and spec.content.one_shot
    checked = spec is not None and _is_checked(spec, instances)
    status = service_status(instances, replicas=replicas, stopped=stopped, one_shot=one_shot)
    health = service_health(instances, replicas=replicas, stopped=stopped, one_shot=one_shot, checked=checked)
    ready = [each for each in instances if each.phase is Phase.READY]
    data: dict[str, Any] = {
        "status": str(status),
        "health": health,
        "ready": len(ready),
        "replicas": replicas,
        "revision": entry.revision if entry else 0,
        "restarts": sum(each.restarts for each in instances),
        "uptime_seconds": _uptime(instances),
        "ports": sorted({number for each in instances for number in (each.published or each.ports).values()}),
        "image": spec.content.image if spec is not None else "",
        "image_id": spec.content.container.image_id if spec is not None else "",
        "image_digest": spec.content.container.image_digest if spec is not None else "",
        "one_shot": one_shot,
        "deployed": _is_deployed(spec, entry, instances, completed),
        "detail": _detail(instances, one_shot=one_shot),
        "circuit": service_circuit(instances)._asdict(),
    }
    if pids is None:
        return data
    return {**data, "instances": [_instance(each, pids.get(each.uuid, ())) for each in instances]}


def _is_checked(spec: ServiceSpec, instances: Iterable[Instance]) -> bool:
    """Is there anything that says how it is, other than that it is alive?"""
    asked = spec.policy.health.endpoint or spec.policy.health.command or spec.content.ports
    return bool(asked) or any(each.probe is not None and each.probe.kind == "handler" for each in instances)


def _is_deployed(
    spec: ServiceSpec | None,
    entry: MapEntry | None,
    instances: Sequence[Instance],
    completed: Collection[tuple[str, str]],
) -> bool:
    if entry is None or entry.stopped or spec is None:
        return False
    if spec.content.one_shot:
        return (spec.name, spec.run_hash) in completed
    right = [each for each in instances if each.revision == entry.revision]
    return sum(1 for each in right if each.phase is Phase.READY) >= entry.replicas


def _uptime(instances: Sequence[Instance]) -> float:
    started = [each.started_at for each in instances if each.phase.is_alive and each.started_at]
    return round(time.time() - min(started), 1) if started else 0.0


def _detail(instances: Sequence[Instance], *, one_shot: bool) -> str:
    """Why it is as it is, where that is not plain."""
    for each in instances:
        if each.phase in (Phase.EXITED, Phase.FAILED, Phase.BACKOFF):
            end = str(each.exit) if each.exit else ""
            return "; ".join(part for part in ("" if each.note.startswith(end) else end, each.note) if part)
    for each in instances:
        if each.phase in (Phase.UNKNOWN, Phase.STOPPING) and each.note:
            return each.note
    for each in instances:
        if each.phase in (Phase.UNREADY, Phase.STARTING) and each.probe is not None and not each.probe.ok:
            return f"{each.probe.target}: {each.probe.detail}"
    return "completed" if one_shot and any(each.phase is Phase.COMPLETED for each in instances) else ""


def _instance(instance: Instance, pids: Iterable[int]) -> dict[str, Any]:
    from deploy_code.codec import to_data

    return {
        "index": instance.index,
        "revision": instance.revision,
        "phase": str(instance.phase),
        "pid": instance.pid,
        "ports": dict(instance.ports),
        "address": instance.address,
        "published": dict(instance.published),
        "container": instance.container,
        "restarts": instance.restarts,
        "started_at": instance.started_at,
        "ready_at": instance.ready_at,
        "exit": str(instance.exit) if instance.exit else "",
        "circuit": instance.circuit or "closed",
        "next_start_at": instance.next_start_at,
        "note": instance.note,
        "log": instance.log_path,
        "uuid": instance.uuid,
        "probe": to_data(instance.probe) if instance.probe else None,
        **_usage(pids),
    }


def _pids(instances: Iterable[Instance]) -> Mapping[str, Iterable[int]]:
    """By relations alone: reading every environment would cost more than all the rest."""
    from deploy_code.monitoring.processes import members

    return members(instances, by_uuid=False)


def _usage(pids: Iterable[int]) -> dict[str, Any]:
    """Resident memory and CPU time of these, as the kernel says now; zeros for what is not there."""
    from deploy_code.monitoring.processes import cpu_seconds, resident_bytes

    pids = tuple(pids)
    return {
        "processes": len(pids),
        "memory_bytes": sum(map(resident_bytes, pids)),
        "cpu_seconds": round(sum(map(cpu_seconds, pids)), 2),
    }


# ------------------------------------------------------------------------------------------------------------- health


def health_of(status: dict[str, Any]) -> dict[str, Any]:
    """``status, score (0-100), uptime_hours, issues [{severity, service, message}]`` from a status mapping."""
    services = status["services"]
    counted = [each for each in services.values() if not each["one_shot"]]
    healthy = [each for each in counted if each["status"] == "running" and each["health"] in ("healthy", "none")]
    uptimes = [each["uptime_seconds"] for each in counted if each["uptime_seconds"]]
    return {
        "status": status["overall_health"],
        "score": round(100 * len(healthy) / len(counted)) if counted else (100 if services else 0),
        "uptime_hours": round(min(uptimes) / 3600, 2) if uptimes else 0.0,
        "issues": [issue for name, each in services.items() if (issue := _issue(name, each))]
        + [{"severity": "warning", "service": "", "message": _circuit_text(each)} for each in status["circuits"]]
        + [{"severity": "warning", "service": "", "message": note} for note in status["notes"]],
    }


def _circuit_text(circuit: dict[str, Any]) -> str:
    because = f": {circuit['reason']}" if circuit["reason"] else ""
    return f"the circuit of {circuit['protects']} is {circuit['state']}{because}"


def _issue(name: str, service: dict[str, Any]) -> dict[str, str] | None:
    detail = f": {service['detail']}" if service["detail"] else ""
    if service["circuit"]["state"] != "closed":
        detail = f", circuit {service['circuit']['state']}{detail}"
    if service["status"] == "failed" or service["health"] == "unhealthy":
        ready = f"{service['ready']} of {service['replicas']} instances ready"
        return {"severity": "critical", "service": name, "message": f"{service['status']}, {ready}{detail}"}
    if service["status"] in ("starting", "stopping", "unknown") or service["health"] in (
        "starting",
        "unknown",
    ):
        return {"severity": "warning", "service": name, "message": f"{service['status']}{detail}"}
    if service["status"] in ("stopped", "not_started") and not service["one_shot"]:
        return {"severity": "info", "service": name, "message": service["status"].replace("_", " ")}
    return None


def read_health(store: Store, *, agent_alive: bool) -> dict[str, Any]:
    """The health mapping of the project whose state this is."""
    return health_of(read_status(store, agent_alive=agent_alive))
