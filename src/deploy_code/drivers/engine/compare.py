"""How a container that runs differs from what it was ordered to be. Pure; no value of an environment is ever told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy_code.drivers.engine.body import environment, exposed, network_name, port_bindings
from deploy_code.drivers.engine.order import ContainerOrder, volume_name

Inspected = Mapping[str, Any]


def differences(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> tuple[str, ...]:
    """In words, one for each thing that differs, led by what it is about where there is a word for that
    (``"limits: its memory limit is …"``). ``body``: what the order is created with.

    ``found``: the answer of ``GET /containers/ID/json``.
    """
    texts = [*_state(found, order, body), *_rights(found, order, body)]
    for kind, compares in _COMPARED.items():
        texts += [f"{kind}: {text}" for compare in compares for text in compare(found, order, body)]
    return tuple(texts)


def _state(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    status = found["State"]["Status"]
    return [] if status == "running" else [f"it is {status}"]


def _image(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    wanted, runs = order.container.image_id, found.get("Image", "")
    if not wanted or _bare(wanted) == _bare(runs):
        return []
    return [f"it runs image {_bare(runs)[:12]} and not {_bare(wanted)[:12]}"]


def _bare(image: str) -> str:
    return image.removeprefix("sha256:")


def _program(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    config = found["Config"]
    texts = []
    if "Entrypoint" in body and list(config.get("Entrypoint") or ()) != body["Entrypoint"]:
        texts.append("its command is another one")
    if body.get("Cmd") and list(config.get("Cmd") or ()) != body["Cmd"]:
        texts.append("its arguments are others")
    return texts + _other(found, body, "WorkingDir", "working directory")


def _user(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    return _other(found, body, "User", "user")


def _other(found: Inspected, body: Mapping[str, Any], key: str, name: str) -> list[str]:
    has = found["Config"].get(key)
    if key not in body or has == body[key]:
        return []
    return [f"its {name} is {has or 'the default'} and not {body[key]}"]


def _environment(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    pairs = (each.partition("=") for each in found["Config"].get("Env") or ())
    has = {name: value for name, _, value in pairs}
    wanted = environment(order)
    missing = sorted(name for name in wanted if name not in has)
    changed = sorted(name for name in wanted if name in has and has[name] != wanted[name])
    texts = [f"its environment lacks {', '.join(missing)}"] if missing else []
    return texts + ([f"its environment has another {', '.join(changed)}"] if changed else [])


_LIMITS = (  # key, name, its unit in those of the API, and what the unit is called
    ("Memory", "memory limit", 1024**2, " MB"),
    ("NanoCpus", "CPU limit", 10**9, " cores"),
    ("PidsLimit", "limit of processes", 1, ""),
)


def _limits(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    host, texts = found["HostConfig"], []
    for key, name, unit, called in _LIMITS:
        wanted, has = body["HostConfig"].get(key, 0), max(host.get(key) or 0, 0)
        if key == "NanoCpus":
            has = has or _cpus_of_quota(host)
        if wanted != has and not (key == "PidsLimit" and not wanted):  # engines have a default of their own
            said = [f"{value / unit:g}{called}" if value else "none" for value in (has, wanted)]
            texts.append(f"its {name} is {said[0]} and not {said[1]}")
    return texts


def _cpus_of_quota(host: Inspected) -> int:
    """`docker update --cpu-quota` and older engines say it in this way."""
    quota, period = host.get("CpuQuota") or 0, host.get("CpuPeriod") or 100_000
    return round(quota / period * 1e9) if quota > 0 else 0


def _rights(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    host, texts = found["HostConfig"], []
    for key, name in (("Privileged", "privileged"), ("ReadonlyRootfs", "read-only")):
        if bool(host.get(key)) != bool(body["HostConfig"].get(key)):
            texts.append(f"it is {'' if host.get(key) else 'not '}{name}")
    return texts


def _ports(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    bound = found["HostConfig"].get("PortBindings") or {}
    texts = []
    for inner, wanted in port_bindings(order).items():
        numbers = {each.get("HostPort", "") for each in bound.get(inner) or ()}
        missing = [each["HostPort"] for each in wanted if each["HostPort"] and each["HostPort"] not in numbers]
        texts += [f"port {number} does not lead to its {inner}" for number in missing]
    known = set(exposed(order.ports))
    extra = sorted(inner for inner in bound if bound[inner] and inner not in known)
    return texts + [f"its port {inner} is published" for inner in extra]


def _network(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    on = set((found.get("NetworkSettings") or {}).get("Networks") or {})
    if order.container.shares_host:
        return []
    name = network_name(order)
    texts = [] if name in on else [f"it is not on the network {name}"]
    return texts + [f"it is also on the network {other}" for other in sorted(on - {name})]


def _mounts(found: Inspected, order: ContainerOrder, body: Mapping[str, Any]) -> list[str]:
    there = {each["Destination"].rstrip("/"): each for each in found.get("Mounts") or ()}
    texts = []
    for volume in order.volumes:
        if volume.tmpfs:
            continue  # Podman does not list them
        has = there.get(volume.mount_path.rstrip("/"))
        source = volume.source or volume_name(order.project, volume.name)
        if has is None or source.rstrip("/") not in (has.get("Name"), str(has.get("Source", "")).rstrip("/")):
            texts.append(f"{volume.mount_path} is not {source}")
        elif bool(has.get("RW", True)) == volume.read_only:
            texts.append(f"{volume.mount_path} is {'writable' if volume.read_only else 'read-only'}")
    return texts


_COMPARED = {
    "image": (_image,),
    "command": (_program,),
    "user": (_user,),
    "env": (_environment,),
    "limits": (_limits,),
    "network": (_ports, _network),
    "mounts": (_mounts,),
}
