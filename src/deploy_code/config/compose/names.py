"""Names that Compose gives a container besides its service's, and who uses them: here nobody knows them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploy_code.config.compose.reader import Item, Reader
from deploy_code.config.nodes import Entries, Node, Scalar

_KEYS = ("container_name", "hostname")


def tell_names(reader: Reader, services: dict[str, Item], names: dict[str, str]) -> None:
    """``names``: Compose's names of services → ours."""
    for name, item in services.items():
        keys = reader.entries(item)
        for key in _KEYS:
            text = reader.text(keys.get(key))
            other = reader.value(text) if text else ""
            if not text or other in ("", names[name]) or other in services:
                continue
            users = [user for user, its in services.items() if user != name and _mentions(its.node, other)]
            if users:
                reader.changed(f"{', '.join(users)} may mean this by '{other}': write {names[name]} there", text)


def _mentions(node: Node, word: str) -> bool:
    pattern = re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w.-])")
    return any(pattern.search(text) for text in _texts(node))


def _texts(node: Node) -> Iterator[str]:
    """All values below ``node``."""
    if isinstance(node, Scalar):
        yield node.text
        return
    for child in node.nodes.values() if isinstance(node, Entries) else node.items:
        yield from _texts(child)
