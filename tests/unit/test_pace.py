"""How long the prober waits, and what it says about keeping up."""

from hypothesis import given
from hypothesis import strategies as st

from deploy_code.health.meter import Meter
from deploy_code.health.pace import starting_wait, steady_wait


def test_a_young_instance_is_asked_every_five_milliseconds():
    assert starting_wait(0, 30, starting=1, costly=False) == 0.005


def test_noticing_costs_a_fiftieth_of_the_age():
    assert starting_wait(4, 30, starting=1, costly=False) == 0.08


def test_a_slow_start_is_asked_once_a_second():
    assert starting_wait(600, 30, starting=1, costly=False) == 1.0


def test_a_short_interval_is_kept_while_starting():
    assert starting_wait(600, 0.25, starting=1, costly=False) == 0.25


def test_many_starts_at_once_share_four_thousand_probes_a_second():
    assert starting_wait(0, 30, starting=400, costly=False) == 0.1


def test_a_command_is_run_at_most_every_fifty_milliseconds():
    assert starting_wait(0, 30, starting=1, costly=True) == 0.05
    assert starting_wait(10, 30, starting=1, costly=True) == 0.2


@given(st.floats(0.1, 3600), st.floats(0, 1))
def test_the_interval_is_kept_within_a_tenth(interval, chance):
    assert 0.9 * interval <= steady_wait(interval, chance) * 1.0000001
    assert steady_wait(interval, chance) <= 1.1 * interval * 1.0000001


def test_rate_and_lag_are_those_of_the_last_minute():
    meter = Meter(0)
    for second in range(100):
        meter.add(second, 9.0 if second < 30 else 0.5)
        meter.add(second, 1.5)
    stats = meter.stats(99.5, watched=7)
    assert stats.probes_per_second == 2
    assert stats.lag_seconds == 1.0
    assert stats.lag_max_seconds == 1.5
    assert stats.watched == 7


def test_old_probes_are_forgotten_even_when_no_new_ones_come():
    meter = Meter(0)
    meter.add(1, 5.0)
    stats = meter.stats(1000, watched=0)
    assert (stats.probes_per_second, stats.lag_seconds, stats.lag_max_seconds) == (0, 0, 0)


def test_a_young_prober_tells_the_rate_since_its_start():
    meter = Meter(0)
    for _ in range(30):
        meter.add(1, 0)
    assert meter.stats(3, watched=1).probes_per_second == 10
