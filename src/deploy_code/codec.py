"""Plain dataclasses to JSON-ready data and back.

The wire, the state and the cache of resolved configs all carry the same frozen dataclasses. A schema library would cost
the agent 15 MB and every command 180 ms; these few functions, compiled once per class, do what is needed: nested
dataclasses, tuples, mappings, optionals. Unknown keys are dropped and missing ones get their defaults, so that an agent
and a client one version apart still understand each other.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def to_data(value: Any) -> Any:
    """Frozen dataclasses → mappings, tuples → lists, recursively; fields that equal their default are left out."""
    kind: Any = type(value)
    if kind in (str, int, float, bool, type(None)):
        return value
    if kind in (tuple, list, frozenset, set):
        return [to_data(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_data(item) for key, item in value.items()}
    if isinstance(value, str):  # StrEnum
        return str(value)
    data = {}
    for name, default in _fields(kind):
        item = getattr(value, name)
        if item is not default and item != default:
            data[name] = to_data(item)
    return data


def from_data(kind: type[T], data: Any) -> T:
    """The inverse of ``to_data``. Raises ``TypeError`` or ``ValueError`` when ``data`` cannot be a ``kind``."""
    anything: Any = kind
    result: T = _reader(anything)(data)
    return result


_MISSING = object()


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    def default(field: dataclasses.Field[Any]) -> Any:
        if field.default is not dataclasses.MISSING:
            return field.default
        return field.default_factory() if field.default_factory is not dataclasses.MISSING else _MISSING

    return tuple((field.name, default(field)) for field in dataclasses.fields(kind))


def _same(data: Any) -> Any:
    return data


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(typing.cast(type, kind))
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        read = _reader(inner[0]) if len(inner) == 1 else _same
        return read if read is _same else lambda data: None if data is None else read(data)
    if origin in (tuple, frozenset, list):
        item = _reader(args[0]) if args else _same
        return origin if item is _same else lambda data: origin([item(each) for each in data])
    if origin is not None and issubclass(origin, Mapping):
        item = _reader(args[1])
        return _same if item is _same else lambda data: {key: item(each) for key, each in data.items()}
    if isinstance(kind, type) and issubclass(kind, str) and kind is not str:
        return kind
    return _same


def _dataclass_reader(kind: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    readers = {name: _reader(hints[name]) for name, _ in _fields(kind)}

    def read(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise TypeError(f"{kind.__name__}: a mapping is needed, got {type(data).__name__}")
        return kind(**{name: readers[name](item) for name, item in data.items() if name in readers})

    return read
