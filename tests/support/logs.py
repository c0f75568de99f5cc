"""Logs for tests, on file systems that can collapse a range and on such that can only punch holes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy_code.logs.stream import LogStream


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder on tmpfs, which punches holes but does not collapse."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm on this machine")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="deploy-code-test-"))
    yield folder
    shutil.rmtree(folder)


def content(log: Path) -> bytes:
    """Everything that is still there, read as readers read."""
    stream = LogStream(log)
    offset, end = stream.bounds()
    pieces = []
    while offset < end:
        offset, data = stream.read(offset, 100_000)
        pieces.append(data)
        offset += len(data)
    return b"".join(pieces)


def numbered(first: int, last: int) -> bytes:
    """Lines from ``first`` to ``last`` as seq(1) writes them."""
    return b"".join(b"%d\n" % number for number in range(first, last + 1))
