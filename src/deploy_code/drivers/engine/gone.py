"""Words for an engine that is not there: what it means, and what to do about it."""

from __future__ import annotations

import errno
import socket

from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.drivers.engine.errors import EngineGoneError
from deploy_code.drivers.engine.http import LostError

_REFUSED = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM)


def gone(endpoint: Endpoint, protects: str, error: LostError) -> EngineGoneError:
    """The error for a connection to ``endpoint`` that could not be made or was lost."""
    meaning, remedy, retryable = _advice(endpoint, error.cause)
    return EngineGoneError(f"{protects}: {error}", meaning=meaning, remedy=remedy, retryable=retryable)


def _advice(endpoint: Endpoint, cause: BaseException | None) -> tuple[str, str, bool]:
    """What it means, what to do, and whether trying again may help."""
    import ssl

    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, ssl.SSLError):
        return (
            "The engine is spoken with over TLS",
            "Check the certificates in the folder DOCKER_CERT_PATH names",
            False,
        )
    if isinstance(cause, socket.gaierror):
        return "The engine's host is not known here", "Check the address in DOCKER_HOST or in the Docker context", True
    if number in _DENIED and endpoint.is_local:
        return "This user may not use the engine's socket", _allow(endpoint), False
    if number in _REFUSED and endpoint.is_local:
        return "The engine is not running, or it listens elsewhere", _start(endpoint), True
    if number in _REFUSED:
        return "Nothing listens there", "Start the engine, or check the address in DOCKER_HOST", True
    return "The engine was stopped or restarted, or is too busy to answer", "See whether it runs, then try again", True


def _is_podman(endpoint: Endpoint) -> bool:
    return "podman" in endpoint.url


def _allow(endpoint: Endpoint) -> str:
    if _is_podman(endpoint):
        return "Run as root, or start this user's own Podman with `systemctl --user start podman.socket`"
    return "Add the user to the group docker (`sudo usermod -aG docker USER`) and log in again, or run as root"


def _start(endpoint: Endpoint) -> str:
    if _is_podman(endpoint):
        return (
            "Start it with `systemctl start podman.socket` or "
            f"`podman system service --time=0 {endpoint.url}`, or name its address with CONTAINER_HOST"
        )
    return "Start it with `systemctl start docker`, or name its address with DOCKER_HOST"
