"""How a plan is walked: what begins when, what is skipped, what ends a walk. Steps here only do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from deploy_code.errors import DeploymentError
from deploy_code.events import Event, ServiceSkipped, StepFinished, StepStarted
from deploy_code.model import ServiceSpec, Settings
from deploy_code.orchestrator.executor import Executor
from deploy_code.plan.diff import Change
from deploy_code.plan.plan import Plan, Step, WaitReady, Want
from deploy_code.plan.rollouts.custom import CustomRollout
from support.plans import deployed, planned, service

PARALLEL = Settings(strategy="Parallel")


class Walk:
    """One walk over the plan of ``specs``: ``log`` says what began and ended, in order."""

    def __init__(self, plan: Plan, *, max_parallel: int = 10, keep_going: bool = False) -> None:
        self.log: list[str] = []
        self.events: list[Event] = []
        self.act: Callable[[Step], Awaitable[None]] = self._nothing
        self.running = self.most = 0
        self.executor = Executor(
            plan,
            self._perform,
            deployment=7,
            max_parallel=max_parallel,
            publish=self.events.append,
            keep_going=keep_going,
        )

    async def _perform(self, step: Step) -> None:
        self.log.append(f"{step.id} begins")
        await self.act(step)
        self.log.append(f"{step.id} ends")

    async def _nothing(self, step: Step) -> None:
        await asyncio.sleep(0)

    def fails(self, *ids: str) -> None:
        async def act(step: Step) -> None:
            if step.id in ids:
                raise DeploymentError(f"{step.service} is broken", service=step.service)
            await asyncio.sleep(0)

        self.act = act

    def began(self) -> list[str]:
        return [line.removesuffix(" begins") for line in self.log if line.endswith(" begins")]


def plan_of(*specs: ServiceSpec, settings: Settings = PARALLEL) -> Plan:
    return planned(specs, settings=settings)


def chain() -> Plan:
    return plan_of(service("db"), service("api", "db"), service("web", "api"))


# --------------------------------------------------------------------------- order


async def test_each_step_begins_when_those_before_it_are_done() -> None:
    walk = Walk(chain())
    outcome = await walk.executor.walk()
    order = ["db/start", "db/ready", "api/start", "api/ready", "web/start", "web/ready"]
    assert walk.log == [f"{step} {what}" for step in order for what in ("begins", "ends")]
    assert outcome.done == {"db", "api", "web"}
    assert not outcome.failures and not outcome.skipped


async def test_a_service_waits_for_its_own_dependencies_only_and_never_for_a_wave() -> None:
    walk = Walk(plan_of(service("slow"), service("db"), service("api", "db")))
    api_is_up = asyncio.Event()

    async def act(step: Step) -> None:
        if step.id == "slow/ready":
            await asyncio.wait_for(api_is_up.wait(), 5)
        if step.id == "api/ready":
            api_is_up.set()

    walk.act = act
    await walk.executor.walk()
    assert walk.log.index("api/ready ends") < walk.log.index("slow/ready ends")


async def test_every_step_is_told_with_its_cause_and_its_end() -> None:
    walk = Walk(plan_of(service("db")))
    await walk.executor.walk()
    assert [(type(each), each.service) for each in walk.events] == [
        (StepStarted, "db"), (StepFinished, "db"), (StepStarted, "db"), (StepFinished, "db"),
    ]  # fmt: skip
    first = walk.events[0]
    assert isinstance(first, StepStarted) and (first.step, first.cause, first.deployment) == (
        "start db r1",
        "new service",
        7,
    )


async def test_an_empty_plan_is_walked_at_once() -> None:
    assert not (await Walk(plan_of()).executor.walk()).started


# --------------------------------------------------------------------------- max_parallel


async def most_at_once(max_parallel: int, specs: Sequence[ServiceSpec]) -> int:
    """How many services were on their way, at most, between their start and their gate."""
    walk = Walk(plan_of(*specs), max_parallel=max_parallel)
    under_way: set[str] = set()
    most = 0

    async def act(step: Step) -> None:
        nonlocal most
        under_way.add(step.service)
        most = max(most, len(under_way))
        for _ in range(5):
            await asyncio.sleep(0)
        if step.id.endswith(("/ready", "/run")):
            under_way.discard(step.service)

    walk.act = act
    outcome = await walk.executor.walk()
    assert len(outcome.done) == len(specs)
    return most


@pytest.mark.parametrize("bound", [1, 3])
async def test_max_parallel_bounds_how_many_services_are_between_start_and_gate(bound: int) -> None:
    assert await most_at_once(bound, [service(f"s{number}") for number in range(8)]) == bound


async def test_one_shots_take_a_slot_while_they_run() -> None:
    assert await most_at_once(2, [service(f"m{number}", one_shot=True) for number in range(5)]) == 2


async def test_a_slot_is_given_back_by_a_service_that_failed() -> None:
    walk = Walk(plan_of(*(service(f"s{number}") for number in range(4))), max_parallel=1, keep_going=True)
    walk.fails("s0/start", "s1/ready")
    outcome = await walk.executor.walk()
    assert outcome.done == {"s2", "s3"}


async def test_stops_need_no_slot() -> None:
    old = [service("a"), service("b")]
    plan = planned([service("a", command="x"), service("b", command="x")], deployed(old), settings=PARALLEL)
    walk = Walk(plan, max_parallel=1)
    await walk.executor.walk()
    assert walk.began()[:2] == ["a/stop-r1", "b/stop-r1"]


# --------------------------------------------------------------------------- failures


async def test_the_first_failure_ends_the_walk_and_cancels_what_is_under_way() -> None:
    walk = Walk(plan_of(service("bad"), service("other")))
    cancelled: list[str] = []

    async def act(step: Step) -> None:
        if step.id == "bad/ready":
            raise DeploymentError("bad is broken", service="bad")
        if step.id == "other/ready":
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cancelled.append(step.id)
                raise

    walk.act = act
    outcome = await walk.executor.walk()
    assert list(outcome.failures) == ["bad"]
    assert cancelled == ["other/ready"]
    assert outcome.started == {"bad", "other"} and outcome.done == set()


async def test_a_failure_skips_everything_that_waits_for_it_and_names_the_root() -> None:
    walk = Walk(chain())
    walk.fails("db/ready")
    outcome = await walk.executor.walk()
    assert outcome.skipped == {"api": "db", "web": "db"}
    assert walk.began() == ["db/start", "db/ready"]
    skips = [each for each in walk.events if isinstance(each, ServiceSkipped)]
    assert {each.service for each in skips} == {"api", "web"}
    assert all(each.reason.startswith("E007") and "db" in each.reason for each in skips)


async def test_with_keep_going_a_failure_skips_only_its_dependents() -> None:
    walk = Walk(
        plan_of(service("db"), service("api", "db"), service("cache"), service("web", "cache")), keep_going=True
    )
    walk.fails("db/ready")
    outcome = await walk.executor.walk()
    assert outcome.done == {"cache", "web"}
    assert outcome.skipped == {"api": "db"}
    assert list(outcome.failures) == ["db"]


async def test_of_several_failures_each_is_kept_with_its_own_error() -> None:
    walk = Walk(plan_of(service("a"), service("b")), keep_going=True)
    walk.fails("a/ready", "b/start")
    outcome = await walk.executor.walk()
    assert {name: error.message for name, error in outcome.failures.items()} == {
        "a": "a is broken",
        "b": "b is broken",
    }


async def test_the_end_of_a_step_that_failed_carries_the_error() -> None:
    walk = Walk(plan_of(service("db")))
    walk.fails("db/start")
    await walk.executor.walk()
    end = walk.events[-1]
    assert isinstance(end, StepFinished) and end.error == "E005 SERVICE_START_FAILED: db is broken."


# --------------------------------------------------------------------------- cancellation


async def test_cancelling_a_walk_cancels_the_steps_under_way_and_begins_no_other() -> None:
    walk = Walk(chain())

    async def act(step: Step) -> None:
        if step.id == "db/ready":
            await asyncio.sleep(100)

    walk.act = act
    task = asyncio.create_task(walk.executor.walk())
    while "db/ready begins" not in walk.log:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert walk.began() == ["db/start", "db/ready"]
    assert walk.executor.outcome.started == {"db"}
    assert not walk.executor.outcome.failures


async def test_a_service_of_several_batches_holds_one_slot_and_gives_it_back() -> None:
    """Batches of one service, side by side and one after the other, need no more than the one slot there is."""

    def batches(name: str) -> list[Step]:
        return [
            Want(id=f"{name}/1", service=name, revision=2, replicas=1),
            Want(id=f"{name}/2", service=name, revision=1, replicas=1),
            WaitReady(id=f"{name}/3", service=name, revision=2, replicas=1, after=(f"{name}/1", f"{name}/2")),
            Want(id=f"{name}/4", service=name, revision=2, replicas=2, after=(f"{name}/3",)),
            WaitReady(id=f"{name}/5", service=name, revision=2, replicas=2, after=(f"{name}/4",)),
            Want(id=f"{name}/6", service=name, revision=1, replicas=1, after=(f"{name}/5",)),
        ]

    steps = [*batches("a"), *batches("b")]
    done: list[str] = []

    async def perform(step: Step) -> None:
        await asyncio.sleep(0)
        done.append(step.id)

    plan = Plan(project="p", kind="deploy", steps=tuple(steps))
    executor = Executor(plan, perform, deployment=1, max_parallel=1, publish=lambda event: None)
    async with asyncio.timeout(5):
        outcome = await executor.walk()
    assert len(done) == 12 and outcome.done == {"a", "b"}


def stops_before_its_gate(change: Change) -> Iterator[Step]:
    """The new one is asked for, the old one goes, and only then is it waited for."""
    assert change.new is not None
    name, new = change.service, change.new.revision
    yield Want(id="new", service=name, revision=new, replicas=1)
    for revision in change.stale:
        yield Want(id=f"stop-r{revision}", service=name, revision=revision, replicas=0)
    yield WaitReady(id="ready", service=name, revision=new, replicas=1)


async def test_who_waits_for_another_between_start_and_gate_keeps_no_slot_from_it() -> None:
    old = [service("db", strategy="mine"), service("api", "db:started", strategy="mine")]
    new = [replace(each, content=replace(each.content, env={"V": "2"})) for each in old]
    rollouts = {"mine": CustomRollout(name="mine", where="here", make=stops_before_its_gate)}
    plan = planned(new, deployed(old), settings=PARALLEL, rollouts=rollouts)
    walk = Walk(plan, max_parallel=1)
    async with asyncio.timeout(5):  # db's old one goes after that of api, which goes when the new api is there
        await walk.executor.walk()
    assert walk.began().index("api/new") < walk.began().index("db/stop-r1") and len(walk.log) == 2 * len(plan.steps)
