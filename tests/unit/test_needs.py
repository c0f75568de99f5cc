"""How much of the machine a plan needs at its peak: the steps decide."""

from __future__ import annotations

from dataclasses import replace

from deploy_code.model import Content, Policy, Resources, ServiceSpec, Volume
from deploy_code.orchestrator.needs import at_peak, steady
from deploy_code.plan.plan import Custom, Goal, Plan, Remove, Run, Step, WaitReady, Want
from deploy_code.resources.recorded import Need
from support.ledgers import amount


def goal(name: str, resources: Resources, *, replicas: int = 1, revision: int = 1, **more: object) -> Goal:
    content = Content(resources=resources, one_shot=bool(more.pop("one_shot", False)))
    spec = ServiceSpec(name=name, content=content, policy=Policy(replicas=replicas))
    return Goal(spec=spec, revision=revision, replicas=replicas, **more)  # type: ignore[arg-type]


def want(name: str, revision: int, replicas: int) -> Want:
    return Want(id=f"{name}/{revision}/{replicas}", service=name, revision=revision, replicas=replicas)


def plan(before: Goal | None, after: Goal | None, *steps: Step) -> Plan:
    def by_name(goal: Goal | None) -> dict[str, Goal]:
        return {goal.spec.name: goal} if goal else {}

    return Plan(project="shop", kind="deploy", steps=steps, before=by_name(before), after=by_name(after))


def peak(*args: object) -> Resources:
    (need,) = at_peak(plan(*args)).values()  # type: ignore[arg-type]
    return need.resources


ONE, TWO = amount(cpu=1, memory=300), amount(cpu=2, memory=100)


def test_a_new_service_needs_all_its_replicas():
    assert peak(None, goal("web", ONE, replicas=3), want("web", 1, 3)) == amount(cpu=3, memory=900)


def test_stop_first_needs_the_larger_of_old_and_new():
    new = goal("web", TWO, revision=2)
    assert peak(goal("web", ONE), new, want("web", 1, 0), want("web", 2, 1)) == amount(cpu=2, memory=300)


def test_new_before_old_needs_both():
    new = goal("web", TWO, revision=2)
    assert peak(goal("web", ONE), new, want("web", 2, 1), want("web", 1, 0)) == amount(cpu=3, memory=400)


def test_rolling_needs_one_batch_more():
    old, new = goal("web", ONE, replicas=4), goal("web", ONE, replicas=4, revision=2)
    steps = [step for n in range(1, 5) for step in (want("web", 2, n), want("web", 1, 4 - n))]
    assert peak(old, new, *steps) == amount(cpu=5, memory=1500)


def test_what_the_plan_leaves_alone_counts_as_it_is():
    assert peak(goal("web", ONE), goal("web", ONE)) == ONE


def test_what_is_stopped_needs_until_the_end_what_it_had():
    """Its rollback has to fit."""
    assert peak(goal("web", ONE), goal("web", ONE, stopped=True), want("web", 1, 0)) == ONE
    assert peak(goal("web", ONE), None, Remove(id="web/remove", service="web")) == ONE


def test_a_one_shot_counts_while_it_runs():
    job = goal("migrate", TWO, one_shot=True)
    assert peak(None, job, Run(id="migrate/run", service="migrate", revision=1)) == TWO
    assert peak(None, job) == amount()
    assert steady({"migrate": job}) == {"migrate": Need(amount())}


def test_a_revision_that_nothing_is_known_of_needs_the_most_that_is_known():
    steps = want("web", 7, 1), want("web", 2, 1)
    assert peak(goal("web", ONE), goal("web", TWO, revision=2), *steps) == amount(cpu=5, memory=700)


def test_a_custom_strategy_is_taken_to_stop_first_and_to_run_its_one_shots():
    old, new = goal("web", ONE), goal("web", TWO, revision=2)
    step = Custom(id="all", service="", strategy="Mine", services=("web", "migrate"))
    assert peak(old, new, step) == amount(cpu=2, memory=300)
    assert peak(None, goal("migrate", TWO, one_shot=True), step) == TWO


def test_waiting_needs_nothing():
    ready = WaitReady(id="web/ready", service="web", revision=1, replicas=1)
    assert peak(None, goal("web", ONE), want("web", 1, 1), ready) == ONE


def test_services_that_ask_for_nothing_are_not_spoken_of():
    assert at_peak(plan(None, goal("web", amount()), want("web", 1, 1))) == {}
    assert steady({"web": goal("web", amount())}) == {}


def test_where_it_stores_its_data_goes_with_it():
    spec = goal("db", amount(storage=5)).spec
    volumes = (Volume(name="data", mount_path="/data"), Volume(name="conf", mount_path="/conf", read_only=True))
    with_volumes = replace(spec, content=replace(spec.content, volumes=volumes))
    needs = steady({"db": Goal(spec=with_volumes, revision=1, replicas=2)})
    assert needs == {"db": Need(amount(storage=10), ("/data",))}
