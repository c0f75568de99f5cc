"""Services as containers of Podman, through its Docker-compatible socket."""

from __future__ import annotations

from deploy_code.drivers.engine.driver import ContainerDriver


class PodmanDriver(ContainerDriver):
    """``drivers.base.SlowDriver`` for Podman."""

    name = "podman"
