"""Container drivers against real engines, with orders for busybox. A test that leaves a container behind is told."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

from deploy_code.drivers.base import Running
from deploy_code.drivers.docker import DockerDriver
from deploy_code.drivers.engine.driver import ContainerDriver
from deploy_code.drivers.engine.order import ContainerOrder
from deploy_code.drivers.podman import PodmanDriver
from deploy_code.model import Container, Network
from deploy_code.reliability.registry import Breakers
from deploy_code.testing.contracts import DriverStage
from support.engine_daemons import Engine
from support.engines import left_in_engines
from support.loops import until

IMAGE = "dc-test/busybox:1"
PROGRAMS = {
    "sleep": "trap 'exit 0' TERM; echo up; sleep 1000 & wait",
    "deaf": "trap '' TERM; echo up; while :; do sleep 1; done",
}

Mode = Literal["Bridge", "Host"]

_indexes = itertools.count()


def new_driver(engine: Engine, folder: Path, told: Callable[[str], None] = lambda text: None) -> ContainerDriver:
    """A driver as a new agent has it, which has been told of the engine."""
    kind = DockerDriver if engine.kind == "docker" else PodmanDriver
    driver = kind(str(folder / "state"), Breakers(), told=told)
    driver.know(url_of(engine))
    return driver


def url_of(engine: Engine) -> str:
    return f"unix://{engine.socket}"


def project_of(folder: Path) -> str:
    """A name that no other test has."""
    return f"drv-{uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).hex[:10]}"


def container_order(engine: Engine, folder: Path, command: str = "", /, *args: str, **changes: Any) -> ContainerOrder:
    """An order of ``folder``'s project. ``container``: changes to the ``Container`` in it; ``image``: its name."""
    name, image = uuid.uuid4().hex, changes.pop("image", IMAGE)
    container: dict[str, Any] = {
        "runtime": engine.kind,
        "engine": url_of(engine),
        "image_id": "" if image.startswith("no-such") else engine.api("GET", f"/images/{image}/json")["Id"],
        "network": Network(name=project_of(folder)),
        **changes.pop("container", {}),
    }
    values: dict[str, Any] = {
        "uuid": name,
        "service": "api",
        "command": command,
        "args": args,
        "env": {"DEPLOY_CODE_INSTANCE": name},
        "working_dir": "",
        "log_path": str(folder / "api.0.log"),
        "project": project_of(folder),
        "state": str(folder / "state"),
        "revision": 1,
        "index": next(_indexes),
        "run_hash": "0" * 64,
        "image": image,
        "container": Container(**container),
        "patience": 10.0,
    }
    return ContainerOrder(**{**values, **changes})


class Dock(DriverStage):
    """A driver for one engine, and what it has started."""

    def __init__(self, engine: Engine, folder: Path, mode: Mode = "Bridge") -> None:
        self.engine = engine
        self.network = Network(name=project_of(folder), mode=mode)
        self.told: list[str] = []
        self._orders: dict[str, ContainerOrder] = {}
        super().__init__(folder, lambda: new_driver(engine, folder, self.told.append))

    @property
    def containers(self) -> ContainerDriver:
        assert isinstance(self.driver, ContainerDriver)
        return self.driver

    def order(self, script: str, **changes: Any) -> ContainerOrder:
        """A shell script in busybox."""
        changes["container"] = {"network": self.network, **changes.get("container", {})}
        return container_order(self.engine, self.folder, "sh", "-c", PROGRAMS.get(script, script), **changes)

    async def run(self, script: str | ContainerOrder, **changes: Any) -> Running:
        """Start it; ``sleep`` and ``deaf`` are past their beginning when this returns."""
        order = script if isinstance(script, ContainerOrder) else self.order(script, **changes)
        running = await self.start(order)
        self._orders[order.uuid] = order
        if isinstance(script, str) and script in PROGRAMS:
            await until(lambda: "up" in Path(order.log_path).read_text(), what="its first word")
        return running

    def started_order(self, running: Running) -> ContainerOrder:
        return self._orders[running.uuid]

    def inspect(self, running: Running) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.api("GET", f"/containers/{running.handler['container']}/json")
        return found

    def ours(self, kind: str) -> list[str]:
        """Names of what this project has in the engine: ``container``, ``network`` or ``volume``."""
        return [left.name for left in left_in_engines(self.folder) if left.kind == kind]


@asynccontextmanager
async def dock(engine: Engine, folder: Path, mode: Mode = "Bridge") -> AsyncIterator[Dock]:
    """``mode``: of the network; without one of its own a container starts three times as fast."""
    with cleared(folder):
        made = Dock(engine, folder, mode)
        try:
            yield made
        finally:
            await made.close()


@contextmanager
def cleared(folder: Path) -> Iterator[None]:
    """Afterwards no container of the project may be left; its networks and volumes are removed."""
    try:
        yield
    finally:
        left = left_in_engines(folder)
        for each in left:
            each.remove()
    assert not [str(each) for each in left if each.kind == "container"]
