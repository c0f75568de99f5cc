"""How a running deployment is shown: a live table on terminals, plain lines everywhere else.

Both listen to the bus of the engine and keep off stdout, which belongs to data.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from deploy_code import events
from deploy_code.cli.output import is_terminal, plain, say
from deploy_code.cli.progress import ACTIVE, DONE, FAILED, SKIPPED, UNDONE, WAITING, Fetch, Progress, Row
from deploy_code.cli.times import span

if TYPE_CHECKING:
    import asyncio

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

    from deploy_code.cli.options import Options
    from deploy_code.events import Event

FRAMES_PER_SECOND = 8
CLOCK_TICKS = 4  # when nothing but time has changed, every so many frames are enough


class View(Protocol):
    """What ``run`` needs of a view. ``warned``: warnings already shown, so that no summary repeats them."""

    warned: set[str]

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def listen(self, event: Event) -> None: ...

    def say(self, line: str) -> None: ...


def choose_view(options: Options, redact: Callable[[str], str], live: bool = True) -> View:
    """The live table on a terminal; lines where there is none and where every event is to be read."""
    if live and is_terminal(sys.stderr) and options.log_level == "info":
        return LiveView(options, redact)
    return PlainView(options, redact)


# --------------------------------------------------------------------------- lines


class PlainView:
    """One line per event that matters; every event with its time at log level debug."""

    def __init__(self, options: Options, redact: Callable[[str], str]) -> None:
        self.warned: set[str] = set()
        self._options = options
        self._redact = redact
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, line: str) -> None:
        say(line, self._options, level="error")

    def listen(self, event: Event) -> None:
        self._begun = self._begun or isinstance(event, events.DeploymentStarted)
        if isinstance(event, events.InstanceChanged) and not self._begun:
            return  # what is there already is no news
        level, style = level_of(event)
        if not self._options.shows(level):
            return
        if isinstance(event, events.ImageProgress) and event.output:
            self._say_output(event)
            return
        text = plain(self._redact(line_of(event)))
        if isinstance(event, events.WarningRaised):
            self.warned.add(event.message)
        if self._options.shows("debug"):
            text = f"{_moment(event.at)} {event.name}: {text}"
        say(text, self._options, level=level, style=style)

    def _say_output(self, event: events.ImageProgress) -> None:
        """What a build writes, line by line."""
        for line in event.output:
            say(f"{_moment(event.at)} {event.image}: {plain(self._redact(line))}", self._options, level="debug")


def level_of(event: Event) -> tuple[str, str]:
    """From which log level on an event is a line, and in which style."""
    match event:
        case events.WarningRaised():
            return "warn", "yellow"
        case events.RollbackStarted():
            return "warn", "yellow"
        case events.StepFinished(error=error) if error:
            return "error", "red"
        case events.ServiceSkipped():
            return "warn", "yellow"
        case events.DeploymentStarted():
            return "info", "bold"
        case events.ImageReady():
            return "info", "green"
        case events.ImageProgress():
            return "debug", ""
        case events.InstanceChanged(phase=phase):
            return _INSTANCE_LEVEL.get(phase, ("debug", ""))
        case events.StepFinished() | events.StepStarted() | events.PhaseCompleted() | events.DeploymentFinished():
            return "debug", ""
    return "trace", ""


_INSTANCE_LEVEL = {
    "ready": ("info", "green"),
    "completed": ("info", "green"),
    "exited": ("info", "red"),
    "failed": ("info", "red"),
    "unready": ("info", "yellow"),
    "backoff": ("info", "yellow"),
    "starting": ("info", ""),
    "stopping": ("info", ""),
    "gone": ("info", ""),
}


def line_of(event: Event) -> str:
    if isinstance(event, events.WarningRaised) and not event.message.lower().startswith("warning"):
        return f"warning: {event.message}"
    return event.text


def _moment(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"


# --------------------------------------------------------------------------- the table


class LiveView:
    """Redraws in place, at most eight times a second, less where only the clocks move."""

    def __init__(self, options: Options, redact: Callable[[str], str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.warned: set[str] = set()
        self.progress = Progress()
        self._redact = redact
        # the terminal itself says how large it is; COLUMNS and LINES may be those of another one
        environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._console = Console(
            stderr=True,
            markup=False,
            emoji=False,
            highlight=False,
            no_color=options.no_color or None,
            _environ=environ,
        )
        self._live = Live(
            get_renderable=self._frame,
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0

    def __enter__(self) -> Self:
        import asyncio

        self._live.start()
        self._loop = asyncio.get_running_loop()
        self._tick()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._live.refresh()
        self._live.stop()

    def listen(self, event: Event) -> None:
        self.progress.apply(event)
        if isinstance(event, events.WarningRaised):
            self.warned.add(event.message)
            self._print(line_of(event), "yellow")
        elif isinstance(event, events.ImageReady):
            self._print(line_of(event), "green")

    def say(self, line: str) -> None:
        self._print(line, "bold")

    def _print(self, line: str, style: str) -> None:
        self._console.print(plain(self._redact(line)), style=style)

    def _tick(self) -> None:
        self._ticks += 1
        moving = self.progress.kind or self.progress.fetches
        if self.progress.changed or (moving and self._ticks % CLOCK_TICKS == 0):
            self.progress.changed = False
            self._live.refresh()
        self._timer = self._loop.call_later(1 / FRAMES_PER_SECOND, self._tick)

    def _frame(self) -> Frame:
        return Frame(self.progress, self._redact)


_STYLE = {
    DONE: "green",
    FAILED: "bold red",
    SKIPPED: "yellow",
    UNDONE: "yellow",
    ACTIVE: "cyan",
    WAITING: "dim",
}
_BAR = 20  # characters of the bar that shows how much of an image is here
_MARK = {DONE: "✓", FAILED: "✗", SKIPPED: "-", UNDONE: "←", ACTIVE: "•", WAITING: " "}


class Frame:
    """One picture of the progress, for whatever width and height the terminal has at that moment."""

    def __init__(self, progress: Progress, redact: Callable[[str], str], now: float | None = None) -> None:
        self._progress = progress
        self._redact = redact
        self._now = time.time() if now is None else now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress, height = self._progress, options.height or console.height
        if not progress.kind and not progress.fetches:
            return
        room = max(height - 2, 1)  # a folded line, and the cursor
        lines = self.fetch_lines(room) if progress.fetches else self.lines(options.max_width, height)
        for line in lines:
            line.truncate(options.max_width, overflow="ellipsis")
            yield line

    def lines(self, width: int, height: int) -> list[Text]:
        rows = self._progress.shown(max(height - 3, 0))  # head, folded, and the cursor
        folded = self._progress.folded(rows)
        name_width = min(max((len(row.service) for row in rows), default=0), max(width // 3, 12))
        body = [self._row(row, name_width) for row in rows]
        return [self._header(), *body, *([self._text(f"  … {folded}", "dim")] if folded else [])]

    def fetch_lines(self, room: int) -> list[Text]:
        """One line an image that is on its way; services come later."""
        fetches = [*self._progress.fetches.values()]
        width = max(len(each.image) for each in fetches)
        lines = [self._fetch(each, width) for each in fetches[:room]]
        left = len(fetches) - room
        return [*lines, self._text(f"  … {left} more", "dim")] if left > 0 else lines

    def _fetch(self, fetch: Fetch, width: int) -> Text:
        share = fetch.share
        bar = f"[{'#' * round(share * _BAR):<{_BAR}}] {share:>4.0%}" if share is not None else " " * (_BAR + 7)
        elapsed = span(max(self._now - fetch.began, 0.0))
        return self._text(f"• {fetch.image:<{width}}  {bar}  {elapsed:>8}  {fetch.doing}", "cyan")

    def _header(self) -> Text:
        progress = self._progress
        done, total = progress.count(DONE), len(progress.rows)
        doing = f"rolling back: {progress.rollback}" if progress.rollback else progress.phase
        count = "" if progress.rollback else f"  {done}/{total} services"
        head = f"{progress.kind} {progress.number}{count}  {span(progress.elapsed(self._now))}"
        tail = progress.status.replace("_", " ") or doing
        return self._text(f"{head}  {tail}", "bold yellow" if progress.rollback else "bold")

    def _row(self, row: Row, name_width: int) -> Text:
        from rich.text import Text

        style = _STYLE[row.group]
        elapsed = span(row.elapsed(self._now)) if row.started_at else ""
        name = row.service if len(row.service) <= name_width else row.service[: name_width - 1] + "…"
        line = Text(no_wrap=True)
        line.append(f"{_MARK[row.group]} {name:<{name_width}}  ", style=style)
        line.append(f"{row.state:<10} ", style=style)
        line.append(f"{row.health:<9} {elapsed:>8}  ")
        line.append(plain(self._redact(row.why)), style="red" if row.group == FAILED else "dim")
        return line

    def _text(self, text: str, style: str) -> Text:
        from rich.text import Text

        return Text(plain(self._redact(text)), style=style, no_wrap=True)
