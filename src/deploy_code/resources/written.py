"""How much of the disk that was promised is filled already, and whose promises are of which disk.

Free disk shrinks as services write what they were promised. Without this their data would count twice: once as promised
and once as no longer free. Only folders that a service names as its volumes are looked at, on the disk of ``data_dir``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from deploy_code.resources.ledger import Promise

MOST_ENTRIES = 200_000  # files looked at in all; what is not counted counts as not written, which errs on the safe side


class Written:
    """How full folders are. ``measure`` may take seconds, so it is for when the ledger is not locked."""

    def __init__(self, data_dir: str) -> None:
        self._data_dir = data_dir
        self._sizes: dict[str, int] = {}

    def measure(self, promises: Iterable[Promise]) -> int:
        """Look at the folders of ``promises``, then ``gb`` of them."""
        promises = list(promises)
        device, budget = device_of(self._data_dir), MOST_ENTRIES
        for folder in dict.fromkeys(each for promise in _of_disk(promises) for each in promise.folders):
            self._sizes[folder], seen = _size(folder, device, budget)
            budget -= seen
        return self.gb(promises)

    def gb(self, promises: Iterable[Promise]) -> int:
        """Whole GB that ``promises`` have filled, each at most what it was promised, as far as it was measured.

        What lies in a folder of several counts once.
        """
        left, found = dict(self._sizes), 0
        for promise in _of_disk(promises):
            room = promise.resources.storage_gb << 30
            for folder in promise.folders:
                used = min(room, left.get(folder, 0))
                room, found = room - used, found + used
                left[folder] = left.get(folder, 0) - used
        return found >> 30


def written_gb(promises: Iterable[Promise], data_dir: str) -> int:
    """Whole GB that the holders of ``promises`` have filled; looks at the disk."""
    return Written(data_dir).measure(promises)


def here(promises: Iterable[Promise], data_dir: str) -> list[Promise]:
    """The same, without storage that is of another disk than ``data_dir``."""
    device = device_of(data_dir)
    return [each if _is_on(each, device) else _without_storage(each) for each in promises]


def device_of(path: str) -> int:
    """Of the disk where ``path`` lies or will lie."""
    while not os.path.exists(path):
        path = os.path.dirname(os.path.abspath(path))
    return os.stat(path).st_dev


def _of_disk(promises: Iterable[Promise]) -> list[Promise]:
    return [each for each in promises if each.resources.storage_gb]


def _is_on(promise: Promise, device: int) -> bool:
    return not promise.resources.storage_gb or not promise.disk or device_of(promise.disk) == device


def _without_storage(promise: Promise) -> Promise:
    return replace(promise, resources=replace(promise.resources, storage_gb=0))


def _size(folder: str, device: int, budget: int) -> tuple[int, int]:
    """(bytes on ``device`` under ``folder``, files looked at); what cannot be read counts nothing."""
    size, seen, todo = 0, 0, [folder]
    while todo and seen < budget:
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                seen += 1
                status = entry.stat(follow_symlinks=False)
                if status.st_dev != device:
                    continue
                size += status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return size, seen
