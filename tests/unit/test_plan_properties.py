"""What holds of every plan, whatever the services, their dependencies and what was found."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_code.model import Phase, Port, ServiceSpec, Settings
from deploy_code.plan.observed import Observed
from deploy_code.plan.plan import Plan, Remove, Step, WaitReady, Want
from support.plans import deployed, live, planned, service

NAMES = [f"s{number}" for number in range(7)]
PHASES = [Phase.READY, Phase.UNREADY, Phase.EXITED, Phase.BACKOFF, Phase.STARTING]


@st.composite
def projects(draw: st.DrawFn) -> list[ServiceSpec]:
    """Services without circles: each depends only on ones drawn before it, in an order of its own."""
    order = draw(st.permutations(NAMES))[: draw(st.integers(0, len(NAMES)))]
    found = []
    for number, name in enumerate(order):
        needs = draw(st.lists(st.sampled_from(order[:number]), unique=True, max_size=3)) if number else []
        port = draw(st.integers(1, 4))
        found.append(
            service(
                name,
                *needs,
                command=draw(st.sampled_from(["one", "two"])),
                replicas=draw(st.integers(1, 3)),
                ports=(Port(container_port=port),) if draw(st.booleans()) else (),
            )
        )
    return found


@st.composite
def worlds(draw: st.DrawFn) -> Observed:
    specs = draw(projects())
    instances = [
        live(each, index=index, phase=draw(st.sampled_from(PHASES)))
        for each in specs
        for index in range(draw(st.integers(0, 3)))
    ]
    return deployed(specs, instances=instances)


STRATEGIES = st.sampled_from(["Sequential", "Parallel"])


def plans() -> st.SearchStrategy[tuple[Plan, Sequence[ServiceSpec], Observed]]:
    def build(specs: list[ServiceSpec], world: Observed, strategy: str) -> tuple[Plan, list[ServiceSpec], Observed]:
        return planned(specs, world, settings=Settings(strategy=strategy)), specs, world

    return st.builds(build, projects(), worlds(), STRATEGIES)


@settings(deadline=None)
@given(plans())
def test_every_step_comes_after_those_it_waits_for(case: tuple[Plan, object, object]) -> None:
    seen: set[str] = set()
    for step in case[0].steps:
        assert set(step.after) <= seen
        seen.add(step.id)


@settings(deadline=None)
@given(plans())
def test_a_service_starts_only_after_the_gates_of_its_dependencies_in_the_plan(
    case: tuple[Plan, Sequence[ServiceSpec], object],
) -> None:
    plan, specs, _ = case
    position = {step.id: number for number, step in enumerate(plan.steps)}
    for spec in specs:
        start = position.get(f"{spec.name}/start")
        for each in spec.policy.dependencies:
            ready = position.get(f"{each.service}/ready")
            assert start is None or ready is None or ready < start


@settings(deadline=None)
@given(plans())
def test_old_stops_before_new_starts_and_a_start_has_its_gate(case: tuple[Plan, object, object]) -> None:
    plan = case[0]
    position = {step.id: number for number, step in enumerate(plan.steps)}
    for step in plan.steps:
        if isinstance(step, Want) and step.replicas == 0 and f"{step.service}/start" in position:
            assert position[step.id] < position[f"{step.service}/start"]
        if isinstance(step, Want) and step.replicas:
            assert f"{step.service}/ready" in position


@settings(deadline=None)
@given(plans())
def test_no_two_services_hold_a_port_at_once_while_the_plan_is_walked(
    case: tuple[Plan, Sequence[ServiceSpec], Observed],
) -> None:
    plan, specs, world = case
    ports = {spec.name: {each.container_port for each in spec.content.ports} for spec in specs}
    if any(ports[a] & ports[b] for a in ports for b in ports if a < b):
        return  # two services that want one port are an error of the file, found before
    held = {
        name: {each.container_port for each in found.goal.spec.content.ports}
        for name, found in world.services.items()
        if found.goal and found.revisions
    }
    if any(held[a] & held[b] for a in held for b in held if a < b):
        return
    for step in plan.steps:
        if isinstance(step, Remove) or (isinstance(step, Want) and not step.replicas):
            held.pop(step.service, None)
        elif isinstance(step, Want):
            others = set().union(*(held[name] for name in held if name != step.service)) if held else set()
            assert not others & ports[step.service]
            held[step.service] = ports[step.service]


@settings(deadline=None)
@given(plans())
def test_each_step_has_a_cause_or_follows_from_one(case: tuple[Plan, object, object]) -> None:
    for step in case[0].steps:
        assert step.cause or step.after, step


@settings(deadline=None)
@given(projects(), STRATEGIES)
def test_a_world_that_is_as_wanted_needs_no_step(specs: list[ServiceSpec], strategy: str) -> None:
    assert planned(specs, deployed(specs), settings=Settings(strategy=strategy)).is_empty


@settings(deadline=None)
@given(plans())
def test_the_map_after_is_the_file_and_every_service_is_accounted_for(
    case: tuple[Plan, Sequence[ServiceSpec], object],
) -> None:
    plan, specs, _ = case
    assert set(plan.after) == {spec.name for spec in specs}
    assert set(plan.after) == (set(plan.actions) | set(plan.unchanged)) - _removed(plan.steps)


def _removed(steps: Sequence[Step]) -> set[str]:
    return {step.service for step in steps if isinstance(step, Remove)}


@settings(deadline=None)
@given(projects(), worlds(), STRATEGIES)
def test_planning_the_same_twice_gives_the_same_text(specs: list[ServiceSpec], world: Observed, strategy: str) -> None:
    how = Settings(strategy=strategy)
    assert str(planned(specs, world, settings=how)) == str(planned(specs, world, settings=how))


@settings(deadline=None)
@given(projects(), worlds())
def test_sequential_never_has_two_services_between_start_and_gate(specs: list[ServiceSpec], world: Observed) -> None:
    plan = planned(specs, world, settings=Settings(strategy="Sequential"))
    before = _ancestors(plan)
    gates = [step for step in plan.steps if isinstance(step, WaitReady)]
    for number, gate in enumerate(gates[1:], 1):
        assert gates[number - 1].id in before[f"{gate.service}/start"]


def _ancestors(plan: Plan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for step in plan.steps:
        found[step.id] = set(step.after).union(*(found[each] for each in step.after)) if step.after else set()
    return found
