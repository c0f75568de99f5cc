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
    number: int
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


def labels(files: Iterable[LogFile]) -> dict[str, str]:
    """Path → how its lines are marked: the service, with revision and instance only where it has several."""
    files = list(files)
    revisions = Counter(service for service, _ in {(file.service, file.revision) for file in files})
    indexes = Counter(service for service, _ in {(file.service, file.number) for file in files})
    return {
        file.path: file.service
        + (f" r{file.revision}" if revisions[file.service] > 1 else "")
        + (f" #{file.number}" if indexes[file.service] > 1 else "")
        for file in files
    }


def newest(files: Iterable[LogFile]) -> list[LogFile]:
    """Of the logs of one instance over its revisions, the one written to last: the one that still grows."""
    last: dict[tuple[str, int], LogFile] = {}
    for file in files:
        known = last.get((file.service, file.number))
        if known is None or file.written_at >= known.written_at:
            last[file.service, file.number] = file
    return list(last.values())
