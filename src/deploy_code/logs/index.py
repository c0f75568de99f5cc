"""When was this byte of a log written? Services write raw lines, so their times are kept beside them.

NAME.log.idx holds records of 16 bytes, appended about once a second while the log grows: seconds since the
epoch, and the logical offset that the log had reached by then. That puts every line within a second,
without the agent ever touching what services write.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from bisect import bisect_left, bisect_right

from deploy_code.errors import StateError
from deploy_code.logs.stream import LogStream

TICK_SECONDS = 1.0  # how often ``LogIndex.tick`` is meant to be called
RECORDS_MAX = 65_536  # 1 MB; a log that grows without a pause reaches it in 18 hours, and is thinned out then

_RECORD = struct.Struct("<dQ")
_START = 1 << 63  # set in the offset of a record that was made when an instance started


def index_path(log: str) -> str:
    return f"{log}.idx"


class LogIndex:
    """Writes the indexes of all logs of one project; the agent's, and only its. Usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, int]] = {}

    def watch(self, log: str) -> None:
        """Keep the index of this log from now on."""
        self._seen.setdefault(log, (0, 0))

    def forget(self, log: str) -> None:
        self._seen.pop(log, None)

    def started(self, log: str, now: float | None = None) -> int:
        """To be called just before an instance starts to write: the logical offset at which it will begin.

        Raises StateError when the disk is full (E004) or the folder refuses (S005).
        """
        self.watch(log)
        try:
            _, offset = LogStream(log).bounds()
            self._append(log, offset | _START, now)
        except OSError as exc:
            raise _refused(log, exc) from exc
        return offset

    def tick(self, now: float | None = None) -> None:
        """Note how far each log has grown: one stat for each, and a write for those that have.

        A log that cannot be indexed does not keep others from it; the last such failure is raised
        (StateError).
        """
        failure: StateError | None = None
        for log in list(self._seen):
            try:
                self._note_growth(log, now)
            except StateError as exc:
                failure = exc
        if failure is not None:
            raise failure

    def _note_growth(self, log: str, now: float | None) -> None:
        try:
            info = os.stat(log)
            seen = (info.st_size, info.st_mtime_ns)
            if seen != self._seen.get(log):
                self._append(log, LogStream(log).bounds()[1], now)
                self._seen[log] = seen
        except FileNotFoundError:
            return  # nothing was ever written
        except OSError as exc:
            raise _refused(log, exc) from exc

    def _append(self, log: str, offset: int, now: float | None) -> None:
        with self._lock:  # or a record would go into a file that is being replaced
            _append_record(log, _RECORD.pack(time.time() if now is None else now, offset))


def _append_record(log: str, record: bytes) -> None:
    fd = os.open(index_path(log), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        size = os.fstat(fd).st_size
        if size % _RECORD.size:  # a power cut in the middle of a record
            os.ftruncate(fd, size - size % _RECORD.size)
        os.write(fd, record)
    finally:
        os.close(fd)
    if size >= RECORDS_MAX * _RECORD.size:
        _thin_out(log)


def _thin_out(log: str) -> None:
    """Drop what points before the oldest archive, and of the older half of the rest every second record."""
    oldest, _ = LogStream(log).bounds()
    clock = Clock(log)
    kept = [record for record in clock.records() if record[1] & ~_START >= oldest]
    half = len(kept) // 2
    partial = f"{index_path(log)}.new"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), "wb") as file:
        file.writelines(_RECORD.pack(*record) for record in kept[:half:2] + kept[half:])
    os.rename(partial, index_path(log))


def _refused(log: str, exc: OSError) -> StateError:
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    return StateError(
        f"{index_path(log)} cannot be written: {'the disk is full' if full else exc.strerror}",
        code="E004" if full else "S005",
        meaning="The times of log lines become coarse; the lines themselves are written by the service",
        remedy="Free some space" if full else "Mend the permissions of that folder",
    )


class Clock:
    """Reads the index of one log. Without an index all that is known is the time of the last write."""

    def __init__(self, log: str) -> None:
        self._data = _load(index_path(log))
        self._count = len(self._data) // _RECORD.size
        self._last_write = _mtime(log)
        self._segment = (0, 0, 0.0, 0.0)  # offsets and times of the stretch that was asked about last

    def records(self) -> list[tuple[float, int]]:
        """All (time, offset with start mark), oldest first."""
        return [self._record(number) for number in range(self._count)]

    def offset_at(self, moment: float) -> int:
        """What is written at or after ``moment`` begins at or after this logical offset."""
        number = bisect_right(range(self._count), moment, key=self._time) - 1
        return self._offset(number) if number >= 0 else 0

    def time_of(self, end: int) -> float:
        """About when the byte before logical offset ``end`` was written."""
        begin_offset, end_offset, begin, until = self._segment
        if not begin_offset < end <= end_offset:
            self._segment = begin_offset, end_offset, begin, until = self._stretch(end)
        share = (end - begin_offset) / (end_offset - begin_offset)
        return begin + share * (until - begin)

    def last_start(self) -> int:
        """Logical offset at which the latest instance began; 0 when none is recorded."""
        starts = (self._record(number)[1] for number in range(self._count - 1, -1, -1))
        return next((offset & ~_START for offset in starts if offset & _START), 0)

    def _stretch(self, end: int) -> tuple[int, int, float, float]:
        """The two records around it. A silent log gets no records, so a stretch lasts one tick at most."""
        number = bisect_left(range(self._count), end, key=self._offset)
        before = self._offset(number - 1) if number > 0 else 0
        since = self._time(number - 1) if number > 0 else 0.0
        if number == self._count:
            return before, max(end, before + 1), max(since, self._last_write), max(since, self._last_write)
        until = self._time(number)
        return before, self._offset(number), max(since, until - TICK_SECONDS), until

    def _record(self, number: int) -> tuple[float, int]:
        moment, offset = _RECORD.unpack_from(self._data, number * _RECORD.size)
        return moment, offset

    def _time(self, number: int) -> float:
        return self._record(number)[0]

    def _offset(self, number: int) -> int:
        return self._record(number)[1] & ~_START


def _load(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
