"""Asks before something is removed for good: a person where there is one, else it must have been said with --yes."""

from __future__ import annotations

import sys

import click

from deploy_code.cli.output import is_terminal


def is_wanted(question: str, yes: bool) -> bool:
    """Shall it be done? Raises UsageError where nobody can be asked and nobody said --yes."""
    if yes:
        return True
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise click.UsageError("nobody can be asked here, so nothing was removed; say --yes to remove it")
    return click.confirm(question, err=True)


def amount(size: int) -> str:
    """Bytes for people: ``512 B``, ``3.4 MB``; powers of 1000, as disks and engines count."""
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
