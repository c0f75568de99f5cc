"""One value of a Compose file at a time: its kind, its variables, its place; and how it is written in our file.

Whatever is of the wrong kind is a problem told once, and reads as if it were not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from deploy_code.config.compose import amounts
from deploy_code.config.compose.findings import Findings
from deploy_code.config.compose.template import (
    Template,
    TemplateError,
    Variable,
    in_ours,
    joined,
    parse_compose,
    split,
    value_of,
    variables,
)
from deploy_code.config.nodes import Entries, Items, Node, Path, Place, Scalar
from deploy_code.config.write import AsWritten
from deploy_code.security.redact import is_secret_name

T = TypeVar("T")

_RESERVED = re.compile(r"PORT(?:_\d+)?|DEPLOY_CODE_[A-Z0-9_]+")
_UNQUOTED = re.compile(r"\$\{[A-Za-z0-9_:$.{}/+-]*\}")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})


@dataclass(frozen=True, slots=True)
class Item:
    """A node, what it is called and where it (or its key) is written."""

    node: Node
    path: Path
    place: Place

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, Scalar) and self.node.is_null

    @property
    def is_scalar(self) -> bool:
        return isinstance(self.node, Scalar)

    @property
    def name(self) -> str:
        """The last key on the way here."""
        return str(self.path[-1])


@dataclass(frozen=True, slots=True)
class Text:
    """One text with its variables."""

    parts: Template
    place: Place
    path: Path

    @property
    def has_variables(self) -> bool:
        return any(isinstance(part, Variable) for part in self.parts)

    def of(self, parts: Template) -> Text:
        """Another text at the same place."""
        return Text(parts, self.place, self.path)


@dataclass(slots=True)
class Reader:
    """What all parts of an import share.

    ``lookup``: a variable as Compose would fill it in now. ``is_known``: will our file find it too? ``folders``: where
    relative paths of a Compose file start; ``folder``: where those of our file will.
    """

    findings: Findings
    lookup: Callable[[str], str | None]
    is_known: Callable[[str], bool]
    folders: Mapping[str, str]
    folder: str
    told: set[str] = field(default_factory=set)  # variables that are not set, once said

    # ----------------------------------------------------------------------- telling

    def changed(self, message: str, item: Item | Text) -> None:
        self.findings.changed(self._shown(message, item), item.place, item.path)

    def dropped(self, message: str, item: Item | Text) -> None:
        self.findings.dropped(self._shown(message, item), item.place, item.path)

    def problem(self, message: str, item: Item | Text, remedy: str = "") -> None:
        self.findings.problem(self._shown(message, item), item.place, item.path, remedy)

    def _shown(self, message: str, item: Item | Text) -> str:
        """``message`` without values of variables that are named as secrets are."""
        for variable in variables(item.parts) if isinstance(item, Text) else ():
            value = self.lookup(variable.name) if is_secret_name(variable.name) else None
            message = message.replace(value, "***") if value else message
        return message

    # ----------------------------------------------------------------------- kinds

    def entries(self, item: Item | None, *, free: bool = False) -> dict[str, Item]:
        """A mapping; nothing where there is none. Keys that begin with ``x-`` are left out, unless all are ``free``."""
        if item is None or item.is_null:
            return {}
        node = item.node
        if not isinstance(node, Entries):
            self.problem("must be a mapping", item)
            return {}
        return {
            key: Item(child, (*item.path, key), node.keys[key])
            for key, child in node.nodes.items()
            if free or not key.startswith("x-")
        }

    def items(self, item: Item | None, *, single: bool = False) -> list[Item]:
        """A list; nothing where there is none. ``single``: one text is a list of one."""
        if item is None or item.is_null:
            return []
        if isinstance(item.node, Items):
            return [Item(child, (*item.path, index), child.place) for index, child in enumerate(item.node.items)]
        if single and item.is_scalar:
            return [item]
        self.problem("must be a list", item)
        return []

    def text(self, item: Item | None) -> Text | None:
        """A scalar with its variables; None where there is none."""
        if item is None or item.is_null:
            return None
        if not isinstance(item.node, Scalar):
            self.problem("must be text", item)
            return None
        return self._parsed(item.node.text, Item(item.node, item.path, item.node.place))

    def _parsed(self, text: str, item: Item) -> Text | None:
        try:
            return Text(parse_compose(text), item.place, item.path)
        except TemplateError as exc:
            self.problem(str(exc), item, "write ${NAME}, ${NAME:-default} or $$")
            return None

    def texts(self, item: Item | None, *, single: bool = False) -> list[Text]:
        return [text for each in self.items(item, single=single) if (text := self.text(each)) is not None]

    def pairs(self, item: Item | None, separators: str = "=") -> dict[str, tuple[Text | None, Item]]:
        """``NAME: value``, or a list of ``NAME=value``; None for a name without a value."""
        if item is None or item.is_null:
            return {}
        if not isinstance(item.node, Items):
            return {key: (self.text(child), child) for key, child in self.entries(item, free=True).items()}
        found: dict[str, tuple[Text | None, Item]] = {}
        for each in self.items(item):
            text = self.text(each)
            if text is not None:
                name, value = self._pair(text, separators)
                found[name] = (value, Item(each.node, (*item.path, name), each.place))
        return found

    def _pair(self, text: Text, separators: str) -> tuple[str, Text | None]:
        for separator in separators:
            name, *others = split(text.parts, separator)
            if others:
                rest = joined(*[part for other in others for part in ((separator,), other)][1:])
                return self.value(text.of(name)), text.of(rest)
        return self.value(text), None

    def members(self, item: Item | None) -> dict[str, Item]:
        """A list of names, or a mapping of names to details; each with its details, which may be nothing."""
        if item is None or not isinstance(item.node, Items):
            return self.entries(item, free=True)
        return {
            self.fixed(text): Item(Scalar("", True, "", text.place), text.path, text.place) for text in self.texts(item)
        }

    def flag(self, item: Item | None) -> bool:
        """A truth; false where there is none."""
        text = self.text(item)
        if text is None:
            return False
        value = self.fixed(text).lower()
        if value not in _TRUE | _FALSE:
            self.problem("must be true or false", text)
        return value in _TRUE

    def one_of(self, item: Item | None, choices: Collection[str], default: str) -> str:
        text = self.text(item)
        if text is None:
            return default
        value = self.fixed(text)
        if value in choices:
            return value
        self.problem(f"must be one of {', '.join(choices)}, not '{value}'", text)
        return default

    def number(self, text: Text, *, low: int = 0, high: int = 2**31) -> int | AsWritten | None:
        """A whole number, which may come from a variable."""
        value = self.value(text).strip()
        if not re.fullmatch(r"-?\d+", value) or not low <= int(value) <= high:
            self.problem(f"must be a number, not '{value}'", text, self._unset(text))
            return None
        spelled = self.written(text)
        if isinstance(spelled, AsWritten) and _UNQUOTED.fullmatch(spelled):
            return AsWritten.of(spelled, plain=True)
        self.freeze(text)
        return int(value)

    def amount(self, item: Item | None, convert: Callable[[str], T], what: str) -> T | None:
        """What ``convert`` makes of a text; it raises ValueError for what is none."""
        text = self.text(item)
        if text is None:
            return None
        value = self.fixed(text)
        try:
            return convert(value)
        except (ValueError, ArithmeticError):
            self.problem(f"must be {what}, not '{value}'", text, self._unset(text))
            return None

    def seconds(self, item: Item | None) -> float | int | None:
        return self.amount(item, amounts.seconds, "a duration such as 1m30s")

    def megabytes(self, item: Item | None) -> int | None:
        """A size in whole megabytes; what had to be rounded is told."""
        count = self.amount(item, amounts.size, "a size such as 512m")
        if item is None or count is None:
            return None
        if count % amounts.MEGABYTE:
            self.changed(f"rounded up to {amounts.megabytes(count)} MB", item)
        return amounts.megabytes(count)

    # ----------------------------------------------------------------------- values

    def value(self, text: Text) -> str:
        """As Compose would fill it in now."""
        self._demand(text)
        return value_of(text.parts, self.lookup)

    def fixed(self, text: Text) -> str:
        """``value`` for where our file can hold no variable; says so."""
        if self.holds_secret(text):
            self.problem("this would be written down, and looks like a secret", text, "write it without the variable")
        elif text.has_variables:
            self.freeze(text)
        return self.value(text)

    def holds_secret(self, text: Text) -> bool:
        """Does a variable have a name as secrets have? Its value is never written down."""
        return any(is_secret_name(variable.name) for variable in variables(text.parts))

    def freeze(self, text: Text) -> None:
        """Say that variables of ``text`` are no longer variables."""
        names = ", ".join(dict.fromkeys(variable.name for variable in variables(text.parts)))
        if names:
            self.changed(f"what {names} says now is written down: no variable can stand here", text)

    def _demand(self, text: Text) -> None:
        """``${NAME:?text}`` without a value is an error in Compose too."""
        for variable in variables(text.parts):
            value = self.lookup(variable.name)
            if variable.operator.endswith("?") and (not value if ":" in variable.operator else value is None):
                told = value_of(variable.word, self.lookup)
                message = f"variable {variable.name} is not set" + (f": {told}" if told else "")
                if not any(known.message == message for known in self.findings.problems):
                    self.problem(message, text, f"set {variable.name} in the environment or in .env")

    def _unset(self, text: Text) -> str:
        names = [each.name for each in variables(text.parts) if self.lookup(each.name) is None]
        return f"{', '.join(names)} is not set" if names else ""

    def written(self, text: Text) -> str | AsWritten:
        """As our file has it: variables stay variables."""
        self._demand(text)
        parts = self._known(text)
        if not any(isinstance(part, Variable) for part in parts):
            return AsWritten.of(in_ours(parts), plain=False) if "$" in "".join(map(str, parts)) else _text(parts)
        return AsWritten.of(in_ours(parts), plain=False)

    def _known(self, text: Text) -> Template:
        return joined(*(self._as_ours(part, text) for part in text.parts))

    def _as_ours(self, part: str | Variable, text: Text) -> str | Variable | Template:
        if isinstance(part, str):
            return part
        if _RESERVED.fullmatch(part.name):
            self.changed(f"{part.name} is what deploy-code tells an instance; its value now is written down", text)
            return value_of((part,), self.lookup)
        word = joined(*(self._as_ours(each, text) for each in part.word))
        if part.operator or self.is_known(part.name):
            return Variable(part.name, part.operator, word)
        self._say_unset(part.name, text)
        return Variable(part.name, ":-")

    def _say_unset(self, name: str, text: Text) -> None:
        if name in self.told:
            return
        self.told.add(name)
        if self.lookup(name) is None:
            self.changed(f"variable {name} is not set: empty, as in Compose; ${{{name}}} would insist on it", text)
        else:
            self.changed(f"variable {name} must be set where deploy-code reads it, in .env beside its file", text)

    # ----------------------------------------------------------------------- pieces

    def split(self, text: Text, separator: str) -> list[Text]:
        """Cut at ``separator``, as Compose does: after filling in, if that makes a difference."""
        pieces = split(text.parts, separator)
        value = value_of(text.parts, self.lookup)
        if self.holds_secret(text) or [value_of(piece, self.lookup) for piece in pieces] == value.split(separator):
            return [text.of(piece) for piece in pieces]
        self.freeze(text)
        return [text.of(joined(piece)) for piece in value.split(separator)]


def _text(parts: Template) -> str:
    return "".join(part for part in parts if isinstance(part, str))
