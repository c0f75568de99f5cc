"""Services as containers of Podman, through its Docker-compatible socket."""

from __future__ import annotations

from deploy_code.drivers.engine.driver import ContainerDriver


class PodmanDriver(ContainerDriver):
    """``drivers.base.SlowDriver`` for Podman."""

    name = "podman"
    log_driver = "k8s-file"
    log_options = {"max-size": "10m"}  # noqa: RUF012 - as in the class above
    fixes_mac = True
    tells_starvation = False  # Podman 4.3 does not
