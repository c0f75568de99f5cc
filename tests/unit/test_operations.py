"""What each kind of step wants of the platform, what it waits for, and which error it ends with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from deploy_code.errors import AgentError, DeploymentError
from deploy_code.model import Phase, ServiceSpec
from deploy_code.orchestrator import operations
from deploy_code.orchestrator.operations import Context, NotReadyError
from deploy_code.plan.plan import Goal, Remove, Run, Update, WaitReady, Want
from deploy_code.platforms.base import Platform
from deploy_code.testing import FakePlatform, Start
from support.plans import goal, service


class Stage:
    """A fake platform, and a context over ``specs``, each at its revision 1."""

    def __init__(self, *specs: ServiceSpec, **options: Any) -> None:
        self.platform = FakePlatform()
        self.warnings: list[str] = []
        goals: dict[str, Goal] = {each.name: goal(each) for each in specs}
        platform: Platform = self.platform
        self.context = Context(
            platform=platform,
            goals=goals,
            warn=lambda message, service="": self.warnings.append(message),
            **{"deployment": 1, "old": goals, "present": {}, "timeout": 0.2, **options},
        )

    async def start(self, name: str = "api", replicas: int = 1, **options: Any) -> None:
        await operations.perform(self.context, want(name, replicas, **options))

    async def gate(self, name: str = "api", replicas: int = 1, **options: Any) -> None:
        step = WaitReady(id="ready", service=name, revision=1, replicas=replicas, **options)
        await operations.perform(self.context, step)

    def phases(self, name: str = "api") -> list[Phase]:
        return [each.phase for each in self.platform.instances(name)]


def want(name: str = "api", replicas: int = 1, revision: int = 1) -> Want:
    return Want(id="want", service=name, revision=revision, replicas=replicas)


async def code_of(work: Awaitable[None]) -> str:
    """The code of the error that ``work`` ends with."""
    with pytest.raises(DeploymentError) as caught:
        await work
    return caught.value.code


def replicas_of(name: str, count: int) -> ServiceSpec:
    return service(name, replicas=count)


# --------------------------------------------------------------------------- want


async def test_want_asks_for_the_goal_and_does_not_wait_for_readiness() -> None:
    stage = Stage(service("api"))
    stage.platform.will("api", Start.hangs())
    await stage.start()
    assert stage.platform.wishes == ["api r1 ×1"]
    assert stage.phases() == [Phase.STARTING]


async def test_want_of_none_returns_when_nothing_of_the_revision_is_left() -> None:
    stage = Stage(service("api"))
    await stage.start()
    await stage.start(replicas=0)
    assert stage.phases() == []


async def test_what_does_not_go_away_is_e008_and_says_how_long_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SWEEP_SECONDS", 0.05)
    stage = Stage(service("api"), stop_timeout=0.05)
    stage.platform.will("api", Start.stays())
    await stage.start()
    assert await code_of(stage.start(replicas=0)) == "E008"


async def test_scaling_down_is_done_when_the_surplus_is_gone() -> None:
    stage = Stage(replicas_of("api", 3))
    await stage.start(replicas=3)
    stage.context.goals["api"] = goal(replicas_of("api", 1))  # type: ignore[index]
    await stage.start(replicas=1)
    assert len(stage.phases()) == 1


async def test_an_error_of_the_agent_is_passed_on() -> None:
    stage = Stage(service("api"))
    stage.platform.refuses = AgentError("gone for good")
    with pytest.raises(AgentError, match="gone for good"):
        await stage.start()


async def test_a_second_walk_of_the_same_deployment_starts_the_dead_afresh() -> None:
    stage = Stage(replicas_of("api", 2), again=True)
    stage.platform.will("api", Start.ready(), Start.exits(4), Start.ready())
    await stage.start(replicas=2)
    assert await code_of(stage.gate(replicas=2)) == "E005"
    kept = next(each.uuid for each in stage.platform.instances("api") if each.phase is Phase.READY)
    await stage.start(replicas=2)
    await stage.gate(replicas=2)
    assert kept in {each.uuid for each in stage.platform.instances("api")}, "what is well is left alone"


async def test_a_second_walk_leaves_alone_what_is_on_its_way() -> None:
    stage = Stage(service("api"), again=True)
    stage.platform.will("api", Start.hangs())
    await stage.start()
    await stage.start()
    assert stage.platform.wishes == ["api r1 ×1", "api r1 ×1"]


# --------------------------------------------------------------------------- the gate


async def test_the_gate_opens_when_all_instances_are_ready() -> None:
    stage = Stage(replicas_of("api", 2))
    stage.platform.will("api", Start.ready(), Start.hangs())
    await stage.start(replicas=2)
    waiting = asyncio.create_task(stage.gate(replicas=2))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    stage.platform.become("api", Phase.READY, index=1)
    await waiting


async def test_a_process_that_is_gone_is_e005_at_once_with_its_instance() -> None:
    stage = Stage(service("api"), timeout=60)
    stage.platform.will("api", Start.exits(3))
    await stage.start()
    with pytest.raises(NotReadyError, match=r"api r1 #0 ended before it was ready \(exit code 3\)") as caught:
        await stage.gate()
    assert caught.value.code == "E005"
    assert caught.value.instance is not None and caught.value.instance.exit is not None


async def test_a_crash_loop_is_e005_too() -> None:
    stage = Stage(service("api"), timeout=60)
    await stage.start()
    await stage.gate()
    stage.platform.become("api", Phase.BACKOFF)
    assert await code_of(stage.gate()) == "E005"


async def test_the_agent_may_lead_its_note_by_another_code() -> None:
    stage = Stage(service("api"))
    stage.platform.will("api", Start.exits(127, "E003 BINARY_NOT_FOUND: no program 'nope'"))
    await stage.start()
    with pytest.raises(NotReadyError, match="no program 'nope'") as caught:
        await stage.gate()
    assert caught.value.code == "E003"


async def test_a_gate_that_the_agent_has_given_up_on_is_e006_at_once() -> None:
    stage = Stage(service("api"), timeout=60)
    stage.platform.will("api", Start.sick("it answers 500"))
    await stage.start()
    with pytest.raises(NotReadyError, match="did not become ready: it answers 500") as caught:
        await stage.gate()
    assert caught.value.code == "E006"


async def test_a_gate_that_never_opens_is_e006_at_its_deadline() -> None:
    stage = Stage(service("api"), timeout=0.05)
    stage.platform.will("api", Start.hangs())
    await stage.start()
    with pytest.raises(NotReadyError, match=r"not ready after 0.05 s \(0 of 1 ready\)") as caught:
        await stage.gate()
    assert caught.value.code == "E006"


async def test_only_a_new_maximum_of_ready_instances_moves_the_deadline() -> None:
    """One instance that comes and goes is no progress; a second one that comes is."""
    stage = Stage(replicas_of("api", 3), timeout=0.3)
    stage.platform.will("api", Start.hangs())
    await stage.start(replicas=3)
    waiting = asyncio.create_task(stage.gate(replicas=3))
    began = time.monotonic()
    await asyncio.sleep(0.15)
    stage.platform.become("api", Phase.READY, index=0)  # a new maximum: until 0.45
    await asyncio.sleep(0.1)
    for phase in (Phase.UNREADY, Phase.READY, Phase.UNREADY, Phase.READY):
        stage.platform.become("api", phase, index=0)
        await asyncio.sleep(0.02)
    assert await code_of(waiting) == "E006"
    assert 0.4 < time.monotonic() - began < 0.9


async def test_with_force_a_gate_that_stays_shut_is_a_warning() -> None:
    stage = Stage(service("api"), timeout=0.05, force=True)
    stage.platform.will("api", Start.hangs())
    await stage.start()
    await stage.gate()
    assert stage.context.forced == {"api"}
    assert "E006" in stage.warnings[0] and "forced" in stage.warnings[0]


async def test_even_with_force_a_dead_process_is_e005() -> None:
    stage = Stage(service("api"), force=True)
    stage.platform.will("api", Start.exits(1))
    await stage.start()
    assert await code_of(stage.gate()) == "E005"


async def test_what_was_not_healthy_before_is_restored_without_a_gate_and_said_so() -> None:
    stage = Stage(service("api"))
    stage.platform.will("api", Start.exits(1))
    await stage.start()
    await stage.gate(gated=False)
    assert "was not healthy before" in stage.warnings[0]


async def test_a_gate_can_be_cancelled_and_leaves_the_instance_as_it_is() -> None:
    stage = Stage(service("api"), timeout=60)
    stage.platform.will("api", Start.hangs())
    await stage.start()
    waiting = asyncio.create_task(stage.gate())
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert stage.phases() == [Phase.STARTING]


# --------------------------------------------------------------------------- one-shots


def migration(**options: Any) -> tuple[Stage, Run]:
    return Stage(service("migrate", one_shot=True), **options), Run(id="run", service="migrate", revision=1)


async def test_a_one_shot_that_ends_with_0_is_done() -> None:
    stage, run = migration()
    stage.platform.will("migrate", Start.completes())
    await operations.perform(stage.context, run)


async def test_a_one_shot_that_ends_otherwise_is_e005_with_its_exit_code() -> None:
    stage, run = migration()
    stage.platform.will("migrate", Start.completes(2))
    with pytest.raises(NotReadyError, match=r"one-shot migrate r1 did not complete \(exit code 2\)") as caught:
        await operations.perform(stage.context, run)
    assert caught.value.code == "E005"


async def test_a_one_shot_that_does_not_end_is_e008() -> None:
    stage, run = migration(timeout=0.05)
    stage.platform.will("migrate", Start.hangs())
    assert await code_of(operations.perform(stage.context, run)) == "E008"


async def test_a_one_shot_runs_again_only_when_it_is_asked_to() -> None:
    stage, run = migration()
    stage.platform.will("migrate", Start.completes(), Start.completes(9))
    await operations.perform(stage.context, run)
    await operations.perform(replace(stage.context, deployment=2), run)
    again = replace(run, again=True)
    assert await code_of(operations.perform(replace(stage.context, deployment=3), again)) == "E005"


# --------------------------------------------------------------------------- update and remove


async def test_an_update_wants_the_same_revision_with_its_new_policy() -> None:
    stage = Stage(service("api"))
    await stage.start()
    await stage.gate()
    before = stage.platform.instances("api")
    await operations.perform(stage.context, Update(id="u", service="api", revision=1))
    assert stage.platform.instances("api") == before


async def test_remove_takes_away_every_revision_seen_or_found_before() -> None:
    stage = Stage(service("api"), present={"api": {1, 2}})
    await stage.start()
    await operations.perform(stage.context, Remove(id="r", service="api"))
    assert stage.platform.wishes[1:] == ["api r1 ×0", "api r2 ×0"]
    assert stage.phases() == []


# --------------------------------------------------------------------------- ready together


async def test_all_are_looked_at_again_when_one_of_them_had_to_be_waited_for() -> None:
    """``a`` is ready when it is looked at, and dies while ``b`` still has to prove itself."""
    stage = Stage(service("a"), service("b", min_ready_seconds=0.1), timeout=5)
    for name in ("a", "b"):
        await stage.start(name)
        await stage.gate(name)
    proving = asyncio.create_task(operations.ready_together(stage.context, ["a", "b"]))
    await asyncio.sleep(0.03)
    stage.platform.become("a", Phase.BACKOFF)
    assert await code_of(proving) == "E005"


async def test_what_has_been_ready_for_long_enough_costs_nothing() -> None:
    stage = Stage(service("a", min_ready_seconds=5))
    await stage.start("a")
    await stage.gate("a")
    stage.platform.become("a", Phase.READY, ready_at=time.time() - 10)
    began = time.monotonic()
    await operations.ready_together(stage.context, ["a"])
    assert time.monotonic() - began < 0.1
