"""A slip in a call is told as such, before anything happens."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from deploy_code.embed.arguments import counts, names, seconds, whole


@pytest.mark.parametrize(
    ("given", "meant"),
    [(None, None), (30, 30.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (-1, 0.0), (timedelta(seconds=-5), 0.0)],
)
def test_durations_are_seconds_or_timedeltas_and_what_is_over_is_nothing(given: Any, meant: float | None) -> None:
    assert seconds(given) == meant


@pytest.mark.parametrize(
    ("given", "meant"), [(None, None), ([], []), (["a"], ["a"]), (("a", "b"), ["a", "b"]), ({"a": 1}.keys(), ["a"])]
)
def test_names_come_in_any_collection(given: Any, meant: list[str] | None) -> None:
    assert names(given) == meant


def test_counts_and_numbers_are_taken_as_they_are() -> None:
    assert counts({"web": 3, "api": 0}) == {"web": 3, "api": 0}
    assert whole(7, "to") == 7 and whole(None, "to") is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: seconds("web"), "timeout is a number of seconds or a timedelta, got 'web'"),
        (lambda: seconds(True), "timeout is a number of seconds or a timedelta, got True"),
        (lambda: seconds(["web"], "check_interval"), "check_interval is a number of seconds"),
        (lambda: names("web"), r"services is a list of names, got text: write \['web'\]"),
        (lambda: names(3), "services is a list of names, got 3"),
        (lambda: names(["web", 3]), "services is a list of names, and 3 is none"),
        (lambda: whole("7", "to"), "to is a whole number, got '7'"),
        (lambda: whole(7.5, "to"), "to is a whole number, got 7.5"),
        (lambda: counts(["web"]), r"replicas are a mapping from names to numbers, such as \{\"web\": 3\}"),
        (lambda: counts({"web": "3"}), "the number of replicas of web is a whole number, got '3'"),
        (lambda: counts({"web": None}), "the number of replicas of web is a whole number, got None"),
        (lambda: counts({3: 3}), "replicas are a mapping from names to numbers, and 3 is no name"),
    ],
)
def test_what_is_of_a_wrong_type_is_told_with_what_would_be_right(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        call()


def test_nan_is_no_duration() -> None:
    with pytest.raises(ValueError, match="NaN"):
        seconds(math.nan)
