"""Which driver keeps an instance: it follows from the type of its service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deploy_code.drivers.base import Driver, Running
from deploy_code.drivers.custom import CustomDriver
from deploy_code.model import Content, Instance


class Drivers:
    """One driver for each built-in type, and one for all that somebody else wrote."""

    def __init__(self, built_in: Mapping[str, Driver], custom: CustomDriver) -> None:
        self.custom = custom
        self._built_in = dict(built_in)

    def of(self, content: Content) -> Driver:
        return self._built_in.get(content.service_type, self.custom)

    def is_custom(self, content: Content) -> bool:
        return content.service_type not in self._built_in

    async def find_spawned(self, instances: Iterable[tuple[Instance, Content]]) -> dict[str, Running]:
        """Those that were spawned although nobody could record it, by uuid."""
        found: dict[str, Running] = {}
        uuids: dict[Driver, list[str]] = {}
        for instance, content in instances:
            uuids.setdefault(self.of(content), []).append(instance.uuid)
        for driver, wanted in uuids.items():
            found |= await driver.find_spawned(wanted)
        return found

    def close(self) -> None:
        """Forget everything that is watched; nothing is stopped."""
        for driver in {*self._built_in.values(), self.custom}:
            driver.close()
