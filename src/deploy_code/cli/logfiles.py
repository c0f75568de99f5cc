"""Which log files there are, and whose: ``SERVICE-rREVISION-INDEX.log`` in the folder of the project's logs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from deploy_code.errors import ServiceError

_NAME = re.compile(r"(?P<service>.+)-r(?P<revision>\d+)-(?P<index>\d+)\.log")


class LogFile(NamedTuple):
    """One log. ``written_at``: when it was last written to, seconds since the epoch."""

    service: str
    revision: int
    index: int
    path: str
    written_at: float


def find_logs(folder: str) -> list[LogFile]:
    """All logs in ``folder``, ordered by service, revision and index; none when there is no such folder."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    matches = ((_NAME.fullmatch(entry.name), entry) for entry in entries)
    return sorted(
        LogFile(match["service"], int(match["revision"]), int(match["index"]), entry.path, entry.stat().st_mtime)
        for match, entry in matches
        if match
    )


def pick(files: Iterable[LogFile], names: Sequence[str], wanted: Collection[str]) -> list[LogFile]:
    """Those of ``names``; without names, of what is wanted now, or of everything when nothing is.

    Raises ServiceError S001 for a name that is neither wanted nor has a log.
    """
    files = list(files)
    known = {file.service for file in files} | set(wanted)
    for name in names:
        if name not in known:
            raise ServiceError(
                f"there is no service {name}",
                meaning=f"There are {', '.join(sorted(known))}" if known else "Nothing was deployed yet",
            )
    chosen = set(names) or set(wanted) or known
    return [file for file in files if file.service in chosen]


def labels(files: Iterable[LogFile]) -> dict[str, LogFile]:
    """A label for each log: the service, with instance and revision only where several would look alike."""
    files = list(files)
    indexes = Counter(service for service, _ in {(file.service, file.index) for file in files})
    revisions = Counter((service, index) for service, index, _ in {(f.service, f.index, f.revision) for f in files})
    result = {}
    for file in files:
        instance = f"#{file.index}" if indexes[file.service] > 1 else ""
        revision = f" r{file.revision}" if revisions[file.service, file.index] > 1 else ""
        result[f"{file.service}{revision}{instance if not revision or not instance else ' ' + instance}"] = file
    return result
