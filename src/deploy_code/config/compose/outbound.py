"""One container of our file as a service of a Compose file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy_code.config.compose.amounts import duration
from deploy_code.config.compose.health import SHELL
from deploy_code.config.compose.published import ports_out
from deploy_code.config.compose.writer import Writer
from deploy_code.config.nodes import Path

_DROPPED = {
    "strategy": "how it is replaced is Compose's own way: the old one stops first",
    "min_ready_seconds": "Compose does not wait for a service to stay ready",
    "exclusive": "Compose never runs two revisions at once",
    "files": "Compose does not watch files; restart the service when they change",
    "options": "plain data is for service types of deploy-code",
}
_RESTARTS = {"never": "no", "always": "always", "on-failure": "on-failure"}
_FLAGS = ("init", "privileged", "read_only")
_TEXTS = {"image": "image", "user": "user", "working_dir": "working_dir", "stop_signal": "stop_signal"}
_CHECKS = {"interval_seconds": "interval", "timeout_seconds": "timeout", "start_period_seconds": "start_period"}
_TIMEOUT_SECONDS = 10.0  # ours, where the file does not say; Docker's is longer


def service_out(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Everything but dependencies and networks."""
    found: dict[str, Any] = {
        **_texts(writer, service, path),
        **_build(writer, service, path),
        **_command(writer, service, path),
        "environment": _texts_of(writer, service, "env", path),
        "env_file": [writer.path(file, (*path, "env_file")) for file in service.get("env_file", ())],
        **_counts(writer, service, path),
        "healthcheck": health_out(writer, service.get("health_check"), (*path, "health_check")),
        **_resources(writer, service.get("resources", {}), (*path, "resources")),
        **ports_out(writer, service, path),
        **_volumes(writer, service, path),
        "restart": _restart(writer, service, path),
        **_rights(writer, service, path),
        "labels": _texts_of(writer, service, "labels", path),
        "logging": _logging(writer, service, path),
    }
    for key, why in _DROPPED.items():
        if service.get(key):
            writer.dropped(why, (*path, key))
    return {key: value for key, value in found.items() if value not in (None, [], {}, "")}


def _texts(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    return {theirs: writer.text(service[ours], (*path, ours)) for ours, theirs in _TEXTS.items() if ours in service}


def _texts_of(writer: Writer, service: Mapping[str, Any], key: str, path: Path) -> dict[str, str]:
    return {name: writer.text(value, (*path, key, name)) for name, value in service.get(key, {}).items()}


def _build(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    build = service.get("build")
    if build is None:
        return {}
    at = (*path, "build")
    found: dict[str, Any] = {"context": writer.path(build["context"], (*at, "context"))}
    for key in ("dockerfile", "target"):
        if key in build:
            found[key] = writer.text(build[key], (*at, key))
    arguments = _texts_of(writer, build, "args", at)
    return {"build": found | ({"args": arguments} if arguments else {})}


def _command(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Our command is Compose's entrypoint, our arguments its command."""
    words = [writer.text(word, (*path, "args", index)) for index, word in enumerate(service.get("args", ()))]
    program = service.get("command")
    entrypoint = [] if program is None else [writer.text(program, (*path, "command"))]
    return {"entrypoint": entrypoint, "command": words}


def _counts(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "replicas" in service:
        found["scale"] = writer.number(service["replicas"], (*path, "replicas"))
    if "stop_timeout_seconds" in service:
        found["stop_grace_period"] = _duration(writer, service["stop_timeout_seconds"], (*path, "stop_timeout_seconds"))
    if service.get("pull", "missing") != "missing":
        found["pull_policy"] = service["pull"]
    return found


def _duration(writer: Writer, value: Any, path: Path) -> str:
    return duration(value) if isinstance(value, int | float) else f"{writer.text(value, path)}s"


def _megabytes(writer: Writer, value: Any, path: Path) -> str:
    return f"{writer.number(value, path)}m"


# --------------------------------------------------------------------------- health, resources, restarts


def has_check(service: Mapping[str, Any]) -> bool:
    """Does Compose know when it is healthy? (What the image brings cannot be seen from here.)"""
    check = service.get("health_check") or {}
    return bool(check.get("command")) and not check.get("disabled")


def health_out(writer: Writer, check: Mapping[str, Any] | None, path: Path) -> dict[str, Any]:
    if not check:
        return {}
    if check.get("disabled"):
        return {"disable": True}
    if check.get("endpoint"):
        writer.dropped("Compose asks only by a command inside the container", (*path, "endpoint"))
        if not check.get("command"):
            return {}
    found: dict[str, Any] = {}
    if check.get("command"):
        found["test"] = _test(writer, check["command"], (*path, "command"))
        check = {"timeout_seconds": _TIMEOUT_SECONDS, **check}
    for ours, theirs in _CHECKS.items():
        if ours in check:
            found[theirs] = _duration(writer, check[ours], (*path, ours))
    if "retries" in check:
        found["retries"] = writer.number(check["retries"], (*path, "retries"))
    return found


def _test(writer: Writer, command: list[Any], path: Path) -> list[str]:
    words = [writer.text(word, path) for word in command]
    if len(words) == 3 and tuple(words[:2]) == SHELL:
        return ["CMD-SHELL", words[2]]
    return ["CMD", *words]


def _resources(writer: Writer, resources: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The keys that docker-compose 1 acts on too."""
    found: dict[str, Any] = {}
    if resources.get("cpu_cores"):
        found["cpus"] = str(writer.number(resources["cpu_cores"], (*path, "cpu_cores")))
    if resources.get("memory_mb"):
        found["mem_limit"] = _megabytes(writer, resources["memory_mb"], (*path, "memory_mb"))
    if resources.get("pids"):
        found["pids_limit"] = writer.number(resources["pids"], (*path, "pids"))
    if resources.get("gpu_count"):
        count = writer.number(resources["gpu_count"], (*path, "gpu_count"))
        device = {"driver": "nvidia", "count": count, "capabilities": ["gpu"]}
        found["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    if resources.get("storage_gb"):
        writer.dropped("Compose sets aside no disk space", (*path, "storage_gb"))
    return found


def _restart(writer: Writer, service: Mapping[str, Any], path: Path) -> str | None:
    """Compose's own default is to restart nothing."""
    if service.get("one_shot") and "restart" not in service:
        return None
    at, restart = (*path, "restart"), service.get("restart", {})
    policy = str(restart.get("policy", "always"))
    most = restart.get("max_exits")
    for key in restart.keys() - {"policy", "max_exits"}:
        writer.dropped("Docker waits twice as long each time, from 100 ms on", (*at, key))
    if most is not None:
        if policy == "on-failure" and isinstance(most, int) and most > 1:
            return f"on-failure:{most - 1}"
        writer.dropped("only on-failure has a limit of restarts", (*at, "max_exits"))
    return None if policy == "never" else _RESTARTS[policy]


# --------------------------------------------------------------------------- volumes, rights, logs


def _volumes(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    volumes: list[Any] = []
    memory: list[str] = []
    for index, volume in enumerate(service.get("volumes", ())):
        at = (*path, "volumes", index)
        if volume.get("tmpfs"):
            memory.append(_tmpfs(writer, volume, at))
        else:
            volumes.append(_volume(writer, volume, at))
        if volume.get("shared"):
            writer.dropped("Compose never runs two revisions at once", (*at, "shared"))
    return {"volumes": volumes, "tmpfs": memory}


def _tmpfs(writer: Writer, volume: Mapping[str, Any], path: Path) -> str:
    target = writer.text(volume["mount_path"], (*path, "mount_path"))
    if volume.get("read_only"):
        writer.dropped("a tmpfs that is only read", (*path, "read_only"))
    size = volume.get("size_mb")
    return f"{target}:size={_megabytes(writer, size, (*path, 'size_mb'))}" if size else target


def _volume(writer: Writer, volume: Mapping[str, Any], path: Path) -> Any:
    target = writer.text(volume["mount_path"], (*path, "mount_path"))
    bind = "source" in volume
    source = writer.path(volume["source"], (*path, "source")) if bind else volume_name(volume["name"])
    read_only = bool(volume.get("read_only"))
    if bind and (":" in target or ":" in source or not source.startswith((".", "/", "~"))):
        long: dict[str, Any] = {"type": "bind", "source": source, "target": target}
        return long | ({"read_only": True} if read_only else {})
    return f"{source}:{target}{':ro' if read_only else ''}"


def volume_name(name: str) -> str:
    """A name that Compose takes."""
    return "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in name)


def _rights(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {key: True for key in _FLAGS if service.get(key)}
    for key in ("cap_add", "cap_drop"):
        found[key] = [writer.text(each, (*path, key)) for each in service.get(key, ())]
    found["extra_hosts"] = _texts_of(writer, service, "extra_hosts", path)
    if service.get("shm_size_mb"):
        found["shm_size"] = _megabytes(writer, service["shm_size_mb"], (*path, "shm_size_mb"))
    return found


def _logging(writer: Writer, service: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if service.get("log_driver"):
        found["driver"] = writer.text(service["log_driver"], (*path, "log_driver"))
    options = _texts_of(writer, service, "log_options", path)
    return found | ({"options": options} if options else {})
