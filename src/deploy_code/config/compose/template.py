"""Text with variables, in Compose's spelling and in ours.

Compose fills in ``$NAME`` too, ours only ``${NAME}``; both have ``:-``, ``-``, ``:?``, ``?``, ``:+``, ``+`` and ``$$``.
A template is the text between: it can be cut, joined and spelled either way without filling anything in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)
_OURS = re.compile(r"\$(?=[${])")
_MAX_DEPTH = 16


class TemplateError(ValueError):
    """What stands behind a ``$`` cannot be understood."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable. ``operator``: "" or one of ``:-``, ``-``, ``:?``, ``?``, ``:+``, ``+``, with its ``word``."""

    name: str
    operator: str = ""
    word: Template = ()


Template: TypeAlias = "tuple[str | Variable, ...]"
Lookup: TypeAlias = Callable[[str], str | None]


def parse_compose(text: str) -> Template:
    """A scalar of a Compose file. Raises TemplateError."""
    return tuple(_joined(_parts(text, 0, bare=True)))


def parse_ours(text: str) -> Template:
    """A scalar of a file of ours; ``${PORT}`` and its like are variables of that name. Raises TemplateError."""
    return tuple(_joined(_parts(text, 0, bare=False)))


def _parts(text: str, depth: int, *, bare: bool) -> Iterator[str | Variable]:
    if depth > _MAX_DEPTH:
        raise TemplateError("variables are nested too deep")
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        yield text[position:dollar]
        following = text[dollar + 1 : dollar + 2]
        name = _NAME.match(text, dollar + 1) if bare else None
        if following == "{":
            end = _closing(text, dollar + 2)
            yield _variable(text[dollar + 2 : end], depth, bare=bare)
            position = end + 1
        elif following == "$":
            yield "$"
            position = dollar + 2
        elif name:
            yield Variable(name[0])
            position = name.end()
        elif bare:
            raise TemplateError("a '$' that begins no variable; a dollar sign is written $$")
        else:
            yield "$"
            position = dollar + 1
    yield text[position:]


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
    raise TemplateError("'${' without its '}'")


def _variable(body: str, depth: int, *, bare: bool) -> Variable:
    match = _BODY.fullmatch(body)
    if match:
        return Variable(match[1], match[2] or "", tuple(_joined(_parts(match[3] or "", depth + 1, bare=bare))))
    if not bare and body.startswith("services."):
        return Variable(body)
    raise TemplateError(f"'${{{body}}}' is not a variable")


def _joined(parts: Iterator[str | Variable]) -> Iterator[str | Variable]:
    """Neighbouring texts as one, empty ones not at all."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            yield text
        text = ""
        yield part
    if text:
        yield text


def joined(*parts: str | Variable | Template) -> Template:
    """One template of several."""
    flat = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
    return tuple(_joined(flat))


# --------------------------------------------------------------------------- reading


def variables(template: Template) -> Iterator[Variable]:
    """All variables, those in words of others too."""
    for part in template:
        if isinstance(part, Variable):
            yield part
            yield from variables(part.word)


def value_of(template: Template, lookup: Lookup) -> str:
    """``template`` filled in as Compose does: what is not set is empty."""
    return "".join(part if isinstance(part, str) else _filled(part, lookup) for part in template)


def _filled(variable: Variable, lookup: Lookup) -> str:
    value = lookup(variable.name)
    given = bool(value) if variable.operator.startswith(":") else value is not None
    if variable.operator.endswith("+"):
        return value_of(variable.word, lookup) if given else ""
    if not given and variable.operator.endswith("-"):
        return value_of(variable.word, lookup)
    return value or ""


def split(template: Template, separator: str) -> list[Template]:
    """Cut at ``separator`` where it is text."""
    pieces: list[list[str | Variable]] = [[]]
    for part in template:
        if isinstance(part, Variable):
            pieces[-1].append(part)
            continue
        first, *others = part.split(separator)
        pieces[-1].append(first)
        pieces += [[other] for other in others]
    return [joined(*piece) for piece in pieces]


# --------------------------------------------------------------------------- spelling


def in_ours(template: Template) -> str:
    """As our file has it."""
    return _spelled(template, lambda text: _OURS.sub("$$", text))


def in_compose(template: Template) -> str:
    """As a Compose file has it."""
    return _spelled(template, lambda text: text[:-1].replace("$", "$$") + text[-1:])


def _spelled(template: Template, escape: Callable[[str], str]) -> str:
    """``escape`` gets each text with one character of what follows, which it leaves alone."""
    found: list[str] = []
    for part, following in zip_longest(template, template[1:]):
        if isinstance(part, Variable):
            found.append(f"${{{part.name}{part.operator}{_spelled(part.word, escape)}}}")
        else:
            found.append(escape(part + ("$" if isinstance(following, Variable) else " "))[:-1])
    return "".join(found)
