"""Nodes to plain data: variables are filled in, then plain scalars get their type.

The order matters: ``replicas: ${N:-2}`` is a number because the type is decided after the variable, and ``"${N}"``
stays text because it is quoted. Where the schema wants text anyway (env, args, ...) the text stays as written: ``1.10``
does not become ``1.1``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from deploy_code.config.interpolate import InterpolationError, Scope, interpolate
from deploy_code.config.nodes import Entries, Node, Path, Place, Scalar, code_of, dotted
from deploy_code.errors import Problem
from deploy_code.security.redact import is_secret_name, url_passwords

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,39})|0x[0-9a-fA-F]{1,32}|0o[0-7]{1,40}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **{word: float("nan") for word in (".nan", ".NaN", ".NAN")},
}
_MAYBE = frozenset("0123456789+-.tTfFnN~")

_TEXT_AT_ROOT = frozenset({"name", "version", "plugins"})
_TEXT_IN_HOOKS = frozenset({"pre_deploy", "post_deploy", "on_failure"})
_TEXT_IN_SERVICE = frozenset(
    {"env", "environment", "args", "command", "user", "stop_signal", "image", "container_image", "working_dir"}
    | {"release", "files", "env_file", "service_type", "strategy"}
)
_PLACEHOLDERS = frozenset({"command", "args", "env", "environment", "health_check"})


def typed(text: str) -> Any:
    """A plain scalar by the YAML 1.2 core schema, with one exception: numbers with a leading zero stay text."""
    if text and text[0] not in _MAYBE:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


class Missing:
    """One use of a variable that is not set."""

    __slots__ = ("message", "name", "path", "place")

    def __init__(self, name: str, message: str, path: Path, place: Place) -> None:
        self.name = name
        self.message = message
        self.path = path
        self.place = place


class Plain:
    """What the walk over one tree found out besides the ``data``."""

    def __init__(self, lookup: Callable[[str], str | None]) -> None:
        self._lookup = lookup
        self.problems: list[Problem] = []
        self.missing: list[Missing] = []
        self.blanks: set[Path] = set()  # left out because their variable is missing or their text is broken
        self.uses: dict[str, set[str]] = {}  # variable → services it is used in ("" elsewhere)
        self.raw: dict[Path, tuple[str, Any]] = {}  # values that came from variables: as written, as resolved
        self.literals: list[Path] = []  # secrets written down in the file itself
        self.data: dict[str, Any] = {}

    def walk(self, root: Entries) -> dict[str, Any]:
        """``root`` as plain data; nothing is raised."""
        self.data = self._entries(root, (), False)
        return self.data

    def _value(self, node: Node, path: Path, text: bool) -> Any:
        if isinstance(node, Scalar):
            return self._scalar(node, path, text)
        if isinstance(node, Entries):
            return self._entries(node, path, text)
        return [self._item(item, (*path, index), text) for index, item in enumerate(node.items)]

    def _entries(self, node: Entries, path: Path, text: bool) -> dict[str, Any]:
        found = {}
        for key, child in node.nodes.items():
            below = (*path, key)
            value = self._value(child, below, text or _is_text(below))
            if value is not _BLANK:
                found[key] = value
        return found

    def _item(self, node: Node, path: Path, text: bool) -> Any:
        value = self._value(node, path, text)
        return node.text if value is _BLANK and isinstance(node, Scalar) else value

    def _scalar(self, node: Scalar, path: Path, text: bool) -> Any:
        value = node.text
        if "$" in value and not any(str(step).startswith("x-") for step in path):
            filled = self._filled(node, path)
            if filled is None:
                self.blanks.add(path)
                return _BLANK
            value = filled
        elif _holds_secret(value, path):
            self.literals.append(path)
        result = _decided(node, value, text, path)
        if value is not node.text:
            self.raw[path] = (node.text, result)
        return result

    def _filled(self, node: Scalar, path: Path) -> str | None:
        scope = Scope(lookup=self._lookup, placeholders=takes_placeholders(path))
        try:
            value = interpolate(node.text, scope)
        except InterpolationError as exc:
            file, line, column = node.place
            self.problems.append(
                Problem(
                    str(exc),
                    code=code_of(path),
                    path=dotted(path),
                    remedy=exc.remedy,
                    file=file,
                    line=line,
                    column=column,
                )
            )
            return None
        service = str(path[1]) if len(path) > 1 and path[0] == "services" else ""
        for name in scope.used:
            self.uses.setdefault(name, set()).add(service)
        self.missing += [Missing(name, text, path, node.place) for name, text in scope.missing]
        return None if scope.missing else value


_BLANK: Any = object()


def _decided(node: Scalar, value: str, text: bool, path: Path) -> Any:
    if node.tag and node.tag != "str":
        return _tagged(node.tag, value)
    if not node.plain:
        return value
    if not text:
        return typed(value)
    if value not in ("", "~", "null", "Null", "NULL"):
        return value
    return "" if len(path) == 4 and path[2] in ("env", "environment") else None


def _tagged(tag: str, value: str) -> Any:
    result = typed(value)
    return float(result) if tag == "float" and type(result) is int else result


def _is_text(path: Path) -> bool:
    if len(path) == 1:
        return path[0] in _TEXT_AT_ROOT
    if len(path) == 2:
        return path[0] == "hooks" and path[1] in _TEXT_IN_HOOKS
    if len(path) == 3:
        return _in_service(path, _TEXT_IN_SERVICE)
    return len(path) == 4 and path[0] == "services" and path[2] == "health_check" and path[3] in ("endpoint", "command")


def takes_placeholders(path: Path) -> bool:
    """May ``${PORT}`` and its like stand at ``path``?"""
    return _in_service(path, _PLACEHOLDERS)


def _in_service(path: Path, keys: frozenset[str]) -> bool:
    return len(path) > 2 and path[0] == "services" and path[2] in keys


def _holds_secret(value: str, path: Path) -> bool:
    if len(path) != 4 or path[2] not in ("env", "environment") or path[0] != "services" or not value:
        return False
    return is_secret_name(str(path[3])) or ("://" in value and any(url_passwords(value)))
