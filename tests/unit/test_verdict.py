"""From probe results to one word (CONTRACTS §2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.health.verdict import Verdict, hold_seconds
from deploy_code.model import HealthCheck

CHECK = HealthCheck(interval_seconds=10, retries=3)


def judged(verdict: Verdict, *results: tuple[float, bool]) -> list[str]:
    """The state after each result."""
    states = []
    for at, ok in results:
        verdict.judge(ok, at)
        states.append(verdict.state)
    return states


def test_the_first_success_makes_it_ready():
    verdict = Verdict(CHECK, born_at=100)
    assert not verdict.was_ready
    assert verdict.judge(True, 100.2)
    assert verdict.state == "ready"
    assert verdict.was_ready


def test_the_gate_fails_once_probes_have_failed_for_retries_times_interval():
    verdict = Verdict(CHECK, born_at=0)
    assert judged(verdict, (0, False), (15, False), (29.9, False)) == ["starting"] * 3
    assert verdict.judge(False, 30)
    assert verdict.state == "gate_failed"


def test_however_many_failures_do_not_fail_the_gate_before_that_time():
    verdict = Verdict(CHECK, born_at=0)
    assert set(judged(verdict, *((i / 100, False) for i in range(2900)))) == {"starting"}


def test_failures_inside_the_start_period_do_not_count():
    verdict = Verdict(HealthCheck(interval_seconds=10, retries=3, start_period_seconds=60), born_at=0)
    assert judged(verdict, (0, False), (59.9, False), (60, False), (89, False)) == ["starting"] * 4
    assert judged(verdict, (90, False)) == ["gate_failed"]


def test_a_success_inside_the_start_period_opens_the_gate_and_ends_the_grace():
    verdict = Verdict(HealthCheck(interval_seconds=10, retries=2, start_period_seconds=60), born_at=0)
    assert judged(verdict, (5, True), (6, False), (7, False)) == ["ready", "ready", "unready"]


def test_after_the_first_success_retries_failures_in_a_row_mean_unready():
    verdict = Verdict(CHECK, born_at=0)
    states = judged(verdict, (1, True), (2, False), (3, False), (4, True), (5, False), (6, False), (7, False))
    assert states == ["ready"] * 6 + ["unready"]


def test_one_success_makes_an_unready_one_ready_again():
    verdict = Verdict(CHECK, born_at=0)
    judged(verdict, (1, True), (2, False), (3, False), (4, False))
    assert verdict.judge(True, 5)
    assert verdict.state == "ready"
    assert not verdict.judge(True, 6)


def test_a_failed_gate_can_still_become_ready():
    verdict = Verdict(CHECK, born_at=0)
    judged(verdict, (0, False), (30, False))
    assert not verdict.judge(False, 31)
    assert verdict.judge(True, 40)
    assert verdict.state == "ready"


def test_what_can_only_be_seen_to_live_is_ready_when_it_has_lived_long_enough():
    verdict = Verdict(CHECK, born_at=10, hold_seconds=1)
    assert not verdict.judge(True, 10)
    assert verdict.until_hold_ends(10.25) == 0.75
    assert verdict.judge(True, 11)
    assert verdict.until_hold_ends(12) == 0


def test_an_adopted_one_is_judged_by_retries_from_the_beginning():
    verdict = Verdict(CHECK, born_at=0, open_gate=True)
    assert judged(verdict, (1000, False), (1010, False), (1020, False)) == ["ready", "ready", "unready"]


def test_the_first_success_of_an_adopted_one_is_told():
    verdict = Verdict(CHECK, born_at=0, open_gate=True)
    assert verdict.judge(True, 1000)
    assert not verdict.judge(True, 1010)


@pytest.mark.parametrize(
    ("only_alive", "min_ready", "expected"), [(True, 0, 1), (True, 5, 5), (False, 0, 0), (False, 5, 0)]
)
def test_the_time_to_live_is_asked_only_where_nothing_else_can_be(only_alive, min_ready, expected):
    assert hold_seconds(only_alive=only_alive, min_ready_seconds=min_ready) == expected


histories = st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=60)
checks = st.builds(
    HealthCheck,
    interval_seconds=st.floats(0.1, 30),
    retries=st.integers(1, 10),
    start_period_seconds=st.floats(0, 60),
)


def times(history: list[tuple[float, bool]]) -> list[tuple[float, bool]]:
    """Waits as points in time."""
    now, found = 0.0, []
    for wait, ok in history:
        now += wait
        found.append((now, ok))
    return found


@given(checks, histories, st.booleans())
def test_a_change_is_told_exactly_when_the_state_changes_or_is_first_proven(check, history, open_gate):
    verdict = Verdict(check, born_at=0, open_gate=open_gate)
    proven = False
    for at, ok in times(history):
        before = verdict.state
        told = verdict.judge(ok, at)
        first_proof = ok and not proven
        proven = proven or ok
        assert told == (verdict.state != before or (first_proof and verdict.state == "ready"))


@given(checks, histories)
def test_after_a_success_it_is_ready_and_fewer_than_retries_failures_do_not_change_that(check, history):
    verdict = Verdict(check, born_at=0)
    failures = None
    for at, ok in times(history):
        verdict.judge(ok, at)
        failures = 0 if ok else (None if failures is None else failures + 1)
        if failures is not None:
            assert verdict.state == ("ready" if failures < check.retries else "unready")


@given(checks, histories)
def test_the_gate_never_fails_before_start_period_and_patience_are_over(check, history):
    verdict = Verdict(check, born_at=0)
    for at, ok in times(history):
        verdict.judge(ok, at)
        if verdict.state == "gate_failed":
            assert at >= check.start_period_seconds + check.retries * check.interval_seconds - 1e-6
            return
        if ok:
            return


@given(checks, st.floats(0, 100))
def test_one_that_never_answers_fails_its_gate_within_a_probe_of_the_bound(check, late):
    verdict = Verdict(check, born_at=0)
    bound = check.start_period_seconds + check.retries * check.interval_seconds
    verdict.judge(False, check.start_period_seconds)
    verdict.judge(False, bound + late + 1e-6)
    assert verdict.state == "gate_failed"
