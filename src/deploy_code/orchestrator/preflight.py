"""Asks the machine, before anything is changed, for all that the plan will need: every finding at once.

Only services that the plan starts are looked at: what runs untouched has proven itself.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from deploy_code.errors import PreflightError, Problem
from deploy_code.model import OWN_TYPES, Content, Port, ServiceSpec
from deploy_code.orchestrator.engine_facts import EngineFacts, container_problems, is_here, network_problems
from deploy_code.plan.plan import Goal, Plan

NO_ENGINES = EngineFacts()
STARTING = ("create", "replace", "start", "restart", "scale", "run")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the checks may know beside the plan. ``freed``: ports this plan frees; ``kept``: port → who keeps it.

    ``engines``: what container runtimes have, and whose it is.
    """

    state: str
    root: str
    freed: frozenset[tuple[int, str]]
    kept: Mapping[tuple[int, str], str]
    code_types: Collection[str] = ()
    known_types: Collection[str] = ()
    engines: EngineFacts = NO_ENGINES


def preflight(
    plan: Plan,
    *,
    state: str,
    root: str,
    held: Mapping[str, Collection[int]],
    code_types: Collection[str] = (),
    known_types: Collection[str] = (),
    engines: EngineFacts = NO_ENGINES,
) -> None:
    """Raise PreflightError with everything that is not as the plan needs it.

    ``held``: ports that running instances of each service hold now, as numbers. ``code_types``: types of services that
    this very process registered; ``known_types``: all others that are registered. ``engines``: see ``engine_facts``.
    """
    starting = starts(plan)
    world = World(
        state=state,
        root=root,
        freed=_freed(plan, held),
        kept=_kept(plan, held),
        code_types=code_types,
        known_types=known_types,
        engines=engines,
    )
    problems = [problem for goal in starting.values() for check in _CHECKS for problem in check(goal, world)]
    problems += network_problems(starting.values(), engines)
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise PreflightError(f"this machine is not ready for the deployment: {count}; nothing was changed", problems)


def starts(plan: Plan) -> dict[str, Goal]:
    """What this plan starts instances of."""
    return {name: plan.after[name] for name, action in plan.actions.items() if action in STARTING}


def _freed(plan: Plan, held: Mapping[str, Collection[int]]) -> frozenset[tuple[int, str]]:
    going = [name for name, action in plan.actions.items() if action not in ("update", "none")]
    return frozenset(
        (number, protocol) for name in going for number in held.get(name, ()) for protocol in ("tcp", "udp")
    )


def _kept(plan: Plan, held: Mapping[str, Collection[int]]) -> dict[tuple[int, str], str]:
    staying = [name for name in held if name not in plan.actions or plan.actions[name] == "update"]
    return {(number, protocol): name for name in staying for number in held[name] for protocol in ("tcp", "udp")}


# ------------------------------------------------------------------------------------------------------------- checks


def _runtime(goal: Goal, world: World) -> Iterator[Problem]:
    content = goal.spec.content
    if content.service_type not in OWN_TYPES:
        if not content.handler and content.service_type not in world.code_types:
            known = ", ".join(sorted({*world.code_types, *world.known_types})) or "none"
            yield _problem(
                goal.spec,
                f'nothing is registered for service_type "{content.service_type}" (registered: {known})',
                code="E014",
                key="service_type",
                remedy="name its class under `plugins:`, register it in this program, or leave service_type out to run "
                "it as a process",
            )


def _command(goal: Goal, world: World) -> Iterator[Problem]:
    content = goal.spec.content
    if content.service_type != "process" or not content.command or "${" in content.command:
        return  # what a custom type does with a command is its own affair
    found, where = find_command(content, world.state, world.root)
    if not found:
        yield _problem(
            goal.spec,
            f"no program {content.command!r} ({where})",
            code="E003",
            key="command",
            remedy="install it, or name it with its full path",
        )


def find_command(content: Content, state: str, root: str) -> tuple[str, str]:
    """The program's path or "", and in words where it was looked for."""
    path = content.env.get("PATH") or os.environ.get("PATH", os.defpath)
    if "/" not in content.command:
        return shutil.which(content.command, path=path) or "", f"looked on the PATH {path}"
    folder = working_dir(content, state) or root
    full = os.path.join(folder, content.command)
    if content.release is not None and not os.path.exists(full):
        full = os.path.join(content.release.source, os.path.relpath(full, working_dir_of_release(content, state)))
    usable = os.path.isfile(full) and os.access(full, os.X_OK)
    return (full if usable else ""), f"{full} is not there or not executable"


def working_dir(content: Content, state: str) -> str:
    """The folder an instance starts in; one inside a release lies under its copy."""
    if not content.working_dir.startswith("release:") or content.release is None:
        return content.working_dir
    return os.path.join(working_dir_of_release(content, state), content.working_dir.removeprefix("release:"))


def working_dir_of_release(content: Content, state: str) -> str:
    return os.path.join(state, "releases", content.release.digest) if content.release else ""


def _folder(goal: Goal, world: World) -> Iterator[Problem]:
    content = goal.spec.content
    release = content.working_dir.startswith("release:")
    if content.service_type == "container" or release or not content.working_dir:
        return
    if not os.path.isdir(content.working_dir):
        yield _problem(
            goal.spec,
            f"no directory {content.working_dir}",
            code="S005",
            key="working_dir",
            remedy="create it, or correct the path",
        )


def _user(goal: Goal, world: World) -> Iterator[Problem]:
    name = goal.spec.content.user.partition(":")[0]
    if not name or goal.spec.content.service_type == "container":
        return
    try:
        uid = int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        yield _problem(
            goal.spec,
            f"no user {name!r} on this machine",
            code="S003",
            key="user",
            remedy="create it, or correct the name",
        )
        return
    if os.geteuid() not in (0, uid):
        yield _problem(
            goal.spec,
            f"only root may start it as {name!r}",
            code="S003",
            key="user",
            remedy="run deploy-code as root, or take `user` out",
        )


def _volumes(goal: Goal, world: World) -> Iterator[Problem]:
    if goal.spec.content.service_type == "container":
        return
    for number, volume in enumerate(goal.spec.content.volumes):
        reason = _why_not_creatable(volume.mount_path)
        if reason:
            yield _problem(
                goal.spec,
                f"{volume.mount_path} cannot be had: {reason}",
                code="S005",
                key=f"volumes[{number}].mount_path",
                remedy="name a directory that can be created, or correct its permissions",
            )


def _why_not_creatable(path: str) -> str:
    if os.path.isdir(path):
        return ""
    if os.path.lexists(path):
        return "it is there and no directory"
    above = os.path.dirname(path)
    while above and not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        return f"{above} is no directory"
    return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} is not writable"


def _router(goal: Goal, world: World) -> Iterator[Problem]:
    """Until there is a router, a host port is bound by the one instance itself (CONTRACTS §1)."""
    for number, port in enumerate(goal.spec.content.ports):
        key = f"ports[{number}].host_port"
        if port.host_port and goal.replicas > 1:
            yield _problem(
                goal.spec,
                f"{goal.replicas} replicas cannot share host_port {port.host_port} without a router, "
                "and this version has none",
                code="S004",
                key=key,
                remedy=f"take host_port out ({_instead_of_host_port(goal.spec.content)}), or set replicas to 1",
            )
        elif goal.spec.content.has_own_network:
            continue  # the runtime publishes one number as another
        elif port.host_port and port.container_port not in (None, port.host_port) and not is_dynamic(goal.spec, port):
            yield _problem(
                goal.spec,
                f"it binds {port.container_port}, and host_port {port.host_port} needs a router, "
                "which this version does not have",
                code="S004",
                key=key,
                remedy="make both the same, or let it take its port from ${PORT}",
            )


def _instead_of_host_port(content: Content) -> str:
    if content.has_own_network:
        return "with dynamic: true each replica is published at a number of its own"
    return "each replica then gets its own port as ${PORT}"


def is_dynamic(spec: ServiceSpec, port: Port) -> bool:
    """Is this port's number handed to the service at its start (DESIGN §7)?"""
    content = spec.content
    return port.dynamic or "${PORT" in " ".join((content.command, *content.args, *content.env.values()))


def _ports(goal: Goal, world: World) -> Iterator[Problem]:
    content = goal.spec.content
    here = not content.is_container or is_here(content.container.engine)
    for number, port in enumerate(content.ports):
        wanted = port.host_port or _bound_by_itself(goal, port)
        thing = (wanted or 0, port.protocol)
        if not wanted or thing in world.freed:
            continue
        holder = (
            world.kept.get(thing)
            or world.engines.publisher(*thing)
            or (_stranger_on(wanted, port.protocol) if here else "")
        )
        if holder:
            yield _problem(
                goal.spec,
                f"port {wanted}/{port.protocol} is taken by {holder}",
                code="S004",
                key=f"ports[{number}]",
                remedy="stop who holds it, or take another port",
            )


def _bound_by_itself(goal: Goal, port: Port) -> int | None:
    """The number that it takes on this machine without anybody's help."""
    inside = goal.spec.content.has_own_network
    return None if inside or is_dynamic(goal.spec, port) or goal.replicas > 1 else port.container_port


def _stranger_on(number: int, protocol: str) -> str:
    """Who holds this port, "" if nobody: found by trying to bind it, on IPv4 and IPv6."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, number))
        except PermissionError:
            return "nobody, but only root may bind it"
        except OSError as exc:
            import errno

            if exc.errno == errno.EADDRINUSE:
                return _name_of_holder(number) or "another program"
    return ""


def _name_of_holder(number: int) -> str:
    from deploy_code.health.listeners import holder

    return holder(number)


def _endpoint(goal: Goal, world: World) -> Iterator[Problem]:
    endpoint, content = goal.spec.policy.health.endpoint, goal.spec.content
    if (
        endpoint.startswith("/")
        and not content.ports
        and "PORT" not in content.env
        and content.service_type != "container"
    ):
        yield _problem(
            goal.spec,
            f"endpoint {endpoint!r} names no port, and the service declares none",
            code="S003",
            key="health_check.endpoint",
            remedy=f"declare `ports`, or write http://127.0.0.1:PORT{endpoint}",
        )


def _release(goal: Goal, world: World) -> Iterator[Problem]:
    release = goal.spec.content.release
    if release is None:
        return
    kept = os.path.join(world.state, "releases", release.digest)
    if not os.path.isdir(kept) and not os.path.isdir(release.source):
        yield _problem(
            goal.spec,
            f"the code of this release is neither in {kept} nor in {release.source}",
            code="S005",
            key="release",
            remedy="put the folder back, or deploy what is there now",
        )


def _container(goal: Goal, world: World) -> Iterator[Problem]:
    if goal.spec.content.is_container:
        for message, code, key, remedy in container_problems(goal, world.engines):
            yield _problem(goal.spec, message, code=code, key=key, remedy=remedy)


_CHECKS: tuple[Callable[[Goal, World], Iterator[Problem]], ...] = (
    _runtime,
    _container,
    _command,
    _folder,
    _user,
    _volumes,
    _router,
    _ports,
    _endpoint,
    _release,
)


def _problem(spec: ServiceSpec, message: str, *, code: str, key: str, remedy: str) -> Problem:
    return Problem(message, code=code, path=f"services.{spec.name}.{key}", remedy=remedy)
