"""``deploy-code prune``"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deploy_code.cli.asking import amount, is_wanted
from deploy_code.cli.options import Options, command, wait_option
from deploy_code.cli.output import Interrupted, emit, has_color, say, say_warnings

if TYPE_CHECKING:
    from deploy_code.orchestrator.leavings import Leavings

T = TypeVar("T")

CUT_SHORT = "Interrupted: what was removed is gone; run it again for the rest."


@command("prune", data=True)
@click.option("-y", "--yes", is_flag=True, help="Remove it without being asked.")
@wait_option()
@click.pass_obj
def prune(options: Options, yes: bool, wait: bool) -> int:
    """Remove old revisions, their images and code.

    Shows what it will remove, then asks. What is wanted or runs now stays, and so does all that a rollback to one of
    the last good deployments needs (deployment.retained_revisions of them). No named volume goes, and no image that
    somebody else gave a tag.
    """
    app = options.app()
    if not app.has_state():
        emit(_data(None, removed=False), options, lambda: "Nothing to prune: this project was never deployed.")
        return 0
    pruning = app.pruning()
    shown = run(pruning.look())
    say_warnings(shown.warnings, options)
    if not shown.items or options.dry_run:
        emit(_data(shown, removed=False), options, lambda: listing(shown) or "Nothing to prune.")
        return 0
    if not yes:
        say(listing(shown, color=has_color(sys.stderr, options)), options, level="error")
    if not is_wanted("Remove all this?", yes):
        say("Nothing was removed.", options)
        return 0
    gone = run(pruning.remove(shown, wait=wait), cut_short=CUT_SHORT)
    say_warnings((each for each in gone.warnings if each not in shown.warnings), options)
    emit(_data(gone, removed=True), options, lambda: f"{listing(gone)}\nRemoved." if gone.items else "Nothing went.")
    return 0


def run(work: Coroutine[Any, Any, T], *, cut_short: str = "Interrupted: nothing was removed.") -> T:
    """One loop for one piece of work. Raises Interrupted after Ctrl-C, which says ``cut_short``."""
    import asyncio

    try:
        return asyncio.run(work)
    except KeyboardInterrupt as stop:
        say(cut_short)
        raise Interrupted from stop


def listing(found: Leavings, *, color: bool = False) -> str:
    """What goes, as a table, and how much of the disk that frees; "" where there is nothing."""
    from deploy_code.cli.tables import table

    if not found.items:
        return ""
    rows = [(item.kind, item.name, amount(item.size) if item.size else "", item.why) for item in found.items]
    lines = table(("KIND", "NAME", "SIZE", "WHY"), rows, color=color)
    return f"{lines}\n{_count(len(found.items))}" + (f", up to {amount(found.size)}" if found.size else "")


def _count(number: int) -> str:
    return "1 thing" if number == 1 else f"{number} things"


def _data(found: Leavings | None, *, removed: bool) -> dict[str, Any]:
    return {
        "removed": removed,
        "size_bytes": found.size if found else 0,
        "items": [item.to_dict() for item in found.items] if found else [],
        "warnings": list(found.warnings) if found else [],
    }
