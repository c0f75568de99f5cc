"""From a resolved health check to the probe of one instance.

An endpoint that names this machine and one of the service's own ports means *this instance*: it is aimed at
the port that the instance really has, not at whoever holds the host port (DESIGN §6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from deploy_code.errors import ServiceError
from deploy_code.health.probes import AliveProbe, AllProbes, CommandProbe, HttpProbe, Probe, TcpProbe
from deploy_code.health.target import Target, parse_target
from deploy_code.model import Content, HealthCheck, Port

RunInside = Callable[[tuple[str, ...], float], Probe]


def build_probe(
    check: HealthCheck,
    content: Content,
    *,
    host: str = "localhost",
    ports: Mapping[str, int],
    env: Mapping[str, str],
    working_dir: str = "",
    user: str = "",
    alive: Callable[[], bool],
    inside: RunInside | None = None,
) -> Probe:
    """The probe of one instance; ``check`` holds no placeholders any more.

    ``host`` is where the instance answers, ``ports`` are its own (container_port or "port" as text → number bound),
    ``env``, ``working_dir`` and ``user`` those of the service, for a command; ``inside`` makes the probe of a command
    that runs where the instance does (argv, seconds). Without endpoint and command: TCP-connect to the first port;
    without a port: alive. Raises ServiceError S003 for an endpoint that cannot be asked.
    """
    if check.disabled:
        return AliveProbe(alive)
    parts: list[Probe] = []
    if check.endpoint:
        parts.append(_endpoint_probe(check, content, host, ports, env))
    if check.command and inside is not None:
        parts.append(inside(check.command, check.timeout_seconds))
    elif check.command:
        parts.append(
            CommandProbe(check.command, timeout=check.timeout_seconds, env=env, working_dir=working_dir, user=user)
        )
    if not parts:
        return _default_probe(check, content, host, ports, alive)
    return parts[0] if len(parts) == 1 else AllProbes(parts)


def has_check_or_port(check: HealthCheck, content: Content) -> bool:
    """Is there anything to ask but whether the process lives?"""
    return not check.disabled and bool(check.endpoint or check.command or _tcp_ports(content))


def first_port(content: Content, ports: Mapping[str, int]) -> int | None:
    """The number that the instance has for the service's first TCP port, a dynamic one before others
    (CONTRACTS §2).
    """
    declared = sorted(_tcp_ports(content), key=lambda port: not port.dynamic)
    return actual_port(declared[0], ports) if declared else None


def actual_port(port: Port, ports: Mapping[str, int]) -> int | None:
    """What the instance really binds for ``port``: as recorded, else as declared."""
    for key in (port.container_port, port.host_port, "port"):
        if key is not None and str(key) in ports:
            return ports[str(key)]
    return port.container_port or port.host_port


def _endpoint_probe(
    check: HealthCheck, content: Content, host: str, ports: Mapping[str, int], env: Mapping[str, str]
) -> Probe:
    target = _target(check.endpoint, content, host, ports, env)
    kind = TcpProbe if target.scheme == "tcp" else HttpProbe
    return kind(target, timeout=check.timeout_seconds, interval=check.interval_seconds)


def _default_probe(
    check: HealthCheck, content: Content, host: str, ports: Mapping[str, int], alive: Callable[[], bool]
) -> Probe:
    port = first_port(content, ports)
    if port is None:
        return AliveProbe(alive)
    target = Target(scheme="tcp", host=host, port=port)
    return TcpProbe(target, timeout=check.timeout_seconds, interval=check.interval_seconds)


def _target(endpoint: str, content: Content, host: str, ports: Mapping[str, int], env: Mapping[str, str]) -> Target:
    if endpoint.startswith("/"):
        port = first_port(content, ports) or _port_from_env(endpoint, env)
        return _at(parse_target(f"http://localhost:{port}{endpoint}"), host)
    return _aimed(parse_target(endpoint), content, host, ports)


def _port_from_env(endpoint: str, env: Mapping[str, str]) -> int:
    text = env.get("PORT", "")
    if not text.isdigit():
        raise ServiceError(
            f"health_check.endpoint {endpoint!r} is a bare path, but the service declares no port",
            code="S003",
            remedy="declare the port under ports, or write the whole URL",
        )
    return int(text)


def _aimed(target: Target, content: Content, host: str, ports: Mapping[str, int]) -> Target:
    """At the instance's own port, where the target names one of the service's ports on this machine."""
    if not target.is_this_machine:
        return target
    for port in _tcp_ports(content):
        if target.port in (port.container_port, port.host_port):
            return _at(target.at_port(actual_port(port, ports) or target.port), host)
    return target


def _at(target: Target, host: str) -> Target:
    return target if host == "localhost" else target.at(host)


def _tcp_ports(content: Content) -> list[Port]:
    return [port for port in content.ports if port.protocol == "tcp"]
