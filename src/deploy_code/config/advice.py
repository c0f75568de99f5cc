"""Warnings: what is valid and probably not meant, and what this version does not act on yet.

Each warning names the place; what many services share is said once, with their names.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator

from deploy_code.config.check import needs, type_of, uses_port_placeholder
from deploy_code.config.fields import ContainerRuntime, NetworkMode, Orchestrator
from deploy_code.config.interpolate import PLACEHOLDER
from deploy_code.config.nodes import Path
from deploy_code.config.schema import DeploymentConfig, ServiceConfig
from deploy_code.config.source import Source, source_of
from deploy_code.config.translate import nearest
from deploy_code.model import OWN_TYPES, StrategyName

_BUILT = frozenset({StrategyName.SEQUENTIAL, StrategyName.PARALLEL})
_NOT_YET = "not acted on by this version"
_REGISTER = "a plugin or your code must register it"
_NAMES_SHOWN = 5


def advice(config: DeploymentConfig, *, planned: bool = False) -> list[str]:
    """All warnings about ``config``, each led by ``warning:``, in the order of the file.

    ``planned``: whoever makes a plan of it knows what is registered, and says what is not.
    """
    source = source_of(config)
    enabled = {name: service for name, service in config.services.items() if service.enabled}
    found = [*_sections(config), *_strategies(config, enabled, source, planned), *_shared(enabled, source)]
    found += [] if planned else _types(config, enabled, source)
    for name, service in enabled.items():
        found += _service(name, service, source, config)
    found += _literals(source)
    return [_line(source, message, path, remedy) for message, path, remedy in found]


Finding = tuple[str, Path, str]


def _line(source: Source, message: str, path: Path, remedy: str) -> str:
    problem = source.problem(message, path, remedy=remedy)
    head = f"{problem.where}: " if problem.where else ""
    return f"warning: {head}{message}" + (f" ({remedy})" if remedy else "")


def _sections(config: DeploymentConfig) -> Iterator[Finding]:
    """Sections that later versions act on, where the file asks for something."""
    infrastructure, security, monitoring = config.infrastructure, config.security, config.monitoring
    asked = (
        ("infrastructure", "container_runtime", infrastructure.container_runtime is ContainerRuntime.CONTAINERD),
        ("infrastructure", "orchestrator", infrastructure.orchestrator is not Orchestrator.DOCKER_COMPOSE),
        ("infrastructure", "network.mode", infrastructure.network.mode is NetworkMode.OVERLAY),
        ("security", "tls_enabled", security.tls_enabled),
        ("security", "auth", security.auth.enabled),
        ("security", "rbac", security.rbac.enabled),
        ("monitoring", "prometheus", monitoring.enabled and monitoring.prometheus.endpoint is not None),
        ("monitoring", "grafana", monitoring.enabled and monitoring.grafana.endpoint is not None),
        ("monitoring", "alerting", monitoring.enabled and monitoring.alerting.enabled),
    )
    for section in ("infrastructure", "security", "monitoring"):
        keys = [key for name, key, given in asked if name == section and given]
        if keys:
            yield f"{', '.join(keys)}: {_NOT_YET}", (section,), ""


def _strategies(
    config: DeploymentConfig, enabled: dict[str, ServiceConfig], source: Source, planned: bool
) -> Iterator[Finding]:
    chosen: list[tuple[str, Path]] = [(config.deployment.strategy, ("deployment", "strategy"))]
    chosen += [(s.strategy, ("services", name, "strategy")) for name, s in enabled.items() if s.strategy]
    known = frozenset(StrategyName)
    for strategy, path in chosen:
        if strategy not in known:
            if not planned and _is_open(strategy, known, config, source):
                yield f"strategy '{strategy}' is none of ours", path, _REGISTER
        elif strategy not in _BUILT:
            yield f"{strategy} is {_NOT_YET}", path, "services are replaced, old ones stopped first"


def _types(config: DeploymentConfig, enabled: dict[str, ServiceConfig], source: Source) -> Iterator[Finding]:
    """Each once, where it first stands."""
    first = {type_of(service): name for name, service in reversed(enabled.items())}
    for kind, name in first.items():
        if kind not in (*OWN_TYPES, "custom") and _is_open(kind, OWN_TYPES, config, source):
            yield f"service_type '{kind}' is none of ours", ("services", name, "service_type"), _REGISTER


def _is_open(name: str, known: Collection[str], config: DeploymentConfig, source: Source) -> bool:
    """Is it left to others whether there is such a thing? What is registered is, and a misspelling is an error."""
    if name in (source.registered or ()):
        return False
    return bool(config.plugins) or not nearest(name, known)


def _shared(enabled: dict[str, ServiceConfig], source: Source) -> Iterator[Finding]:
    """What is usually missing in many services at once."""
    built_in = [n for n, s in enabled.items() if type_of(s) in OWN_TYPES]  # others check themselves
    unchecked = [n for n in built_in if not enabled[n].one_shot and not _may_be_checked(enabled[n])]
    if unchecked:
        remedy = "add health_check with an endpoint or a command"
        of_whom = "no health check" if len(unchecked) == 1 else f"no health check: {_listed(unchecked)}"
        yield of_whom, ("services", unchecked[0]) if len(unchecked) == 1 else ("services",), remedy
    unenforced = [
        n for n, s in enabled.items() if type_of(s) == "process" and any(volume.read_only for volume in s.volumes)
    ]
    if unenforced:
        path: Path = ("services", unenforced[0], "volumes")
        yield f"read_only is not enforced for processes: {_listed(unenforced)}", path, ""


def _may_be_checked(service: ServiceConfig) -> bool:
    """An image may bring a check of its own; whether it does is seen when it is looked at."""
    check = service.health_check
    written = check is not None and bool(check.endpoint or check.command or check.disabled)
    return written or type_of(service) == "container"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _service(name: str, service: ServiceConfig, source: Source, config: DeploymentConfig) -> Iterator[Finding]:
    at: Path = ("services", name)
    if service.image and _is_floating(service.image):
        remedy = "name a version, so that a rollback finds the old image again"
        yield f"image '{service.image}' may be another one tomorrow", (*at, "container_image"), remedy
    if os.path.basename(service.command or "") in ("docker", "podman") and "run" in service.args:
        remedy = "use image: instead of command"
        yield "the container is hidden from deploy-code", (*at, "command"), remedy
    if type_of(service) == "process":
        yield from _privileged(service, at)
    if service.replicas > 1 and any(p.host_port for p in service.ports) and not uses_port_placeholder(service):
        remedy = "let the command take its port from ${PORT}"
        yield f"{service.replicas} replicas, and ${{PORT}} appears nowhere", (*at, "replicas"), remedy
    yield from _loose_references(name, service, config)


def _is_floating(image: str) -> bool:
    if "@" in image or "${" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest")


def _privileged(service: ServiceConfig, at: Path) -> Iterator[Finding]:
    user = (service.user or "").partition(":")[0]
    if user in ("root", "0") or (not user and os.geteuid() == 0):
        return
    lowest = _lowest_free_port()
    for index, port in enumerate(service.ports):
        number = port.container_port or port.host_port or lowest
        if number < lowest:
            who = f"user {user}" if user else "an ordinary user"
            yield f"port {number} is not for {who}", (*at, "ports", index), f"take one from {lowest} on"


def _lowest_free_port() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def _loose_references(name: str, service: ServiceConfig, config: DeploymentConfig) -> Iterator[Finding]:
    """``${services.db.port}`` without a dependency on db: it may not be there yet."""
    texts = [service.command or "", *service.args, *service.environment.values()]
    needed = {other for _, other, _ in needs(service)} | {name}
    named = {match[2] for text in texts if "${services." in text for match in PLACEHOLDER.finditer(text)}
    for other in sorted(named - needed - {None}):
        if other in config.services:
            yield f"uses '{other}' without depending on it", ("services", name), f"add {other} to dependencies"


def _literals(source: Source) -> Iterable[Finding]:
    """Secrets written down in the file itself."""
    for path in source.plain.literals:
        yield f"'{path[-1]}' looks like a secret and is in the file", path, f"write ${{{path[-1]}}} and set it in .env"
