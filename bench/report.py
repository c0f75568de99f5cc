"""Writes docs/benchmarks.md: what was measured, what was promised, and whether it was kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import machine
from measure import Figure

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Written by `make bench`: the figures of the last run, misses included. Every time stands beside that of a peer
or of the raw limit, taken in the same run, as machines differ, and this one may be shared. Contenders take turns;
times are medians of several rounds, with the best and the worst round in brackets. The command below a table
measures that part again and prints it.
"""


def write(sections: Sequence[tuple[str, Sequence[Figure]]]) -> Path:
    """The whole report, replacing the last one."""
    head = f"{INTRODUCTION}\nMeasured {machine.now()} on: {machine.description()}.\n"
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join([head, *(section(title, figures) for title, figures in sections)]))
    return REPORT


def section(title: str, figures: Sequence[Figure]) -> str:
    """One table; the commands that print it below."""
    rows = ["| What | Measured | Target | | Remark |", "|---|---|---|---|---|", *map(_row, figures)]
    commands = sorted({figure.command for figure in figures if figure.command})
    return "\n".join([f"## {title}", "", *rows, "", *(f"    {command}" for command in commands), ""])


def _row(figure: Figure) -> str:
    cells = (figure.name, figure.value, figure.target, _verdict(figure.met), figure.note)
    return f"| {' | '.join(cells)} |"


def _verdict(met: bool | None) -> str:
    return {None: "", True: "met", False: "**missed**"}[met]
