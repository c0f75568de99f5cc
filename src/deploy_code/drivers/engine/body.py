"""From an order to what the Engine API wants to read. Pure: nothing is asked, nothing is looked at.

What the order leaves empty is left out here, so that the image's own holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from deploy_code._version import __version__
from deploy_code.drivers.engine.order import (
    INDEX,
    INSTANCE,
    PROJECT,
    REVISION,
    SERVICE,
    STATE,
    VERSION,
    ContainerOrder,
    port_key,
    volume_name,
)
from deploy_code.model import Port, Volume

MIB = 1024 * 1024
HOST_NAMES = ("host.docker.internal", "host.containers.internal")  # this machine, as a container calls it
GPU_KEYS = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
_COMPOSE = "com.docker.compose."


def create_body(
    order: ContainerOrder,
    *,
    log: Mapping[str, object],
    gateway: str = "",
    address: str = "",
    mac: str = "",
    publish_all: bool = False,
    anonymous: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The body of ``POST /containers/create``.

    ``log``: its ``LogConfig``. ``gateway``: where a container of its network reaches this machine. ``address``: the IP
    to ask for, ``mac``: its MAC. ``publish_all``: every TCP port gets a number on the engine's machine. ``anonymous``:
    path → volume, for what the image wants to keep and the order says nothing about.
    """
    container = order.container
    bindings = port_bindings(order, publish_all=publish_all)
    body: dict[str, Any] = {
        "Image": container.image_id or order.image,
        "Env": [f"{name}={value}" for name, value in environment(order).items()],
        "Labels": labels(order),
        "Healthcheck": {"Test": ["NONE"]},  # who asks twice is told two things
        "ExposedPorts": {number: {} for number in exposed(order.ports)},
        "Tty": False,
        "HostConfig": {
            "NetworkMode": network_name(order) if not container.shares_host else "host",
            "PortBindings": bindings,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": dict(log),
            "Mounts": mounts(order, anonymous or {}),
            "ExtraHosts": extra_hosts(order, gateway),
            **_limits(order),
            **_rights(order),
        },
    }
    body |= _program(order)
    if not container.shares_host:
        body["NetworkingConfig"] = {"EndpointsConfig": {network_name(order): _endpoint(order, address, mac)}}
    if container.network.dns_servers:
        body["HostConfig"]["Dns"] = list(container.network.dns_servers)
    return body


def network_name(order: ContainerOrder) -> str:
    return order.container.network.name or order.project


def labels(order: ContainerOrder) -> dict[str, str]:
    """The user's own, ours, and those by which Compose and Docker Desktop group a project."""
    return {
        **order.container.labels,
        PROJECT: order.project,
        STATE: order.state,
        SERVICE: order.service,
        REVISION: str(order.revision),
        INDEX: str(order.index),
        INSTANCE: order.uuid,
        VERSION: __version__,
        f"{_COMPOSE}project": order.project,
        f"{_COMPOSE}service": order.service,
        f"{_COMPOSE}container-number": str(order.index + 1),
        f"{_COMPOSE}oneoff": "False",
        f"{_COMPOSE}config-hash": order.run_hash,
        f"{_COMPOSE}version": __version__,
    }


def network_labels(project: str, state: str, name: str) -> dict[str, str]:
    return {PROJECT: project, STATE: state, f"{_COMPOSE}project": project, f"{_COMPOSE}network": name}


def volume_labels(order: ContainerOrder, name: str = "") -> dict[str, str]:
    """``name``: as in the file; "" for one that only the image asks for."""
    found = {PROJECT: order.project, STATE: order.state, f"{_COMPOSE}project": order.project}
    if name:
        return {**found, f"{_COMPOSE}volume": name}
    return {**found, SERVICE: order.service, INSTANCE: order.uuid}


def environment(order: ContainerOrder) -> dict[str, str]:
    """Inside, the GPUs that were given are counted from 0: which they are of the machine would hide them."""
    if not order.resources.gpu_count:
        return dict(order.env)
    return {name: value for name, value in order.env.items() if name not in GPU_KEYS}


def aliases(order: ContainerOrder) -> list[str]:
    """The names that other containers of the network know it by."""
    return [order.service, f"{order.service}-r{order.revision}", f"{order.project}-{order.service}-{order.index}"]


def extra_hosts(order: ContainerOrder, gateway: str) -> list[str]:
    known = dict(order.container.extra_hosts)
    if gateway and not order.container.shares_host:
        known = {**dict.fromkeys(HOST_NAMES, gateway), **known}
    return [f"{name}:{address}" for name, address in known.items()]


# ---------------------------------------------------------------------- ports


def inner_port(port: Port) -> str:
    """``8080/tcp``: how the API calls a port inside; "" where there is none."""
    number = port.container_port or port.host_port
    return f"{number}/{port.protocol}" if number else ""


def exposed(ports: Collection[Port]) -> list[str]:
    return [inner for port in ports if (inner := inner_port(port))]


def port_bindings(order: ContainerOrder, *, publish_all: bool = False) -> dict[str, list[dict[str, str]]]:
    """Which port inside answers at which number of the machine; "": any that is free."""
    if order.container.shares_host:
        return {}
    found: dict[str, list[dict[str, str]]] = {}
    for port in order.ports:
        number = order.published.get(port_key(port), 0)
        if (number or (publish_all and port.protocol == "tcp")) and (inner := inner_port(port)):
            found.setdefault(inner, []).append({"HostPort": str(number or "")})
    return found


# ---------------------------------------------------------------------- parts


def _program(order: ContainerOrder) -> dict[str, Any]:
    """``command`` stands in the place of the image's entrypoint, ``args`` in that of its command."""
    found: dict[str, Any] = {}
    if order.command:
        found["Entrypoint"] = [order.command]
    if order.command or order.args:
        found["Cmd"] = list(order.args)
    rest = {"WorkingDir": order.working_dir, "User": order.user, "StopSignal": order.stop_signal}
    return found | {key: value for key, value in rest.items() if value}


def _endpoint(order: ContainerOrder, address: str, mac: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Aliases": aliases(order)}
    if mac:
        found["MacAddress"] = mac
    if address:
        found["IPAMConfig"] = {"IPv4Address": address}
    return found


def _limits(order: ContainerOrder) -> dict[str, Any]:
    resources, found = order.resources, {}
    if resources.cpu_cores:
        found["NanoCpus"] = round(resources.cpu_cores * 1e9)
    if resources.memory_mb:
        found["Memory"] = found["MemorySwap"] = resources.memory_mb * MIB  # equal: no swap on top
    if resources.pids:
        found["PidsLimit"] = resources.pids
    if order.container.shm_size_mb:
        found["ShmSize"] = order.container.shm_size_mb * MIB
    return found | _gpus(order)


def _gpus(order: ContainerOrder) -> dict[str, Any]:
    count = order.resources.gpu_count
    if not count:
        return {}
    given = next((order.env[key] for key in GPU_KEYS if order.env.get(key)), "")
    which: dict[str, Any] = {"DeviceIDs": given.split(",")} if given else {"Count": count}
    return {"DeviceRequests": [{**which, "Capabilities": [["gpu"]]}]}


def _rights(order: ContainerOrder) -> dict[str, Any]:
    container = order.container
    found: dict[str, Any] = {
        "CapAdd": list(container.cap_add),
        "CapDrop": list(container.cap_drop),
        "ReadonlyRootfs": container.read_only,
        "Privileged": container.privileged,
        "Init": container.init,
    }
    return {key: value for key, value in found.items() if value}


def mounts(order: ContainerOrder, anonymous: Mapping[str, str]) -> list[dict[str, Any]]:
    own = [_mount(order, volume) for volume in order.volumes]
    return own + [{"Type": "volume", "Source": name, "Target": path} for path, name in anonymous.items()]


def _mount(order: ContainerOrder, volume: Volume) -> dict[str, Any]:
    found: dict[str, Any] = {"Target": volume.mount_path}
    if volume.read_only:
        found["ReadOnly"] = True
    if volume.tmpfs:
        options = {"TmpfsOptions": {"SizeBytes": volume.size_mb * MIB}} if volume.size_mb else {}
        return {"Type": "tmpfs", **found, **options}
    if volume.source:
        return {"Type": "bind", "Source": volume.source, **found}
    return {
        "Type": "volume",
        "Source": volume_name(order.project, volume.name),
        **found,
        "VolumeOptions": {"Labels": volume_labels(order, volume.name)},
    }
