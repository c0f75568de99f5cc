"""The three calls of inotify(7), by libc: Python's standard library has none."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from deploy_code.errors import StateError

GREW = 0x2  # IN_MODIFY: appended to, or its head taken away
APPEARED = 0x100 | 0x80  # IN_CREATE, IN_MOVED_TO: a new name in a folder
_CLOEXEC = 0o2000000
_EVENT = struct.Struct("iIII")  # number, mask, cookie, length of the name that follows
_BUFFER = 64 * 1024


class Inotify:
    """One inotify instance. ``wait`` blocks."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_CLOEXEC)
        if self._fd < 0:
            raise _refused("no log can be followed")

    def add(self, path: str, mask: int) -> int:
        """Watch a file or folder; its number, the same for the same file. Raises StateError."""
        number: int = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if number < 0:
            raise _refused(f"{path} cannot be followed")
        return number

    def wait(self) -> set[int]:
        """Numbers of what something happened to; -1 among them when the kernel had to drop events."""
        data = os.read(self._fd, _BUFFER)
        numbers, place = set(), 0
        while place < len(data):
            number, _, _, length = _EVENT.unpack_from(data, place)
            numbers.add(number)
            place += _EVENT.size + length
        return numbers

    def close(self) -> None:
        os.close(self._fd)


def _refused(what: str) -> StateError:
    number = ctypes.get_errno()
    full = number in (errno.EMFILE, errno.ENOSPC)
    return StateError(
        f"{what}: {os.strerror(number)}",
        meaning="This user's limit of inotify watches is used up" if full else "",
        remedy="Raise fs.inotify.max_user_instances and max_user_watches with sysctl" if full else "",
    )
