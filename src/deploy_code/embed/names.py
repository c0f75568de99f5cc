"""What a program registers under names of its own: types of services, strategies."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from deploy_code.errors import ServiceError


class Registered:
    """Factories by name. ``kind`` is what they make, for messages; ``own`` are the names that are ours."""

    def __init__(self, kind: str, own: Collection[str]) -> None:
        self.factories: dict[str, Callable[..., Any]] = {}
        self._kind = kind
        self._own = own

    def add(self, name: str, factory: Any) -> None:
        """Raises ServiceError: S002 for a name that is taken, S003 for what cannot be registered."""
        from deploy_code.config.fields import fold

        what = f'{self._kind} "{name}"'
        if not isinstance(name, str) or not name.strip():
            raise ServiceError(f"a {self._kind} needs a name", code="S003", remedy="Give it one")
        if fold(name) in map(fold, self._own):
            raise ServiceError(f"{what} is built in", code="S003", remedy="Give yours another name")
        if not callable(factory):
            found = type(factory).__name__
            raise ServiceError(
                f"what makes {what} cannot be called: it is of type {found}",
                code="S003",
                remedy="Register a class or a function",
            )
        if name in self.factories:
            raise ServiceError(f"{what} is registered already", code="S002", remedy="Give the second another name")
        self.factories[name] = factory
