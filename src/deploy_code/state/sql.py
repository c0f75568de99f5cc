"""The statements of queries.sql by name; read once a process, and cheap because ``status`` waits for it."""

from __future__ import annotations

import os
from functools import cache

FOLDER = os.path.dirname(os.path.abspath(__file__))
_MARK = "-- name: "


def read(name: str) -> str:
    """The text of one of the SQL files beside this module."""
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()


@cache
def statements() -> dict[str, str]:
    """Those of the queries.sql beside this module."""
    return named(read("queries.sql"))


def named(text: str) -> dict[str, str]:
    """``-- name: x`` starts the statement ``x``; it ends where the next one starts."""
    parts = (part.partition("\n") for part in text.split(_MARK)[1:])
    return {name.strip(): statement.strip() for name, _, statement in parts}
