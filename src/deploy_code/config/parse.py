"""YAML text to nodes: libyaml does the syntax, the builder here does the meaning.

PyYAML's own constructors read ``22:22`` as 1342 and ``no`` as False, let duplicate keys pass and walk alias bombs until
memory is gone; its C composer recurses and dies of a segmentation fault on deep nesting. So we take libyaml's events,
which come one by one, and build the tree without recursion, with bounds.

Raises nothing for bad text: what is wrong comes back as problems (E002) with line and column.
"""

from __future__ import annotations

from typing import Any

import yaml

from deploy_code.config.files import without_mark
from deploy_code.config.nodes import Entries, Items, Node, Place, Scalar
from deploy_code.errors import Problem

MAX_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 1_000_000

_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")}

_HINTS = (
    (
        "mapping values are not allowed",
        "text that holds ': ' needs quotes; or this line is indented differently from its neighbours",
    ),
    ("could not find expected ':'", "a key needs a ':' after it; text that goes over several lines needs quotes"),
    ("did not find expected key", "check the indentation of this line, and quotes and brackets before it"),
    ("block end", "check the indentation of this line"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("unexpected end of stream", "a quote or bracket is not closed"),
    ("undefined alias", "define it with &name before it is used"),
    ("block sequence entries are not allowed", "a list begins on a line of its own, below its key"),
)


def parse(data: bytes, file: str) -> tuple[Entries | None, list[Problem]]:
    """The root mapping (None when it is empty or cannot be read) and everything that is wrong with the text."""
    builder = _Builder(file)
    try:
        builder.run(_decode(data, file))
    except _FatalError as fatal:
        return None, [*builder.problems, fatal.problem]
    return builder.result()


class _FatalError(Exception):
    """Nothing sensible can be read from here on."""

    def __init__(self, message: str, place: Place, remedy: str = "") -> None:
        file, line, column = place
        self.problem = Problem(message, file=file, line=line, column=column, remedy=remedy)
        super().__init__(message)


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise _FatalError(f"larger than {MAX_BYTES >> 20} MB", Place(file, 1, 1), "split it into several files")
    try:
        return without_mark(data).decode()
    except UnicodeDecodeError as exc:
        line, column = _position(data[: exc.start])
        raise _FatalError(
            f"not UTF-8 text: byte 0x{data[exc.start]:02x}", Place(file, line, column), "save the file as UTF-8"
        ) from exc


def _position(before: bytes) -> tuple[int, int]:
    return before.count(b"\n") + 1, len(before) - before.rfind(b"\n")


class _Builder:
    """Eats events, keeps the open collections on a stack of its own."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}  # None: still open
        self._count = 0
        self._documents = 0

    def run(self, text: str) -> None:
        try:
            for event in _events(text):
                self._feed(event)
        except yaml.MarkedYAMLError as exc:
            raise self._syntax_error(exc, text) from exc
        except yaml.reader.ReaderError as exc:
            raise self._bad_character(exc, text) from exc
        except yaml.YAMLError as exc:
            raise _FatalError(f"not valid YAML: {exc}", Place(self.file, 1, 1)) from exc

    def result(self) -> tuple[Entries | None, list[Problem]]:
        root = self._root
        if root is None or (isinstance(root, Scalar) and root.is_null):
            return None, self.problems
        if isinstance(root, Entries):
            return root, self.problems
        kind = "a list" if isinstance(root, Items) else "a single value"
        self._problem(f"the file is {kind}, not a mapping", root.place, "it must begin with keys such as 'services:'")
        return None, self.problems

    def _feed(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent:
            self._begin(event, Entries(self._place(event)))
        elif kind is yaml.SequenceStartEvent:
            self._begin(event, Items(self._place(event)))
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._end()
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.DocumentStartEvent:
            self._document(event)

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            raise _FatalError(
                "a second document begins here",
                self._place(event),
                "one file is one document: give overlays with several -c",
            )

    def _scalar(self, event: Any) -> None:
        place = self._place(event)
        tag = self._tag(event, place)
        if "\0" in event.value:
            self._problem("a NUL character", place, "remove it")
        node = Scalar(event.value, not event.style and not tag and event.implicit[0], tag, place)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._counted(1, place)
        self._add(node)

    def _begin(self, event: Any, node: Entries | Items) -> None:
        self._tag(event, node.place)
        if len(self._open) >= MAX_DEPTH:
            raise _FatalError(f"nested more than {MAX_DEPTH} deep", node.place)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._counted(1, node.place)
        self._open.append(_Open(node, event.anchor, self._count))

    def _end(self) -> None:
        done = self._open.pop()
        done.node.size += self._count - done.count
        if done.anchor is not None:
            self._anchors[done.anchor] = done.node
        if done.merges:
            self._merge(done)
        self._add(done.node)

    def _alias(self, event: Any) -> None:
        place = self._place(event)
        node = self._anchors.get(event.anchor, _UNKNOWN)
        if node is _UNKNOWN:
            raise _FatalError(f"alias *{event.anchor} is not defined", place, f"define it with &{event.anchor} before")
        if node is None:
            raise _FatalError(f"alias *{event.anchor} is used inside itself", place)
        self._counted(node.size, place)
        self._add(node)

    def _add(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        top = self._open[-1]
        if isinstance(top.node, Items):
            top.node.items.append(node)
        elif top.key is None:
            top.key = self._key(node)
        else:
            key, top.key = top.key, None
            self._entry(top, key, node)

    def _key(self, node: Node) -> Scalar:
        if isinstance(node, Scalar):
            return node
        raise _FatalError("a key must be a word, not a list or a mapping", node.place, "put it in quotes if it is text")

    def _entry(self, top: _Open, key: Scalar, node: Node) -> None:
        assert isinstance(top.node, Entries)
        if key.plain and key.text == "<<":
            top.merges.append(node)
        elif key.text in top.node.nodes:
            first = top.node.keys[key.text]
            self._problem(f"key '{key.text}' is here twice", key.place, f"the first is in line {first.line}; keep one")
        else:
            top.node.put(key.text, node, key.place)

    def _merge(self, done: _Open) -> None:
        target = done.node
        assert isinstance(target, Entries)
        for source in done.merges:
            for entries in source.items if isinstance(source, Items) else [source]:
                if not isinstance(entries, Entries):
                    self._problem("'<<' takes a mapping", entries.place, "write <<: *name")
                    continue
                for key, node in entries.nodes.items():
                    if key not in target.nodes:
                        target.put(key, node, entries.keys[key])

    def _counted(self, nodes: int, place: Place) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            raise _FatalError(f"more than {MAX_NODES} values, aliases unfolded", place)

    def _tag(self, event: Any, place: Place) -> str:
        if event.tag is None or event.tag == "!":
            return "str" if event.tag else ""
        known = _TAGS.get(event.tag)
        if known is None:
            self._problem(f"tag {event.tag} means nothing here", place, "remove it")
        return known or ""

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def _problem(self, message: str, place: Place, remedy: str = "") -> None:
        self.problems.append(_FatalError(message, place, remedy).problem)

    def _syntax_error(self, exc: yaml.MarkedYAMLError, text: str) -> _FatalError:
        mark = exc.problem_mark or exc.context_mark
        place = Place(self.file, mark.line + 1, mark.column + 1) if mark else Place(self.file, 1, 1)
        if "cannot start any token" in str(exc.problem):
            return self._bad_start(text, place)
        hint = next((hint for part, hint in _HINTS if part in str(exc.problem)), "")
        if "${" in _line_at(text, place) and "expected ','" in str(exc.problem):
            hint = 'inside { } and [ ] a variable needs quotes: "${VAR}"'
        return _FatalError(f"not valid YAML: {exc.problem}", place, hint)

    def _bad_start(self, text: str, place: Place) -> _FatalError:
        character = _line_at(text, place)[place.column - 1 : place.column]
        if character == "\t":
            return _FatalError("a tab where spaces are needed", place, "indent with spaces")
        return _FatalError(f"a value cannot begin with {character!r}", place, "put it in quotes")

    def _bad_character(self, exc: yaml.reader.ReaderError, text: str) -> _FatalError:
        line, column = _position(text.encode("utf-8", "replace")[: exc.position])
        return _FatalError(f"not valid YAML: {exc.reason}", Place(self.file, line, column), "remove this character")


def _line_at(text: str, place: Place) -> str:
    lines = text.split("\n")
    return lines[place.line - 1] if place.line <= len(lines) else ""


class _Open:
    """A collection whose end has not come yet."""

    __slots__ = ("anchor", "count", "key", "merges", "node")

    def __init__(self, node: Entries | Items, anchor: str | None, count: int) -> None:
        self.node = node
        self.anchor = anchor
        self.count = count
        self.key: Scalar | None = None
        self.merges: list[Node] = []


_UNKNOWN: Any = object()


def _events(text: str) -> Any:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]  # absent only where PyYAML was built without libyaml: an ImportError says so

    parser = CParser(text)
    event = parser.get_event()
    while event is not None:
        yield event
        if type(event) is yaml.StreamEndEvent:
            return
        event = parser.get_event()
