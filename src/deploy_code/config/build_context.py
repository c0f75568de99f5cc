"""What is sent to an engine to build an image, and the hash of all that makes the image what it is.

What is hashed is what is sent: all below the context but what ``.dockerignore`` (or ``<Dockerfile>.dockerignore``)
leaves out, and deploy-code's own folders. The Dockerfile and the ignore file always go along: the engine needs them.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256

from deploy_code.config.dockerignore import Ignore
from deploy_code.model import Build

OUTSIDE = ".dockerfile.outside"
"""What a Dockerfile that lies outside of its context is called inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextEntry:
    """One thing in a context. ``relative`` is its name there, with slashes; ``mode`` as ``stat`` has it."""

    relative: str
    path: str
    mode: int
    size: int = 0
    modified: int = 0  # seconds since the epoch; not hashed
    target: str = ""  # of a link

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class ContextDigest:
    """The digest of a build, fed with the entries of its context in their order."""

    def __init__(self, build: Build) -> None:
        self._digest = sha256()
        self._add("build", dockerfile_name(build), build.target, json.dumps(sorted(build.args.items())))

    def add(self, entry: ContextEntry, content: str = "") -> None:
        """``content``: sha256 of a file's bytes, in hex."""
        what = content if entry.is_file else entry.target
        self._add(entry.relative, f"{entry.mode:o}", what)

    def _add(self, *parts: str) -> None:
        for part in parts:
            data = part.encode("utf-8", "surrogateescape")
            self._digest.update(b"%d:" % len(data))
            self._digest.update(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def build_digest(build: Build) -> str:
    """sha256 over names, modes and contents of the context, the Dockerfile, the arguments and the target.

    Raises OSError for what cannot be read, ValueError for an ignore file that makes no sense.
    """
    digest = ContextDigest(build)
    for entry in context_entries(build):
        digest.add(entry, _content(entry.path) if entry.is_file else "")
    return digest.hexdigest()


def _content(path: str) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def context_entries(build: Build) -> Iterator[ContextEntry]:
    """All that is sent, in order, folders before what is in them. Raises OSError and ValueError."""
    dockerfile = dockerfile_path(build)
    if not os.path.isfile(dockerfile):
        raise FileNotFoundError(2, "there is no such file", dockerfile)
    name = dockerfile_name(build)
    if name == OUTSIDE:
        yield _entry(OUTSIDE, dockerfile, os.stat(dockerfile))
    walk = _Walk(build, _ignore(build), frozenset({name, ".dockerignore"}))
    yield from walk.below("")


def dockerfile_path(build: Build) -> str:
    return os.path.normpath(os.path.join(build.context, build.dockerfile))


def dockerfile_name(build: Build) -> str:
    """What the Dockerfile is called in what is sent."""
    relative = os.path.relpath(dockerfile_path(build), build.context)
    return OUTSIDE if relative.startswith("../") else relative


def _ignore(build: Build) -> Ignore:
    """The Dockerfile's own ignore file goes before the context's."""
    for path in (dockerfile_path(build) + ".dockerignore", os.path.join(build.context, ".dockerignore")):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return Ignore(file.read())
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return Ignore()


class _Walk:
    """One look over a context."""

    def __init__(self, build: Build, ignore: Ignore, needed: frozenset[str]) -> None:
        self._top = build.context
        self._left_out = frozenset(build.exclude)
        self._ignore = ignore
        self._needed = needed  # the engine cannot do without these

    def below(self, folder: str) -> Iterator[ContextEntry]:
        with os.scandir(os.path.join(self._top, folder)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for each in entries:
            relative = f"{folder}/{each.name}" if folder else each.name
            if relative in self._left_out:
                continue
            if relative in self._needed or not self._ignore.leaves_out(relative):
                yield from self._sent(relative, each)
            if each.is_dir(follow_symlinks=False) and self._is_entered(relative):
                yield from self.below(relative)

    def _is_entered(self, folder: str) -> bool:
        holds_needed = any(name.startswith(folder + "/") for name in self._needed)
        return holds_needed or not self._ignore.leaves_out_all_below(folder)

    def _sent(self, relative: str, each: os.DirEntry[str]) -> Iterator[ContextEntry]:
        found = each.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            yield _entry(relative, each.path, found)  # sockets, pipes and devices are nothing to build from


def _entry(relative: str, path: str, found: os.stat_result) -> ContextEntry:
    is_link, is_file = stat.S_ISLNK(found.st_mode), stat.S_ISREG(found.st_mode)
    return ContextEntry(
        relative=relative,
        path=path,
        mode=found.st_mode,
        size=found.st_size if is_file else 0,
        modified=int(found.st_mtime),
        target=os.readlink(path) if is_link else "",
    )
