"""``${VAR}`` in one scalar at a time, after parsing: a value can neither break the syntax nor smuggle keys in.

==================  ==========================================================================
``${VAR}``          the value; an unset variable is an error (all of them are listed at once)
``${VAR:-word}``    ``word`` if unset or empty; ``${VAR-word}`` only if unset
``${VAR:?text}``    an error with ``text`` if unset or empty; ``${VAR?text}`` only if unset
``${VAR:+word}``    ``word`` if set and not empty, else nothing; ``${VAR+word}`` if set
``$$``              a dollar sign
==================  ==========================================================================

Words may hold ``${...}`` again. ``$VAR`` without braces is plain text. ``${PORT}``, ``${PORT_8080}``,
``${DEPLOY_CODE_*}`` and ``${services.NAME.host|port}`` are *placeholders*: an instance gets them when it starts, so
they stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

_PARTS = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)
PLACEHOLDER = re.compile(r"\$\{(PORT(?:_\d+)?|DEPLOY_CODE_[A-Z0-9_]+|services\.([^{}]+)\.(?:host|port))\}")
_RESERVED = re.compile(r"PORT(?:_\d+)?|DEPLOY_CODE_[A-Z0-9_]+")
_MAX_DEPTH = 16


class InterpolationError(ValueError):
    """The text holds a ``${`` that cannot be understood or is not allowed there; ``remedy`` says what to write."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(slots=True, kw_only=True)
class Scope:
    """Where the variables of a text come from, and what was found out on the way."""

    lookup: Callable[[str], str | None]
    placeholders: bool = False  # may ``${PORT}`` and its like stand here?
    used: set[str] = field(default_factory=set)
    missing: list[tuple[str, str]] = field(default_factory=list)  # (name, text of ``:?``)


def interpolate(text: str, scope: Scope) -> str:
    """``text`` with its variables filled in; those that are missing become empty and are listed in ``scope.missing``.

    Raises InterpolationError.
    """
    return _fill(text, scope, 0)


def _fill(text: str, scope: Scope, depth: int) -> str:
    if "$" not in text:
        return text
    if depth > _MAX_DEPTH:
        raise InterpolationError("variables are nested too deep", "use fewer levels of ${A:-${B}}")
    parts: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        parts.append(text[position:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "{":
            end = _closing(text, dollar + 2)
            parts.append(_expand(text[dollar + 2 : end], scope, depth))
            position = end + 1
        else:
            parts.append("$")
            position = dollar + (2 if following == "$" else 1)
    parts.append(text[position:])
    return "".join(parts)


def _closing(text: str, start: int) -> int:
    depth, position = 1, start
    while position < len(text):
        if text.startswith("${", position):
            depth, position = depth + 1, position + 1
        elif text[position] == "}":
            depth -= 1
            if not depth:
                return position
        position += 1
    raise InterpolationError("'${' without its '}'", "close it, or write $${ for a literal ${")


def _expand(body: str, scope: Scope, depth: int) -> str:
    if PLACEHOLDER.fullmatch(f"${{{body}}}"):
        return _placeholder(body, scope)
    match = _PARTS.fullmatch(body)
    if not match:
        raise InterpolationError(
            f"'${{{body}}}' is not a variable", "write ${NAME} or ${NAME:-default}, or $${ for a literal ${"
        )
    name, operator, word = match[1], match[2] or "", match[3] or ""
    if _RESERVED.fullmatch(name):
        raise InterpolationError(f"${{{name}}} is set at start and takes no '{operator}'", f"write ${{{name}}}")
    return _operate(name, operator, word, scope, depth)


def _placeholder(body: str, scope: Scope) -> str:
    if not scope.placeholders:
        raise InterpolationError(
            f"${{{body}}} is known only when an instance starts",
            "use it in command, args, env or health_check; elsewhere take a variable with another name",
        )
    return f"${{{body}}}"


def _operate(name: str, operator: str, word: str, scope: Scope, depth: int) -> str:
    scope.used.add(name)
    value = scope.lookup(name)
    given = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("+"):
        return _fill(word, scope, depth + 1) if given else ""
    if given:
        return value or ""
    if operator.endswith("-"):
        return _fill(word, scope, depth + 1)
    scope.missing.append((name, _fill(word, scope, depth + 1)))
    return ""
