"""Reaps what nobody waits for: orphans of services that the kernel handed to us (we are a subreaper) and that ended.

Whoever started a process here waits for it by its pidfd and reaps it at once; so a zombie of ours that is there at two
looks, a second apart, is a stranger.
"""

from __future__ import annotations

import os

from deploy_code.drivers.proctree import Ident, Table


class Orphans:
    """``reap`` is to be called about once a second."""

    def __init__(self) -> None:
        self._seen: frozenset[Ident] = frozenset()

    def reap(self) -> int:
        """Reap the zombies that were there last time too; how many. One system call when there is none."""
        zombies = _zombies() if _is_any() else frozenset()
        strangers = zombies & self._seen
        for ident in strangers:
            os.waitpid(ident.pid, os.WNOHANG)
        self._seen = zombies - strangers
        return len(strangers)


def _is_any() -> bool:
    """Has any child ended? It is left as it is."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _zombies() -> frozenset[Ident]:
    own = os.getpid()
    procs = Table.scan().procs.values()
    return frozenset(proc.ident for proc in procs if proc.ppid == own and not proc.alive)
