"""The status mapping as people read it: a headline, a table, notes, and each instance where asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from deploy_code.cli.output import paint, plain
from deploy_code.cli.tables import Cell, Row, shorten, table
from deploy_code.cli.times import clock, span

STYLES = {
    "healthy": "green",
    "running": "green",
    "completed": "green",
    "ready": "green",
    "degraded": "yellow",
    "unknown": "yellow",
    "unready": "yellow",
    "backoff": "yellow",
    "starting": "cyan",
    "stopping": "cyan",
    "waiting": "cyan",
    "unhealthy": "bold red",
    "failed": "bold red",
    "exited": "bold red",
    "stopped": "dim",
    "not started": "dim",
}
HEADS = ("SERVICE", "STATUS", "HEALTH", "READY", "REVISION", "UPTIME", "RESTARTS", "PORTS", "DETAIL")

Data = dict[str, Any]


def status_text(data: Data, *, detailed: bool = False, color: bool = False, width: int = 0) -> str:
    """``width`` 0: lines as long as they get."""
    lines = [_headline(data, color)]
    services = data["services"]
    if services:
        rows = [service_row(name, each) for name, each in services.items()]
        lines += ["", table(HEADS, rows, color=color, width=width)]
    if detailed:
        for name, each in services.items():
            lines += _instances(name, each, color, width)
    if data.get("agent", {}).get("running"):
        lines += ["", _agent(data["agent"])]
    if data["circuits"]:
        lines += ["", *(paint(plain(_circuit(each)), "yellow", color) for each in data["circuits"])]
    if "drift" in data:
        lines += ["", *_drift(data["drift"], color)]
    if data["notes"]:
        lines += ["", *(paint(f"note: {plain(note)}", "yellow", color) for note in data["notes"])]
    return "\n".join(lines)


def _drift(drift: list[Data], color: bool) -> Iterator[str]:
    if not drift:
        yield "no drift: what runs is what was deployed"
        return
    for each in drift:
        revision = f" r{each['revision']}" if each["revision"] else ""
        index = f" #{each['index']}" if each["index"] is not None else ""
        name = f"{each['service']}{revision}{index}: " if each["service"] else ""
        yield paint(plain(f"drift: {name}{each['text']}"), "yellow", color)
    yield "`deploy-code deploy` mends it"


def _circuit(circuit: Data) -> str:
    because = f" (last: {circuit['reason']})" if circuit["reason"] else ""
    return f"{circuit['protects']}: {circuit_text(circuit)}{because}"


def _agent(agent: Data) -> str:
    late = f"{agent['lag_seconds'] * 1000:.1f} ms late (at most {agent['lag_max_seconds'] * 1000:.1f} ms)"
    memory = f"{agent['memory_bytes'] / 2**20:.0f} MB"
    return f"agent: pid {agent['pid']}, {memory}, {agent['probes_per_second']:.1f} probes per second, {late}"


def _headline(data: Data, color: bool) -> str:
    health = data["overall_health"]
    environment = f" ({data['environment']})" if data["environment"] else ""
    counts = f"{data['running_services']} of {data['total_services']} running"
    failed = f", {data['failed_services']} failed" if data["failed_services"] else ""
    last = f", deployment {data['deployment']} {_spaced(data['deployment_status'])}" if data["deployment"] else ""
    name = paint(plain(data["project"]), "bold", color)
    return f"{name}{plain(environment)}: {paint(health, STYLES.get(health, ''), color)}, {counts}{failed}{last}"


def service_row(name: str, service: Data) -> Row:
    status, health = shown_status(service), service["health"]
    return (
        name,
        Cell(status, STYLES.get(status, "")),
        Cell("" if health == "none" else health, STYLES.get(health, "")),
        "" if service["one_shot"] else f"{service['ready']}/{service['replicas']}",
        f"r{service['revision']}" if service["revision"] else "",
        span(service["uptime_seconds"]) if service["uptime_seconds"] else "",
        str(service["restarts"]),
        ",".join(map(str, service["ports"])),
        _detail(service, status),
    )


def _detail(service: Data, status: str) -> str:
    circuit = circuit_text(service["circuit"])
    return "; ".join(part for part in (circuit, service["detail"] if service["detail"] != status else "") if part)


def circuit_text(circuit: Data) -> str:
    """``circuit open, next try in 4 min 10 s``; nothing for one that is closed."""
    if circuit["state"] == "closed":
        return ""
    if circuit["state"] == "half-open":
        return "circuit half-open, one try is made"
    wait = circuit["retry_at"] - time.time()
    return f"circuit open, next try {f'in {span(wait)}' if wait > 0 else 'is due'}"


def shown_status(service: Data) -> str:
    """The word of the mapping, but for a one-shot that is done: nobody stopped that."""
    if service["one_shot"] and service["detail"] == "completed":
        return "completed"
    return _spaced(service["status"])


def change_line(name: str, service: Data | None, *, color: bool = False) -> str:
    """One line for a service that is not what it was; None: it is gone."""
    if service is None:
        return f"{clock(time.time())}  {plain(name)}  removed"
    status = shown_status(service)
    parts = [paint(status, STYLES.get(status, ""), color)]
    if service["health"] != "none":
        parts.append(paint(service["health"], STYLES.get(service["health"], ""), color))
    if not service["one_shot"]:
        parts.append(f"{service['ready']}/{service['replicas']}")
    parts += [f"r{service['revision']}"] if service["revision"] else []
    detail = _detail(service, status)
    parts += [plain(detail)] if detail else []
    return f"{clock(time.time())}  {plain(name)}  {'  '.join(parts)}"


def _spaced(word: str) -> str:
    return word.replace("_", " ")


# --------------------------------------------------------------------------- instances


def _instances(name: str, service: Data, color: bool, width: int) -> Iterator[str]:
    for each in service["instances"]:
        yield ""
        yield f"{plain(name)} r{each['revision']} #{each['index']}: " + paint(
            each["phase"], STYLES.get(each["phase"], ""), color
        )
        image = [("image", _image(service))] if each["container"] else []
        for head, text in (*image, *_facts(each)):
            line = f"  {head:<9} {plain(text)}"
            yield shorten(line, width) if width else line


def _image(service: Data) -> str:
    """What the file calls it, and what the revision recorded of it."""
    return f"{service['image'] or 'built'} ({service['image_id'].removeprefix('sha256:')[:12]})"


def _facts(instance: Data) -> Iterator[tuple[str, str]]:
    now = time.time()
    if instance["pid"]:
        since = f", up {span(now - instance['started_at'])}" if instance["started_at"] else ""
        memory = f", {instance['memory_bytes'] / 2**20:.0f} MB" if instance.get("memory_bytes") else ""
        cpu = f", {instance['cpu_seconds']:.1f} s of CPU" if instance.get("cpu_seconds") else ""
        others = f" and {instance['processes'] - 1} more" if instance.get("processes", 0) > 1 else ""
        yield "process", f"pid {instance['pid']}{others}{since}{memory}{cpu}"
    if instance["container"]:
        yield "container", instance["container"][:12]
    if instance["ports"]:
        at = f" at {instance['address']}" if instance["address"] else ""
        yield "ports", ", ".join(_port(name, number) for name, number in instance["ports"].items()) + at
    if instance["published"]:
        yield "published", ", ".join(f"{name} at {number}" for name, number in instance["published"].items())
    if instance["restarts"]:
        yield "restarts", str(instance["restarts"])
    if circuit := circuit_text({"state": instance["circuit"], "retry_at": instance["next_start_at"]}):
        yield "circuit", circuit
    if instance["probe"]:
        yield "probe", _probe(instance["probe"], now)
    for key, head in (("exit", "exit"), ("note", "note"), ("log", "log")):
        if instance[key]:
            yield head, instance[key]


def _port(name: str, number: int) -> str:
    return str(number) if name == str(number) or not name.isdigit() else f"{name} at {number}"


def _probe(probe: Data, now: float) -> str:
    """What the last probe found; keys that equal their default are not in the mapping."""
    verdict = "passed" if probe.get("ok") else "failed"
    status = f" ({probe['status']})" if probe.get("status") is not None else ""
    detail = f": {probe['detail']}" if probe.get("detail") and not probe.get("ok") else ""
    took = f"{probe.get('duration', 0) * 1000:.0f} ms"
    ago = f", {span(now - probe['at'])} ago" if probe.get("at") else ""
    return f"{probe.get('kind', '')} {probe.get('target', '')} {verdict}{status} in {took}{ago}{detail}"
