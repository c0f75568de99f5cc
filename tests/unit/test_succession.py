"""What one service leaves to another is counted once, and is never in use twice, whatever the order of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_code.model import Phase, Port, Resources, ServiceSpec, Settings, Volume
from deploy_code.orchestrator.needs import at_peak, steady
from deploy_code.plan.observed import Observed, ObservedService
from deploy_code.plan.plan import Plan, Remove, Run, Step, Want
from deploy_code.resources.amounts import NOTHING, most, times, total
from support.ledgers import amount
from support.plans import deployed, live, planned, service

PARALLEL = Settings(strategy="Parallel")
FOUR, TWO = amount(cpu=4, memory=400), amount(cpu=2, memory=900)
PORT = (Port(container_port=80),)


def promised(plan: Plan) -> Resources:
    """All that a deployment sets aside: the larger of what is held and what is needed, service by service."""
    needs, held = at_peak(plan), steady(plan.before)
    return total(most(*(each[name].resources for each in (needs, held) if name in each)) for name in {*needs, *held})


def cores(specs: Sequence[ServiceSpec], old: Sequence[ServiceSpec] = ()) -> float:
    return promised(planned(specs, deployed(old), settings=PARALLEL)).cpu_cores


def test_a_service_that_waits_for_a_one_shot_uses_what_it_had() -> None:
    job, web = service("job", one_shot=True, resources=FOUR), service("web", "job:completed", resources=TWO)
    assert promised(planned([job, web], settings=PARALLEL)) == amount(cpu=4, memory=900)


def test_one_shots_in_a_row_need_the_largest_of_them() -> None:
    row = [service(f"j{n}", *([f"j{n - 1}:completed"] if n else []), one_shot=True, resources=FOUR) for n in range(3)]
    assert cores([*row, service("web", "j2:completed", resources=TWO)]) == 4


def test_two_that_wait_for_the_same_one_shot_share_what_it_had() -> None:
    job = service("job", one_shot=True, resources=FOUR)
    assert cores([job, *(service(name, "job:completed", resources=TWO) for name in "abc")]) == 6


def test_one_shots_side_by_side_need_the_sum() -> None:
    assert cores([service(name, one_shot=True, resources=FOUR) for name in "ab"]) == 8


def test_what_runs_beside_a_one_shot_is_counted_beside_it() -> None:
    """The old revision serves while the one-shot runs; only what the new one needs beyond it comes after."""
    old = service("web", resources=TWO)
    new = [service("job", one_shot=True, resources=FOUR), service("web", "job:completed", command="x", resources=FOUR)]
    assert cores(new, [old]) == 6


def test_a_renamed_service_needs_what_it_had() -> None:
    assert cores([service("api", resources=FOUR, ports=PORT)], [service("web", resources=FOUR, ports=PORT)]) == 4


def test_a_new_service_beside_a_removed_one_needs_both() -> None:
    """Nothing passes from one to the other: the old one goes when the new one is there."""
    assert cores([service("api", resources=FOUR)], [service("web", resources=FOUR, ports=PORT)]) == 8


def test_disk_is_taken_over_with_the_directory_alone() -> None:
    data, other = (Volume(name=name, mount_path=f"/{name}") for name in ("data", "other"))
    disk = amount(storage=10)
    old = service("web", resources=disk, ports=PORT, volumes=(data,))

    def needed(volume: Volume) -> int:
        plan = planned([service("api", resources=disk, ports=PORT, volumes=(volume,))], deployed([old]))
        return promised(plan).storage_gb

    assert needed(data) == 10
    assert needed(other) == 20, "what the old one wrote stays where it is"


def test_gpus_are_dealt_out_by_service_and_not_taken_over() -> None:
    gpu = amount(gpus=1)
    plan = planned([service("b", resources=gpu, ports=PORT)], deployed([service("a", resources=gpu, ports=PORT)]))
    assert promised(plan).gpu_count == 2


# --------------------------------------------------------------------------- whatever happens in whatever order

NAMES = "abcdef"
AMOUNTS = st.sampled_from([NOTHING, amount(cpu=1, memory=300), FOUR, TWO])


@st.composite
def projects(draw: st.DrawFn) -> list[ServiceSpec]:
    """Services and one-shots without circles; no port is bound by two of them."""
    order = draw(st.permutations(NAMES))[: draw(st.integers(1, len(NAMES)))]
    ports = draw(st.permutations(range(1, 8)))
    one_shots = {name for name in order if draw(st.integers(0, 3)) == 0}
    found = []
    for number, name in enumerate(order):
        needs = draw(st.lists(st.sampled_from(order[:number]), unique=True, max_size=2)) if number else []
        found.append(
            service(
                name,
                *(f"{each}:completed" if each in one_shots else each for each in needs),
                command=draw(st.sampled_from(["one", "two"])),
                one_shot=name in one_shots,
                replicas=1 if name in one_shots else draw(st.integers(1, 2)),
                ports=(Port(container_port=ports[number]),) if draw(st.booleans()) else (),
                resources=draw(AMOUNTS),
            )
        )
    return found


class World:
    """What runs while steps are walked in an order that the test draws. Never more than ``limit``."""

    def __init__(self, amounts: Mapping[tuple[str, int], Resources], limit: Resources) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self._amounts = amounts
        self._limit = limit

    def walk(self, plan: Plan, data: st.DataObject, *, to_the_end: bool) -> set[str]:
        """The services that were begun. Not to the end: it breaks off anywhere, one-shots in the middle."""
        waiting, running, done = list(plan.steps), list[Step](), set[str]()
        begun = set()
        while waiting or running:
            ready = [step for step in waiting if set(step.after) <= done]
            step = data.draw(st.sampled_from([*ready, *running]))
            if step in running:
                running.remove(step)
                self._finish(step)
                done.add(step.id)
            else:
                waiting.remove(step)
                running.append(step)
                begun.add(step.service)
                self._begin(step)
            if not to_the_end and data.draw(st.integers(0, 9)) == 0:
                break
        for step in running:
            if isinstance(step, Want):
                self._finish(step)
        return begun

    def _begin(self, step: Step) -> None:
        if isinstance(step, Want):
            self._set(step, max(self.counts[step.service, step.revision], step.replicas))
        elif isinstance(step, Run):
            self._set(step, 1)

    def _finish(self, step: Step) -> None:
        if isinstance(step, Want):
            self._set(step, step.replicas)
        elif isinstance(step, Run):
            self._set(step, 0)
        elif isinstance(step, Remove):
            for pair in [pair for pair in self.counts if pair[0] == step.service]:
                del self.counts[pair]

    def _set(self, step: Want | Run, count: int) -> None:
        self.counts[step.service, step.revision] = count
        used = total(times(self._amounts[pair], each) for pair, each in self.counts.items())
        assert most(used, self._limit) == self._limit, f"{used} is in use after {step}, {self._limit} is promised"


def seen(world: World, plan: Plan, begun: set[str], observed: Observed) -> Observed:
    """As the way back finds it."""
    recorded = {**plan.before, **{name: goal for name, goal in plan.after.items() if name in begun}}
    running = {pair: count for pair, count in world.counts.items() if count}
    services = {}
    for name in {*recorded, *(pair[0] for pair in running)}:
        goal = recorded.get(name) or plan.after[name]
        wanted = {revision: count for (other, revision), count in running.items() if other == name}
        found = [
            live(goal.spec, revision, index, phase=Phase.READY)
            for revision, count in wanted.items()
            for index in range(count)
        ]
        services[name] = ObservedService(goal=recorded.get(name), wanted=wanted, instances=tuple(found))
    goals = [*plan.before.values(), *plan.after.values()]
    numbers = {(each.spec.name, each.spec.run_hash): each.revision for each in goals}
    return Observed(services=services, revisions=numbers, latest=observed.latest, completed=observed.completed)


@settings(deadline=None, max_examples=300)
@given(projects(), projects(), st.sampled_from(["Sequential", "Parallel"]), st.data())
def test_no_more_is_ever_in_use_than_was_promised_there_and_back(
    old: list[ServiceSpec], new: list[ServiceSpec], strategy: str, data: st.DataObject
) -> None:
    completed = [each for each in old if each.content.one_shot]
    observed = deployed(old, completed=completed, instances=[
        live(each, 1, index) for each in old if not each.content.one_shot for index in range(each.policy.replicas)
    ])  # fmt: skip
    plan = planned(new, observed, settings=Settings(strategy=strategy))
    goals = [*plan.before.values(), *plan.after.values()]
    amounts = {(each.spec.name, each.revision): each.spec.content.resources for each in goals}
    world = World(amounts, promised(plan))
    for name, found in observed.services.items():
        for each in found.instances:
            world.counts[name, each.revision] += 1
    begun = world.walk(plan, data, to_the_end=False)
    back = planned(
        [],
        seen(world, plan, begun, observed),
        goals=dict(plan.before),
        kind="rollback",
        settings=PARALLEL,
        only=frozenset(begun),
        run_one_shots=False,
    )
    world.walk(back, data, to_the_end=True)
