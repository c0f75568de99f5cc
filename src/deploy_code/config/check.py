"""Rules between values: what one field alone cannot tell. All problems at once, none raised.

Works on a config from files and on one built in code; ``config``'s source knows the places and what is already known to
be wrong, so that one mistake is told once. The machine is not asked here (that is preflight), with two exceptions that
decide how the text is to be read: whether a command with spaces is a file, and what an ``env_file`` says.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from deploy_code.config.fields import Section, flow, fold
from deploy_code.config.interpolate import PLACEHOLDER
from deploy_code.config.network import network_problems
from deploy_code.config.nodes import Path
from deploy_code.config.schema import DependencyConfig, DeploymentConfig, ServiceConfig, VolumeConfig
from deploy_code.config.source import Source, source_of
from deploy_code.config.translate import nearest
from deploy_code.errors import Problem, ServiceError
from deploy_code.model import OWN_TYPES, Condition, StrategyName

Report = Callable[..., None]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_ENDPOINT = re.compile(r"https?://[^\s/]+(/\S*)?|/\S*|tcp://[^\s/:]+:\d+|tcp://\[[^\]\s]+\]:\d+", re.IGNORECASE)
_SHELL = frozenset("|&;<>`")
ZERO_DOWNTIME = frozenset({StrategyName.ROLLING_UPDATE, StrategyName.BLUE_GREEN, StrategyName.CANARY})


def check(config: DeploymentConfig) -> list[Problem]:
    """Everything wrong with how the values of ``config`` fit together."""
    source = source_of(config)
    problems: list[Problem] = []

    def report(message: str, path: Path, *, code: str = "S003", remedy: str = "", key: bool = False) -> None:
        if not source.is_pruned(path):
            problems.append(source.problem(message, path, code=code, remedy=remedy, key=key))

    network_problems(config, source, report)
    _strategies(config, source, report)
    for name, service in _services(config):
        _service(name, service, source, report)
        _what_runs(service, _may_be_registered(type_of(service), config, source), ("services", name), report)
        problems += _env_files(name, service, source)
    _strangers(config, report)
    _dependencies(config, source, report)
    _references(config, report)
    _host_ports(config, report)
    return problems


def require_services(names: Iterable[str], known: Collection[str]) -> None:
    """``--services`` may name only what is there. Raises ServiceError (S001) that lists all others."""
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    guess = nearest(unknown[0], known)
    listed = ", ".join(f"'{name}'" for name in unknown)
    remedy = f"Did you mean '{guess}'?" if guess else f"Known services: {', '.join(sorted(known)) or 'none'}"
    raise ServiceError(f"no service is called {listed}", code="S001", remedy=remedy)


# --------------------------------------------------------------------------- one service


def type_of(service: ServiceConfig) -> str:
    """``service_type`` as it works out: a container if there is an image or a build, else a process (DESIGN §4)."""
    written = service.service_type or ""
    known = next((name for name in OWN_TYPES if fold(name) == fold(written)), written)
    return known or ("container" if service.image or service.build else "process")


def exclusive_reason(service: ServiceConfig) -> str:
    """Why two revisions of ``service`` may not run at once; empty: they may (DESIGN §5)."""
    if service.exclusive:
        return "exclusive: true"
    volume = next((volume for volume in service.volumes if not volume.read_only and not volume.shared), None)
    if volume:
        return f"its volume '{volume.name}' is writable and not marked shared"
    port = next((port.host_port for port in service.ports if port.host_port is not None), None)
    return f"host port {port} is its own and there is no router" if port is not None else ""


def _service(name: str, service: ServiceConfig, source: Source, report: Report) -> None:
    at: Path = ("services", name)
    if not _NAME.fullmatch(name):
        remedy = "use letters, digits, '_', '.' and '-', at most 63, beginning with a letter, a digit or '_'"
        report(f"'{name}' is no name of a service", at, remedy=remedy, key=True)
    if service.command and " " in service.command.strip() and type_of(service) != "container":
        _command(service, source, at, report)
    if service.stop_signal != "SIGTERM" and not signal_name(service.stop_signal):
        report(f"'{service.stop_signal}' is no signal", (*at, "stop_signal"), remedy="write a name such as SIGINT")
    _zero_downtime(service, at, report)
    if service.one_shot and service.replicas != 1 and "replicas" in service.model_fields_set:
        report("a one-shot runs once", (*at, "replicas"), remedy="remove replicas, or one_shot")
    if service.one_shot and type_of(service) not in OWN_TYPES:
        remedy = "remove one_shot, or run a command instead"
        report(f"a '{type_of(service)}' service has no end of its own", (*at, "one_shot"), remedy=remedy)
    _health(service, at, report)


def _may_be_registered(name: str, config: DeploymentConfig, source: Source) -> bool:
    """May it be the name of an extension? Plugins are not loaded here; whoever plans knows all names."""
    return bool(config.plugins) or source.registered is None or name in source.registered


def _what_runs(service: ServiceConfig, registered: bool, at: Path, report: Report) -> None:
    kind = type_of(service)
    if kind == "container":
        _container(service, at, report)
        return
    if kind != "custom" or not service.image:
        _containers_only(service, kind, at, report)
    if kind == "process" and service.image:
        remedy = "remove image, or write service_type: container"
        report("a process has no image", (*at, "container_image"), remedy=remedy)
    elif kind in ("process", "custom") and not (service.command or service.image or (registered and kind == "custom")):
        remedy = "add command: with one executable, or image:"
        report("neither command nor image: nothing to run", (*at, "command"), remedy=remedy)
    guess = nearest(kind, OWN_TYPES) if kind not in (*OWN_TYPES, "custom") and not registered else None
    if guess:
        report(f"'{kind}' is no type of service", (*at, "service_type"), remedy=f"did you mean '{guess}'?")


_OF_CONTAINERS = (
    "pull", "build", "extra_hosts", "cap_add", "cap_drop", "read_only", "privileged", "init", "shm_size_mb", "labels",
    "log_driver", "log_options",
)  # fmt: skip
_OF_PROCESSES = ("release", "inherit_env")


def _container(service: ServiceConfig, at: Path, report: Report) -> None:
    if not service.image and not service.build:
        remedy = "add image: name:tag, or build: folder"
        report("a container needs an image", (*at, "container_image"), remedy=remedy)
    _image_name(service.image or "", at, report)
    for key in _OF_PROCESSES:
        if _says_something(service, key):
            report(f"'{key}' is for processes: a container has its image", (*at, key), remedy="remove it", key=True)
    for index, volume in enumerate(service.volumes):
        _volume(volume, (*at, "volumes", index), report)


def _image_name(name: str, at: Path, report: Report) -> None:
    from deploy_code.drivers.engine.reference import is_image_id, parse_reference

    if not name or "${" in name or is_image_id(name):
        return
    try:
        parse_reference(name)
    except ServiceError as exc:
        report(exc.message, (*at, "container_image"), remedy=exc.remedy)


def _volume(volume: VolumeConfig, at: Path, report: Report) -> None:
    if not volume.mount_path.startswith("/"):
        remedy = "write the whole path, beginning with /"
        report(f"'{volume.mount_path}' is no absolute path of a container", (*at, "mount_path"), remedy=remedy)
    if volume.tmpfs and volume.source:
        report("a tmpfs has no source", (*at, "source"), remedy="remove source, or tmpfs", key=True)
    if volume.size_mb and not volume.tmpfs:
        report("size_mb is that of a tmpfs", (*at, "size_mb"), remedy="add tmpfs: true, or remove it", key=True)


def _says_something(section: Section, key: str) -> bool:
    """What a program writes out has every key, with its default: that asks for nothing."""
    return bool(getattr(section, key) != type(section).model_fields[key].get_default(call_default_factory=True))


def _containers_only(service: ServiceConfig, kind: str, at: Path, report: Report) -> None:
    """Keys that nothing but a container acts on are no decoration: somebody relies on them."""
    for key in _OF_CONTAINERS:
        if _says_something(service, key):
            report(f"'{key}' is for containers, and this is a {kind}", (*at, key), remedy="remove it", key=True)
    for index, volume in enumerate(service.volumes):
        for key in ("source", "tmpfs", "size_mb"):
            if _says_something(volume, key):
                path = (*at, "volumes", index, key)
                report(f"'{key}' is for containers, and this is a {kind}", path, remedy="remove it", key=True)


def _command(service: ServiceConfig, source: Source, at: Path, report: Report) -> None:
    """A command is never split: with spaces and no such file, show how it should be written."""
    command = service.command or ""
    folder = source.absolute(service.working_dir or ".")
    if "${" in command or any(os.path.exists(os.path.join(base, command)) for base in (source.folder, folder)):
        return
    words = _split(command)
    remedy = f"write command: {words[0]} and args: {flow([*words[1:], *service.args])}"
    if _SHELL & set(command):
        remedy = f"nothing here goes through a shell; if you need one: command: sh and args: {flow(['-c', command])}"
    report(
        f"'{_hidden(command, at, source)}' is not one executable", (*at, "command"), remedy=_hidden(remedy, at, source)
    )


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command) or [command]
    except ValueError:
        return command.split() or [command]


def _hidden(text: str, at: Path, source: Source) -> str:
    """``text`` without values that came from variables under secret names."""
    from deploy_code.security.redact import secret_values

    for secret in secret_values(dict(source.used_in(str(at[1])))):
        text = text.replace(secret, "***")
    return text


def signal_name(text: str) -> str:
    """``int``, ``SIGINT``, ``2`` → ``SIGINT``; empty for what is no signal."""
    import signal

    if text.isdigit():
        return next((known.name for known in signal.Signals if known.value == int(text)), "")
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    return name if name in signal.Signals.__members__ else ""


def _strategies(config: DeploymentConfig, source: Source, report: Report) -> None:
    """Misspelled names of ours."""
    if not _may_be_registered(config.deployment.strategy, config, source):
        _strategy(config.deployment.strategy, ("deployment", "strategy"), "E002", report)
    for name, service in _services(config):
        if service.strategy and not _may_be_registered(service.strategy, config, source):
            _strategy(service.strategy, ("services", name, "strategy"), "S003", report)


def _strategy(name: str, path: Path, code: str, report: Report) -> None:
    if name in StrategyName.__members__.values():
        return
    guess = nearest(name, [known.value for known in StrategyName])
    if guess:
        report(f"'{name}' is no strategy", path, code=code, remedy=f"did you mean '{guess}'?")


def _zero_downtime(service: ServiceConfig, at: Path, report: Report) -> None:
    name = service.strategy or ""
    reason = exclusive_reason(service) if name in ZERO_DOWNTIME else ""
    if reason:
        report(
            f"{name} runs old and new side by side, which this service cannot: {reason}",
            (*at, "strategy"),
            remedy="remove strategy here, or what makes the service exclusive",
        )


def _health(service: ServiceConfig, at: Path, report: Report) -> None:
    endpoint = service.health_check.endpoint if service.health_check else ""
    if endpoint and "${" not in endpoint and not _ENDPOINT.fullmatch(endpoint):
        report(
            "is no address to probe",
            (*at, "health_check", "endpoint"),
            remedy="write http://localhost:8080/health, /health or tcp://localhost:5432",
        )


def _env_files(name: str, service: ServiceConfig, source: Source) -> Iterator[Problem]:
    for index, file in enumerate(service.env_file):
        path: Path = ("services", name, "env_file", index)
        try:
            _, problems = source.env_file(source.absolute(file))
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            yield source.problem(
                f"'{file}' cannot be read: {reason}", path, code="S003", remedy="name a file of NAME=value lines"
            )
        else:
            yield from problems


# --------------------------------------------------------------------------- between services


def needs(service: ServiceConfig) -> Iterator[tuple[int, str, Condition | None]]:
    """The dependencies of ``service``: position, name, and the condition if one is written."""
    for index, item in enumerate(service.dependencies):
        if isinstance(item, DependencyConfig):
            written = Condition(item.condition) if "condition" in item.model_fields_set else None
            yield index, item.service, written
        else:
            yield index, item, None


def _dependencies(config: DeploymentConfig, source: Source, report: Report) -> None:
    graph: dict[str, dict[str, int]] = {}
    for name, service in _services(config):
        graph[name] = {}
        for index, needed, condition in needs(service):
            path: Path = ("services", name, "dependencies", index)
            graph[name].setdefault(needed, index)
            other = config.services.get(needed)
            if other is None:
                _unknown(needed, path, config, source, report)
            elif not other.enabled and service.enabled:
                remedy = "enable it, or remove the dependency"
                report(f"'{needed}' is disabled", path, code="E007", remedy=remedy)
            elif condition is Condition.COMPLETED and not other.one_shot:
                report(f"'{needed}' never completes: it is no one-shot", path, remedy=f"add one_shot: true to {needed}")
    for cycle in _cycles(graph):
        path = ("services", cycle[0], "dependencies", graph[cycle[0]][cycle[1]])
        text = " → ".join(cycle)
        report(f"dependencies go round in a circle: {text}", path, code="E002", remedy="remove one of them")


def _unknown(needed: str, path: Path, config: DeploymentConfig, source: Source, report: Report) -> None:
    if source.is_pruned(("services", needed)):
        return  # it is there, only broken, and that is told already
    guess = nearest(needed, config.services)
    remedy = f"did you mean '{guess}'?" if guess else f"services here: {', '.join(config.services)}"
    report(f"no service is called '{needed}'", path, code="E007", remedy=remedy)


def _strangers(config: DeploymentConfig, report: Report) -> None:
    """``services`` is a plain mapping: code may have put anything into it."""
    services: Mapping[str, object] = config.services
    for name, service in services.items():
        if not isinstance(service, ServiceConfig):
            report(f"must be a ServiceConfig, got {type(service).__name__}", ("services", name))


def _services(config: DeploymentConfig) -> Iterator[tuple[str, ServiceConfig]]:
    services: Mapping[str, object] = config.services
    return ((name, service) for name, service in services.items() if isinstance(service, ServiceConfig))


def _cycles(graph: Mapping[str, Mapping[str, int]]) -> Iterator[list[str]]:
    """One cycle for each knot of the graph, closed: ``[a, b, a]``. Depth-first, without recursion; linear."""
    done: set[str] = set()
    for start in graph:
        if start not in done:
            yield from _cycles_from(start, graph, done)


def _cycles_from(start: str, graph: Mapping[str, Mapping[str, int]], done: set[str]) -> Iterator[list[str]]:
    trail: dict[str, Iterator[str]] = {start: iter(graph[start])}
    while trail:
        node = next(reversed(trail))
        following = next((after for after in trail[node] if after in graph and after not in done), None)
        if following is None:
            done.add(node)
            del trail[node]
        elif following in trail:
            names = list(trail)
            yield [*names[names.index(following) :], following]
        else:
            trail[following] = iter(graph[following])


def _references(config: DeploymentConfig, report: Report) -> None:
    """``${services.NAME.port}`` must name a service that is there and enabled."""
    for name, service in _services(config):
        for path, text in _texts(service, ("services", name)):
            if "${services." not in text:
                continue
            for match in PLACEHOLDER.finditer(text):
                other = match[2]
                if other and (other not in config.services or not config.services[other].enabled):
                    guess = nearest(other, config.services)
                    remedy = f"did you mean '{guess}'?" if guess and guess != other else "name an enabled service"
                    report(f"no running service is called '{other}'", path, code="E007", remedy=remedy)


def _texts(service: ServiceConfig, at: Path) -> Iterator[tuple[Path, str]]:
    """Every text of a service that may hold placeholders."""
    yield (*at, "command"), service.command or ""
    for index, arg in enumerate(service.args):
        yield (*at, "args", index), arg
    for key, value in service.environment.items():
        yield (*at, "environment", key), value
    if service.health_check:
        yield (*at, "health_check", "endpoint"), service.health_check.endpoint
        for index, word in enumerate(service.health_check.command):
            yield (*at, "health_check", "command", index), word


def uses_port_placeholder(service: ServiceConfig) -> bool:
    """Does the service take the port that it is given? (``${PORT}`` or ``${PORT_8080}`` in command, args or env)"""
    texts = [service.command or "", *service.args, *service.environment.values()]
    return any("${PORT" in text for text in texts)


def _host_ports(config: DeploymentConfig, report: Report) -> None:
    owners: dict[tuple[int, str], str] = {}
    for name, service in _services(config):
        if not service.enabled:
            continue
        for index, port in enumerate(service.ports):
            if port.host_port is None:
                continue
            owner = owners.setdefault((port.host_port, port.protocol), name)
            if owner != name or _earlier(service, index):
                path: Path = ("services", name, "ports", index, "host_port")
                remedy = "give each its own host_port"
                report(f"host port {port.host_port} is taken by '{owner}' already", path, code="S004", remedy=remedy)


def _earlier(service: ServiceConfig, index: int) -> bool:
    port = service.ports[index]
    return any((port.host_port, port.protocol) == (other.host_port, other.protocol) for other in service.ports[:index])
