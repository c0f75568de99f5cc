"""Points in time and spans as people write and read them: local time, ``10m``, ``3 min ago``."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_since(text: str, now: float | None = None) -> float:
    """``90s``, ``10m``, ``2h``, ``1d`` back from now, or an ISO time (local unless it names a zone) → seconds
    since the epoch.

    Raises ``click.BadParameter`` for anything else.
    """
    span = _span(text.strip())
    if span is not None:
        return (time.time() if now is None else now) - span
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a span like 90s, 10m, 2h, 1d nor a time like 2025-01-31T12:00"
        ) from None


def _span(text: str) -> float | None:
    number, unit = text[:-1], text[-1:]
    if unit.isdigit():
        number, unit = text, "s"
    try:
        value = float(number)
    except ValueError:
        return None
    return value * _UNITS[unit] if unit in _UNITS and 0 <= value < 1e9 else None


def since(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Callback of ``--since``."""
    return None if value is None else parse_since(value)


def clock(at: float) -> str:
    """Local time to the second; the date only when it is not today's."""
    moment = datetime.fromtimestamp(at)
    today = datetime.now().date() == moment.date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def stamp(at: float) -> str:
    """Local date and time to the second, always in full."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """``0.04 s``, ``1.3 s``, ``42 s``, ``3 min 20 s``, ``5 h 12 min``, ``12 d 3 h``."""
    if seconds < 1:
        return f"{max(seconds, 0):.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, big, small_size, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {big}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def ago(at: float, now: float | None = None) -> str:
    return f"{span((time.time() if now is None else now) - at)} ago"


def iso(at: float | None) -> str | None:
    """UTC, ISO 8601, as data carries it; None for "not yet"."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds") if at else None
