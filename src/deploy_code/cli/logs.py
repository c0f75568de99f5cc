"""``deploy-code logs``: what services wrote, read straight from their files; needs neither the file nor the agent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from deploy_code.cli.logfiles import LogFile, find_logs, labels, pick
from deploy_code.cli.names import complete_names
from deploy_code.cli.options import Options, command, split_names
from deploy_code.cli.output import Interrupted, emit, has_color, paint, to_json_line, to_yaml, write
from deploy_code.cli.reading import open_store
from deploy_code.cli.times import iso, since

if TYPE_CHECKING:
    from deploy_code.logs.read import Line
    from deploy_code.state.store import Store

_COLORS = ("cyan", "yellow", "green", "magenta", "blue", "red")

Redact = Callable[[str], str]


@command("logs", data=True)
@click.argument(
    "names", metavar="[SERVICE]...", nargs=-1, callback=split_names, shell_complete=complete_names
)
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written.")
@click.option("--since", metavar="TIME", callback=since, help="All since then: 10m, 2h, or 2025-01-31T12:00.")
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(min=0),
    default=100,
    help="The last so many of each service [default: 100].",
)
@click.pass_obj
def logs(options: Options, names: tuple[str, ...], follow: bool, since: float | None, lines: int) -> None:
    """Show what services wrote, merged by time.

    All services, or those named; those that were removed too, by name, as long as their logs are kept.
    """
    app = options.app()
    with open_store(options, app) as store:
        wanted, redact = _wanted(store), _redactor(store)

    def find() -> list[LogFile]:
        return pick(find_logs(app.identity.directories.logs), names, wanted)

    if follow:
        _follow(options, find, lines, since, redact)
    else:
        _show(options, find(), lines, since, redact)


def _wanted(store: Store | None) -> frozenset[str]:
    return frozenset(store.current_map()) if store else frozenset()


def _redactor(store: Store | None) -> Redact:
    from deploy_code.security.redact import Redactor

    return Redactor(store.secrets() if store else ()).clean


# --------------------------------------------------------------------------- once


def _show(options: Options, files: list[LogFile], lines: int, since: float | None, redact: Redact) -> None:
    from deploy_code.logs import read

    sources = [read.Source(label, file.path) for label, file in labels(files).items()]
    found = read.tail(sources, lines) if since is None else read.since(sources, since)
    services = {label: file.service for label, file in labels(files).items()}
    kept = _last_of_each(found, services, lines) if since is None else found
    if not options.is_text:
        emit([_data(line, services, redact) for line in kept], options, str)
        return
    printer = _Printer(options, services, redact)
    for line in kept:
        printer(line)


def _last_of_each(found: Sequence[Line], services: dict[str, str], lines: int) -> list[Line]:
    """The last ``lines`` of each service, over all its instances and revisions; still in the order of time."""
    left = dict.fromkeys(services.values(), lines)
    kept = []
    for line in reversed(found):
        service = services[line.label]
        if left[service] > 0:
            left[service] -= 1
            kept.append(line)
    return kept[::-1]


def _data(line: Line, services: dict[str, str], redact: Redact) -> dict[str, Any]:
    return {
        "at": iso(line.at),
        "service": services[line.label],
        "instance": line.label,
        "text": redact(line.text),
    }


class _Printer:
    """Lines under their labels; bare where only one service is asked for, so that they can be processed further."""

    def __init__(self, options: Options, services: dict[str, str], redact: Redact) -> None:
        self._redact = redact
        self._color = has_color(sys.stdout, options)
        self._bare = len(services) == 1
        self._width = max(map(len, services), default=0)
        self._styles: dict[str, str] = {}

    def __call__(self, line: Line) -> None:
        text = self._redact(line.text)
        write(text + "\n" if not text else text) if self._bare else write(f"{self._head(line.label)} {text}")

    def _head(self, label: str) -> str:
        style = self._styles.setdefault(label, _COLORS[len(self._styles) % len(_COLORS)])
        return paint(f"{label:<{self._width}} |", style, self._color)


# --------------------------------------------------------------------------- as it comes


def _follow(
    options: Options, find: Callable[[], list[LogFile]], lines: int, since: float | None, redact: Redact
) -> None:
    """Only logs that still grow: of each instance the newest. JSON: an object a line; YAML: a list item at a time."""
    from deploy_code.cli.run import stay
    from deploy_code.logs import read

    stay()
    services: dict[str, str] = {}

    def sources() -> list[read.Source]:
        found = labels(_newest(find()))
        services.update({label: file.service for label, file in found.items()})
        return [read.Source(label, file.path) for label, file in found.items()]

    first = sources()
    printer = _Printer(options, services, redact)
    try:
        for line in read.follow(first, lines=lines, moment=since, find=sources):
            if options.is_text:
                printer(line)
            else:
                row = _data(line, services, redact)
                write(to_json_line(row) if options.format == "json" else to_yaml([row]).rstrip("\n"))
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise Interrupted from None


def _newest(files: Iterable[LogFile]) -> Iterator[LogFile]:
    """Of the logs of one instance over its revisions, the one written to last."""
    last: dict[tuple[str, int], LogFile] = {}
    for file in files:
        known = last.get((file.service, file.index))
        if known is None or file.written_at >= known.written_at:
            last[file.service, file.index] = file
    return iter(last.values())
