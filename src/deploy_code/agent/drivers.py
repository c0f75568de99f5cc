"""Which driver keeps an instance: it follows from the type of its service.

Those of container runtimes are made when the first container is wanted; most projects pay nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from deploy_code.drivers.base import Driver, Running
from deploy_code.drivers.custom import CustomDriver
from deploy_code.errors import DeployCodeError, DriverError
from deploy_code.model import OWN_TYPES, Container, Content, Instance
from deploy_code.reliability.registry import Breakers

if TYPE_CHECKING:
    from deploy_code.drivers.engine.driver import ContainerDriver


class Drivers:
    """One driver for processes, one for each container runtime, and one for all that somebody else wrote."""

    def __init__(self, process: Driver, custom: CustomDriver, containers: Containers) -> None:
        self.custom = custom
        self.containers = containers
        self._process = process

    def of(self, content: Content) -> Driver:
        """Raises DriverError E014 for a runtime that nobody drives."""
        if content.is_container:
            return self.containers.of(content.container)
        return self.custom if self.is_custom(content) else self._process

    def is_custom(self, content: Content) -> bool:
        return content.service_type not in OWN_TYPES

    async def find_spawned(self, instances: Iterable[tuple[Instance, Content]]) -> dict[str, Running]:
        """Those that were spawned although nobody could record it, by uuid."""
        found: dict[str, Running] = {}
        uuids: dict[Driver, list[str]] = {}
        for instance, content in instances:
            uuids.setdefault(self.of(content), []).append(instance.uuid)
        for driver, wanted in uuids.items():
            with suppress(DriverError):  # a runtime that is away: it is asked again when they are started
                found |= await driver.find_spawned(wanted)
        return found

    def __iter__(self) -> Iterator[Driver]:
        """All that there are."""
        yield from (self._process, self.custom, *self.containers)

    def close(self) -> None:
        """Forget everything that is watched; nothing is stopped."""
        for driver in self:
            driver.close()


class Containers:
    """The drivers of the runtimes that are in use. ``told`` hears of what concerns a runtime as a whole.

    ``on_return`` is called when an engine was reached, for the first time or again, and what runs there is known.
    """

    def __init__(self, state: str, breakers: Breakers, told: Callable[[str], None]) -> None:
        self._state = state
        self._breakers = breakers
        self._told = told
        self.on_return: Callable[[], None] = lambda: None
        self._made: dict[str, ContainerDriver] = {}

    def of(self, container: Container) -> ContainerDriver:
        """The driver of its runtime, which knows its engine from then on. Raises DriverError E014."""
        driver = self._made.get(container.runtime)
        if driver is None:
            driver = self._made[container.runtime] = self._make(container.runtime)
        driver.know(container.engine, container.engine_tls)
        return driver

    async def tidy(self) -> None:
        """Nothing is kept any more: what only containers needed goes. A runtime that is away keeps it."""
        for driver in self:
            with suppress(DeployCodeError):
                await driver.tidy()

    def _make(self, runtime: str) -> ContainerDriver:
        if runtime == "docker":
            from deploy_code.drivers.docker import DockerDriver

            return DockerDriver(self._state, self._breakers, told=self._told, returned=self._returned)
        if runtime == "podman":
            from deploy_code.drivers.podman import PodmanDriver

            return PodmanDriver(self._state, self._breakers, told=self._told, returned=self._returned)
        raise DriverError(
            f'containers of the runtime "{runtime}" cannot be run here',
            code="E014",
            remedy="Set infrastructure.container_runtime to Docker or Podman",
        )

    def _returned(self) -> None:
        self.on_return()

    def __iter__(self) -> Iterator[ContainerDriver]:
        return iter(tuple(self._made.values()))
