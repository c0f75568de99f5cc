"""Where a config came from: files, variables, and the place of every value.

A ``DeploymentConfig`` read from files carries its source, so that rules checked later, in code too, can still say
``deploy-code.yaml:12:5``. One built in code has an empty source: problems then carry the path alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from deploy_code.config.dotenv import parse_dotenv
from deploy_code.config.nodes import Entries, Path, Place, as_written, dotted, node_at, place_of
from deploy_code.config.plain import Plain
from deploy_code.errors import Problem

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig

_NOWHERE = Place("", 0, 0)


@dataclass(slots=True, kw_only=True)
class Source:
    """What was read. ``folder`` is that of the first file; relative paths start there."""

    folder: str
    files: tuple[str, ...] = ()  # as the caller named them
    paths: tuple[str, ...] = ()  # the same, absolute and without links
    environ: Mapping[str, str] = field(default_factory=dict)
    dotenv: Mapping[str, str] = field(default_factory=dict)
    tree: Entries = field(default_factory=lambda: Entries(_NOWHERE))
    plain: Plain = field(default_factory=lambda: Plain(lambda name: None))
    registered: frozenset[str] | None = frozenset()  # types and strategies of this process; None: not known yet
    pruned: set[Path] = field(default_factory=set)  # paths that already have a problem of their own
    variables: set[str] = field(default_factory=set)  # all that were asked of ``environ``, by file, .env and env_files
    env_files: dict[str, tuple[dict[str, str], list[Problem]]] = field(default_factory=dict)

    @classmethod
    def none(cls) -> Source:
        """The source of a config built in code: relative paths start at the current folder."""
        return cls(folder=os.getcwd(), environ=os.environ)

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies: of the environment only what was asked for."""
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        return state | {"environ": {name: self.environ[name] for name in self.variables if name in self.environ}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def lookup(self, name: str) -> str | None:
        """A variable: the process environment first, then ``.env``."""
        self.variables.add(name)
        value = self.environ.get(name)
        return self.dotenv.get(name) if value is None else value

    def problem(self, message: str, path: Path, *, code: str = "E002", remedy: str = "", key: bool = False) -> Problem:
        """A problem at ``path``, with its place in the file; ``key``: it is about the key, not the value."""
        file, line, column = place_of(self.tree, path, key=key)
        shown = dotted(as_written(self.tree, path))
        return Problem(message, code=code, path=shown, remedy=remedy, file=file, line=line, column=column)

    def is_pruned(self, path: Path) -> bool:
        """Does something at, above or below ``path`` have a problem already? Then it cannot be judged further."""
        return any(path[: len(bad)] == bad or bad[: len(path)] == path for bad in self.pruned)

    def wrote(self, path: Path) -> bool:
        """Is ``path`` written in a file (rather than a default)?"""
        return node_at(self.tree, path) is not None

    def absolute(self, path: str) -> str:
        """``path`` as an absolute one: relative to the folder of the first file, ``~`` is the home of who deploys."""
        if path.startswith("~"):
            home = self.lookup("HOME")
            path = home + path[1:] if home and path[1:2] in ("", "/") else path
        return os.path.normpath(os.path.join(self.folder, path))

    def env_file(self, path: str) -> tuple[dict[str, str], list[Problem]]:
        """The variables of one ``env_file`` (absolute path), read once. An OSError is the caller's to explain."""
        if path not in self.env_files:
            with open(path, "rb") as file:
                data = file.read()
            known = {**self.dotenv, **self.environ}
            self.env_files[path] = parse_dotenv(data, path, known, used=self.variables)
        return self.env_files[path]

    def used_in(self, service: str | None = None) -> Iterable[tuple[str, str]]:
        """Variables and values that the files use; only those of one service if it is named."""
        for name, services in self.plain.uses.items():
            if service is None or service in services:
                yield name, self.environ.get(name, self.dotenv.get(name, ""))


def source_of(config: DeploymentConfig) -> Source:
    """The source that a config carries, or an empty one."""
    return config._source or Source.none()
