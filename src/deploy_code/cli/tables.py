"""Plain tables: columns as wide as they need, the last one as wide as is left, colour by cell.

Forty lines of ours, because the library that does more costs a short command more than its whole work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deploy_code.cli.output import paint, plain


class Cell(NamedTuple):
    """A text and how it is painted."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]
GAP = "  "


def table(heads: Sequence[str], rows: Sequence[Row], *, color: bool = False, width: int = 0) -> str:
    """Lines of aligned columns under ``heads``. ``width`` 0: as wide as it gets; else no line is wider.

    Columns that are empty in every row are left out.
    """
    cells = [[_cell(item) for item in row] for row in rows]
    kept = [index for index in range(len(heads)) if any(row[index].text for row in cells)]
    cells = [[row[index] for index in kept] for row in cells]
    titles = [Cell(heads[index], "bold") for index in kept]
    widths = _fit([max(len(row[index].text) for row in (titles, *cells)) for index in range(len(kept))], width)
    return "\n".join(_line(row, widths, color, width) for row in (titles, *cells))


def _cell(item: str | Cell) -> Cell:
    cell = item if isinstance(item, Cell) else Cell(item)
    return cell._replace(text=plain(cell.text))


def _fit(widths: list[int], width: int) -> list[int]:
    """Where all does not fit, no column before the last may take more than a third."""
    if not width or sum(widths) + len(GAP) * (len(widths) - 1) <= width:
        return widths
    return [min(wide, max(width // 3, 8)) for wide in widths[:-1]] + widths[-1:]


def _line(row: Sequence[Cell], widths: Sequence[int], color: bool, width: int) -> str:
    parts: list[str] = []
    used = 0
    for cell, wide in zip(row, widths, strict=True):
        room = min(wide, max(width - used, 0)) if width else wide
        text = shorten(cell.text, room)
        pad = "" if cell is row[-1] else " " * (wide - len(text)) + GAP
        parts.append(paint(text, cell.style, color) + pad)
        used += len(text) + len(pad)
    return "".join(parts).rstrip()


def shorten(text: str, room: int) -> str:
    """``text`` in at most ``room`` characters, with … where something is left out."""
    if len(text) <= room:
        return text
    return text[: room - 1] + "…" if room > 0 else ""


def terminal_width(fallback: int = 0) -> int:
    """Columns of the terminal behind stdout; ``fallback`` when it is none."""
    import os
    import sys

    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or fallback
    except (OSError, ValueError):
        return fallback
