"""Keeping a log small while a service writes to it at full speed, without losing or doubling a byte.

The head of the live file is copied to an archive and then taken out of the file in one step of the file
system (``FALLOC_FL_COLLAPSE_RANGE``: ext4, xfs), which appending writers do not notice; where that is not
possible a hole is punched, which frees the room and is skipped by readers. Copy-and-truncate would lose
what is written in between.

Blocks are moved, not lines: an archive may end in the middle of a line, and the next file begins with its
rest.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from deploy_code.errors import StateError
from deploy_code.logs.fallocate import collapse_head, punch_head
from deploy_code.logs.position import (
    ARCHIVING,
    COLLAPSING,
    Position,
    archive_path,
    read_position,
    staged_path,
    sync_folder,
    write_position,
)
from deploy_code.logs.stream import data_begins

MAX_BYTES = 10 * 1024 * 1024
KEEP = 5
_LEAST_BYTES = 64 * 1024  # no block of a file system is larger
_COPY_BYTES = 1024 * 1024


class Rotator:
    """Moves the head of one log into archives. One at a time may work on a log: the agent's.

    ``max_bytes``: what the live file may grow to, also the size of an archive (both rounded to whole blocks);
    ``keep``: so many archives stay, NAME.log.1 being the newest.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self.path = os.fspath(path)
        self.max_bytes = max(max_bytes, _LEAST_BYTES)
        self.keep = max(keep, 1)

    def is_due(self) -> bool:
        """Has the live file grown beyond its bound? One stat, in most cases."""
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return False
        if size <= self.max_bytes:
            return False
        head = read_position(self.path).head
        return size - head > self.max_bytes or size < head

    def rotate(self) -> int:
        """Move away as many heads as are due; how many that were.

        Blocks for as long as the disk takes (copy and fsync): call it in a thread. Raises StateError when
        the disk is full (E004) or refuses (S005); nothing is lost then, and the next call goes on from
        there.
        """
        try:
            return self._rotate()
        except OSError as exc:
            raise _refused(self.path, exc) from exc

    def recover(self) -> None:
        """Finish or undo a move that was interrupted. ``rotate`` does so first. Raises StateError."""
        try:
            self._recover()
        except OSError as exc:
            raise _refused(self.path, exc) from exc

    # ----------------------------------------------------------------------- the move, step by step

    def _rotate(self) -> int:
        position, count = self._recover(), 0
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return 0
        try:
            limit = os.fstat(fd).st_size  # what is written meanwhile is for the next call, or this one never ends
            while _is_file(fd) and limit - position.head > self.max_bytes:
                before = position
                position = self._move(fd, position)
                limit -= position.base - before.base
                count += 1
            return count
        finally:
            os.close(fd)

    def _move(self, fd: int, position: Position) -> Position:
        moving_to = self._cut(fd, position.head)
        try:
            self._stage(fd, position.head, moving_to)
            position = position._replace(moving_to=moving_to, step=ARCHIVING)
            write_position(self.path, position)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(staged_path(self.path))
            raise
        return self._finish(fd, position)

    def _cut(self, fd: int, head: int) -> int:
        """Where the head ends: at a block's border, and before the end of the file, as a collapse demands."""
        block = max(os.fstatvfs(fd).f_frsize, 4096)
        return min(head + self.max_bytes, os.fstat(fd).st_size - 1) // block * block

    def _stage(self, fd: int, begin: int, end: int) -> None:
        info = os.fstat(fd)
        copy = os.open(
            staged_path(self.path),
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        try:
            while begin < end:
                begin += os.sendfile(copy, fd, begin, min(end - begin, _COPY_BYTES))
            if os.geteuid() == 0:
                os.fchown(copy, info.st_uid, info.st_gid)
            os.fchmod(copy, stat.S_IMODE(info.st_mode))
            os.fsync(copy)
        finally:
            os.close(copy)

    def _finish(self, fd: int, position: Position) -> Position:
        """From ``archiving`` or ``collapsing`` to the end; each part may be done twice."""
        if position.step == ARCHIVING:
            self._name_archive()
            punch_head(fd, position.moving_to)
            position = position._replace(step=COLLAPSING)
            write_position(self.path, position)
        if self._is_collapsed(position) or collapse_head(fd, position.moving_to):
            done = Position(base=position.base + position.moving_to)
        else:
            done = Position(base=position.base, head=position.moving_to)
        write_position(self.path, done)
        return done

    def _is_collapsed(self, position: Position) -> bool:
        return data_begins(self.path) < position.moving_to

    def _name_archive(self) -> None:
        """Shift the names up to the first free one: an interrupted shift goes on where it stopped."""
        if not os.path.exists(staged_path(self.path)):
            return
        free = self._first_free()
        if free > self.keep:
            self._drop_from(self.keep)
            free = self.keep
        for number in range(free - 1, 0, -1):
            os.rename(archive_path(self.path, number), archive_path(self.path, number + 1))
        os.rename(staged_path(self.path), archive_path(self.path, 1))
        sync_folder(self.path)

    def _first_free(self) -> int:
        number = 1
        while os.path.exists(archive_path(self.path, number)):
            number += 1
        return number

    def _drop_from(self, number: int) -> None:
        """Oldest first, so that those which remain are without a gap whenever this ends."""
        for doomed in range(self._first_free() - 1, number - 1, -1):
            os.unlink(archive_path(self.path, doomed))

    # ----------------------------------------------------------------------- after a crash

    def _recover(self) -> Position:
        position = read_position(self.path)
        if position.step:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            try:
                position = self._finish(fd, position)
            finally:
                os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(staged_path(self.path))  # a copy that was not complete
        return self._notice_truncation(position)

    def _notice_truncation(self, position: Position) -> Position:
        """Somebody emptied the live file, hole and all: what it holds now comes after all of that."""
        if position.head and os.path.exists(self.path) and os.stat(self.path).st_size < position.head:
            position = Position(base=position.base + position.head)
            write_position(self.path, position)
        return position


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _refused(path: str, exc: OSError) -> StateError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StateError(
            f"the log {path} cannot be rotated: the disk is full",
            code="E004",
            meaning="It keeps growing until there is room; nothing of it is lost",
            remedy="Free some space; rotation then goes on by itself",
        )
    return StateError(
        f"the log {path} cannot be rotated: {exc.strerror}",
        meaning="It keeps growing; nothing of it is lost",
        remedy="Mend the permissions, or use a file system that can punch holes (ext4, xfs, btrfs, tmpfs)",
    )
