"""Taking bytes out of the front of a file that others append to, by libc's fallocate(2). Linux only."""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE, _PUNCH_HOLE, _COLLAPSE_RANGE = 0x01, 0x02, 0x08
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def punch_head(fd: int, length: int) -> None:
    """Make the first ``length`` bytes a hole: they take no room and read as zeros. Raises OSError."""
    _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, length)


def collapse_head(fd: int, length: int) -> bool:
    """Take the first ``length`` bytes (whole blocks) out of the file; False where the file system cannot."""
    try:
        _fallocate(fd, _COLLAPSE_RANGE, length)
    except OSError as exc:
        if exc.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _fallocate(fd: int, mode: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    function = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate  # musl knows only 64 bits
    if function(fd, mode, ctypes.c_int64(0), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
