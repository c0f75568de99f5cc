"""``deploy-code logs``: what services wrote, read straight from their files; needs neither the file nor the agent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from deploy_code.cli.logfiles import LogFile, find_logs, labels, pick
from deploy_code.cli.names import complete_names
from deploy_code.cli.options import Options, command, split_names
from deploy_code.cli.output import Interrupted, emit, has_color, paint, stream_item, write
from deploy_code.cli.reading import open_store, redactor_of
from deploy_code.cli.times import iso, since

if TYPE_CHECKING:
    from deploy_code.logs.read import Line
    from deploy_code.state.store import Store

_COLORS = ("cyan", "yellow", "green", "magenta", "blue", "red")

Redact = Callable[[str], str]


@command("logs", data=True)
@click.argument("names", metavar="[SERVICE]...", nargs=-1, callback=split_names, shell_complete=complete_names)
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
        wanted, redact = _wanted(store), redactor_of(store).clean

    folder = app.identity.directories.logs
    early = {file.service for file in find_logs(folder)}

    def find() -> list[LogFile]:
        files = find_logs(folder)
        late = {file.service for file in files} - early  # deployed while we follow: wanted, since nobody named others
        return pick(files, names, wanted | late)

    if follow:
        _follow(options, find, lines, since, redact)
    else:
        _show(options, find(), lines, since, redact)


def _wanted(store: Store | None) -> frozenset[str]:
    return frozenset(store.current_map()) if store else frozenset()


# --------------------------------------------------------------------------- once


def _show(options: Options, files: list[LogFile], lines: int, since: float | None, redact: Redact) -> None:
    from deploy_code.logs import read

    shown = _Lines(options, files, redact)
    sources = [read.Source(file.path, file.path) for file in files]
    found: Iterable[Line]
    if since is None:
        found = shown.last_of_each(read.tail(sources, lines), lines)
    else:
        found = (line for line in read.since(sources, since) if line.at >= since - 1)  # times are to the second
    if options.is_text:
        for line in found:
            write(shown.text(line))
    else:
        emit([shown.data(line) for line in found], options, str)


# --------------------------------------------------------------------------- as it comes


def _follow(
    options: Options, find: Callable[[], list[LogFile]], lines: int, since: float | None, redact: Redact
) -> None:
    from deploy_code.cli.run import stay
    from deploy_code.logs import read

    stay()
    shown = _Lines(options, find(), redact)
    if not shown.files:
        raise click.UsageError(f"nothing was written yet, so there is nothing to follow; '{options.line('status')}'")

    def sources() -> list[read.Source]:
        shown.know(find())
        return [read.Source(path, path) for path in shown.files]

    try:
        for line in read.follow(sources(), lines=lines, moment=since, find=sources):
            write(shown.streamed(line))
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise Interrupted from None


class _Lines:
    """Lines under their labels; bare where there is but one, so that they can be processed further."""

    def __init__(self, options: Options, files: Iterable[LogFile], redact: Redact) -> None:
        self._options = options
        self._redact = redact
        self._color = has_color(sys.stdout, options)
        self._styles: dict[str, str] = {}
        self.know(files)

    def know(self, files: Iterable[LogFile]) -> None:
        """From now on lines come from these."""
        self.files = {file.path: file for file in files}
        self._labels = labels(self.files.values())
        self._width = max(map(len, self._labels.values()), default=0)

    def text(self, line: Line) -> str:
        text = self._redact(line.text)
        return text if len(self._labels) == 1 else f"{self._head(self._labels[line.label])} {text}"

    def _head(self, label: str) -> str:
        style = self._styles.setdefault(label, _COLORS[len(self._styles) % len(_COLORS)])
        return paint(f"{label:<{self._width}} |", style, self._color)

    def data(self, line: Line) -> dict[str, Any]:
        file = self.files[line.label]
        return {
            "at": iso(line.at),
            "service": file.service,
            "instance": file.number,
            "text": self._redact(line.text),
        }

    def streamed(self, line: Line) -> str:
        """JSON: an object a line; YAML: a list item at a time, so that the stream can be read as it comes."""
        if self._options.is_text:
            return self.text(line)
        return stream_item(self.data(line), self._options)

    def last_of_each(self, found: Sequence[Line], lines: int) -> list[Line]:
        """The last ``lines`` of each service, over all its instances; still in the order of time."""
        left = {file.service: lines for file in self.files.values()}
        kept = []
        for line in reversed(found):
            service = self.files[line.label].service
            if left[service] > 0:
                left[service] -= 1
                kept.append(line)
        return kept[::-1]
