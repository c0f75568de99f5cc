"""Which log is whose: ``<log_dir>/<project>/<service>.<index>.log``, one for each replica, kept over restarts."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

from deploy_code.logs.read import Source

_NAME = re.compile(r"(?P<service>.+)\.(?P<index>\d+)\.log")


def log_path(folder: str, service: str, index: int) -> str:
    """Where this instance writes."""
    return os.path.join(folder, f"{service}.{index}.log")


def service_logs(folder: str, service: str) -> list[Source]:
    """The logs of all replicas of one service, by index; empty when it never ran."""
    return all_logs(folder, [service])


def all_logs(folder: str, services: Iterable[str] | None = None) -> list[Source]:
    """Logs of these services (default: all that ever ran here), labelled ``api``, or ``api.0`` among several."""
    wanted = None if services is None else set(services)
    found = sorted(
        (match["service"], int(match["index"]), match[0])
        for match in map(_NAME.fullmatch, _names(folder))
        if match and (wanted is None or match["service"] in wanted)
    )
    replicas = Counter(service for service, _, _ in found)
    return [
        Source(f"{service}.{index}" if replicas[service] > 1 else service, os.path.join(folder, name))
        for service, index, name in found
    ]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
