"""Circuit breakers: what keeps failing is left alone, and exactly one caller finds out whether it works again."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.errors import CircuitOpenError
from deploy_code.events import CircuitClosed, CircuitHalfOpened, CircuitOpened
from deploy_code.model import Breaker
from deploy_code.reliability.circuit import Call, Circuit, CircuitBreaker
from deploy_code.reliability.registry import Breakers, event_of

LIMITS = Breaker(failures=3, window_seconds=10.0, cooldown_seconds=30.0)
CALLERS = 50


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker_of(clock: Clock, **options: Any) -> CircuitBreaker:
    return CircuitBreaker("the webhook", LIMITS, clock=clock, **options)


def opened(clock: Clock, **options: Any) -> CircuitBreaker:
    breaker = breaker_of(clock, **options)
    for _ in range(LIMITS.failures):
        breaker.admit().failed("refused")
    return breaker


def half_open(clock: Clock) -> CircuitBreaker:
    breaker = opened(clock)
    clock.now += LIMITS.cooldown_seconds
    return breaker


# --------------------------------------------------------------------------- open and closed


def test_too_many_failures_open_it_and_calls_fail_at_once(clock: Clock) -> None:
    breaker = opened(clock)
    assert breaker.state is Circuit.OPEN
    with pytest.raises(CircuitOpenError, match=r"^E018 .*the webhook.*refused.*next try comes in 30 s") as caught:
        breaker.admit()
    assert caught.value.retry_at == pytest.approx(time.time() + 30, abs=5)


def test_one_failure_less_leaves_it_closed(clock: Clock) -> None:
    breaker = breaker_of(clock)
    for _ in range(LIMITS.failures - 1):
        breaker.admit().failed()
    breaker.admit().succeeded()


def test_a_success_in_between_begins_the_count_anew(clock: Clock) -> None:
    breaker = breaker_of(clock)
    for _ in range(10):
        for _ in range(LIMITS.failures - 1):
            breaker.admit().failed()
        breaker.admit().succeeded()
    assert breaker.state is Circuit.CLOSED


def test_failures_outside_the_window_do_not_count(clock: Clock) -> None:
    breaker = breaker_of(clock)
    for _ in range(20):
        breaker.admit().failed()
        clock.now += LIMITS.window_seconds / 2 + 0.1
    assert breaker.state is Circuit.CLOSED


def test_the_try_that_succeeds_closes_it_and_the_one_that_fails_opens_it_again(clock: Clock) -> None:
    breaker = half_open(clock)
    breaker.admit().failed("still refused")
    assert breaker.state is Circuit.OPEN
    assert breaker.retry_in == LIMITS.cooldown_seconds
    clock.now += LIMITS.cooldown_seconds
    breaker.admit().succeeded()
    assert breaker.state is Circuit.CLOSED
    assert breaker.reason == ""
    assert breaker.failures == 0


def test_what_it_shows_is_the_state_it_entered_and_when_the_next_try_comes(clock: Clock) -> None:
    breaker = opened(clock)
    assert breaker.read()[:2] == ("the webhook", Circuit.OPEN)
    assert breaker.read().retry_at == pytest.approx(time.time() + 30, abs=5)
    clock.now += LIMITS.cooldown_seconds + 100
    assert breaker.read().state is Circuit.OPEN
    assert breaker.read().retry_at == pytest.approx(time.time() - 100, abs=5)
    assert breaker.state is Circuit.HALF_OPEN
    breaker.admit()
    assert breaker.read()[1:] == (Circuit.HALF_OPEN, 0.0, "refused")


def test_a_long_reason_is_cut_and_made_one_line(clock: Clock) -> None:
    breaker = breaker_of(clock)
    breaker.admit().failed("a\n  b " + "x" * 5000)
    assert breaker.reason.startswith("a b x")
    assert len(breaker.reason) == 300


# --------------------------------------------------------------------------- exactly one


async def test_of_fifty_tasks_exactly_one_is_let_through_when_half_open(clock: Clock) -> None:
    breaker = half_open(clock)
    answered = asyncio.Event()
    refused, called = 0, 0

    async def caller() -> None:
        nonlocal refused, called
        try:
            async with breaker:
                called += 1
                await answered.wait()
        except CircuitOpenError:
            refused += 1

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
        while refused < CALLERS - 1:
            await asyncio.sleep(0)
        assert called == 1
        answered.set()
    assert breaker.state is Circuit.CLOSED
    await caller()
    assert called == 2


def test_of_fifty_threads_exactly_one_is_let_through_when_half_open(clock: Clock) -> None:
    for _ in range(20):
        breaker = half_open(clock)
        together = threading.Barrier(CALLERS)
        with ThreadPoolExecutor(CALLERS) as pool:
            calls = list(pool.map(lambda _, b=breaker, t=together: _admitted(b, t), range(CALLERS)))
        through = [call for call in calls if call is not None]
        assert len(through) == 1
        through[0].succeeded()
        assert breaker.state is Circuit.CLOSED


def _admitted(breaker: CircuitBreaker, together: threading.Barrier) -> Call | None:
    together.wait(10)
    try:
        return breaker.admit()
    except CircuitOpenError:
        return None


def test_who_comes_second_hears_that_a_try_is_under_way(clock: Clock) -> None:
    breaker = half_open(clock)
    breaker.admit()
    with pytest.raises(CircuitOpenError, match="when the one that is under way has ended"):
        breaker.admit()


# --------------------------------------------------------------------------- calls that say nothing, or too late


async def test_a_cancelled_try_says_nothing_and_lets_the_next_one_through(clock: Clock) -> None:
    breaker = half_open(clock)

    async def hang() -> None:
        async with breaker:
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert breaker.state is Circuit.HALF_OPEN
    breaker.admit().succeeded()
    assert breaker.state is Circuit.CLOSED


def test_a_try_that_never_reports_is_taken_for_lost_after_the_cool_down(clock: Clock) -> None:
    breaker = half_open(clock)
    lost = breaker.admit()
    clock.now += LIMITS.cooldown_seconds - 0.1
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    clock.now += 0.1
    second = breaker.admit()
    lost.succeeded()
    assert breaker.state is Circuit.HALF_OPEN
    second.succeeded()
    assert breaker.state is Circuit.CLOSED


@pytest.mark.parametrize("late", ["succeeded", "failed", "abandoned"])
def test_a_call_from_before_it_opened_decides_nothing_afterwards(clock: Clock, late: str) -> None:
    breaker = breaker_of(clock)
    early = [breaker.admit() for _ in range(3)]
    for _ in range(LIMITS.failures):
        breaker.admit().failed()
    getattr(early[0], late)()
    assert breaker.state is Circuit.OPEN
    clock.now += LIMITS.cooldown_seconds
    trial = breaker.admit()
    getattr(early[1], late)()
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    trial.succeeded()
    getattr(early[2], late)()
    assert (breaker.state, breaker.failures) == (Circuit.CLOSED, 0)


def test_a_call_counts_once_however_often_it_reports(clock: Clock) -> None:
    breaker = breaker_of(clock)
    call = breaker.admit()
    for _ in range(5):
        call.failed()
    assert breaker.failures == 1


async def test_blocks_within_blocks_and_beside_each_other_each_report_their_own(clock: Clock) -> None:
    outer, inner = breaker_of(clock), breaker_of(clock)

    async def call(fails: bool) -> None:
        async with outer:
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="inner"):
                async with inner:
                    await asyncio.sleep(0)
                    raise ValueError("inner")
            await asyncio.sleep(0)
            if fails:
                raise ValueError("outer")

    await asyncio.gather(call(True), call(False), call(True), return_exceptions=True)
    assert inner.state is Circuit.OPEN
    assert (outer.state, outer.reason) == (Circuit.CLOSED, "outer")


async def test_a_block_that_is_left_in_another_task_harms_nobody(clock: Clock) -> None:
    other, breaker = breaker_of(clock), half_open(clock)
    await asyncio.create_task(breaker.__aenter__())
    async with other:
        await breaker.__aexit__(None, None, None)
    assert breaker.state is Circuit.HALF_OPEN
    clock.now += LIMITS.cooldown_seconds
    async with breaker:
        pass
    assert breaker.state is Circuit.CLOSED


# --------------------------------------------------------------------------- who listens


def test_every_state_is_told_once_and_in_order(clock: Clock) -> None:
    told: list[Any] = []
    breaker = opened(clock, on_change=lambda each: told.append(event_of(each)))
    clock.now += LIMITS.cooldown_seconds
    breaker.admit().failed("no")
    clock.now += LIMITS.cooldown_seconds
    breaker.admit().abandoned()
    breaker.admit().succeeded()
    kinds = [CircuitOpened, CircuitHalfOpened, CircuitOpened, CircuitHalfOpened, CircuitClosed]
    assert [type(each) for each in told] == kinds
    assert told[0].text == "circuit of the webhook opened: it has failed too often (last: refused), next try in 30 s"
    assert told[0].reason == "refused"


def test_all_who_call_the_same_thing_share_a_breaker(clock: Clock) -> None:
    breakers = Breakers(LIMITS, clock=clock)
    socket = "docker socket /run/docker.sock"
    for _ in range(LIMITS.failures):
        with pytest.raises(OSError, match="gone"), breakers.of(socket):
            raise OSError("gone")
    with pytest.raises(CircuitOpenError, match="docker socket"), breakers.of(socket):
        raise AssertionError("it was called")
    with breakers.of("another"):
        pass
    assert [(each.protects, each.state, each.reason) for each in breakers.snapshot()] == [
        ("another", Circuit.CLOSED, ""),
        (socket, Circuit.OPEN, "gone"),
    ]
    breakers.forget(socket)
    assert breakers.of(socket).state is Circuit.CLOSED


# --------------------------------------------------------------------------- against a model


class Model:
    """The same rules without any cleverness: all that ever happened is kept and looked through."""

    def __init__(self) -> None:
        self.state, self.since, self.failures = "closed", 0.0, list[float]()
        self.counted: set[int] = set()  # calls whose reports count

    def admit(self, number: int, now: float) -> bool:
        if self.state != "closed":
            if now < self.since + LIMITS.cooldown_seconds:
                return False
            self.state, self.since, self.counted = "half-open", now, set()
        self.counted.add(number)
        return True

    def report(self, number: int, outcome: str, now: float) -> None:
        if number not in self.counted:
            return
        self.counted.discard(number)
        if outcome == "abandoned":
            self.since = now - LIMITS.cooldown_seconds if self.state == "half-open" else self.since
        elif outcome == "succeeded":
            self.failures = []
            if self.state == "half-open":
                self.state, self.counted = "closed", set()
        else:
            self.failures.append(now)
            recent = [at for at in self.failures if at >= now - LIMITS.window_seconds]
            if self.state == "half-open" or len(recent) >= LIMITS.failures:
                self.state, self.since, self.counted = "open", now, set()

    def word(self, now: float) -> str:
        return "half-open" if self.state == "open" and now >= self.since + LIMITS.cooldown_seconds else self.state


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 4, 5, 10, 15, 30])),
    st.tuples(st.just("call"), st.just(0)),
    st.tuples(st.sampled_from(["succeeded", "failed", "failed", "abandoned"]), st.integers(0, 5)),
)


@given(st.lists(STEPS, max_size=80))
def test_it_does_what_the_plain_rules_say(steps: list[tuple[str, int]]) -> None:
    clock, model = Clock(), Model()
    breaker = breaker_of(clock)
    calls: list[Call] = []
    for kind, value in steps:
        if kind == "wait":
            clock.now += value
        elif kind == "call":
            allowed = model.admit(len(calls), clock.now)
            call = _let_through(breaker)
            assert (call is not None) == allowed
            calls += [call] if call else []
        elif value < len(calls):
            number = len(calls) - 1 - value
            getattr(calls[number], kind)()
            model.report(number, kind, clock.now)
        assert breaker.state == model.word(clock.now)


def _let_through(breaker: CircuitBreaker) -> Call | None:
    try:
        return breaker.admit()
    except CircuitOpenError:
        return None
