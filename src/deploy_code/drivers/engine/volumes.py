"""The volumes of containers: made and labelled before the container, so that they can be told from others' later.

They are made with calls of their own, because Podman drops the labels that a container brings for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from deploy_code.drivers.engine.body import volume_labels
from deploy_code.drivers.engine.client import EngineClient, EngineError
from deploy_code.drivers.engine.order import PROJECT, ContainerOrder, volume_name
from deploy_code.errors import DriverError

_COMPOSE_PROJECT = "com.docker.compose.project"


async def ensure_named(client: EngineClient, order: ContainerOrder) -> None:
    """Have the order's named volumes there; what is in them stays. Raises DriverError S005 for a stranger's."""
    for volume in order.volumes:
        if volume.source or volume.tmpfs:
            continue
        name = volume_name(order.project, volume.name)
        found = await client.call(
            "POST", "/volumes/create", body={"Name": name, "Labels": volume_labels(order, volume.name)}
        )
        if not _is_ours(found.get("Labels") or {}, order.project):
            raise DriverError(
                f"the volume {name} is there already, and it is not this project's",
                code="S005",
                meaning="deploy-code writes to no data that it did not make room for",
                remedy=f'Give the volume "{volume.name}" another name, or remove that one if nobody needs it',
            )


def _is_ours(labels: Mapping[str, str], project: str) -> bool:
    """Also what Compose made for a project of this name: that is how one moves here with all data."""
    return project in (labels.get(PROJECT), labels.get(_COMPOSE_PROJECT))


async def make_anonymous(client: EngineClient, order: ContainerOrder, paths: Collection[str]) -> dict[str, str]:
    """A new volume for each of ``paths`` that the image wants kept and the order says nothing about: path → name."""
    covered = {volume.mount_path.rstrip("/") for volume in order.volumes}
    made = {}
    for path in sorted(paths):
        if path.rstrip("/") not in covered:
            found = await client.call("POST", "/volumes/create", body={"Labels": volume_labels(order)})
            made[path] = found["Name"]
    return made


async def discard(client: EngineClient, names: Collection[str]) -> None:
    """Remove volumes that nothing was written to yet."""
    for name in names:
        with suppress(EngineError):
            await client.call("DELETE", f"/volumes/{name}")
