"""Reading logs: last lines, lines since a moment, lines of one start, merged, whatever the bytes."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_code.logs.files import all_logs, log_path, service_logs
from deploy_code.logs.index import LogIndex
from deploy_code.logs.read import LINE_MAX, Line, Source, follow, read_from, since, tail
from deploy_code.logs.rotate import Rotator
from support.logs import numbered
from support.wait import wait_until


def source(folder: Path, data: bytes, name: str = "api") -> Source:
    path = folder / f"{name}.0.log"
    path.write_bytes(data)
    return Source(name, str(path))


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


@pytest.mark.parametrize(
    ("data", "count", "expected"),
    [
        (b"", 3, []),
        (b"a\nb\nc\n", 2, ["b", "c"]),
        (b"a\nb\nc", 2, ["b", "c"]),
        (b"a\nb\nc\n", 3, ["a", "b", "c"]),
        (b"a\nb\nc\n", 9, ["a", "b", "c"]),
        (b"a\n\n\n", 2, ["", ""]),
        (b"\n", 1, [""]),
        (b"a\nb\n", 0, []),
        (b"a\r\nb\r\n", 5, ["a", "b"]),
        (b"caf\xc3\xa9 \xff\x00\n", 1, ["café �\x00"]),
    ],
)
def test_the_last_lines(tmp_path: Path, data: bytes, count: int, expected: list[str]) -> None:
    api = source(tmp_path, data)
    assert texts(tail([api], count)) == expected
    assert read_from(api.path, 0, count) == expected


def test_a_service_without_a_log_has_no_lines(tmp_path: Path) -> None:
    nothing = Source("api", str(tmp_path / "api.0.log"))
    assert tail([nothing], 5) == [] and list(since([nothing], 0)) == [] and read_from(nothing.path, 0, 5) == []


def test_the_last_lines_of_a_long_log_are_found_from_its_end(tmp_path: Path) -> None:
    api = source(tmp_path, numbered(1, 400_000))
    assert texts(tail([api], 90_000)) == [str(number) for number in range(310_001, 400_001)]
    assert texts(tail([api], 1)) == ["400000"]


def test_a_line_without_an_end_is_shown_in_parts_and_takes_little_memory(tmp_path: Path) -> None:
    api = source(tmp_path, b"first\n" + b"x" * 5_000_000)
    shown = texts(tail([api], 3))
    assert len(shown) == 3 and all(set(part) == {"x"} and len(part) <= LINE_MAX for part in shown)
    assert sum(map(len, texts(list(since([api], 0))))) == 5_000_005


def test_lines_that_were_archived_are_read_too(tmp_path: Path) -> None:
    api = source(tmp_path, numbered(1, 50_000))
    Rotator(api.path, max_bytes=65_536).rotate()
    assert texts(tail([api], 40_000)) == [str(number) for number in range(10_001, 50_001)]
    assert texts(list(since([api], 0))) == [str(number) for number in range(1, 50_001)]


def test_what_was_dropped_is_passed_over(tmp_path: Path) -> None:
    api = source(tmp_path, numbered(1, 50_000))
    Rotator(api.path, max_bytes=65_536, keep=1).rotate()
    shown = read_from(api.path, 0, 100_000)
    assert shown[-1] == "50000" and 10_000 < len(shown) < 50_000


def test_the_lines_of_one_start_leave_out_those_of_earlier_starts(tmp_path: Path) -> None:
    api = source(tmp_path, b"old\nold")
    offset = LogIndex().started(api.path)
    with open(api.path, "ab") as file:
        file.write(b"new 1\nnew 2\n")
    assert offset == 7
    assert read_from(api.path, offset, 50) == ["new 1", "new 2"]
    assert read_from(api.path, offset, 1) == ["new 2"]
    assert read_from(api.path, offset + 100, 5) == []


def test_lines_since_a_moment(tmp_path: Path) -> None:
    api = source(tmp_path, b"")
    index = LogIndex()
    index.watch(api.path)
    for moment in (100.0, 200.0, 300.0):
        with open(api.path, "ab") as file:
            file.write(b"%d\n" % moment)
        index.tick(moment)
    assert texts(list(since([api], 250))) == ["300"]
    assert texts(list(since([api], 200))) == ["300"]
    assert texts(list(since([api], 199))) == ["200", "300"]
    assert texts(list(since([api], 0))) == ["100", "200", "300"]
    assert texts(list(since([api], 301))) == []


def test_a_line_in_which_the_moment_falls_is_shown_whole(tmp_path: Path) -> None:
    api = source(tmp_path, b"one\nbegun ")
    index = LogIndex()
    index.watch(api.path)
    index.tick(100.0)
    with open(api.path, "ab") as file:
        file.write(b"before\ntwo\n")
    index.tick(200.0)
    assert texts(list(since([api], 150))) == ["begun before", "two"]


def test_services_are_merged_by_time(tmp_path: Path) -> None:
    api, db = source(tmp_path, b"", "api"), source(tmp_path, b"", "db")
    index = LogIndex()
    for one in (api, db):
        index.watch(one.path)
    for moment, one, text in ((10, db, b"d1\n"), (20, api, b"a1\na2\n"), (30, db, b"d2\n"), (40, api, b"a3\n")):
        with open(one.path, "ab") as file:
            file.write(text)
        index.tick(moment)
    merged = [(line.label, line.text) for line in tail([api, db], 10)]
    assert merged == [("db", "d1"), ("api", "a1"), ("api", "a2"), ("db", "d2"), ("api", "a3")]
    assert [(line.label, line.text) for line in since([api, db], 0)] == merged
    assert [round(line.at) for line in tail([api, db], 10)][-1] == 40


def test_logs_are_found_by_service_and_labelled_by_replica_where_there_are_several(tmp_path: Path) -> None:
    for name in ("api.0.log", "api.1.log", "api.10.log", "my.db.0.log", "api.0.log.1", "api.0.log.idx", "api.log"):
        (tmp_path / name).write_bytes(b"")
    folder = str(tmp_path)
    assert [each.label for each in all_logs(folder)] == ["api.0", "api.1", "api.10", "my.db"]
    assert [each.label for each in service_logs(folder, "my.db")] == ["my.db"]
    assert service_logs(folder, "api")[2].path == log_path(folder, "api", 10)
    assert all_logs(str(tmp_path / "missing")) == []


# --------------------------------------------------------------------------- following


class Viewer:
    """Reads a follower in a thread, as a terminal would."""

    def __init__(self, lines: Iterator[Line], stop_after: int) -> None:
        self.shown: list[tuple[str, str]] = []
        self._lines = lines
        self._stop_after = stop_after
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for line in self._lines:
            self.shown.append((line.label, line.text))
            if len(self.shown) == self._stop_after:
                break
        self._lines.close()  # type: ignore[attr-defined]

    def wait(self, count: int) -> list[tuple[str, str]]:
        wait_until(lambda: len(self.shown) >= count, what=lambda: f"{count} lines, got {self.shown[:9]}")
        return self.shown

    def end(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def append(path: str, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def test_new_lines_are_shown_as_they_come_and_unfinished_ones_when_they_end(tmp_path: Path) -> None:
    api, db = source(tmp_path, b"a1\na2\na3\nbeg", "api"), source(tmp_path, b"", "db")
    viewer = Viewer(follow([api, db], lines=3), stop_after=5)
    assert viewer.wait(2) == [("api", "a2"), ("api", "a3")]
    append(db.path, b"d1\n")
    viewer.wait(3)
    append(api.path, b"un\n")
    viewer.wait(4)
    append(db.path, b"d2\n")
    viewer.end()
    assert viewer.shown[2:] == [("db", "d1"), ("api", "begun"), ("db", "d2")]


def test_following_goes_on_through_rotations(tmp_path: Path) -> None:
    api = source(tmp_path, b"")
    viewer = Viewer(follow([api], moment=0), stop_after=60_000)
    rotator = Rotator(api.path, max_bytes=65_536, keep=50)
    for begin in range(1, 60_001, 5_000):
        append(api.path, numbered(begin, begin + 4_999))
        rotator.rotate()
    viewer.wait(60_000)
    viewer.end()
    assert [text for _, text in viewer.shown] == [str(number) for number in range(1, 60_001)]


def test_a_log_that_appears_later_is_followed_too(tmp_path: Path) -> None:
    api = Source("api", str(tmp_path / "api.0.log"))
    viewer = Viewer(follow([api], find=lambda: all_logs(str(tmp_path))), stop_after=3)
    append(api.path, b"a1\n")
    viewer.wait(1)
    append(str(tmp_path / "db.0.log"), b"d1\n")
    viewer.wait(2)
    append(str(tmp_path / "db.0.log"), b"d2\n")
    viewer.end()
    assert viewer.shown == [("api", "a1"), ("db", "d1"), ("db", "d2")]
