"""Asks every instance how it is, from its birth to its removal, and tells the keeper what follows.

One small task per instance: wait, probe, judge, tell. Probes of one instance so never overlap, and a slow one
delays nobody else. How late probes begin is measured, since a prober that falls behind would call healthy
services unready.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from deploy_code.health.dial import ProbeNotMadeError
from deploy_code.health.listeners import Listeners
from deploy_code.health.meter import Meter, ProberStats
from deploy_code.health.pace import starting_wait, steady_wait
from deploy_code.health.probes import Probe, only_looks_alive, port_asked, starts_a_process
from deploy_code.health.verdict import State, Verdict, hold_seconds
from deploy_code.model import HealthCheck, ProbeResult

OPEN_FILES = 65_536  # wished for: a socket per probe, besides what the rest of the agent holds
FAILURE_REPORT_SECONDS = 1.0  # the same failure of a starting instance is told at most so often
STEADY_REPORT_SECONDS = 10.0  # one success after the other is told so often: how quick it answers is to be known
STRANGER_SECONDS = 1.0  # who holds a foreign port is looked up at most so often: it walks /proc
ADOPTED_SPREAD_SECONDS = 1.0  # first probes of adopted instances are spread over so long

OwnerCheck = Callable[[], "bool | Awaitable[bool | None] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is thought of an instance now.

    ``changed``: the verdict is new; else only ``result`` is. ``steady``: one more success, of interest to nobody in
    a hurry.
    """

    verdict: State
    result: ProbeResult | None
    changed: bool
    steady: bool = False


Report = Callable[[str, Judgement], None]


class Prober:
    """Watches any number of instances in the running event loop.

    ``report(uuid, judgement)`` is called in the loop for every change of verdict, the first result, and
    failures: each one after the gate; before it each new kind of failure at once and the same one once a
    second. Of successes in a row one is told every ten seconds. At most ``commands_at_once`` probes that start a
    program run together (default: four per core, at least 8).
    """

    def __init__(self, report: Report, *, commands_at_once: int | None = None) -> None:
        self.listeners = Listeners()
        self._report = report
        self._commands = asyncio.Semaphore(commands_at_once or max(8, 4 * (os.cpu_count() or 1)))
        self._watches: dict[str, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: set[str] = set()
        self._meter = Meter(time.monotonic())

    def watch(
        self,
        uuid: str,
        probe: Probe,
        check: HealthCheck,
        *,
        born_at: float,
        min_ready: float = 0.0,
        open_gate: bool = False,
        owner_check: OwnerCheck | None = None,
    ) -> None:
        """Begin at once; a watch of the same ``uuid`` is replaced.

        ``born_at``: when the instance was started (epoch). ``min_ready``: only for instances of which nothing
        but their life can be told; 0 is 1 s. ``open_gate``: it was ready before (an adopted one).
        ``owner_check``, plain or async, is asked at a success before the gate opens: False (a stranger
        answers) makes it a failure.
        """
        self.forget(uuid)
        now = time.monotonic()
        born = now - max(0.0, time.time() - born_at)
        hold = hold_seconds(only_alive=only_looks_alive(probe), min_ready_seconds=min_ready)
        verdict = Verdict(check, born_at=born, hold_seconds=hold, open_gate=open_gate)
        watch = _Watch(self, uuid, probe, check, verdict, born=born, owner_check=owner_check)
        self._watches[uuid] = watch
        self.note_state(uuid, verdict.state)
        self._start(watch)

    def forget(self, uuid: str) -> None:
        """Watch it no longer; a probe under way is cut short, its socket or program goes with it."""
        watch = self._watches.pop(uuid, None)
        self._starting.discard(uuid)
        if watch is not None and watch.task is not None:
            watch.task.cancel()

    def probe_now(self, uuid: str) -> None:
        """Probe at once, or once more after the probe that is under way. Nothing happens for one that is not
        watched.
        """
        watch = self._watches.get(uuid)
        if watch is not None:
            watch.hurry()

    def stats(self) -> ProberStats:
        """Rate and lag over the last minute."""
        return self._meter.stats(time.monotonic(), len(self._watches))

    async def close(self) -> None:
        """Forget all, and wait until no task, socket or program of a probe is left."""
        for uuid in tuple(self._watches):
            self.forget(uuid)
        while self._tasks:
            await asyncio.wait(self._tasks)

    # ------------------------------------------------------------------ for the watches

    def note_state(self, uuid: str, state: State) -> None:
        """Count who is starting: the more there are, the less often each is asked."""
        if state == "starting":
            self._starting.add(uuid)
        else:
            self._starting.discard(uuid)

    @property
    def starting(self) -> int:
        return len(self._starting)

    async def ask(self, probe: Probe, costly: bool, due: float) -> ProbeResult | None:
        """One probe, measured; None where this machine could not make it."""
        if not costly:
            return await self._ask(probe, due)
        async with self._commands:
            return await self._ask(probe, due)

    def tell(self, uuid: str, judgement: Judgement) -> None:
        self.note_state(uuid, judgement.verdict)
        self._report(uuid, judgement)

    # ------------------------------------------------------------------ inside

    def _start(self, watch: _Watch) -> None:
        task = asyncio.get_running_loop().create_task(watch.run(), name=f"probe {watch.uuid}")
        watch.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, probe: Probe, due: float) -> ProbeResult | None:
        now = time.monotonic()
        self._meter.add(now, max(0.0, now - due))
        try:
            return await probe()
        except ProbeNotMadeError:
            self._meter.not_made += 1
            return None


class _Watch:
    """One instance: its verdict, and when it is asked next."""

    def __init__(
        self,
        prober: Prober,
        uuid: str,
        probe: Probe,
        check: HealthCheck,
        verdict: Verdict,
        *,
        born: float,
        owner_check: OwnerCheck | None,
    ) -> None:
        self.uuid = uuid
        self.task: asyncio.Task[None] | None = None
        self._prober = prober
        self._probe = probe
        self._costly = starts_a_process(probe)
        self._interval = check.interval_seconds
        self._verdict = verdict
        self._born = born
        self._owner_check = owner_check
        self._alarm: asyncio.Future[None] | None = None
        self._hurry = False
        self._told: tuple[bool, int | None, str] | None = None  # what was reported last: ok, status, detail
        self._told_at = 0.0
        self._stranger = ("", 0.0)  # words, and until when they are fresh

    def hurry(self) -> None:
        self._hurry = True
        if self._alarm is not None:
            _ring(self._alarm)

    async def run(self) -> None:
        due = self._first_due()
        while True:
            due = await self._sleep_until(due)
            try:
                made = await self._probe_once(due)
            except Exception as error:
                made = False
                _complain(f"a probe of instance {self.uuid} broke off", error)
            due = self._next_due(due, made=made)

    async def _probe_once(self, due: float) -> bool:
        """Probe, judge, tell. False when this machine could not make the probe."""
        result = await self._prober.ask(self._probe, self._costly, due)
        if result is None:
            return False
        self._judge(await self._checked(result))
        return True

    # ------------------------------------------------------------------ when

    def _first_due(self) -> float:
        now = time.monotonic()
        if not self._verdict.was_ready:
            return now
        return now + random.random() * min(self._interval, ADOPTED_SPREAD_SECONDS)

    def _next_due(self, due: float, *, made: bool) -> float:
        now = time.monotonic()
        state = self._verdict.state
        if state != "starting" or not made:
            # counted from when it was due, so that the rate is kept; what was missed is not made up for
            return max(now, due + steady_wait(self._interval if state != "starting" else 1.0, random.random()))
        wait = starting_wait(now - self._born, self._interval, starting=self._prober.starting, costly=self._costly)
        hold = self._verdict.until_hold_ends(now)
        return now + (hold or wait)

    async def _sleep_until(self, due: float) -> float:
        """Wait; the time the next probe is due: ``due``, or now when it was hurried."""
        loop = asyncio.get_running_loop()
        alarm = self._alarm = loop.create_future()
        timer = loop.call_later(0 if self._hurry else due - time.monotonic(), _ring, alarm)
        try:
            await alarm
        finally:
            timer.cancel()
            self._alarm = None
        hurried, self._hurry = self._hurry, False
        return time.monotonic() if hurried else due

    # ------------------------------------------------------------------ what

    async def _checked(self, result: ProbeResult) -> ProbeResult:
        """The result, or a failure where a stranger gave the answer that would open the gate."""
        if not result.ok or self._owner_check is None or self._verdict.state != "starting":
            return result
        owned = self._owner_check()
        if inspect.isawaitable(owned):
            owned = await owned
        if owned is not False:
            return result
        return replace(result, ok=False, detail=self._who_answers())

    def _who_answers(self) -> str:
        words, fresh_until = self._stranger
        now = time.monotonic()
        if now >= fresh_until:
            port = port_asked(self._probe)
            words = "the answer comes from another process, not from this service"
            words = self._prober.listeners.stranger(port) if port else words
            self._stranger = (words, now + STRANGER_SECONDS)
        return words

    def _judge(self, result: ProbeResult) -> None:
        now = time.monotonic()
        changed = self._verdict.judge(result.ok, now)
        news = changed or self._is_news(result, now)
        if news or now - self._told_at >= STEADY_REPORT_SECONDS:
            self._told, self._told_at = (result.ok, result.status, result.detail), now
            judgement = Judgement(verdict=self._verdict.state, result=result, changed=changed, steady=not news)
            self._prober.tell(self.uuid, judgement)

    def _is_news(self, result: ProbeResult, now: float) -> bool:
        news = (result.ok, result.status, result.detail) != self._told
        if result.ok:
            return self._told is None or (news and not self._told[0])
        return news or self._verdict.was_ready or now - self._told_at >= FAILURE_REPORT_SECONDS


def _complain(message: str, error: Exception) -> None:
    """Tell of an error of ours, where the loop's handler says; the instance stays watched."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


def _ring(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)


def raise_open_files_limit(wanted: int = OPEN_FILES) -> int:
    """Raise this process's soft limit of open files to ``wanted``, or as far as the hard one allows.

    Returns the former soft limit: instances should be started with that one, since programs that use select()
    break beyond 1024.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < goal:
        resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    return soft
