"""Reading logs of instances: the last lines, all since a moment, or as they come; of one or merged.

Plain functions and generators without asyncio: ``deploy-code logs`` must be quick to start. Memory is
bounded whatever the logs hold: they are read in pieces, from the end where only the end is wanted.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from deploy_code.logs.index import Clock
from deploy_code.logs.stream import LogStream

LINE_MAX = 64 * 1024  # bytes; what is longer is shown as several lines
_PIECE = 256 * 1024


class Source(NamedTuple):
    """One log to read. ``label`` comes back with each line."""

    label: str
    path: str


class Line(NamedTuple):
    """One line without its end. ``at``: seconds since the epoch, within a second where there is an index."""

    at: float
    label: str
    text: str


def tail(sources: Iterable[Source], lines: int) -> list[Line]:
    """The last ``lines`` lines of each log, merged by time. An unfinished last line counts."""
    return list(heapq.merge(*(_last_lines(source, lines) for source in sources), key=_by_time))


def since(sources: Iterable[Source], moment: float) -> Iterator[Line]:
    """Every line written at or after ``moment`` (and perhaps some of the second before it), merged by time.

    Ends with what had been written when it was called.
    """
    return heapq.merge(*(_lines_since(source, moment) for source in sources), key=_by_time)


def follow(
    sources: Sequence[Source],
    *,
    lines: int = 10,
    moment: float | None = None,
    find: Callable[[], Sequence[Source]] | None = None,
) -> Iterator[Line]:
    """The last ``lines`` lines, or all since ``moment``, and then each line as soon as it is complete.

    ``find`` is asked for the sources again when a file appears beside them (a service was scaled up).
    Never ends by itself, and costs nothing between lines; ended by closing the generator or by an exception such as
    KeyboardInterrupt.
    """
    from deploy_code.logs.follow import Follower

    with Follower(find) as follower:
        for source in sources:
            follower.add(source, *(bounds_of_last(source, lines) if moment is None else bounds_since(source, moment)))
        yield from follower.lines()


def read_from(path: str, offset: int, max_lines: int) -> list[str]:
    """The last ``max_lines`` lines written from logical ``offset`` on: what one start had to say."""
    stream = LogStream(path)
    oldest, end = stream.bounds()
    begin = _begin_of_last(stream, max_lines, max(offset, oldest), end)
    return list(deque((text for _, text in complete_lines(stream, begin, end, partial=True)), maxlen=max_lines))


def _by_time(line: Line) -> float:
    return line.at


def _last_lines(source: Source, lines: int) -> list[Line]:
    stream = LogStream(source.path)
    oldest, end = stream.bounds()
    begin = _begin_of_last(stream, lines, oldest, end)
    return list(deque(dated_lines(source, begin, end, partial=True), maxlen=lines))


def _lines_since(source: Source, moment: float) -> Iterator[Line]:
    begin, end = bounds_since(source, moment)
    return dated_lines(source, begin, end, partial=True)


def bounds_since(source: Source, moment: float) -> tuple[int, int]:
    """From the line in which ``moment`` falls to the end."""
    stream = LogStream(source.path)
    oldest, end = stream.bounds()
    offset = min(max(Clock(source.path).offset_at(moment), oldest), end)
    return _begin_of_line(stream, oldest, offset), end


def bounds_of_last(source: Source, lines: int) -> tuple[int, int]:
    """From the beginning of the last ``lines`` lines to the end."""
    stream = LogStream(source.path)
    oldest, end = stream.bounds()
    return _begin_of_last(stream, lines, oldest, end), end


def dated_lines(source: Source, begin: int, end: int, *, partial: bool) -> Iterator[Line]:
    """Lines between two logical offsets with their times; an unfinished last one only if ``partial``."""
    clock = Clock(source.path)
    for after, text in complete_lines(LogStream(source.path), begin, end, partial=partial):
        yield Line(clock.time_of(after), source.label, text)


def complete_lines(stream: LogStream, begin: int, end: int, *, partial: bool) -> Iterator[tuple[int, str]]:
    """(logical offset after it, text) of each line between two offsets, read piece by piece."""
    rest, at = b"", begin  # what has no end yet, and where it begins
    for offset, data in _pieces(stream, begin, end):
        if offset != at + len(rest):  # rotated out of existence while we read
            rest, at = b"", offset
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            at += len(line) + 1
            yield from _cut(line, at)
        while len(rest) > LINE_MAX:
            at += LINE_MAX
            yield at, _text(rest[:LINE_MAX])
            rest = rest[LINE_MAX:]
    if rest and partial:
        yield end, _text(rest)


def _cut(line: bytes, after: int) -> Iterator[tuple[int, str]]:
    for begin in range(0, len(line) or 1, LINE_MAX):
        yield after, _text(line[begin : begin + LINE_MAX])


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")


def _pieces(stream: LogStream, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    while begin < end:
        begin, data = stream.read(begin, min(_PIECE, end - begin))
        if not data:
            return
        yield begin, data
        begin += len(data)


def _begin_of_last(stream: LogStream, lines: int, oldest: int, end: int) -> int:
    """Where the last ``lines`` lines before ``end`` begin; at most ``LINE_MAX`` bytes a line."""
    if lines <= 0:
        return end
    oldest = max(oldest, end - lines * LINE_MAX)
    wanted = lines + (1 if _exactly(stream, max(oldest, end - 1), end) == b"\n" else 0)
    while end > oldest:
        begin = max(oldest, end - _PIECE)
        data = _exactly(stream, begin, end)
        found = data.count(b"\n")
        if found >= wanted:
            return begin + _after_newline(data, wanted)
        wanted, end = wanted - found, begin
    return oldest


def _after_newline(data: bytes, number: int) -> int:
    """Index behind the ``number``-th newline counted from the end."""
    place = len(data)
    for _ in range(number):
        place = data.rindex(b"\n", 0, place)
    return place + 1


def _begin_of_line(stream: LogStream, oldest: int, offset: int) -> int:
    begin = max(oldest, offset - LINE_MAX)
    return begin + _exactly(stream, begin, offset).rfind(b"\n") + 1 if begin < offset else offset


def _exactly(stream: LogStream, begin: int, end: int) -> bytes:
    return b"".join(data for _, data in _pieces(stream, begin, end))
