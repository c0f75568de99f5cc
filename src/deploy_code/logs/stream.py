"""One log as the one row of bytes it is, whatever lies in archives and whatever is being moved right now.

Readers take no lock, so none of them can hold up a rotation: they look where the bytes lie, read, look
again, and read anew if something moved in between.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from deploy_code.logs.position import (
    ARCHIVING,
    COLLAPSING,
    Position,
    archive_path,
    read_position,
    staged_path,
)


class Archive(NamedTuple):
    """One archive as found; it never changes, only its name does."""

    path: str
    inode: int
    size: int


class Layout(NamedTuple):
    """Where everything lies at one moment. Two equal layouts: nothing was moved in between."""

    position: Position
    archives: tuple[Archive, ...]  # newest first
    staged: bool
    collapsed: bool
    live: int  # inode; 0: there is no live file

    @property
    def shift(self) -> int:
        """Logical offset of the live file's first byte."""
        return self.position.base + (self.position.moving_to if self.collapsed else 0)

    @property
    def live_start(self) -> int:
        """Logical offset at which the archives end and the live file takes over."""
        position = self.position
        archived = position.step == COLLAPSING or (position.step == ARCHIVING and not self.staged)
        return position.base + (position.moving_to if archived else position.head)

    @property
    def start(self) -> int:
        """Oldest logical offset that is still there."""
        return self.live_start - sum(archive.size for archive in self.archives)


class LogStream:
    """Reads one log by logical offsets; costs nothing until something is asked."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def bounds(self) -> tuple[int, int]:
        """Oldest offset that is still there, and the end: bytes ever written."""
        while True:
            before = look(self.path)
            end = before.shift + _size(self.path)
            if look(self.path) == before:
                return before.start, max(end, before.live_start)

    def read(self, offset: int, size: int) -> tuple[int, bytes]:
        """Up to ``size`` bytes from ``offset``, and where they really begin: later when ``offset`` was
        dropped by then.

        Empty at the end. Fewer bytes than asked for do not mean the end.
        """
        while True:
            before = look(self.path)
            begins = max(offset, before.start)
            data = _read(self.path, before, begins, size)
            if look(self.path) == before:
                return begins, data


def look(log: str) -> Layout:
    """Where the bytes of this log lie now."""
    position = read_position(log)
    return Layout(
        position,
        _archives(log),
        position.step == ARCHIVING and os.path.exists(staged_path(log)),
        position.step == COLLAPSING and data_begins(log) < position.moving_to,
        _inode(log),
    )


def data_begins(log: str) -> int:
    """Physical offset of the first byte in the live file that is not part of a hole."""
    fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:  # ENXIO: there is nothing but a hole
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _archives(log: str) -> tuple[Archive, ...]:
    """All there are. One number may be missing while names are shifted."""
    found, number, missing = [], 1, 0
    while missing < 2:
        path = archive_path(log, number)
        try:
            stat = os.stat(path)
            found.append(Archive(path, stat.st_ino, stat.st_size))
        except FileNotFoundError:
            missing += 1
        number += 1
    return tuple(found)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _read(log: str, layout: Layout, offset: int, size: int) -> bytes:
    if offset >= layout.live_start:
        return _read_file(log, offset - layout.shift, size)
    end = layout.live_start
    for archive in layout.archives:
        begin = end - archive.size
        if offset >= begin:
            return _read_file(archive.path, offset - begin, min(size, end - offset))
        end = begin
    return b""


def _read_file(path: str, offset: int, size: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""  # renamed since; the second look tells
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
