"""The limit of open files that everything starts with which the agent starts."""

from __future__ import annotations

import resource


def limit_open_files(pid: int, soft: int) -> None:
    """Give a process the usual soft limit; it inherited ours, and programs that use select() break beyond 1024."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        limit = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    except (ProcessLookupError, PermissionError):
        return  # it has ended, or runs as somebody we may not touch: a higher limit harms hardly anyone
