"""Showing lines as they come: inotify tells when a log grows and when a log appears, so nothing is polled."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from deploy_code.logs.index import Clock
from deploy_code.logs.inotify import APPEARED, GREW, Inotify
from deploy_code.logs.read import Line, Source, complete_lines
from deploy_code.logs.stream import LogStream


class Follower:
    """Knows of each log how far it was shown. ``find``: see ``read.follow``."""

    def __init__(self, find: Callable[[], Sequence[Source]] | None = None) -> None:
        self._find = find
        self._shown: dict[Source, int] = {}  # logical offset after the last line shown
        self._ends: dict[Source, int] = {}  # where the first round stops
        self._growing: dict[int, Source] = {}  # by number of its inotify watch
        self._inotify = Inotify()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inotify.close()

    def add(self, source: Source, begin: int = 0, end: int = 0) -> None:
        """Follow this log from logical offset ``begin``; what lies before ``end`` is merged by time."""
        if source not in self._shown:
            self._inotify.add(os.path.dirname(source.path) or ".", APPEARED)
            self._shown[source] = begin
            self._ends[source] = end
        self._watch_file(source)

    def lines(self) -> Iterator[Line]:
        """First what was there, merged by time, then each line as it comes, for ever."""
        earlier = (self._lines_of(source, Clock(source.path).time_of, end) for source, end in self._ends.items())
        yield from heapq.merge(*earlier, key=lambda line: line.at)
        changed: Iterable[Source] = list(self._shown)
        while True:
            for source in changed:
                yield from self._lines_of(source, _now, LogStream(source.path).bounds()[1])
            changed = self._wait()

    def _lines_of(self, source: Source, time_of: Callable[[int], float], end: int) -> Iterator[Line]:
        """Complete lines up to ``end``; an unfinished one waits for its end."""
        stream = LogStream(source.path)
        for after, text in complete_lines(stream, self._shown[source], end, partial=False):
            self._shown[source] = after
            yield Line(time_of(after), source.label, text)

    def _wait(self) -> list[Source]:
        """Block until something happens; the logs that may have grown."""
        numbers = self._inotify.wait()
        if numbers <= self._growing.keys():
            return [self._growing[number] for number in sorted(numbers)]
        for source in self._find() if self._find else ():
            self.add(source)
        for source in self._shown:  # one may have appeared
            self._watch_file(source)
        return list(self._shown)

    def _watch_file(self, source: Source) -> None:
        if os.path.exists(source.path):
            self._growing[self._inotify.add(source.path, GREW)] = source


def _now(_after: int) -> float:
    return time.time()
