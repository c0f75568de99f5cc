"""How things leave the program: data on stdout in three formats, words on stderr, colour only on terminals.

No library is needed for a table and eight colours, and short commands cannot wait for one. Libraries for JSON
and YAML come in when asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from deploy_code.cli.options import Options

INTERRUPTED = 130  # the exit code after Ctrl-C

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}


class Interrupted(Exception):
    """Ctrl-C came and was dealt with: what there was to say has been said; only the exit code is left."""


def has_color(stream: TextIO, options: Options | None = None) -> bool:
    """Colour: on a terminal that can, unless NO_COLOR (any value) or ``--no-color`` says no."""
    if os.environ.get("NO_COLOR") or (options is not None and options.no_color):
        return False
    return is_terminal(stream)


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, on: bool = True) -> str:
    """``text`` in a style such as ``"bold red"``; unchanged when ``on`` is false or there is nothing to
    paint.
    """
    if not (on and style and text):
        return text
    codes = ";".join(str(_CODES[word]) for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def plain(text: str) -> str:
    """One line that cannot steer a terminal: control characters of strangers are shown, not obeyed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else _visible(char) for char in text)


def _visible(char: str) -> str:
    return " " if char in "\r\n" else char.encode("unicode_escape").decode()


def emit(data: Any, options: Options, text: Callable[[], str]) -> None:
    """Print data on stdout as ``--format`` says; ``text`` is asked only when text is wanted."""
    if options.is_text:
        shown = text()
        if shown:
            write(shown)
    elif options.format == "json":
        write(to_json(data))
    else:
        write(to_yaml(data).rstrip("\n"))


def write(text: str) -> None:
    """One piece of data on stdout, with a line end."""
    sys.stdout.write(text + "\n")


def to_json(data: Any) -> str:
    import json

    return json.dumps(data, indent=2, ensure_ascii=False)


def stream_item(data: Any, options: Options) -> str:
    """One of many that come one by one: JSON as an object a line, YAML as a list item, so that both can be read on."""
    if options.format == "yaml":
        return to_yaml([data]).rstrip("\n")
    import json

    return json.dumps(data, ensure_ascii=False)


def to_yaml(data: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def say(line: str, options: Options | None = None, *, level: str = "info", style: str = "") -> None:
    """A line about the work on stderr, when the log level lets it through."""
    if options is None or options.shows(level):
        sys.stderr.write(paint(line, style, has_color(sys.stderr, options)) + "\n")
        sys.stderr.flush()


def say_warnings(messages: Iterable[str], options: Options) -> None:
    for message in messages:
        head = "" if message.lower().startswith("warning") else "warning: "
        say(f"{head}{message}", options, level="warn", style="yellow")


def say_error(text: str, options: Options | None = None) -> None:
    """An error on stderr; its code, up to the first colon, stands out on terminals.

    A closed stderr is no second error.
    """
    first, _, rest = text.partition("\n")
    head, colon, tail = first.partition(":")
    on = has_color(sys.stderr, options)
    painted = paint(head, "bold red", on) + colon + tail if colon else paint(first, "bold red", on)
    try:
        sys.stdout.flush()
        sys.stderr.write(painted + ("\n" + rest if rest else "") + "\n")
        sys.stderr.flush()
    except OSError:
        fall_silent()


def fall_silent() -> None:
    """Send all further output nowhere: the reader has gone, and the interpreter must not stumble over it at
    its end.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Unbreakable:
    """A text stream that goes on without output when its reader is gone (closed pipe, terminal hung up).

    A deployment must not stop half-way because somebody closed the window.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def _silence(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
