"""The context of a build as a tar that is written while it is sent: never whole in memory, never on disk."""

from __future__ import annotations

import asyncio
import stat
import tarfile
from collections.abc import AsyncGenerator, Iterator
from hashlib import sha256

from deploy_code.config.build_context import ContextDigest, ContextEntry, context_entries
from deploy_code.errors import StalePlanError
from deploy_code.model import Build

PART_BYTES = 256 * 1024
_BLOCK = tarfile.BLOCKSIZE


async def context_tar(build: Build) -> AsyncGenerator[bytes, None]:
    """Parts of a tar of all that belongs to ``build``; the disk is read in a thread.

    Raises StalePlanError E012 before its end where something changed since ``build.digest`` was computed: the engine
    then has half a tar, and builds nothing of it. Raises OSError.
    """
    parts = _parts(build)
    while some := await asyncio.to_thread(_some, parts):
        yield some


def _some(parts: Iterator[bytes]) -> bytes:
    """A good helping, b"" at the end."""
    taken, size = [], 0
    for part in parts:
        taken.append(part)
        size += len(part)
        if size >= PART_BYTES:
            break
    return b"".join(taken)


def _parts(build: Build) -> Iterator[bytes]:
    digest = ContextDigest(build)
    for entry in context_entries(build):
        content = sha256()
        yield _header(entry)
        if entry.is_file:
            for part in _content(entry):
                content.update(part)
                yield part
            yield bytes(-entry.size % _BLOCK)
        digest.add(entry, content.hexdigest() if entry.is_file else "")
    if digest.hexdigest() != build.digest:
        raise _changed(build.context)
    yield bytes(2 * _BLOCK)


def _header(entry: ContextEntry) -> bytes:
    """As Docker's own client sends it: everything belongs to root."""
    info = tarfile.TarInfo(entry.relative)
    info.mode, info.mtime, info.size = stat.S_IMODE(entry.mode), entry.modified, entry.size
    if stat.S_ISDIR(entry.mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.mode):
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(entry: ContextEntry) -> Iterator[bytes]:
    """Exactly as many bytes as the header has announced."""
    left = entry.size
    with open(entry.path, "rb") as file:
        while left and (part := file.read(min(left, PART_BYTES))):
            left -= len(part)
            yield part
    if left:
        raise _changed(entry.path)


def _changed(path: str) -> StalePlanError:
    return StalePlanError(
        f"{path} changed while it was being sent to be built",
        meaning="What was planned is not what lies there now; nothing was changed",
        remedy="Deploy again when nobody writes to it",
    )
