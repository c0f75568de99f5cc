"""What an engine says when it cannot make or start a container, in our words: what happened, and what to do.

Engines answer in prose that differs between Docker and Podman and from version to version; so what is looked for is
short, and whatever is not understood is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from deploy_code.drivers.engine.client import EngineError
from deploy_code.drivers.engine.order import ContainerOrder
from deploy_code.errors import DriverError

_PORT = re.compile(r":(\d+)(?: failed)?: (?:port is already allocated|bind: address already in use)")
_SOURCE = re.compile(r"bind source path does not exist: (\S+)")
_EXEC = re.compile(r'exec: \\?"([^"\\]+)\\?"')


def is_network_gone(exc: EngineError) -> bool:
    return "network" in exc.message and "not found" in exc.message and not _is_no_image(exc.message)


def is_address_refused(exc: EngineError) -> bool:
    """Is it the IP that was asked for? Somebody else may have it by now."""
    text = exc.message
    return (
        text.strip().endswith("Address already in use")
        or "IPAM error: requested ip address" in text
        or "requested static ip" in text
        or "user specified IP address" in text
        or "does not belong to any of this network's subnets" in text
        or ("Invalid address" in text and "subnets" in text)
    )


def is_name_taken(exc: EngineError) -> bool:
    return exc.status in (409, 500) and "already in use by" in exc.message


def in_our_words(exc: EngineError, order: ContainerOrder) -> DriverError:
    """The error of a create or a start of ``order``."""
    for explain in (_disk, _program, _image, _port, _source, _gpu, _user, _capability, _network):
        if (found := explain(exc.message, order)) is not None:
            return found
    return DriverError(f"container {order.name} cannot be started: {exc.message}", retryable=exc.retryable)


def missing_source(path: str) -> DriverError:
    return DriverError(
        f"there is no {path} to mount",
        code="S005",
        remedy='Create it, or correct "source" of the volume',
        retryable=True,
    )


Explain = Callable[[str, ContainerOrder], DriverError | None]


def _disk(text: str, order: ContainerOrder) -> DriverError | None:
    if "no space left on device" not in text:
        return None
    return DriverError(
        f"container {order.name} cannot be started: the engine's disk is full",
        code="E004",
        remedy="Make room, for instance with `deploy-code prune`",
        retryable=True,
    )


def _is_no_image(text: str) -> bool:
    return "no such image" in text.lower() or "image not known" in text


def _image(text: str, order: ContainerOrder) -> DriverError | None:
    if not _is_no_image(text):
        return None
    return DriverError(
        f"the image {order.image} is not there any more",
        code="E003",
        meaning="It was removed from the engine after it had been looked up",
        remedy="Run `deploy-code deploy`, which fetches it again",
    )


def _program(text: str, order: ContainerOrder) -> DriverError | None:
    named = _EXEC.search(text)
    program = named[1] if named else order.command
    if "exec format error" in text:
        return DriverError(
            f"the image {order.image} was made for another kind of processor",
            code="E003",
            remedy="Use one that was made for this machine",
        )
    if "permission denied" in text and named:
        return DriverError(
            f"{program} in the image {order.image} may not be run",
            remedy="Make it executable where the image is built (chmod +x), or correct the command",
        )
    if "executable file not found" in text or (named and "no such file or directory" in text):
        return DriverError(
            f'there is no command "{program}" in the image {order.image}',
            code="E003",
            remedy='Correct "command": it stands in the place of the image\'s entrypoint',
        )
    if "No command specified" in text or "no command or entrypoint" in text:
        return DriverError(
            f"the image {order.image} says no command, nor does the file",
            code="E003",
            remedy='Write "command" at the service',
        )
    return None


def _port(text: str, order: ContainerOrder) -> DriverError | None:
    taken = "port is already allocated" in text or "bind: address already in use" in text
    if not taken:
        return None
    found = _PORT.search(text)
    port = found[1] if found else ", ".join(str(number) for number in order.published.values())
    return DriverError(
        f"port {port} is taken by another program",
        code="S004",
        remedy=f"Stop that program (`ss -ltnp 'sport = :{port}'` names it), or choose another host_port",
        retryable=True,
    )


def _source(text: str, order: ContainerOrder) -> DriverError | None:
    found = _SOURCE.search(text)
    return missing_source(found[1]) if found else None


def _gpu(text: str, order: ContainerOrder) -> DriverError | None:
    if "could not select device driver" not in text and "nvidia-container" not in text:
        return None
    return DriverError(
        f"container {order.name} cannot have its GPU: the engine has no driver for it",
        remedy="Install the NVIDIA Container Toolkit and restart the engine, or take gpu_count out",
    )


def _user(text: str, order: ContainerOrder) -> DriverError | None:
    if "unable to find user" not in text and "unable to find group" not in text:
        return None
    return DriverError(
        f'the image {order.image} knows no user "{order.user}"' if order.user else f"{order.image}: {text}",
        remedy="Use a name that its /etc/passwd holds, or a number",
    )


def _capability(text: str, order: ContainerOrder) -> DriverError | None:
    lowered = text.lower()
    if "capability" not in lowered or ("unknown" not in lowered and "invalid" not in lowered):
        return None
    return DriverError(
        f"container {order.name} cannot be started: {text}",
        remedy='Correct "cap_add" and "cap_drop": man 7 capabilities',
    )


def _network(text: str, order: ContainerOrder) -> DriverError | None:
    if "network" not in text or "not found" not in text:
        return None
    return DriverError(
        f"container {order.name} cannot be started: its network was removed: {text}", code="E010", retryable=True
    )
