"""``.env`` and ``env_file``: ``NAME=value`` lines, read here because forty lines need no dependency.

``export`` before a name, ``#`` comments, blank lines and CRLF are fine. Single quotes keep everything as it is; in
double quotes ``\\n \\r \\t \\" \\\\ \\$`` are escapes; both may go over several lines. Without quotes the value ends at
`` #``. ``${VAR}`` is filled in, except in single quotes, from the process environment and the lines above.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from deploy_code.config.files import without_mark
from deploy_code.config.interpolate import InterpolationError, Scope, interpolate
from deploy_code.errors import Problem

_LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*
        (?: '(?P<single>[^']*)'(?P<after1>[^\n]*)
          | "(?P<double>(?:[^"\\]|\\.)*)"(?P<after2>[^\n]*)
          | (?P<bare>[^\n'"][^\n]*|))
        (?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"[ \t\r]*(?:\#[^\n]*)?(?:\n|\Z)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def parse_dotenv(
    data: bytes, file: str, environ: Mapping[str, str], *, used: set[str] | None = None
) -> tuple[dict[str, str], list[Problem]]:
    """All variables of ``data``, and what is wrong with it. ``used`` collects names taken from ``environ``."""
    reader = _Reader(file, environ, used if used is not None else set())
    try:
        reader.read(without_mark(data).decode().replace("\r\n", "\n"))
    except UnicodeDecodeError:
        reader.problem("not UTF-8 text", 1, "save the file as UTF-8")
    return reader.values, reader.problems


class _Reader:
    def __init__(self, file: str, environ: Mapping[str, str], used: set[str]) -> None:
        self.file = file
        self.values: dict[str, str] = {}
        self.problems: list[Problem] = []
        self._environ = environ
        self._used = used

    def read(self, text: str) -> None:
        position = 0
        while position < len(text):
            if blank := _BLANK.match(text, position):
                position = blank.end()
                continue
            line = text.count("\n", 0, position) + 1
            match = _LINE.match(text, position)
            if match and not (match["after1"] or match["after2"] or "").split("#")[0].strip():
                self._take(match, line)
                position = match.end()
            else:
                self.problem("not a NAME=value line", line, "write NAME=value, with quotes around spaces")
                position = _next_line(text, position)

    def _take(self, match: re.Match[str], line: int) -> None:
        value = match["single"]
        if value is None:
            value = self._filled(_unescaped(match), line)
        if "\0" in value:
            self.problem("a NUL character", line, "remove it")
        else:
            self.values[match["name"]] = value

    def _filled(self, text: str, line: int) -> str:
        if "${" not in text:
            return text
        scope = Scope(lookup=self._lookup())
        try:
            value = interpolate(text, scope)
        except InterpolationError as exc:
            self.problem(str(exc), line, exc.remedy)
            return ""
        for name, _ in scope.missing:
            self.problem(f"variable {name} is not set", line, "set it above, or put the value in single quotes")
        self._used |= scope.used - set(self.values)
        return value

    def _lookup(self) -> Callable[[str], str | None]:
        return lambda name: self._environ.get(name, self.values.get(name))

    def problem(self, message: str, line: int, remedy: str) -> None:
        self.problems.append(Problem(message, file=self.file, line=line, column=1, remedy=remedy))


def _unescaped(match: re.Match[str]) -> str:
    if match["double"] is not None:
        return _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), match["double"])
    return re.split(r"[ \t]#", match["bare"], maxsplit=1)[0].strip()


def _next_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end + 1
