"""What a ``.dockerignore`` leaves out of a build's context, by Docker's documented rules. Pure.

The last pattern that matches a path or a folder above it decides; ``!`` takes back. ``*`` and ``?`` stop at a slash,
``**`` stands for any number of folders.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_ESCAPED = frozenset(".+()|{}$^")


class Pattern(NamedTuple):
    """One line. ``keeps``: it began with ``!``."""

    text: str
    keeps: bool
    regex: re.Pattern[str]


class Ignore:
    """The rules of one file. Raises ValueError, which names the pattern, for one that cannot be read."""

    def __init__(self, text: str = "") -> None:
        self.patterns = tuple(_patterns(text.removeprefix("\ufeff").splitlines()))
        self._takes_back = any(pattern.keeps for pattern in self.patterns)
        self._folders: dict[str, list[bool]] = {}  # those whose entries were asked about, so that each is matched once

    def leaves_out(self, path: str) -> bool:
        """Is ``path`` (relative to the context, with slashes) left out?"""
        left_out = False
        for pattern, matches in zip(self.patterns, self._matches(path), strict=True):
            if matches:
                left_out = not pattern.keeps
        return left_out

    def _matches(self, path: str) -> list[bool]:
        """Whether each pattern matches ``path`` or a folder above it."""
        folder = path.rpartition("/")[0]
        if not folder:
            return [bool(pattern.regex.fullmatch(path)) for pattern in self.patterns]
        above = self._folders.get(folder)
        if above is None:
            above = self._folders[folder] = self._matches(folder)
        return [held or bool(pattern.regex.fullmatch(path)) for held, pattern in zip(above, self.patterns, strict=True)]

    def leaves_out_all_below(self, folder: str) -> bool:
        """Is there no need to look into ``folder``?"""
        return not self._takes_back and self.leaves_out(folder)


def _patterns(lines: Iterable[str]) -> Iterator[Pattern]:
    for line in lines:
        text = "" if line.startswith("#") else line.strip()
        keeps = text.startswith("!")
        cleaned = _cleaned(text[1:].strip() if keeps else text)
        if cleaned:
            yield Pattern(text, keeps, _regex(cleaned, text))
        elif keeps:
            raise ValueError('"!" alone takes nothing back')


def _cleaned(text: str) -> str:
    """As Go's ``filepath.Clean`` and without the slash in front: patterns begin at the context."""
    return posixpath.normpath(text).lstrip("/") if text else ""


def _regex(pattern: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile("".join(_pieces(pattern)), re.DOTALL)
    except re.error as error:
        raise ValueError(f"{text!r} is no pattern: {error}") from error


def _pieces(pattern: str) -> Iterator[str]:
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**"):
            position += 3 if rest.startswith("**/") else 2
            yield ".*" if position >= len(pattern) else "(?:.*/)?"
            continue
        piece, length = _piece(rest)
        position += length
        yield piece


def _piece(rest: str) -> tuple[str, int]:
    char = rest[0]
    if char == "*":
        return "[^/]*", 1
    if char == "?":
        return "[^/]", 1
    if char == "\\" and len(rest) > 1:
        return re.escape(rest[1]), 2
    if char == "[":
        return _character_class(rest)
    return ("\\" + char if char in _ESCAPED or char in "]\\" else char), 1


def _character_class(rest: str) -> tuple[str, int]:
    """``[a-z]``, ``[^x]``; a backslash in it quotes."""
    end, start = 1, 2 if rest.startswith("[^") else 1
    while end < len(rest) and (rest[end] != "]" or end == start):
        end += 2 if rest[end] == "\\" else 1
    body = rest[start:end].replace("[", "\\[")
    head = "[^" if start == 2 else "["
    return f"{head}{body}]" if end < len(rest) else f"{head}{body}", end + 1
