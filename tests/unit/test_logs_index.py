"""The index beside a log: when which byte was written."""

import os
from pathlib import Path

import pytest

from deploy_code.errors import StateError
from deploy_code.logs import index as module
from deploy_code.logs.index import Clock, LogIndex, index_path
from deploy_code.logs.rotate import Rotator


def grow(log: Path, size: int) -> None:
    with open(log, "ab") as file:
        file.write(b"x" * size)


def test_a_record_is_made_only_when_the_log_has_grown(tmp_path: Path) -> None:
    log, index = tmp_path / "api.0.log", LogIndex()
    index.watch(str(log))
    index.tick(1.0)
    assert not os.path.exists(index_path(str(log)))
    grow(log, 10)
    for moment in (2.0, 3.0):
        index.tick(moment)
    grow(log, 5)
    index.tick(4.0)
    assert Clock(str(log)).records() == [(2.0, 10), (4.0, 15)]


def test_a_start_is_recorded_with_the_offset_at_which_it_begins(tmp_path: Path) -> None:
    log, index = tmp_path / "api.0.log", LogIndex()
    assert index.started(str(log), 1.0) == 0
    grow(log, 10)
    assert index.started(str(log), 2.0) == 10
    grow(log, 10)
    index.tick(3.0)
    assert Clock(str(log)).last_start() == 10
    assert Clock(str(log)).offset_at(2.5) == 10


def test_offsets_count_what_rotation_took_away(tmp_path: Path) -> None:
    log, index = tmp_path / "api.0.log", LogIndex()
    index.watch(str(log))
    for moment in (1.0, 2.0, 3.0):
        grow(log, 200_000)
        Rotator(log, max_bytes=65_536).rotate()
        index.tick(moment)
    assert Clock(str(log)).records() == [(1.0, 200_000), (2.0, 400_000), (3.0, 600_000)]


def test_bytes_between_two_records_are_dated_within_the_last_second(tmp_path: Path) -> None:
    log, index = tmp_path / "api.0.log", LogIndex()
    index.watch(str(log))
    for moment in (100.0, 500.0):
        grow(log, 100)
        index.tick(moment)
    clock = Clock(str(log))
    times = [clock.time_of(offset) for offset in (50, 100, 101, 150, 200)]
    assert times == pytest.approx([99.5, 100.0, 499.01, 499.5, 500.0])
    assert clock.time_of(50) == pytest.approx(99.5)


def test_what_has_no_record_yet_is_as_old_as_the_last_write(tmp_path: Path) -> None:
    log = tmp_path / "api.0.log"
    grow(log, 10)
    os.utime(log, (700, 700))
    assert Clock(str(log)).time_of(10) == 700


def test_a_record_that_a_power_cut_tore_is_dropped(tmp_path: Path) -> None:
    log, index = tmp_path / "api.0.log", LogIndex()
    index.watch(str(log))
    grow(log, 10)
    index.tick(1.0)
    grow(Path(index_path(str(log))), 7)
    grow(log, 10)
    index.tick(2.0)
    assert Clock(str(log)).records() == [(1.0, 10), (2.0, 20)]


def test_the_index_of_a_log_that_grows_for_ever_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORDS_MAX", 100)
    log, index = tmp_path / "api.0.log", LogIndex()
    index.watch(str(log))
    for moment in range(1, 1001):
        grow(log, 1)
        index.tick(float(moment))
    records = Clock(str(log)).records()
    assert len(records) <= 101
    assert records[-1] == (1000.0, 1000)
    assert records == sorted(records)


def test_the_index_forgets_what_is_in_no_archive_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORDS_MAX", 20)
    log, index = tmp_path / "api.0.log", LogIndex()
    index.watch(str(log))
    rotator = Rotator(log, max_bytes=65_536, keep=1)
    for moment in range(1, 41):
        grow(log, 65_536)
        rotator.rotate()
        index.tick(float(moment))
    assert Clock(str(log)).records()[0][1] > 15 * 65_536


def test_one_log_that_cannot_be_indexed_does_not_keep_others_from_it(tmp_path: Path) -> None:
    bad, good, index = tmp_path / "bad.0.log", tmp_path / "good.0.log", LogIndex()
    for log in (bad, good):
        grow(log, 10)
        index.watch(str(log))
    os.mkdir(index_path(str(bad)))
    with pytest.raises(StateError, match=r"bad\.0\.log\.idx") as caught:
        index.tick(1.0)
    assert caught.value.code == "S005"
    assert Clock(str(good)).records() == [(1.0, 10)]


def test_a_log_that_is_forgotten_is_left_alone(tmp_path: Path) -> None:
    log, index = tmp_path / "api.0.log", LogIndex()
    index.watch(str(log))
    index.forget(str(log))
    grow(log, 10)
    index.tick()
    assert not os.path.exists(index_path(str(log)))
