"""Whose memory ran out, noticed by ourselves: some versions of Podman never say so.

Only for version 1 of control groups, where the kernel tells it to whoever asks beforehand.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from deploy_code.drivers.engine.processes import memory_folder
from deploy_code.drivers.group import Folder, Group


class MemoryAlarms:
    """``starved(container)`` is called when the memory of a container that was added has run out."""

    def __init__(self, starved: Callable[[str], None]) -> None:
        self._starved = starved
        self._alarms: dict[str, int] = {}

    def add(self, pid: int, container: str) -> None:
        """``pid``: its first process. What cannot be watched is not."""
        folder = memory_folder(pid, container) if container not in self._alarms else ""
        alarm = Group([Folder(folder, unified=False)]).oom_signal() if folder else None
        if alarm is not None:
            self._alarms[container] = alarm
            asyncio.get_running_loop().add_reader(alarm, self._rang, container, folder)

    def _rang(self, container: str, folder: str) -> None:
        """It rings when memory runs out, and once more when the group is removed."""
        times = 0
        with suppress(BlockingIOError):
            times = os.eventfd_read(self._alarms[container])
        is_there = os.path.exists(f"{folder}/memory.oom_control")
        if times > (0 if is_there else 1):
            self._starved(container)
        if not is_there:
            self.drop(container)

    def drop(self, container: str) -> None:
        if (alarm := self._alarms.pop(container, None)) is not None:
            asyncio.get_running_loop().remove_reader(alarm)
            os.close(alarm)

    def close(self) -> None:
        for container in tuple(self._alarms):
            self.drop(container)
