"""Small pieces of the engine, one by one: the brake, the audit, targets, words of status, plans of odd moments."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deploy_code.app import _DRY_RUN
from deploy_code.errors import DeploymentError, PreflightError, Problem, StateError
from deploy_code.model import Phase
from deploy_code.orchestrator import targets
from deploy_code.orchestrator.audit import Audit
from deploy_code.orchestrator.brake import Brake
from deploy_code.orchestrator.failure import scrub
from deploy_code.plan.observed import Observed
from deploy_code.plan.plan import redacted
from deploy_code.security.redact import Redactor
from deploy_code.services.status import ServiceStatus, overall_health
from support.plans import deployed, goal, live, planned, service

# --------------------------------------------------------------------------- the brake


async def test_work_that_ends_by_itself_gives_its_error_back() -> None:
    async def fail() -> None:
        raise DeploymentError("no")

    error = await Brake().guard(fail(), "work")
    assert error is not None and error.code == "E005"


async def test_a_bug_is_raised_and_not_taken_for_an_end() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Brake().guard(fail(), "work")


async def test_two_pulls_in_the_same_moment_count_twice() -> None:
    brake = Brake()
    task = asyncio.create_task(brake.guard(asyncio.sleep(100), "work"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    brake.pull()
    brake.pull()
    error = await task
    assert error is not None and error.code == "E017"
    assert brake.at_once and not brake.cancelled


async def test_cancelling_ends_the_work_and_is_remembered() -> None:
    brake = Brake()
    task = asyncio.create_task(brake.guard(asyncio.sleep(100), "work"))
    await asyncio.sleep(0.01)
    task.cancel()
    error = await task
    assert error is not None and brake.cancelled and not brake.at_once


async def test_last_words_are_said_whoever_cancels() -> None:
    brake, said = Brake(), asyncio.Event()

    async def speak() -> None:
        await asyncio.sleep(0.05)
        said.set()

    task = asyncio.create_task(brake.outlast(speak()))
    await asyncio.sleep(0.01)
    task.cancel()
    await task
    assert said.is_set() and brake.cancelled


async def test_last_words_that_take_too_long_are_cut_short() -> None:
    async with asyncio.timeout(5):
        await Brake().outlast(asyncio.sleep(100), timeout=0.01)  # type: ignore[arg-type]


# --------------------------------------------------------------------------- audit and redaction


def test_a_disk_that_refuses_the_trace_costs_the_trace_and_is_said_once() -> None:
    said: list[str] = []

    def full(*_: Any) -> None:
        raise StateError("disk full", code="E004")

    writer: Any = SimpleNamespace(record_event=full, record_step_started=full, record_step_finished=full, flush=full)
    audit = Audit(writer, said.append)
    audit.event(SimpleNamespace())  # type: ignore[arg-type]
    audit.step_started(1, 1, "start db r1", "new")
    audit.flush()
    assert len(said) == 1 and "E004" in said[0]


def test_an_error_is_scrubbed_with_all_that_it_encloses() -> None:
    problem = Problem("port of s3cr3t-value", remedy="not s3cr3t-value")
    error = PreflightError("s3cr3t-value is wrong", [problem], remedy="hide s3cr3t-value")
    assert "s3cr3t" not in str(scrub(error, Redactor(["s3cr3t-value"])))


def test_a_plan_is_scrubbed_in_every_text_that_may_quote_a_value() -> None:
    plan = planned([service("api", command="s3cr3t-tool")], deployed([service("api")]), warnings=("see s3cr3t-tool",))
    clean = redacted(plan, Redactor(["s3cr3t-tool"]).clean)
    assert "s3cr3t" in str(plan) and "s3cr3t" not in str(clean) + str(clean.to_dict())
    assert clean.causes["api"] == "command api → [redacted]"


# --------------------------------------------------------------------------- targets


def recorded(*specs: Any, **options: Any) -> dict[str, Any]:
    return {each.name: goal(each, **options) for each in specs}


def test_stopping_a_service_stops_its_dependents_and_nobody_else() -> None:
    now = recorded(service("db"), service("api", "db"), service("web", "api"), service("other"))
    wanted = targets.stop("shop", now, ["db"])(Observed())
    assert {name for name, each in wanted.goals.items() if each.stopped} == {"db", "api", "web"}
    assert wanted.only == {"db", "api", "web"}


def test_a_restart_starts_what_was_stopped_and_leaves_one_shots() -> None:
    now = recorded(service("db"), service("migrate", one_shot=True), stopped=True)
    wanted = targets.restart("shop", now, None)(Observed())
    assert wanted.recreate == {"db"}
    assert not wanted.goals["db"].stopped


# --------------------------------------------------------------------------- plans of odd moments


def test_a_stop_starts_nothing_that_the_stopped_one_needs() -> None:
    db, api = service("db"), service("api", "db")
    observed = deployed([db, api], instances=[live(db, phase=Phase.EXITED), live(api)])
    goals = {"db": goal(db), "api": goal(api, stopped=True)}
    plan = planned([], observed, kind="stop", goals=goals, only=frozenset({"api"}))
    assert dict(plan.actions) == {"api": "stop"}


def test_none_wanted_and_none_there_is_nothing_to_do() -> None:
    none = service("api", replicas=0)
    assert planned([none], deployed([none], instances=[])).is_empty


def test_a_rollback_ends_a_one_shot_that_is_still_running() -> None:
    old, new = service("migrate", one_shot=True), service("migrate", one_shot=True, command="x")
    observed = deployed([old], instances=[live(new, 2, phase=Phase.STARTING)], completed=[old])
    plan = planned([old], observed, kind="rollback", run_one_shots=False)
    assert [str(step) for step in plan.steps] == ["stop migrate r2"]
    assert not plan.after["migrate"].stopped


def test_a_restart_leaves_a_running_one_shot_alone() -> None:
    migrate = service("migrate", one_shot=True)
    observed = deployed([migrate], instances=[live(migrate, phase=Phase.STARTING)])
    assert planned([migrate], observed, kind="restart", run_one_shots=False).is_empty


# --------------------------------------------------------------------------- words


def test_a_service_of_which_nothing_runs_makes_the_project_degraded() -> None:
    running = (ServiceStatus.RUNNING, "healthy")
    assert overall_health([running, (ServiceStatus.NOT_STARTED, "none")]) == "degraded"
    assert overall_health([running, (ServiceStatus.STOPPED, "none")]) == "healthy"
    assert overall_health([(ServiceStatus.NOT_STARTED, "none")]) == "stopped"


@pytest.mark.parametrize(
    ("text", "dry"),
    [
        ("dry_run: true", True),
        ("dry_run : yes", True),
        ('"dry_run": "${DRY}"', True),
        ("dry_run: false", False),
        ("dry_run:   false  # not now", False),
        ("name: shop", False),
    ],
)
def test_a_file_that_may_be_dry_is_seen_before_it_is_understood(text: str, dry: bool) -> None:
    assert bool(_DRY_RUN.search(text.encode())) is dry
