"""Services as containers of Docker."""

from __future__ import annotations

from deploy_code.drivers.engine.driver import ContainerDriver


class DockerDriver(ContainerDriver):
    """``drivers.base.SlowDriver`` for Docker."""

    name = "docker"
    log_driver = "json-file"
    log_options = {"max-size": "10m", "max-file": "2"}  # noqa: RUF012 - two: a reader is never behind by a whole file
