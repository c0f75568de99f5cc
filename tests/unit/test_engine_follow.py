"""Counting lines of a container's log, so that none is lost or told twice when somebody else goes on reading."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from deploy_code.drivers.engine.driver import _signal_name
from deploy_code.drivers.engine.events import exit_of
from deploy_code.drivers.engine.follow import Counter, Position, Stamp, _stamp_of, _Stamps

STAMPS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), max_size=60)


def asked_again(stamps: list[Stamp], position: Position) -> list[Stamp]:
    """What an engine answers from ``position`` on."""
    return [stamp for stamp in stamps if stamp >= _stamp_of(position.since)]


@given(STAMPS, st.integers(0, 60), st.integers(1, 5))
def test_where_one_reader_stopped_the_next_goes_on(stamps: list[Stamp], stop: int, every: int) -> None:
    stamps.sort()
    counter = Counter(Position())
    for number, stamp in enumerate(stamps[:stop]):
        if number % every == 0:
            counter._moved = -1e9  # time has passed
        counter.took(stamp)
    left = asked_again(stamps, counter.position)[counter.position.count :]
    assert left == stamps[stop:]


@given(STAMPS, st.lists(st.integers(0, 60), max_size=4))
def test_any_number_of_readers_may_follow_each_other(stamps: list[Stamp], stops: list[int]) -> None:
    stamps.sort()
    position, told = Position(), 0
    for stop in sorted(stops):
        counter, skip = Counter(position), position.count
        counter._moved = -1e9
        for stamp in asked_again(stamps, position):
            if skip:
                skip -= 1
                counter.saw(stamp)
            elif told < stop:
                told += 1
                counter.took(stamp)
        position = Position(counter.position.since, counter.position.count)
    assert asked_again(stamps, position)[position.count :] == stamps[told:]


@given(STAMPS)
def test_lines_out_of_order_are_never_told_twice(stamps: list[Stamp]) -> None:
    counter = Counter(Position())
    for stamp in stamps:
        counter.took(stamp)
    assert asked_again(stamps, counter.position)[counter.position.count :] == []


def test_a_position_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "position"
    path.write_bytes(Position("17.000000001", 42).text())
    assert Position.read(str(path)) == Position("17.000000001", 42)
    assert len(path.read_bytes()) == 64
    path.write_bytes(b"torn")
    assert Position.read(str(path)) == Position(), "then all is read anew"
    assert Position.read(str(tmp_path / "none")) == Position()


def test_times_of_both_engines_are_read() -> None:
    read = _Stamps().read
    assert read(b"1970-01-01T00:00:05.000000007Z") == (5, 7)
    assert read(b"1970-01-01T00:00:05Z") == (5, 0)
    assert read(b"1970-01-01T01:00:05.1+01:00") == (5, 100_000_000)
    assert read(b"nonsense") == (0, 0)


def test_ends_by_signals_are_told_from_exit_codes() -> None:
    assert (exit_of(0, 137).signal, exit_of(0, 143).signal) == (9, 15)
    assert [exit_of(0, code).code for code in (0, 1, 128, 255)] == [0, 1, 128, 255]
    assert (exit_of(0, None).code, exit_of(0, None).signal) == (None, None)


def test_signals_are_written_as_images_and_people_write_them() -> None:
    assert [_signal_name(text) for text in ("SIGTERM", "int", "SIGRTMIN+3", "15", "")] == [
        "SIGTERM",
        "SIGINT",
        "SIGRTMIN+3",
        "15",
        "SIGTERM",
    ]
