"""Folders and files that only their owner may see."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from deploy_code.errors import StateError


def make_private_folder(path: str) -> None:
    """Create ``path`` as 0700, its parents as the umask says; tighten it when it is ours and open to others.

    Raises ``StateError`` S005 when it cannot be had, E004 when the disk is full.
    """
    with os_errors_wrapped(path):
        os.makedirs(path, mode=0o700, exist_ok=True)
        status = os.stat(path)
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.chmod(path, 0o700)


@contextmanager
def alone(folder: str) -> Iterator[None]:
    """Hold the folder's own flock: no further file, and free when the holder dies."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def os_errors_wrapped(path: str) -> Iterator[None]:
    """Turn an ``OSError`` about ``path`` into the ``StateError`` that says what to do."""
    try:
        yield
    except OSError as exc:
        raise state_error(path, exc) from exc


def state_error(path: str, exc: OSError) -> StateError:
    import errno

    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return disk_full(path, exc.strerror)
    return StateError(
        f"{path} cannot be had: {exc.strerror}",
        meaning="deploy-code keeps the state of the project there",
        remedy="Run as its owner, or set infrastructure.storage.data_dir to a folder you may write",
    )


def disk_full(path: str, reason: str | None) -> StateError:
    return StateError(
        f"{path} cannot be written: {reason or 'no space left'}",
        code="E004",
        meaning="Running services are not affected, but nothing new can be recorded",
        remedy="Free space or raise the quota there, then run the command again",
    )
