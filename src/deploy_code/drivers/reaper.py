"""What an agent must be to look after processes that lose their parent."""

from __future__ import annotations

import ctypes
import os
import signal

from deploy_code.drivers.proctree import Ident, Table

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Have orphaned descendants handed to this process instead of to init.

    Raises OSError where the kernel refuses; then orphans are still found by session and uuid.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def ignore_no_signals() -> None:
    """Set ignored signals (``nohup``, ``cmd &``) back to their default: children would inherit them ignored.

    A signal that must not end this process needs a handler, not SIG_IGN. SIGPIPE and SIGXFSZ, which Python
    itself ignores, are reset at each spawn instead.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class Orphans:
    """Reaps what nobody waits for: processes that the kernel handed to us (``become_subreaper``) and that ended.

    Whoever started a process here waits for it by its pidfd and reaps it at once; so a zombie of ours that is there at
    two looks, a second apart, is a stranger.
    """

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
