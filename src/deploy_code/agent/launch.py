"""Turns an instance and what it is made of into an order for the driver and a probe: env, placeholders, directories.

Done anew at every start, because the numbers behind the placeholders may have changed since the last one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from deploy_code.drivers.base import StartOrder
from deploy_code.drivers.custom import CustomOrder
from deploy_code.drivers.engine.order import ContainerOrder
from deploy_code.drivers.made import made_of
from deploy_code.drivers.proctree import STATE
from deploy_code.errors import DriverError, StateError
from deploy_code.health.build import RunInside, build_probe
from deploy_code.health.probes import Probe
from deploy_code.logs.files import log_path
from deploy_code.logs.index import LogIndex
from deploy_code.logs.stream import LogStream
from deploy_code.model import Content, HealthCheck, Instance, Volume, Wanted, run_hash

from .placeholders import Place, Placeholders, own_values
from .published import bound_inside, inner_ports

BROKEN_OFF = "broken_off"  # in the row of a custom instance: an agent died while it was being started
_OUTSIDE = Content()  # whoever asks from this machine, and not from inside a network of containers
_RELEASE = "release:"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where things of this project lie, absolute."""

    state: str
    logs: str
    project: str = ""  # its name

    def log_path(self, instance: Instance) -> str:
        """One file for each copy of a service, over all its revisions: what is followed goes on after a deploy."""
        return log_path(self.logs, instance.service, instance.index)

    def status_path(self, uuid: str) -> str:
        return os.path.join(self.state, "one_shots", f"{uuid}.status")

    def release(self, digest: str) -> str:
        return os.path.join(self.state, "releases", digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start, all resolved."""

    order: StartOrder
    content: Content
    check: HealthCheck
    ports: Mapping[str, int]

    def probe(self, instance: Instance, alive: Callable[[], bool], inside: RunInside | None = None) -> Probe:
        """The probe that asks this start whether it is ready. ``inside`` makes one of a command in its container."""
        return build_probe(
            self.check,
            self.content,
            host=instance.address or "localhost",
            ports=instance.ports or self.ports,
            env=self.order.env,
            working_dir=self.order.working_dir,
            user=self.order.user,
            alive=alive,
            inside=inside,
        )


WhereIs = Callable[[str, Content], Place]


class Launcher:
    """Prepares starts. ``where_is``: where a service of this project answers now, for somebody of that content.

    ``gpu_env``: the env that shows an instance its GPUs.
    """

    def __init__(
        self,
        folders: Folders,
        index: LogIndex,
        where_is: WhereIs,
        gpu_env: Callable[[Wanted, Instance], Mapping[str, str]] = lambda wanted, instance: {},
    ) -> None:
        self.folders = folders
        self._index = index
        self._where_is = where_is
        self._gpu_env = gpu_env

    def begin_log(self, path: str) -> int:
        """Where in its log the next start begins. Raises DriverError S005 when there is no folder for it."""
        _make(os.path.dirname(path), mode=0o750)
        try:
            return self._index.started(path)
        except StateError:
            return LogStream(path).bounds()[1]  # only the times of its lines become coarse; the next tick says why

    def launch(self, wanted: Wanted, instance: Instance, *, lenient: bool = False) -> Launch:
        """Resolve everything. Raises DriverError: E005, E007 for placeholders and users that cannot be had.

        ``lenient``: for what was started before, a placeholder without a value stays as it is.
        """
        content = wanted.content
        own = own_values(
            service=instance.service,
            uuid=instance.uuid,
            revision=instance.revision,
            index=instance.index,
            ports=bound_inside(content, instance),
        )
        fill = Placeholders(own, lambda service: self._where_is(service, content), lenient=lenient)
        if content.is_container:
            made = self._container(wanted, instance, fill, own)
            asked = self._check(wanted, fill, own, lenient)
            return Launch(order=made, content=content, check=asked, ports=instance.ports)
        working_dir = self._place(content, content.working_dir) or "/"
        order = StartOrder(
            uuid=instance.uuid,
            service=instance.service,
            command=_command(self._place(content, fill.fill(content.command)), working_dir),
            args=fill.fill_all(content.args),
            env={
                **_base_env(content),
                **fill.fill_env(content.env),
                **self._gpu_env(wanted, instance),
                **own,
                STATE: self.folders.state,
            },
            working_dir=working_dir,
            user=content.user,
            log_path=instance.log_path,
            one_shot=content.one_shot,
            status_path=self.folders.status_path(instance.uuid) if content.one_shot else "",
            resources=content.resources,
            made="" if content.one_shot else made_of(content, instance.uuid),
        )
        if content.service_type != "process":
            order = _custom(order, content, instance)
        check = fill.fill_check(wanted.policy.health)
        return Launch(order=order, content=content, check=check, ports=instance.ports)

    def _check(self, wanted: Wanted, fill: Placeholders, own: Mapping[str, str], lenient: bool) -> HealthCheck:
        """What is asked of a container: its command is run inside, its endpoint is asked from here."""
        health = wanted.policy.health
        outside = Placeholders(own, lambda service: self._where_is(service, _OUTSIDE), lenient=lenient)
        return replace(health, endpoint=outside.fill(health.endpoint), command=fill.fill_all(health.command))

    def _container(
        self, wanted: Wanted, instance: Instance, fill: Placeholders, own: Mapping[str, str]
    ) -> ContainerOrder:
        """A container has the env that its image brings, and what the file and we say on top."""
        content, policy = wanted.content, wanted.policy
        return ContainerOrder(
            uuid=instance.uuid,
            service=instance.service,
            command=fill.fill(content.command),
            args=fill.fill_all(content.args),
            env={**fill.fill_env(content.env), **self._gpu_env(wanted, instance), **own},
            working_dir=content.working_dir,
            user=content.user,
            log_path=instance.log_path,
            one_shot=content.one_shot,
            resources=content.resources,
            project=self.folders.project,
            state=self.folders.state,
            revision=instance.revision,
            index=instance.index,
            run_hash=run_hash(content),
            image=content.image,
            container=content.container,
            ports=inner_ports(content, instance.published),
            published=instance.published,
            volumes=content.volumes,
            stop_signal=policy.stop_signal or "SIGTERM",
            address=instance.address,
        )

    def make_directories(self, launch: Launch) -> None:
        """Create what the start needs on disk. Raises DriverError S005."""
        for volume in launch.content.volumes if not launch.content.is_container else ():
            make_volume(volume, launch.content.user)
        if launch.order.status_path:
            _make(os.path.dirname(launch.order.status_path), mode=0o700)

    def _place(self, content: Content, path: str) -> str:
        if not path.startswith(_RELEASE):
            return path
        if content.release is None:
            raise DriverError(f"{path} names a release, but this revision has none")
        inside = path.removeprefix(_RELEASE).lstrip("/")
        return os.path.normpath(os.path.join(self.folders.release(content.release.digest), inside))


def _custom(order: StartOrder, content: Content, instance: Instance) -> CustomOrder:
    """The order for a type that somebody else wrote."""
    return CustomOrder(
        **{each.name: getattr(order, each.name) for each in fields(StartOrder)},
        service_type=content.service_type,
        handler=content.handler,
        digest=_digest(content),
        revision=instance.revision,
        index=instance.index,
        image=content.image,
        ports=instance.ports,
        volumes=content.volumes,
        options=content.options,
        clean=BROKEN_OFF in instance.handler,
    )


def _digest(content: Content) -> str:
    """That of the file which the handler is defined in: other code is another host. "" where none is recorded."""
    path = content.handler.rpartition(":")[0]
    return next((digest for name, digest in content.files.items() if _names(name, path)), "")


def _names(name: str, path: str) -> bool:
    """``name`` is relative to the folder of the config file, ``path`` is absolute."""
    return path == name or path.endswith("/" + name.lstrip("./"))


def _command(command: str, working_dir: str) -> str:
    return os.path.join(working_dir, command) if "/" in command else command


def _base_env(content: Content) -> dict[str, str]:
    if content.inherit_env:
        return dict(os.environ)
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    env.setdefault("PATH", _DEFAULT_PATH)
    env.setdefault("LANG", "C.UTF-8")
    return env | _account_env(content.user)


def _account_env(user: str) -> dict[str, str]:
    """HOME, USER and LOGNAME of who the process runs as; an unknown user is for the driver to refuse."""
    import pwd

    name = user.partition(":")[0]
    try:
        entry = _by_name_or_number(name) if name else pwd.getpwuid(os.getuid())
    except KeyError:
        return {"HOME": os.environ.get("HOME", "/")}
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def _by_name_or_number(name: str):  # type: ignore[no-untyped-def]  # pwd.struct_passwd, importing pwd only here
    import pwd

    return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)


# --------------------------------------------------------------------------- directories


def make_volume(volume: Volume, user: str) -> None:
    """Make sure the directory is there; what is created belongs to ``user``. Raises DriverError S005."""
    missing = _missing(volume.mount_path)
    _make(volume.mount_path, mode=0o755)
    if user:
        _give(missing, user)


def _missing(path: str) -> list[str]:
    """``path`` and those of its parents that are not there yet."""
    found = []
    while path and not os.path.exists(path):
        found.append(path)
        path = os.path.dirname(path)
    return found


def _make(path: str, *, mode: int) -> None:
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
    except OSError as exc:
        raise _no_directory(path, exc) from exc


def _give(paths: list[str], user: str) -> None:
    import grp

    name, _, group = user.partition(":")
    try:
        account = _by_name_or_number(name)
        gid = (int(group) if group.isdigit() else grp.getgrnam(group).gr_gid) if group else account.pw_gid
    except KeyError:
        return  # the driver says which user or group is unknown
    for path in paths:
        try:
            os.chown(path, account.pw_uid, gid)
        except OSError as exc:
            raise _no_directory(path, exc) from exc


def _no_directory(path: str, exc: OSError) -> DriverError:
    return DriverError(
        f"the directory {path} cannot be had: {exc.strerror}",
        code="S005",
        remedy="Create it, or give the user of the service the right to",
        retryable=True,
    )
