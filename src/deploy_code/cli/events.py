"""``deploy-code events``: the audit and the doings of the agent, in one stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from deploy_code.cli.options import Options, command, services_option
from deploy_code.cli.output import Interrupted, emit, has_color, paint, plain, stream_item, write
from deploy_code.cli.reading import open_store, redactor_of, ticks
from deploy_code.cli.times import iso, since, stamp

if TYPE_CHECKING:
    from deploy_code.state.rows import EventRow
    from deploy_code.state.store import Store

_RED = ("failed", "exited", "killed", "unready")


@command("events", data=True)
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
@click.option("--since", metavar="TIME", callback=since, help="Only newer ones: 10m, 2h, or 2025-01-31T12:00.")
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
def events(options: Options, follow: bool, since: float | None, lines: int, services: tuple[str, ...]) -> None:
    """Show what happened, who did it and when.

    Deployments with the person and the command behind them, and everything the agent saw and did.
    """
    app = options.app()
    with open_store(options, app) as store:
        pick = _Pick(services, redactor_of(store).clean)
        if follow:
            _follow(options, _needed(store, options), app.identity.directories.state, since, lines, pick)
        else:
            _show(options, pick(store.events(since=since, limit=lines)) if store else [])


def _needed(store: Store | None, options: Options) -> Store:
    if store is None:
        raise click.UsageError(
            f"nothing was deployed yet, so there is nothing to follow; '{options.line('deploy')}' does"
        )
    return store


class _Pick:
    """Of these services only (none: of all), with secrets hidden."""

    def __init__(self, services: tuple[str, ...], clean: Callable[[str], str]) -> None:
        self._services = services
        self._clean = clean

    def __call__(self, rows: Iterable[EventRow]) -> list[EventRow]:
        chosen = (row for row in rows if not self._services or row.service in self._services)
        return [row._replace(text=self._clean(row.text)) for row in chosen]


def _show(options: Options, rows: list[EventRow]) -> None:
    emit([_data(row) for row in rows], options, lambda: "\n".join(_lines(rows)) or "Nothing happened yet.")


def _follow(options: Options, store: Store, folder: str, since: float | None, lines: int, pick: _Pick) -> None:
    from deploy_code.cli.run import stay
    from deploy_code.state.rows import EventCursor

    stay()
    rows = store.events()  # all of them, because the cursor must stand behind the last of engine and agent alike
    cursor = EventCursor().past(rows)
    recent = pick(row for row in rows if row.at >= (since or 0))
    _write(options, recent[len(recent) - min(lines, len(recent)) :])
    try:
        for _ in ticks(folder, least=0.1):
            rows = store.events(after=cursor)
            cursor = cursor.past(rows)
            _write(options, pick(rows))
    except KeyboardInterrupt:
        raise Interrupted from None


def _write(options: Options, rows: Iterable[EventRow]) -> None:
    for row in rows:
        write(_one(options, row))
    sys.stdout.flush()


def _one(options: Options, row: EventRow) -> str:
    if options.is_text:
        return next(_lines([row]))
    return stream_item(_data(row), options)


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
