"""What an agent must be to look after processes that lose their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable

_PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 1.0  # seconds a zombie is left to whoever may be about to wait for it


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


class StrangerReaper:
    """Reaps zombies that were handed to us by ``become_subreaper`` and that nobody else here waits for.

    A child that another part of this process started is told from a stranger by patience: somebody waits
    for it, so it does not stay a zombie for ``PATIENCE`` seconds.
    """

    def __init__(self, is_watched: Callable[[int], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._is_watched = is_watched
        self._clock = clock
        self._suspect = (0, 0.0)  # pid and when it was first seen

    def reap(self) -> int:
        """Reap what has waited long enough; how many that were. One system call when there is nothing."""
        count = 0
        while (pid := _first_zombie()) and self._is_due(pid):
            os.waitpid(pid, os.WNOHANG)
            count += 1
        return count

    def _is_due(self, pid: int) -> bool:
        if self._is_watched(pid):
            return False
        if self._suspect[0] != pid:
            self._suspect = (pid, self._clock())
        return self._clock() - self._suspect[1] >= PATIENCE


def _first_zombie() -> int:
    """pid of a child that has ended, left as it is; 0 when there is none."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return info.si_pid if info is not None else 0
