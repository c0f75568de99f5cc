"""How much of the disk that was promised is filled already.

Free disk shrinks as services write what they were promised. Without this their data would count twice: once as promised
and once as no longer free. Only folders that a service names as its volumes are looked at, on the disk of ``data_dir``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from deploy_code.resources.ledger import Promise

MOST_ENTRIES = 200_000  # files looked at in all; what is not counted counts as not written, which errs on the safe side


def written_gb(promises: Iterable[Promise], data_dir: str) -> int:
    """Whole GB that the holders of ``promises`` have filled, each at most what it was promised."""
    device, budget, found = _device_of(data_dir), MOST_ENTRIES, 0
    for promise in promises:
        if not promise.resources.storage_gb:
            continue
        used = 0
        for folder in promise.folders:
            size, seen = _size(folder, device, budget)
            used, budget = used + size, budget - seen
        found += min(used >> 30, promise.resources.storage_gb)
    return found


def _device_of(path: str) -> int:
    while not os.path.exists(path):
        path = os.path.dirname(os.path.abspath(path))
    return os.stat(path).st_dev


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
