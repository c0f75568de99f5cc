"""From counters to rates."""

from __future__ import annotations

import pytest

from deploy_code.monitoring.rates import KEPT_SECONDS, LEAST_SECONDS, Rates


def test_a_rate_needs_two_looks() -> None:
    rates = Rates()
    assert rates.rate("a", 10.0, 100.0) is None
    assert rates.wait("a", 100.0) == pytest.approx(LEAST_SECONDS)
    assert rates.rate("a", 10.5, 101.0) == 0.5
    assert rates.wait("a", 101.0) == 0.0


def test_looks_too_close_together_give_the_rate_known_before() -> None:
    rates = Rates()
    rates.rate("a", 0.0, 0.0)
    assert rates.rate("a", 1.0, 0.05) is None
    assert 0 < rates.wait("a", 0.05) < LEAST_SECONDS
    assert rates.rate("a", 1.0, 1.0) == 1.0
    assert rates.rate("a", 9.0, 1.01) == 1.0
    assert rates.rate("a", 3.0, 2.0) == 2.0


def test_a_counter_that_shrinks_is_no_negative_rate() -> None:
    rates = Rates()
    rates.rate("a", 5.0, 0.0)
    assert rates.rate("a", 1.0, 1.0) == 0.0


def test_what_was_looked_at_long_ago_is_forgotten() -> None:
    rates = Rates()
    rates.rate("a", 0.0, 0.0)
    rates.tidy(KEPT_SECONDS + 1)
    assert rates.rate("a", 1.0, KEPT_SECONDS + 1) is None
