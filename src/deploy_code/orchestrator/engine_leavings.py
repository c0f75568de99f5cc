"""What a project left on one engine: images that nothing needs, data of containers that are gone, empty networks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_code.drivers.engine.errors import EngineError
from deploy_code.drivers.engine.order import BUILD, STATE
from deploy_code.errors import DeployCodeError
from deploy_code.orchestrator.image_list import Image, is_build_tag, list_images
from deploy_code.orchestrator.leavings import Leaving, Leavings

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient

VOLUME = "com.docker.compose.volume"  # on volumes that have a name in the file
_IN_USE, _GONE = (403, 409), 404
_SHORT = 19  # "sha256:" and twelve digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What must stay. ``images``: None where it is not known, then all do. ``past``: what this project ever used."""

    state: str
    images: frozenset[str] | None
    builds: frozenset[str]
    past: frozenset[str]


async def look(client: EngineClient, needed: Needed) -> Leavings:
    """Raises as ``EngineClient.call``."""
    containers = await client.call("GET", "/containers/json", query={"all": True})
    volumes = await _unused(client, await ours(client, "volumes", needed.state))
    networks = await ours(client, "networks", needed.state)
    items = [
        *_images((await list_images(client)).images, needed, _used_images(containers), client),
        *_volumes(volumes, await _volume_sizes(client) if volumes else {}, client),
        *_networks(networks, _used_networks(containers), client),
    ]
    return Leavings(items=tuple(items))


async def ours(client: EngineClient, kind: str, state: str) -> list[Any]:
    """The ``volumes`` or ``networks`` of a project. The labels are looked at again: what is not ours must not go."""
    found = await client.call("GET", f"/{kind}", query={"filters": {"label": [f"{STATE}={state}"]}})
    listed = (found["Volumes"] or []) if kind == "volumes" else found
    return [each for each in listed if (each.get("Labels") or {}).get(STATE) == state]


async def _unused(client: EngineClient, volumes: list[Any]) -> list[Any]:
    """Those that no container has. Asked for apart: Podman takes several filters for alternatives."""
    if not volumes:
        return []
    found = await client.call("GET", "/volumes", query={"filters": {"dangling": ["true"]}})
    names = {each["Name"] for each in found["Volumes"] or ()}
    return [each for each in volumes if each["Name"] in names]


# --------------------------------------------------------------------------------------------------------------- images


def _images(
    images: Collection[Image], needed: Needed, used: Collection[str], client: EngineClient
) -> Iterator[Leaving]:
    for image in images if needed.images is not None else ():
        built = image.labels.get(BUILD, "") if image.labels.get(STATE) == needed.state else ""
        if image.id in (needed.images or ()) or image.id in used or (built and built in needed.builds and image.tags):
            continue
        if built and all(is_build_tag(tag, built) for tag in image.tags):
            why = "built here, for no revision that is kept"
        elif image.id in needed.past and not image.tags:
            why = "no tag names it, and no revision that is kept"
        else:
            continue
        yield Leaving(
            kind="image",
            key=image.id,
            name=image.names[0] if image.names else image.id[:_SHORT],
            why=why,
            size=image.size,
            engine=client.endpoint,
            tags=image.names,
        )


def _used_images(containers: Collection[Any]) -> set[str]:
    ids = {str(each.get("ImageID") or "") for each in containers}
    return {key if key.startswith("sha256:") else f"sha256:{key}" for key in ids}


async def _remove_image(client: EngineClient, item: Leaving) -> None:
    """By its names: one that it gets meanwhile keeps it."""
    for name in item.tags or (item.key,):
        try:
            await client.call("DELETE", f"/images/{name}", timeout=300.0)
        except EngineError as error:
            if error.status != _GONE:
                raise


# ------------------------------------------------------------------------------------------------- volumes and networks


def _volumes(volumes: Collection[Any], sizes: dict[str, int], client: EngineClient) -> Iterator[Leaving]:
    for each in volumes:
        if VOLUME not in (each.get("Labels") or {}):
            name = str(each["Name"])
            yield Leaving(
                kind="volume",
                key=name,
                name=name[:_SHORT],
                why="without a name, and its container is gone",
                size=sizes.get(name, 0),
                engine=client.endpoint,
            )


async def _volume_sizes(client: EngineClient) -> dict[str, int]:
    """By name; the engine has to look at every file for it, so it is asked only where there is something to show."""
    with suppress(EngineError):
        found = (await client.call("GET", "/system/df", timeout=300.0)).get("Volumes") or []
        return {each["Name"]: max(0, int((each.get("UsageData") or {}).get("Size") or 0)) for each in found}
    return {}


def _networks(networks: Collection[Any], used: Collection[str], client: EngineClient) -> Iterator[Leaving]:
    for each in networks:
        if each["Name"] not in used:
            name = str(each["Name"])
            yield Leaving(kind="network", key=name, name=name, why="nobody is on it", engine=client.endpoint)


def _used_networks(containers: Collection[Any]) -> set[str]:
    return {name for each in containers for name in ((each.get("NetworkSettings") or {}).get("Networks") or {})}


# ------------------------------------------------------------------------------------------------------------- removing


async def remove(client: EngineClient, item: Leaving) -> str:
    """Remove it; "" or why it stays. What is gone already is as good."""
    try:
        if item.kind == "image":
            await _remove_image(client, item)
        else:
            await client.call("DELETE", f"/{item.kind}s/{item.key}")
    except EngineError as error:
        if error.status == _GONE:
            return ""
        used = " (somebody uses it again)" if error.status in _IN_USE else ""
        return f"{item.kind} {item.name} stays{used}: {error.message}"
    except DeployCodeError as error:
        return f"{item.kind} {item.name} stays: {error.message}"
    return ""
