"""``deploy-code events``: the audit and the doings of the agent, in one stream."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from deploy_code.cli.options import Options, command, services_option
from deploy_code.cli.output import emit, has_color, paint, plain, to_json_line, to_yaml, write
from deploy_code.cli.reading import open_store, ticks
from deploy_code.cli.times import iso, since, stamp

if TYPE_CHECKING:
    from deploy_code.state.rows import EventCursor, EventRow
    from deploy_code.state.store import Store

_RED = ("failed", "exited", "killed", "unready")


@command("events", data=True)
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
@click.option(
    "--since", metavar="TIME", callback=since, help="Only newer ones: 10m, 2h, or 2025-01-31T12:00."
)
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(min=0),
    default=100,
    help="At most so many [default: 100].",
)
@services_option("Only of these")
@click.pass_obj
def events(
    options: Options, follow: bool, since: float | None, lines: int, services: tuple[str, ...]
) -> None:
    """Show what happened, who did it and when.

    Deployments with the person and the command behind them, and everything the agent saw and did.
    """
    app = options.app()
    with open_store(options, app) as store:
        if follow:
            folder = app.identity.directories.state
            _follow(options, _needed(store, options), folder, since, lines, services)
        else:
            _show(options, _pick(store.events(since=since, limit=lines), services) if store else [])


def _needed(store: Store | None, options: Options) -> Store:
    if store is None:
        raise click.UsageError(
            f"nothing was deployed yet, so there is nothing to follow; '{options.line('deploy')}' does"
        )
    return store


def _pick(rows: Iterable[EventRow], services: tuple[str, ...]) -> list[EventRow]:
    return [row for row in rows if not services or row.service in services]


def _show(options: Options, rows: list[EventRow]) -> None:
    emit([_data(row) for row in rows], options, lambda: "\n".join(_lines(rows)) or "Nothing happened yet.")


def _follow(
    options: Options, store: Store, folder: str, since: float | None, lines: int, services: tuple[str, ...]
) -> None:
    """JSON: one object a line; YAML: one list item at a time, so that the stream can be read as it comes."""
    from deploy_code.state.rows import EventCursor

    cursor: EventCursor = EventCursor()
    rows = store.events(since=since, limit=lines)
    for _ in ticks(folder, least=0.2):
        cursor = cursor.past(rows)
        for row in _pick(rows, services):
            write(_one(options, row))
        sys.stdout.flush()
        rows = store.events(after=cursor)


def _one(options: Options, row: EventRow) -> str:
    if options.is_text:
        return next(_lines([row]))
    return to_json_line(_data(row)) if options.format == "json" else to_yaml([_data(row)]).rstrip("\n")


def _lines(rows: Iterable[EventRow]) -> Iterator[str]:
    on = has_color(sys.stdout)
    for row in rows:
        who = f"  ({plain(row.who)})" if row.who else ""
        number = f"#{row.deployment}" if row.deployment else ""
        style = "red" if any(word in row.text for word in _RED) else ""
        text = paint(plain(row.text), style, on) + paint(who, "dim", on)
        yield f"{paint(stamp(row.at), 'dim', on)}  {number:<5} {text}"


def _data(row: EventRow) -> dict[str, Any]:
    return {
        "at": iso(row.at),
        "source": row.source,
        "deployment": row.deployment,
        "service": row.service,
        "name": row.name,
        "text": row.text,
        "who": row.who,
    }
