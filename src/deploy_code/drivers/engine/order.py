"""What one start of a container needs, and the names that its things have in the runtime.

Everybody who looks for our things there, engine and agent alike, takes their names from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy_code.drivers.base import StartOrder
from deploy_code.model import Container, Port, Volume

PROJECT, STATE, SERVICE = "deploy-code.project", "deploy-code.state", "deploy-code.service"
REVISION, INDEX, INSTANCE = "deploy-code.revision", "deploy-code.index", "deploy-code.instance"
CONTAINER = "container"  # key of ``Running.handler``: the id of the container
ENGINE, ENGINE_TLS, LOG = "engine", "engine_tls", "log"  # others: where it runs, and the file that it logs to
VERSION, BUILD = "deploy-code.version", "deploy-code.build"
_UNFIT = re.compile(r"[^a-zA-Z0-9_.-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOrder(StartOrder):
    """A start of a container. An empty ``command``, ``args``, ``working_dir`` or ``user`` is the image's own.

    ``state``: the project's state folder, absolute. ``image``: as written, for people. ``published``: key of a port
    (``port_key``) → number on this machine. ``address``: what it had before, "" for none.
    """

    project: str
    state: str
    revision: int
    index: int
    run_hash: str
    image: str
    container: Container
    ports: tuple[Port, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    stop_signal: str = "SIGTERM"
    address: str = ""

    @property
    def name(self) -> str:
        """Its name in the runtime."""
        return container_name(self.project, self.service, self.revision, self.index)


def container_name(project: str, service: str, revision: int, index: int) -> str:
    return _fit(f"{project}-{service}-r{revision}-{index}")


def volume_name(project: str, name: str) -> str:
    return _fit(f"{project}_{name}")


def image_name(project: str, service: str, digest: str) -> str:
    """Of an image that was built and has no name in the file."""
    return f"{_fit(project).lower()}-{_fit(service).lower()}:{digest[:12]}"


def port_key(port: Port) -> str:
    """``8080``, ``53/udp``: how a port is called where the same number may stand for both protocols."""
    number = str(port.container_port or port.host_port or "port")
    return number if port.protocol == "tcp" else f"{number}/{port.protocol}"


def _fit(name: str) -> str:
    return _UNFIT.sub("-", name)
