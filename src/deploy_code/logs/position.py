"""Where the bytes of one log lie: in its live file, its archives, or, for a moment, in both.

A service appends to NAME.log and never knows that the head of that file is moved away. So that no byte is
lost or shown twice, neither to a reader that looks in the middle of a move nor after a crash in the middle
of one, each log has a *logical offset*: bytes ever written, moved ones included. NAME.log.pos says which of
them the live file begins with; a log without that file was never moved. It is replaced as a whole, never
edited.

A move is written down in two steps, because after a collapse nothing in the live file shows that it happened:

``archiving``
    The head is being named NAME.log.1 (it waits as NAME.log.new until then); the live file still holds it,
    or a hole.
``collapsing``
    The head of the live file is certainly a hole; once there is data instead, the collapse has happened.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from deploy_code.errors import StateError

ARCHIVING = "archiving"
COLLAPSING = "collapsing"


class Position(NamedTuple):
    """What NAME.log.pos holds."""

    base: int = 0  # logical offset of the first byte of the live file, hole included
    head: int = 0  # so many bytes at its beginning are a hole (file systems that cannot collapse)
    moving_to: int = 0  # while a move is under way: the byte of the live file it ends before
    step: str = ""  # ARCHIVING, COLLAPSING, or empty


def position_path(log: str) -> str:
    return f"{log}.pos"


def staged_path(log: str) -> str:
    """A copy of the head that is no archive yet."""
    return f"{log}.new"


def archive_path(log: str, number: int) -> str:
    """Archive 1 is the newest."""
    return f"{log}.{number}"


def read_position(log: str) -> Position:
    """Raises StateError when the file is damaged."""
    try:
        with open(position_path(log), encoding="ascii") as file:
            base, head, moving_to, *step = file.read().split()
        return Position(int(base), int(head), int(moving_to), *step)
    except FileNotFoundError:
        return Position()
    except (ValueError, TypeError) as exc:
        raise StateError(
            f"{position_path(log)} is damaged",
            meaning="It is not known which part of this log was archived, so it is neither read nor rotated",
            remedy="Move the log and its archives away, then restart the service",
        ) from exc


def write_position(log: str, position: Position) -> None:
    """Replace it, safe from a power cut. Raises OSError."""
    partial = f"{position_path(log)}.new"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.write(fd, " ".join(map(str, position)).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(partial, position_path(log))
    sync_folder(log)


def sync_folder(log: str) -> None:
    """Make renames beside this log durable."""
    fd = os.open(os.path.dirname(log) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
