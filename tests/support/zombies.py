"""Children of a process, and those that are dead and that nobody has asked for. Compare with before: of this very
process other tests may have left some."""

from __future__ import annotations

import os
from pathlib import Path


def zombies(parent: int = 0) -> set[int]:
    """Pids of dead children; 0: of this process."""
    return {pid for pid, is_dead in _children(parent or os.getpid()).items() if is_dead}


def children(parent: int = 0) -> set[int]:
    """Pids of all children, dead or alive; 0: of this process."""
    return set(_children(parent or os.getpid()))


def _children(parent: int) -> dict[int, bool]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, father = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has gone meanwhile
                continue
            if int(father) == parent:
                found[int(entry.name)] = state == "Z"
    return found
