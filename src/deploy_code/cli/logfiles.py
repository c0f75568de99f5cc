"""Which logs a command is about, and how their lines are marked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from deploy_code.errors import ServiceError


class LogFile(NamedTuple):
    """The log of one instance; it goes on over restarts and revisions."""

    service: str
    number: int
    path: str


def find_logs(folder: str) -> list[LogFile]:
    """All logs in ``folder``, by service and index; none when there is no such folder."""
    from deploy_code.logs.files import all_logs

    return [_log_file(source.path) for source in all_logs(folder)]


def _log_file(path: str) -> LogFile:
    service, _, number = os.path.basename(path).removesuffix(".log").rpartition(".")
    return LogFile(service, int(number), path)


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
    """Path → how its lines are marked: the service, with the number of the instance only where there are several."""
    files = list(files)
    instances = Counter(file.service for file in files)
    return {
        file.path: f"{file.service}.{file.number}" if instances[file.service] > 1 else file.service for file in files
    }
