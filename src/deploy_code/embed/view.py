"""A mapping with fixed keys, read as attributes: ``status.services["web"].status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

_BY_NAME = frozenset({"services", "ports"})  # keys whose mappings have keys that users choose


class View:
    """Read-only. The attributes are the keys of the mapping that the reference describes; ``to_dict()`` gives it back.

    Mappings inside are views too, except those whose keys users choose (``services``, ``ports``): these stay mappings.
    """

    __slots__ = ("_data",)

    def __init__(self, data: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_data", dict(data))

    def __getattr__(self, name: str) -> Any:
        data: dict[str, Any] = object.__getattribute__(self, "_data")
        if name not in data:
            raise AttributeError(f"there is no {name!r} here, but {', '.join(data)}", name=name, obj=self)
        return _seen(data[name], by_name=name in _BY_NAME)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name!r} cannot be set: this is a look at something, not the thing itself")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} cannot be deleted: this is a look at something, not the thing itself")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; a copy."""
        from copy import deepcopy

        return deepcopy(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self._data == other._data

    __hash__ = None  # type: ignore[assignment]  # it holds lists

    def __dir__(self) -> Iterator[str]:
        return iter((*self._data, "to_dict"))

    def __repr__(self) -> str:
        return f"View({', '.join(f'{key}={value!r}' for key, value in self._data.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data,)


def _seen(value: Any, *, by_name: bool = False) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _seen(each) for key, each in value.items()}) if by_name else View(value)
    if isinstance(value, list):
        return tuple(_seen(each) for each in value)
    return value
