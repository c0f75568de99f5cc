"""What ``prune`` may remove, as values that can be shown before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy_code.drivers.engine.endpoint import Endpoint

KINDS = ("revision", "release", "image", "volume", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """One thing. ``key`` is what it is removed by, ``name`` what people read; ``size`` in bytes, 0: none or unknown."""

    kind: str  # one of KINDS
    key: str
    name: str
    why: str
    size: int = 0
    engine: Endpoint | None = None  # where it is; None: on our own disk
    tags: tuple[str, ...] = field(default=(), compare=False)  # of an image: its names, all ours

    def to_dict(self) -> dict[str, Any]:
        where = str(self.engine) if self.engine is not None else ""
        return {"kind": self.kind, "name": self.name, "size_bytes": self.size, "why": self.why, "engine": where}

    @property
    def identity(self) -> tuple[str, str, Endpoint | None]:
        return self.kind, self.key, self.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Leavings:
    """All of a project, in the order they are removed. ``warnings``: what could not be looked at or removed."""

    items: tuple[Leaving, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)

    @property
    def names(self) -> str:
        """As a list for people. Two engines may have things of one name: then each is told with its engine."""
        is_one = len({item.engine for item in self.items}) < 2
        return ", ".join(item.name if is_one else f"{item.name} ({item.engine})" for item in self.items)

    def only(self, shown: Leavings) -> Leavings:
        """Those that were in ``shown`` too."""
        known = {item.identity for item in shown.items}
        return Leavings(items=tuple(item for item in self.items if item.identity in known), warnings=self.warnings)


def total(parts: Sequence[Leavings]) -> Leavings:
    return Leavings(
        items=tuple(item for part in parts for item in part.items),
        warnings=tuple(warning for part in parts for warning in part.warnings),
    )
