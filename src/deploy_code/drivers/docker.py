"""Services as containers of Docker."""

from __future__ import annotations

from deploy_code.drivers.engine.driver import ContainerDriver


class DockerDriver(ContainerDriver):
    """``drivers.base.SlowDriver`` for Docker."""

    name = "docker"
