"""Durations and sizes as Compose writes them: ``1m30s``, ``512m``."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_PIECE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|μs|ns)")
_SECONDS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    **dict.fromkeys(("us", "µs", "μs"), Decimal("1e-6")),
    "ns": Decimal("1e-9"),
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_FACTORS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
MEGABYTE = 2**20


def seconds(text: str) -> float | int:
    """``1m30s`` → 90; ``0`` → 0; a bare number is seconds. Raises ValueError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _plain(Decimal(text))
    pieces = list(_PIECE.finditer(text))
    if not pieces or "".join(piece[0] for piece in pieces) != text:
        raise ValueError(text)
    return _plain(sum((Decimal(piece[1]) * _SECONDS[piece[2]] for piece in pieces), Decimal(0)))


def _plain(number: Decimal) -> float | int:
    return int(number) if number == number.to_integral_value() else float(number)


def size(text: str) -> int:
    """``512m`` → bytes, in steps of 1024. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    return int(Decimal(match[1]) * 1024 ** _FACTORS[match[2].lower()])


def megabytes(count: int) -> int:
    """Whole megabytes, rounded up: a limit too small kills."""
    return math.ceil(count / MEGABYTE)


def duration(count: float) -> str:
    """90 → ``90s``, 0.5 → ``500ms``: what both old and new Compose read."""
    if count == int(count):
        return f"{int(count)}s"
    thousandths = count * 1000
    return f"{int(thousandths)}ms" if thousandths == int(thousandths) else f"{round(count * 1e6)}us"
