"""Back-off: doubling, bounded, spread."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from deploy_code.reliability.backoff import Backoff


def test_waits_double_up_to_the_ceiling():
    waits = [Backoff().delay(attempt, lambda: 0.0) for attempt in range(9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_chance_adds_up_to_a_quarter():
    assert Backoff().delay(0, lambda: 1.0) == 0.625
    assert Backoff(jitter=0).delay(0, random.random) == 0.5


def test_a_thousand_failures_do_not_overflow():
    assert Backoff().delay(100_000, lambda: 0.0) == 60


@given(attempt=st.integers(0, 5000), seed=st.integers())
def test_every_wait_is_within_its_bounds(attempt, seed):
    wait = Backoff().delay(attempt, random.Random(seed).random)
    assert 0.5 <= wait <= 75
