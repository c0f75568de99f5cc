"""A parsed file as a tree that still knows where everything was written.

Values and places travel together from the text to the error message: overlays are merged on these nodes, so each value
keeps the place in the file it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

Path: TypeAlias = tuple[str | int, ...]


class Place(NamedTuple):
    """Where something is written. ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int


class Scalar:
    """One value. ``plain``: written without quotes, so that its text decides its type."""

    __slots__ = ("place", "plain", "tag", "text")
    size = 1

    def __init__(self, text: str, plain: bool, tag: str, place: Place) -> None:
        self.text = text
        self.plain = plain
        self.tag = tag
        self.place = place

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


class Items:
    """A list. ``size`` counts all nodes in it, aliases as often as they are used."""

    __slots__ = ("items", "place", "size")

    def __init__(self, place: Place) -> None:
        self.items: list[Node] = []
        self.place = place
        self.size = 1


class Entries:
    """A mapping; ``keys`` holds the place of each key."""

    __slots__ = ("keys", "nodes", "place", "size")

    def __init__(self, place: Place) -> None:
        self.nodes: dict[str, Node] = {}
        self.keys: dict[str, Place] = {}
        self.place = place
        self.size = 1

    def put(self, key: str, node: Node, place: Place) -> None:
        self.nodes[key] = node
        self.keys[key] = place


Node: TypeAlias = Scalar | Items | Entries

_SHORT = {"env": "environment", "image": "container_image"}
TWINS = _SHORT | {long: short for short, long in _SHORT.items()}
"""Keys of a service that have two spellings."""


def place_of(root: Node, path: Sequence[str | int], *, key: bool = False) -> Place:
    """Where ``path`` is written, or the nearest thing around it that is; of the key itself with ``key``."""
    node, place = root, root.place
    for step in path:
        if isinstance(node, Entries) and (name := _written(node, step)) is not None:
            place, node = node.keys[name], node.nodes[name]
        elif isinstance(node, Items) and isinstance(step, int) and 0 <= step < len(node.items):
            node = node.items[step]
            place = node.place
        else:
            return place
    return place if key or not isinstance(node, Scalar) or _is_blank(node) else node.place


def as_written(root: Node, path: Sequence[str | int]) -> Path:
    """``path`` with the spellings that the file uses (``env`` or ``environment``)."""
    node: Node | None = root
    written: list[str | int] = []
    for step in path:
        name = _written(node, step) if isinstance(node, Entries) else None
        written.append(step if name is None else name)
        node = _child(node, written[-1])
    return tuple(written)


def canonical(path: Path) -> Path:
    """``path`` with the spellings of the models (``environment``)."""
    if len(path) > 2 and path[0] == "services":
        return (*path[:2], _SHORT.get(str(path[2]), path[2]), *path[3:])
    return path


def node_at(root: Node, path: Sequence[str | int]) -> Node | None:
    """The node at exactly ``path``, either spelling, or None."""
    node: Node | None = root
    for step in path:
        name = _written(node, step) if isinstance(node, Entries) else step
        node = None if name is None else _child(node, name)
    return node


def dotted(path: Sequence[str | int]) -> str:
    """``("services", "api", "ports", 0)`` → ``services.api.ports[0]``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def code_of(path: Path) -> str:
    """The code of a problem at ``path`` (CONTRACTS §1): S003 inside a service, E010 for the network, else E002."""
    if len(path) > 1 and path[0] == "services":
        return "S003"
    network = path[:2] == ("infrastructure", "network") and len(path) > 2
    return "E010" if network and path[2] in ("cidr", "dns_servers", "port_range") else "E002"


def _child(node: Node | None, step: str | int) -> Node | None:
    if isinstance(node, Entries):
        return node.nodes.get(str(step))
    if isinstance(node, Items) and isinstance(step, int) and 0 <= step < len(node.items):
        return node.items[step]
    return None


def _written(node: Entries, step: str | int) -> str | None:
    name = str(step)
    if name in node.nodes:
        return name
    twin = TWINS.get(name)
    return twin if twin in node.nodes else None


def _is_blank(node: Scalar) -> bool:
    return node.plain and not node.text
