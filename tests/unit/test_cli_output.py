"""Tables, times, colours and the three formats."""

import io
import json
import os
import sys
import time

import click
import pytest
import yaml

from deploy_code.cli.options import Options
from deploy_code.cli.output import Unbreakable, emit, has_color, paint, plain, say, say_error
from deploy_code.cli.tables import Cell, shorten, table
from deploy_code.cli.times import ago, iso, parse_since, span


class Terminal(io.StringIO):
    def isatty(self):
        return True


# --------------------------------------------------------------------------- tables


def test_columns_are_as_wide_as_they_need():
    text = table(("NAME", "STATE"), [("api", "running"), ("a-long-name", "up")])
    assert text.splitlines() == ["NAME         STATE", "api          running", "a-long-name  up"]


def test_a_column_that_is_empty_everywhere_is_left_out():
    assert table(("A", "B", "C"), [("1", "", "3")]).splitlines() == ["A  C", "1  3"]


def test_no_line_is_wider_than_the_terminal():
    lines = table(("A", "B"), [("x", "y" * 50), ("z" * 30, "y")], width=20).splitlines()
    assert max(map(len, lines)) <= 20
    assert lines[1].endswith("…")


def test_colour_does_not_disturb_the_alignment():
    rows = [(Cell("ok", "green"), "1"), (Cell("failed", "red"), "2")]
    painted, bare = table(("S", "N"), rows, color=True), table(("S", "N"), rows)
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[31m"):
        painted = painted.replace(code, "")
    assert painted == bare


def test_text_of_strangers_cannot_steer_the_terminal():
    assert "\x1b" not in table(("A",), [("\x1b[2Jgone",)])
    assert plain("a\x1b]0;x\x07b\r\nc") == "a\\x1b]0;x\\x07b  c"
    assert plain("grün ✓") == "grün ✓"


@pytest.mark.parametrize(("room", "short"), [(5, "abcde"), (3, "ab…"), (1, "…"), (0, "")])
def test_what_does_not_fit_is_shortened(room, short):
    assert shorten("abcde", room) == short


# --------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.00 s"),
        (0.254, "0.25 s"),
        (9.96, "10.0 s"),
        (42.4, "42 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (18720, "5 h 12 min"),
        (1047600, "12 d 3 h"),
    ],
)
def test_spans_are_read_by_people(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("90", 90), ("10m", 600), ("2h", 7200), ("1.5d", 129600)])
def test_since_takes_a_span(text, seconds):
    assert parse_since(text, now=1_000_000) == 1_000_000 - seconds


def test_since_takes_a_time_with_and_without_zone():
    assert parse_since("2025-01-31T12:00:00Z") == 1738324800
    assert parse_since("2025-01-31T13:00:00+01:00") == 1738324800
    assert parse_since("2025-01-31 12:00") == time.mktime((2025, 1, 31, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize("text", ["", "soon", "10x", "-5m", "nan", "inf", "1e99d", "2025-13-01"])
def test_anything_else_is_refused(text):
    with pytest.raises(click.BadParameter, match="neither a span"):
        parse_since(text)


def test_data_carries_utc():
    assert iso(1738324800.5) == "2025-01-31T12:00:00.500+00:00"
    assert iso(None) is None


def test_ago_counts_from_now():
    assert ago(100, now=142) == "42 s ago"


# --------------------------------------------------------------------------- formats and colours

DATA = {"name": "grün", "list": [1, 2.5, None], "yes": "no"}


def test_json_and_yaml_say_the_same(capsys):
    emit(DATA, Options(format="json"), str)
    assert json.loads(capsys.readouterr().out) == DATA
    emit(DATA, Options(format="yaml"), str)
    assert yaml.safe_load(capsys.readouterr().out) == DATA


def test_text_is_only_made_when_it_is_wanted(capsys):
    def never():
        raise AssertionError

    emit(DATA, Options(format="json"), never)
    capsys.readouterr()
    emit(DATA, Options(), lambda: "words")
    assert capsys.readouterr().out == "words\n"


def test_no_colour_where_nobody_sees_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert has_color(Terminal())
    assert not has_color(io.StringIO())
    assert not has_color(Terminal(), Options(no_color=True))
    monkeypatch.setenv("TERM", "dumb")
    assert not has_color(Terminal())


def test_no_color_in_the_environment_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_color(Terminal())


def test_paint_off_is_the_text_itself():
    assert paint("x", "red", False) == "x"
    assert paint("x", "bold red") == "\x1b[1;31mx\x1b[0m"


def test_the_log_level_decides_what_is_said(capsys):
    for level in ("debug", "info", "warn", "error"):
        say(level, Options(log_level="warn"), level=level)
    assert capsys.readouterr().err == "warn\nerror\n"


def test_the_code_of_an_error_stands_out_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    say_error("E001 CONFIG_NOT_FOUND: there is no file")
    assert sys.stderr.getvalue() == "\x1b[1;31mE001 CONFIG_NOT_FOUND\x1b[0m: there is no file\n"


def test_a_stream_whose_reader_has_gone_swallows_the_rest():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        stream = Unbreakable(pipe)
        stream.write("x" * 100_000)
        stream.flush()
        stream.write("and on")
        stream.flush()
        assert stream.isatty() is False
