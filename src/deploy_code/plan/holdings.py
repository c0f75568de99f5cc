"""What only one revision of one service may hold at a time: ports of this machine, and places to write to."""

from __future__ import annotations

from collections.abc import Iterator

from deploy_code.model import Content


def ports_held(content: Content) -> Iterator[str]:
    """``port 80/tcp``: numbers of this machine that are fixed. Those inside a network of containers meet nobody's."""
    for port in content.ports:
        inside = None if port.dynamic or content.has_own_network else port.container_port
        if number := port.host_port or inside:
            yield f"port {number}/{port.protocol}"


def places_held(content: Content) -> Iterator[str]:
    """``directory /data``, ``volume data``: what is written to, unless it is marked as shared."""
    for volume in content.volumes:
        if volume.read_only or volume.shared or volume.tmpfs:
            continue
        if content.is_container and not volume.source:
            yield f"volume {volume.name}"
        else:
            yield f"directory {volume.source or volume.mount_path}"
