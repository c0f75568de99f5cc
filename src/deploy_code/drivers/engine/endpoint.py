"""Where an engine listens: what the user's environment and Docker's own settings say about it.

The order is that of the engines' own command lines, so that `deploy-code` speaks with the engine that `docker ps`
and `podman --remote ps` show.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy_code.errors import DriverError

DOCKER_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"
_UNVERIFIED = "?verify=no"
_PLAIN_PORT, _TLS_PORT = 2375, 2376  # Docker's own, where an address names none


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where one engine listens.

    ``url``: ``unix:///run/docker.sock`` (real path) or ``tcp://host:port``, with ``?verify=no`` where any certificate
    of the engine will do; ``tls``: the folder of ``ca.pem``, ``cert.pem`` and ``key.pem``, "" for none. The two are
    all there is to it, and can be kept as text.
    """

    url: str
    tls: str = ""

    @property
    def verify(self) -> bool:
        """Must the engine's certificate be good?"""
        return not self.url.endswith(_UNVERIFIED)

    @property
    def is_local(self) -> bool:
        """Is it a socket of this machine?"""
        return self.url.startswith("unix://")

    @property
    def socket(self) -> str:
        """The path of the socket; "" where it is no socket of this machine."""
        return self.url.removeprefix("unix://") if self.is_local else ""

    @property
    def host(self) -> str:
        """Where ports that it publishes answer: 127.0.0.1, or the host of its address (IPv6 without brackets)."""
        return "127.0.0.1" if self.is_local else self._host_and_port[0]

    @property
    def port(self) -> int:
        """The port of its address; 0 for a socket of this machine."""
        return 0 if self.is_local else self._host_and_port[1]

    @property
    def authority(self) -> str:
        """``host:port``; "localhost" for a socket of this machine."""
        return "localhost" if self.is_local else self.url.removeprefix("tcp://").removesuffix(_UNVERIFIED)

    @property
    def _host_and_port(self) -> tuple[str, int]:
        host, _, port = self.authority.rpartition(":")
        return host.strip("[]"), int(port)

    def __str__(self) -> str:
        return self.socket or self.url


def find_endpoint(runtime: str, environ: Mapping[str, str]) -> Endpoint:
    """The endpoint of ``runtime`` (``docker`` or ``podman``) for a user with this environment.

    Whether an engine answers there is not asked. Raises DriverError E014 for an address that we cannot use.
    """
    return _podman(environ) if runtime == "podman" else _docker(environ)


# ---------------------------------------------------------------------- docker


def _docker(environ: Mapping[str, str]) -> Endpoint:
    folder = docker_folder(environ)
    if host := environ.get("DOCKER_HOST", "").strip():
        return _written(host, "DOCKER_HOST", *_tls_of(environ, folder))
    if context := environ.get("DOCKER_CONTEXT", "") or _current_context(folder):
        if context != "default":
            return _of_context(context, folder)
    rootless = os.path.join(environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "docker.sock")
    path = DOCKER_SOCKET if os.path.exists(DOCKER_SOCKET) or not os.path.exists(rootless) else rootless
    return Endpoint(url=_unix(path))


def docker_folder(environ: Mapping[str, str]) -> str:
    """The folder of Docker's own settings: $DOCKER_CONFIG, else ~/.docker."""
    return environ.get("DOCKER_CONFIG") or os.path.join(home_folder(environ), ".docker")


def home_folder(environ: Mapping[str, str]) -> str:
    """$HOME, else what the machine knows of the user."""
    return environ.get("HOME") or os.path.expanduser("~")


def _tls_of(environ: Mapping[str, str], folder: str) -> tuple[str, bool]:
    """The folder of certificates that goes with DOCKER_HOST, and whether the engine's must be good."""
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return "", True
    return os.path.abspath(environ.get("DOCKER_CERT_PATH") or folder), verify


def _current_context(folder: str) -> str:
    name = _settings(os.path.join(folder, "config.json")).get("currentContext", "")
    return name if isinstance(name, str) else ""


def _of_context(name: str, folder: str) -> Endpoint:
    """What `docker context create` keeps: the folders are named after the SHA-256 of the context's name."""
    from hashlib import sha256

    key = sha256(name.encode()).hexdigest()
    found = _settings(os.path.join(folder, "contexts", "meta", key, "meta.json"))
    endpoints = found.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    if not isinstance(docker, dict):
        raise DriverError(
            f"there is no Docker context {name!r} in {folder}",
            code="E014",
            remedy="`docker context ls` shows those that are there; choose one with DOCKER_CONTEXT, or unset it",
        )
    material = os.path.join(folder, "contexts", "tls", key, "docker")
    skip = docker.get("SkipTLSVerify") is True
    tls = material if skip or os.path.isdir(material) else ""
    host = docker.get("Host")
    return _written(host if isinstance(host, str) else "", f"the Docker context {name!r}", tls, not skip)


def _settings(path: str) -> dict[str, Any]:
    """A file of Docker's settings; empty where there is none. Raises DriverError E014 where it cannot be read."""
    import json

    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise DriverError(
            f"Docker's settings in {path} cannot be read: {error}",
            code="E014",
            meaning="They say which engine to use",
            remedy="Mend the file, or name the engine with DOCKER_HOST",
        ) from error
    return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------------- podman


def _podman(environ: Mapping[str, str]) -> Endpoint:
    if host := environ.get("CONTAINER_HOST", "").strip():
        return _written(host, "CONTAINER_HOST", "", True)
    runtime_dir = environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0 or not runtime_dir:
        return Endpoint(url=_unix(PODMAN_SOCKET))
    return Endpoint(url=_unix(os.path.join(runtime_dir, "podman", "podman.sock")))


# ---------------------------------------------------------------------- addresses


def _written(address: str, where: str, tls: str, verify: bool) -> Endpoint:
    """An address as people write it. ``where`` it stands, for the error."""
    scheme, found, rest = address.partition("://")
    if not found:
        scheme, rest = "tcp", address  # `DOCKER_HOST=host:2375`
    if scheme == "unix":
        return Endpoint(url=_unix(rest or DOCKER_SOCKET))
    if scheme in ("tcp", "http"):
        url = _tcp(rest, address, where, _TLS_PORT if tls else _PLAIN_PORT)
        return Endpoint(url=url if verify or not tls else url + _UNVERIFIED, tls=tls)
    raise _unusable(scheme, address, where)


def _unix(path: str) -> str:
    """With the real path: /var/run/docker.sock and /run/docker.sock are one engine."""
    return f"unix://{os.path.realpath(path)}"


def _tcp(authority: str, address: str, where: str, default_port: int) -> str:
    authority = authority.split("/", 1)[0]
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):  # "host", "[::1]"
        host, port = authority, ""
    if not host or "@" in host or (port and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise DriverError(
            f"{where} cannot be read as an address: {_without_user(address)!r}",
            code="E014",
            remedy="Write unix:///path/of/the.sock or tcp://host:port",
        )
    return f"tcp://{host}:{port or default_port}"


def _without_user(address: str) -> str:
    """What may be shown of it: no user and no password."""
    head, found, rest = address.partition("://")
    return f"{head}://{rest.rpartition('@')[2]}" if found else address.rpartition("@")[2]


def _unusable(scheme: str, address: str, where: str) -> DriverError:
    shown = _without_user(address)
    if scheme == "ssh":
        return DriverError(
            f"{where} names {shown}: an engine behind SSH is not spoken with directly",
            code="E014",
            meaning="deploy-code speaks with engines on sockets of this machine and over TLS",
            remedy="Forward its socket with `ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock USER@HOST` and write "
            "unix:///tmp/engine.sock, or give the engine a TLS address",
        )
    if scheme == "npipe":
        return DriverError(
            f"{where} names {shown}: a named pipe of Windows",
            code="E014",
            meaning="Containers are driven from Linux",
            remedy="Run deploy-code inside WSL 2 with Docker Desktop's WSL integration, or write tcp://host:port",
        )
    return DriverError(
        f"{where} names {shown}: {scheme}:// is no address that an engine is reached by",
        code="E014",
        remedy="Write unix:///path/of/the.sock, or tcp://host:port with DOCKER_TLS_VERIFY=1 for TLS",
    )
