"""Several Compose files as one, and a service over the one that it extends: mappings deep, lists added up.

What may be written as a list or as a mapping is brought to one form first, so that the same name meets itself.
"""

from __future__ import annotations

import re

from deploy_code.config.nodes import Entries, Items, Node, Scalar

_MAPPINGS = frozenset({"environment", "labels", "args", "extra_hosts", "sysctls", "annotations"})
_NAMES = frozenset({"depends_on", "networks"})  # a list of names is a mapping of names to nothing
_REPLACED = frozenset({"command", "entrypoint", "test"})
_BY_TARGET = frozenset({"volumes", "devices"})
_OPTIONS_OF_A_DRIVER = frozenset({"logging"})
_VARIABLE = re.compile(r"\$\{[^}]*\}")


def merged_files(base: Entries, over: Entries) -> Entries:
    """``over`` over ``base``, both whole files."""
    found = _copy(base)
    for key, node in over.nodes.items():
        here = found.nodes.get(key)
        if key == "services" and isinstance(here, Entries) and isinstance(node, Entries):
            node = _services(here, node)
        elif isinstance(here, Entries) and isinstance(node, Entries):
            node = _deep(here, node)
        found.put(key, node, over.keys[key])
    return found


def _services(base: Entries, over: Entries) -> Entries:
    found = _copy(base)
    for name, node in over.nodes.items():
        here = found.nodes.get(name)
        if isinstance(here, Entries) and isinstance(node, Entries):
            node = merged_services(here, node)
        found.put(name, node, over.keys[name])
    return found


def merged_services(base: Entries, over: Entries) -> Entries:
    """``over`` over ``base``, both services."""
    found = _copy(base)
    for key, node in over.nodes.items():
        found.put(key, _over(key, found.nodes.get(key), node), over.keys[key])
    return found


def _over(key: str, base: Node | None, over: Node) -> Node:
    if base is None or key in _REPLACED or _is_null(base):
        return over
    if _is_null(over):
        return base
    base, over = _form(key, base), _form(key, over)
    if isinstance(base, Entries) and isinstance(over, Entries):
        if key in _MAPPINGS:
            return _replaced(base, over)
        if key in _OPTIONS_OF_A_DRIVER and _driver(over) not in ("", _driver(base)):
            return over
        return _deep(base, over)
    if isinstance(base, Items) and isinstance(over, Items):
        return _by_target(base, over) if key in _BY_TARGET else _all(base, over)
    return over


def _deep(base: Entries, over: Entries) -> Entries:
    found = _copy(base)
    for key, node in over.nodes.items():
        found.put(key, _over(key, found.nodes.get(key), node), over.keys[key])
    return found


def _replaced(base: Entries, over: Entries) -> Entries:
    """Names that users chose: what is called ``build`` there is no build."""
    found = _copy(base)
    for name, node in over.nodes.items():
        found.put(name, node, over.keys[name])
    return found


def _form(key: str, node: Node) -> Node:
    if key == "build" and isinstance(node, Scalar):
        return _entry("context", node)
    if key in _NAMES and isinstance(node, Items):
        return _named(node)
    if key in _MAPPINGS and isinstance(node, Items):
        return _pairs(node)
    if key in ("dns", "dns_search", "env_file", "tmpfs") and isinstance(node, Scalar | Entries):
        items = Items(node.place)
        items.items.append(node)
        return items
    return node


def _named(items: Items) -> Entries:
    found = Entries(items.place)
    for each in items.items:
        if isinstance(each, Scalar):
            found.put(each.text, Scalar("", True, "", each.place), each.place)
    return found


def _pairs(items: Items) -> Entries:
    found = Entries(items.place)
    for each in items.items:
        if isinstance(each, Scalar):
            separator = "=" if "=" in each.text else ":"
            name, given, value = each.text.partition(separator)
            found.put(name, Scalar(value, not given, "", each.place), each.place)
    return found


def _entry(key: str, node: Scalar) -> Entries:
    found = Entries(node.place)
    found.put(key, node, node.place)
    return found


def _all(base: Items, over: Items) -> Items:
    """Both lists, the same text once."""
    found = Items(base.place)
    seen: set[str] = set()
    for node in (*base.items, *over.items):
        if isinstance(node, Scalar):
            if node.text in seen:
                continue
            seen.add(node.text)
        found.items.append(node)
    return found


def _by_target(base: Items, over: Items) -> Items:
    """Both lists; of two for the same target the later one."""
    found = Items(base.place)
    targets = {_target(node): node for node in (*base.items, *over.items)}
    found.items.extend(targets.values())
    return found


def _target(node: Node) -> str:
    if isinstance(node, Scalar):
        parts = _VARIABLE.sub("", node.text).split(":")
        return parts[1] if len(parts) > 1 else parts[0]
    target = node.nodes.get("target") if isinstance(node, Entries) else None
    return target.text if isinstance(target, Scalar) else ""


def _driver(entries: Entries) -> str:
    node = entries.nodes.get("driver")
    return node.text if isinstance(node, Scalar) else ""


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_null


def _copy(entries: Entries) -> Entries:
    found = Entries(entries.place)
    for key, node in entries.nodes.items():
        found.put(key, node, entries.keys[key])
    return found
