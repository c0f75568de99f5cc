"""Which numbers the instances of one project hold, and which addresses they leave to those that come in their place."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from deploy_code.model import Instance

from .ports import PortBook
from .published import Numbers, assign_numbers
from .share import Share
from .wanted import Entry


class Addresses:
    """Of all instances of ``project``. ``binds``: is this a number that services bind by themselves?

    ``share``: what the project has of the machine for itself; without one every port that can be bound is its own.
    """

    def __init__(self, project: str, binds: Callable[[int], bool], share: Share | None) -> None:
        self._share = share
        self._book = PortBook(seed=zlib.crc32(project.encode()))
        self._book.is_fixed = binds
        if share is not None:
            self._book.lease = share.lease
        self._left: dict[tuple[str, int], str] = {}  # of removed containers

    def use(self, port_range: tuple[int, int]) -> None:
        """Choose from ``port_range`` (both ends included) from now on."""
        self._book.use(port_range)

    def hold(self, instance: Instance) -> None:
        """It has its ports already."""
        self._book.hold(instance.uuid, instance.held_ports)

    def assign(self, entry: Entry, instance: Instance, *, anew: bool) -> Numbers:
        """The ports for a start of ``instance``: those it had, unless ``anew``. Raises DriverError S004."""
        wanted = entry.wanted
        kept = Numbers({}, {}) if anew else Numbers(dict(instance.ports), dict(instance.published))
        return assign_numbers(instance.uuid, wanted.content, wanted.policy, self._book, kept=kept)

    def left_for(self, entry: Entry, index: int) -> str:
        """The address that the last instance of this index had, once; empty where there was none."""
        if not entry.wanted.content.has_own_network:
            return ""
        return self._left.pop((entry.wanted.service, index), "")

    def gone(self, instance: Instance) -> None:
        """Its ports are free, and its address is left."""
        if instance.address:
            self._left[instance.service, instance.index] = instance.address
        self._book.release(instance.uuid)

    def give_back(self) -> None:
        """Nothing is kept, so other projects may have the ports that were ours."""
        if self._share is not None:
            self._share.give_back_ports()
        self._book.give_back()
