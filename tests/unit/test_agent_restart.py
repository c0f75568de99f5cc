"""Whether and when a dead instance comes back (DESIGN §7 "Restart")."""

from __future__ import annotations

import pytest

from deploy_code.agent.restart import Decision, RestartBook, counts_as_success
from deploy_code.model import Exit, Restart

POLICY = Restart()


def steady() -> RestartBook:
    return RestartBook(lambda: 0.0)


def waits(book: RestartBook, policy: Restart, count: int, *, apart: float = 100.0) -> list[float]:
    found = []
    for number in range(count):
        now = number * apart
        found.append(book.ended(policy, now=now, ok=False, ready_for=0.0).at - now)
    return found


def test_waits_double_up_to_a_minute():
    policy = Restart(max_exits=100)
    assert waits(steady(), policy, 9) == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_adds_at_most_a_quarter():
    book = RestartBook(lambda: 0.999)
    assert 0.5 <= waits(book, POLICY, 1)[0] <= 0.625


def test_a_minute_ready_makes_the_next_wait_the_first_again():
    book = steady()
    waits(book, Restart(max_exits=100), 5)
    assert book.ended(POLICY, now=1000.0, ok=False, ready_for=60.0).at == 1000.5


def test_less_than_a_minute_ready_does_not():
    book = steady()
    waits(book, Restart(max_exits=100), 3)
    assert book.ended(POLICY, now=1000.0, ok=False, ready_for=59.0).at == 1004.0


def test_too_many_exits_in_the_window_open_the_circuit():
    book = steady()
    policy = Restart(max_exits=3, window_seconds=300, cooldown_seconds=120)
    decisions = [book.ended(policy, now=float(at), ok=False, ready_for=0.0) for at in (0, 10, 20)]
    assert [each.decision for each in decisions] == [Decision.RESTART, Decision.RESTART, Decision.CIRCUIT_OPEN]
    assert decisions[-1].at == 140.0


def test_exits_outside_the_window_do_not_count():
    book = steady()
    policy = Restart(max_exits=3, window_seconds=50)
    decisions = [book.ended(policy, now=at * 30.0, ok=False, ready_for=0.0).decision for at in range(6)]
    assert set(decisions) == {Decision.RESTART}


def test_the_half_open_try_that_fails_opens_the_circuit_again():
    book = steady()
    policy = Restart(max_exits=2, window_seconds=10, cooldown_seconds=100)
    book.ended(policy, now=0.0, ok=False, ready_for=0.0)
    assert book.ended(policy, now=1.0, ok=False, ready_for=0.0).decision is Decision.CIRCUIT_OPEN
    assert not book.is_trying
    book.tries(101.0)
    assert book.is_trying
    again = book.ended(policy, now=200.0, ok=False, ready_for=1.0)
    assert (again.decision, again.at) == (Decision.CIRCUIT_OPEN, 300.0)
    assert not book.is_trying


def test_a_try_a_hair_too_early_is_a_try():
    book = steady()
    book.ended(Restart(max_exits=1, cooldown_seconds=100), now=0.0, ok=False, ready_for=0.0)
    book.tries(99.999)
    assert book.is_trying


def test_the_half_open_try_that_lasts_closes_it():
    book = steady()
    policy = Restart(max_exits=2, window_seconds=10)
    waits(book, policy, 2, apart=1.0)
    book.tries(400.0)
    assert book.ended(policy, now=900.0, ok=False, ready_for=61.0).decision is Decision.RESTART


def test_an_adopted_open_circuit_has_one_try():
    book = steady()
    book.opened()
    book.tries(0.0)
    assert book.ended(POLICY, now=0.0, ok=False, ready_for=0.0).decision is Decision.CIRCUIT_OPEN


@pytest.mark.parametrize(
    ("policy", "ok", "decision"),
    [
        ("always", True, Decision.RESTART),
        ("always", False, Decision.RESTART),
        ("on-failure", True, Decision.STAY),
        ("on-failure", False, Decision.RESTART),
        ("never", True, Decision.STAY),
        ("never", False, Decision.STAY),
    ],
)
def test_the_policy_decides(policy: str, ok: bool, decision: Decision):
    assert steady().ended(Restart(policy=policy), now=0.0, ok=ok, ready_for=0.0).decision is decision


def test_a_fresh_start_forgets_all_exits():
    book = steady()
    waits(book, Restart(max_exits=100), 6)
    book.forgive()
    assert waits(book, POLICY, 1) == [0.5]


def test_an_unknown_exit_counts_as_a_failure():
    assert not counts_as_success(Exit(at=0.0))
    assert not counts_as_success(None)
    assert not counts_as_success(Exit(at=0.0, signal=9))
    assert counts_as_success(Exit(at=0.0, code=0))
