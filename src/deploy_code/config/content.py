"""Code is content: what lies on disk and makes up an instance is hashed, so that an edited file is a change.

Hashed for a service: files that ``command`` and ``args`` name (also after ``=``, as in ``--config=app.toml``), if they
lie under the config's folder; what its ``files`` globs match, folders with all below them; its ``release``, as a tree;
the context of its ``build``, by rules of its own (``build_context``).

Left out: version control (``.git``, ``.hg``, ``.svn``, ``.jj``), caches (``__pycache__``, ``*.pyc``, ``.mypy_cache``,
``.pytest_cache``, ``.ruff_cache``), ``.DS_Store``, deploy-code's own folders and the service's volumes. Of files that
args name, also those that a service writes itself (``.db``, ``.sqlite``, ``.sqlite3``, ``.log``, ``.pid``, ``.sock``):
each run would be a change. ``files`` may name them all the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256

from deploy_code.errors import ConfigError, Problem
from deploy_code.model import Container, Content, Project, Release, ServiceSpec

IGNORED = tuple(".git .hg .svn .jj __pycache__ *.pyc .mypy_cache .pytest_cache .ruff_cache .DS_Store".split())
"""Names that are never content, as patterns."""

_SKIPPED = frozenset(name for name in IGNORED if "*" not in name)
WRITTEN = (".db", ".sqlite", ".sqlite3", ".log", ".pid", ".sock")
"""Ends of names that services write themselves."""

_LONGEST = 4096  # PATH_MAX: a longer argument names no file


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One thing in a release: ``relative`` to its source; ``target`` is set for a link, which is kept as a link."""

    relative: str
    path: str
    mode: int  # permission bits
    target: str | None = None


def with_hashes(project: Project) -> Project:
    """``project`` with ``Content.files``, ``Release.digest`` and ``Build.digest`` as the disk is now.

    Globs that match nothing become warnings. Raises ConfigError (enclosing S003) for a release that is no folder and
    for files that cannot be read.
    """
    hasher = _Hasher(project.root)
    services = {name: hasher.service(spec) for name, spec in project.services.items()}
    if hasher.problems:
        count = "1 problem" if len(hasher.problems) == 1 else f"{len(hasher.problems)} problems"
        raise ConfigError(f"{count}:", hasher.problems)
    return replace(project, services=services, warnings=(*project.warnings, *hasher.warnings))


def release_tree(release: Release) -> Iterator[TreeEntry]:
    """All files and links of a release, in order, without what is left out. Raises OSError."""
    return _tree(release.source, frozenset(release.exclude))


def tree_digest(folder: str, exclude: Iterable[str] = ()) -> str:
    """sha256 over names, modes and contents of a tree; equal for a folder and its true copy. Raises OSError."""
    digest = sha256()
    for entry in _tree(folder, frozenset(exclude)):
        what = _file_digest(entry.path) if entry.target is None else f"-> {entry.target}"
        digest.update(f"{entry.relative}\0{entry.mode:o}\0{what}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def left_out(release: Release) -> Callable[[str, list[str]], set[str]]:
    """For ``shutil.copytree(release.source, ..., ignore=left_out(release))``: a copy of exactly what was hashed."""
    kept = {os.path.join(release.source, entry.relative) for entry in release_tree(release)}
    kept |= {parent for path in kept for parent in _parents(path, release.source)}
    return lambda folder, names: {name for name in names if os.path.join(folder, name) not in kept}


def _parents(path: str, top: str) -> Iterator[str]:
    while len(path := os.path.dirname(path)) > len(top):
        yield path


class _Hasher:
    """One run over all services; each file and each tree is read once."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._digests: dict[str, str] = {}
        self._releases: dict[Release, str] = {}

    def service(self, spec: ServiceSpec) -> ServiceSpec:
        content = spec.content
        release = self._release(spec.name, content.release) if content.release else None
        container = self._container(spec.name, content.container)
        files = dict(sorted(self._files(spec.name, content)))
        if not files and not content.files and release is None and container is content.container:
            return spec
        return replace(spec, content=replace(content, files=files, release=release, container=container))

    def _container(self, service: str, container: Container) -> Container:
        build = container.build
        if build is None:
            return container
        from deploy_code.config.build_context import build_digest

        try:
            return replace(container, build=replace(build, digest=build_digest(build)))
        except ValueError as exc:
            self._problem(service, "build", str(exc), "see Docker's documentation of .dockerignore")
        except OSError as exc:
            remedy = "name a folder with a Dockerfile, or the Dockerfile under build.dockerfile"
            self._problem(service, "build", f"'{exc.filename}' cannot be read: {exc.strerror}", remedy)
        return container

    def _release(self, service: str, release: Release) -> Release:
        try:
            if release not in self._releases:
                self._releases[release] = tree_digest(release.source, release.exclude)
        except OSError as exc:
            self._problem(
                service, "release", f"'{release.source}' cannot be read: {exc.strerror}", "name a folder of code"
            )
            return release
        return replace(release, digest=self._releases[release])

    def _files(self, service: str, content: Content) -> Iterator[tuple[str, str]]:
        named = [*_named(content, self.root), *_handler(content)]
        for glob in content.files:
            matches = [*_matches(glob, self.root)]
            if not matches:
                self.warnings.append(f"warning: services.{service}.files: '{glob}' matches nothing")
            named += matches
        for path in dict.fromkeys(named):
            try:
                yield os.path.relpath(path, self.root), self._digest(path)
            except OSError as exc:
                self._problem(service, "files", f"'{path}' cannot be read: {exc.strerror}", "make it readable")

    def _digest(self, path: str) -> str:
        known = self._digests.get(path)
        if known is None:
            known = self._digests[path] = _file_digest(path)
        return known

    def _problem(self, service: str, key: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(message, code="S003", path=f"services.{service}.{key}", remedy=remedy))


def _named(content: Content, root: str) -> Iterator[str]:
    """Files under ``root`` that command and args name, seen from the folder that the service runs in.

    Of a container those that it is handed to read: its image is known by its own name.
    """
    if content.is_container:
        handed = (each.source for each in content.volumes if each.read_only and each.source)
        yield from (path for path in handed if _is_below(path, root) and os.path.isfile(path))
        return
    folder = content.working_dir
    if content.release is not None and folder.startswith("release:"):
        folder = os.path.join(content.release.source, folder.removeprefix("release:"))
    skipped = [volume.mount_path for volume in content.volumes]
    if content.release is not None:
        skipped.append(content.release.source)  # hashed as a tree
    for word in _words(content):
        path = os.path.normpath(os.path.join(folder or root, word))
        if _is_below(path, root) and not any(_is_below(path, other) for other in skipped) and os.path.isfile(path):
            yield path


def _handler(content: Content) -> Iterator[str]:
    """The file that a custom type of its own is defined in, wherever it lies; packages are installed, not deployed."""
    path = content.handler.rpartition(":")[0]
    if os.path.isabs(path) and os.path.isfile(path):
        yield path


def _words(content: Content) -> Iterator[str]:
    if "/" in content.command:
        yield content.command
    for arg in content.args:
        if not arg or len(arg) > _LONGEST or "\0" in arg or arg.endswith(WRITTEN):
            continue
        yield arg
        option, equals, value = arg.partition("=")
        if equals and value and option.startswith("-"):
            yield value


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _matches(glob: str, root: str) -> Iterator[str]:
    from glob import glob as expand

    for match in sorted(expand(os.path.join(root, glob), recursive=True)):
        path = os.path.normpath(match)
        if _SKIPPED.intersection(os.path.relpath(path, root).split(os.sep)):
            continue
        if os.path.isdir(path):
            yield from (entry.path for entry in _tree(path, frozenset()) if entry.target is None)
        elif os.path.isfile(path):
            yield path


def _tree(source: str, exclude: frozenset[str], below: str = "") -> Iterator[TreeEntry]:
    with os.scandir(os.path.join(source, below)) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        relative = os.path.join(below, entry.name)
        if entry.name in _SKIPPED or entry.name.endswith(".pyc") or relative in exclude:
            continue
        mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
        if entry.is_symlink():
            yield TreeEntry(relative=relative, path=entry.path, mode=mode, target=os.readlink(entry.path))
        elif entry.is_dir():
            yield from _tree(source, exclude, relative)
        elif entry.is_file():
            yield TreeEntry(relative=relative, path=entry.path, mode=mode)


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


__all__ = ["IGNORED", "WRITTEN", "TreeEntry", "left_out", "release_tree", "tree_digest", "with_hashes"]
