"""Rollouts of somebody else's in the plan: what they may give, what is made of it, and which edges follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.errors import ConfigError
from deploy_code.model import Port, ServiceSpec, Settings, Volume
from deploy_code.plan.diff import Change
from deploy_code.plan.plan import Remove, Step, WaitReady, Want
from deploy_code.plan.rollouts.custom import CustomRollout
from support.plans import deployed, live, planned, service, text


def rolling(change: Change) -> Iterator[Step]:
    """New beside old, one by one."""
    name, new, old = change.service, change.new, change.old
    assert new is not None
    serving = old if old is not None and old.revision in change.stale and old.revision != new.revision else None
    for revision in change.stale:
        if serving is None or revision != serving.revision:
            yield Want(id=f"stop-r{revision}", service=name, revision=revision, replicas=0)
    for count in range(1, new.replicas + 1):
        yield Want(id=f"start-{count}", service=name, revision=new.revision, replicas=count)
        yield WaitReady(id=f"ready-{count}", service=name, revision=new.revision, replicas=count)
        if serving is not None:
            left = 0 if count == new.replicas else max(0, serving.replicas - count)
            yield Want(id=f"old-{count}", service=name, revision=serving.revision, replicas=left)


def registered(make: Callable[[Change], Any], name: str = "mine") -> dict[str, CustomRollout]:
    return {name: CustomRollout(name=name, where="/p.py:f, plugins[0] of deploy-code.yaml", make=make)}


def changed(spec: ServiceSpec) -> ServiceSpec:
    return replace(spec, content=replace(spec.content, env={"V": "2"}))


def want(change: Change, revision: int, replicas: int, id: str = "want", **options: Any) -> Want:
    return Want(id=id, service=change.service, revision=revision, replicas=replicas, **options)


def ready(change: Change, revision: int, replicas: int, id: str = "ready", **options: Any) -> WaitReady:
    return WaitReady(id=id, service=change.service, revision=revision, replicas=replicas, **options)


def test_the_new_comes_beside_the_old_and_steps_follow_each_other_as_given() -> None:
    web = service("web", strategy="mine", replicas=2)
    plan = planned([changed(web)], deployed([web]), rollouts=registered(rolling))
    assert (
        text(plan)
        == """
        deploy shop: 1 to replace
          1. start web r2                   env changed: V
          2. wait until web r2 is ready     env changed: V  [after 1]
          3. keep web r1                    env changed: V  [after 2]
          4. start web r2 ×2                env changed: V  [after 3]
          5. wait until web r2 ×2 is ready  env changed: V  [after 4]
          6. stop web r1                    env changed: V  [after 5]
        """
    )
    assert not any("nothing answers" in note for note in plan.notes)


def test_it_is_asked_where_something_starts_and_not_on_the_way_back() -> None:
    asked: list[str] = []

    def asks(change: Change) -> Iterable[Step]:
        asked.append(change.action)
        return rolling(change)

    web, rollouts = service("web", strategy="mine", replicas=2), registered(asks)
    now = deployed([web])
    planned([web], rollouts=rollouts)
    planned([changed(web)], now, rollouts=rollouts)
    planned([web], now, rollouts=rollouts, kind="restart", recreate=frozenset({"web"}))
    planned([service("web", strategy="mine", replicas=3)], now, rollouts=rollouts)
    planned([web], deployed([web], instances=[live(web)]), rollouts=rollouts)
    assert asked == ["create", "replace", "restart", "scale", "start"]
    planned([changed(web)], now, rollouts=rollouts, kind="rollback")
    planned([], now, rollouts=rollouts)
    planned([service("web", strategy="mine", replicas=2, stop_timeout_seconds=1.0)], now, rollouts=rollouts)
    assert len(asked) == 5


def test_a_dependent_starts_when_the_new_is_proven_and_the_old_outlives_the_old_dependent() -> None:
    db = service("db", strategy="mine")
    api = service("api", "db", strategy="mine")
    plan = planned(
        [changed(db), changed(api)],
        deployed([db, api]),
        rollouts=registered(rolling),
        settings=Settings(strategy="Parallel"),
    )
    assert (
        text(plan)
        == """
        deploy shop: 2 to replace
          1. start db r2                env changed: V
          2. wait until db r2 is ready  env changed: V  [after 1]
          3. start api r2               env changed: V  [after 2]
          4. wait until api r2 is ready env changed: V  [after 3]
          5. stop api r1                env changed: V  [after 4]
          6. stop db r1                 env changed: V  [after 2, 5]
        """
    )


def test_one_after_the_other_each_is_through_before_the_next_begins() -> None:
    db = service("db", strategy="mine")
    api = service("api", "db", strategy="mine")
    plan = planned([changed(db), changed(api)], deployed([db, api]), rollouts=registered(rolling))
    assert [str(step) for step in plan.steps] == [
        "start db r2",
        "wait until db r2 is ready",
        "stop db r1",
        "start api r2",
        "wait until api r2 is ready",
        "stop api r1",
    ]


@pytest.mark.parametrize("order", ["Sequential", "Parallel"])
@pytest.mark.parametrize("which", ["db", "api"])
def test_rollouts_of_both_kinds_stand_side_by_side(which: str, order: str) -> None:
    db = service("db", strategy="mine" if which == "db" else "")
    api = service("api", "db", strategy="mine" if which == "api" else "")
    plan = planned(
        [changed(db), changed(api)],
        deployed([db, api]),
        rollouts=registered(rolling),
        settings=Settings(strategy=order),
    )
    steps = [str(step) for step in plan.steps]
    assert steps.index("wait until db r2 is ready") < steps.index("start api r2")
    if which == "api":
        assert steps.index("wait until api r2 is ready") < steps.index("stop api r1")


Rollout = Callable[[Change], Any]


def gated(change: Change) -> list[Step]:
    """What is right about each of the wrong ones below."""
    return [want(change, 2, 2, "new"), ready(change, 2, 2, "ready"), want(change, 1, 0, "old")]


async def coroutine(change: Change) -> list[Step]:
    return []


class NoWords(Exception):
    def __repr__(self) -> str:
        raise ValueError("no words")


def unspeakable(change: Change) -> list[Step]:
    raise NoWords


class OwnWant(Want):
    """Nobody knows how to carry this out."""


NONSENSE: dict[str, tuple[Rollout, str]] = {
    "nothing": (lambda c: None, "it gives NoneType where steps are wanted"),
    "a text": (lambda c: "steps", "it gives str where steps are wanted"),
    "a coroutine": (coroutine, "it gives coroutine where steps are wanted"),
    "no steps": (lambda c: [], "it ends with none of r2, and 2 are wanted"),
    "no step": (lambda c: ["start"], "it gives str as a step"),
    "another kind": (lambda c: [Remove(id="r", service="web")], "it gives a step of kind remove"),
    "raises": (lambda c: 1 / 0, "it raised ZeroDivisionError('division by zero')"),
    "no gate": (lambda c: [gated(c)[0], gated(c)[2]], "it does not wait until all 2 of r2 are ready"),
    "gate too early": (
        lambda c: [want(c, 2, 2, "a"), ready(c, 2, 2), want(c, 2, 1, "b"), want(c, 2, 2, "c"), want(c, 1, 0, "d")],
        "it does not wait until all 2 of r2 are ready",
    ),
    "gate of some": (
        lambda c: [want(c, 2, 2), ready(c, 2, 1), want(c, 1, 0, "old")],
        "it does not wait until all 2 of r2 are ready",
    ),
    "gate of too many": (
        lambda c: [want(c, 2, 1, "one"), ready(c, 2, 2, "early"), *gated(c)],
        'its step "web/early" waits for 2 where only 1 are wanted',
    ),
    "too few": (lambda c: [want(c, 2, 1), ready(c, 2, 1), want(c, 1, 0, "old")], "it ends with 1 of r2"),
    "leaves the old": (lambda c: gated(c)[:2], "it leaves r1 behind"),
    "brings the old back": (lambda c: [*gated(c), want(c, 1, 1, "again")], "it leaves r1 behind"),
    "unknown revision": (lambda c: [*gated(c), want(c, 7, 0, "x")], "revision 7, which web does not have"),
    "another service": (
        lambda c: [*gated(c), Want(id="x", service="db", revision=1, replicas=0)],
        "its step \"x\" is about another service, 'db'",
    ),
    "same id": (lambda c: [*gated(c), want(c, 1, 0, "old")], "two of its steps have the same id"),
    "no id": (lambda c: [want(c, 2, 2, "")], "one of its steps has no id"),
    "unknown step": (lambda c: [want(c, 2, 2, after=("x",))], 'comes after "web/x", which it does not have'),
    "circle": (
        lambda c: [want(c, 2, 2, "a", after=("b",)), want(c, 1, 0, "b", after=("a",))],
        "its steps wait for each other in a circle",
    ),
    "no order": (
        lambda c: [want(c, 2, 1, "a"), want(c, 2, 2, "b"), ready(c, 2, 2, after=("a", "b")), want(c, 1, 0, "o")],
        'of its steps "web/a" and "web/b" neither comes after the other',
    ),
    "negative": (lambda c: [want(c, 2, -1)], "wants -1 instances"),
    "a kind of its own": (
        lambda c: [OwnWant(id="x", service="web", revision=2, replicas=2)],
        "only Want and WaitReady are steps",
    ),
    "no revision": (lambda c: [*gated(c), want(c, True, 0, "x")], "revision True, which web does not have"),
    "no cause": (lambda c: [want(c, 2, 2, cause=5)], 'the cause of its step "want" is no text'),
    "no words": (unspeakable, "it raised NoWords"),
    "no number": (lambda c: [want(c, 2, "2")], "wants '2' instances"),  # type: ignore[arg-type]
    "no end": (lambda c: (want(c, 2, 2, str(i)) for i in iter(int, 1)), "it gives more than 1000 steps"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_what_is_no_rollout_is_refused_with_its_name_its_place_and_the_reason(what: str) -> None:
    make, said = NONSENSE[what]
    web = service("web", strategy="mine", replicas=2)
    with pytest.raises(ConfigError) as caught:
        planned([changed(web)], deployed([web]), rollouts=registered(make))
    text = str(caught.value)
    assert text.startswith('E002 CONFIG_INVALID: rollout "mine" (/p.py:f, plugins[0] of deploy-code.yaml) cannot be')
    assert "for web: " in text and said in text, text


def test_a_restart_that_does_not_stop_what_runs_is_refused() -> None:
    web = service("web", strategy="mine")
    made = registered(lambda c: [want(c, 1, 1, "new"), ready(c, 1, 1), want(c, 1, 0, "old")])
    with pytest.raises(ConfigError, match="it ends with 0 of r1, and 1 are wanted"):
        planned([web], deployed([web]), rollouts=made, kind="restart", recreate=frozenset({"web"}))
    made = registered(lambda c: [want(c, 1, 1, "new"), ready(c, 1, 1)])
    with pytest.raises(ConfigError, match="it leaves r1 behind"):
        planned([web], deployed([web]), rollouts=made, kind="restart", recreate=frozenset({"web"}))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ports": (Port(host_port=80),)}, "both need port 80/tcp"),
        ({"ports": (Port(container_port=8080),)}, "both need port 8080/tcp"),
        ({"volumes": (Volume(name="v", mount_path="/data"),)}, "both need directory /data"),
        ({"exclusive": True}, "the service is exclusive"),
    ],
)
def test_two_revisions_that_cannot_run_at_once_are_not_put_side_by_side(options: dict[str, Any], reason: str) -> None:
    web = service("web", strategy="mine", **options)
    with pytest.raises(ConfigError, match=f"it runs r1 and r2 side by side, and {reason}"):
        planned([changed(web)], deployed([web]), rollouts=registered(rolling))
    stop_first = registered(lambda c: [want(c, 1, 0, "old"), want(c, 2, 1, "new"), ready(c, 2, 1)])
    assert len(planned([changed(web)], deployed([web]), rollouts=stop_first).steps) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"ports": (Port(container_port=8080, dynamic=True),)},
        {"ports": (Port(container_port=8080),), "args": ("--port=${PORT}",)},
        {"ports": (Port(container_port=8080),), "replicas": 2},
        {"volumes": (Volume(name="v", mount_path="/data", shared=True),)},
    ],
)
def test_what_each_instance_has_of_its_own_lets_two_revisions_run_at_once(options: dict[str, Any]) -> None:
    web = service("web", strategy="mine", **options)
    assert planned([changed(web)], deployed([web]), rollouts=registered(rolling)).steps


def test_a_circle_between_services_is_told_with_those_that_run_side_by_side() -> None:
    port = {"ports": (Port(host_port=80),)}
    db, api = service("db"), service("api", "db", strategy="mine", **port)
    moved = [replace(db, content=replace(db.content, ports=port["ports"])), service("api", "db", strategy="mine")]
    with pytest.raises(ConfigError, match="wait for each other in a circle") as caught:
        planned(moved, deployed([db, api]), rollouts=registered(rolling), settings=Settings(strategy="Parallel"))
    assert "Old and new run side by side in the rollout of api" in str(caught.value)


# --------------------------------------------------------------------------- custom strategies


def test_a_custom_strategy_is_one_step_between_what_must_go_before_and_what_goes_last() -> None:
    holder = service("holder", ports=(Port(host_port=80),))
    old, web = service("old"), service("web")
    new = service("new", ports=(Port(host_port=80),))
    plan = planned([changed(web), new], deployed([holder, old, web]), strategy="careful")
    assert (
        text(plan)
        == """
        deploy shop: 1 to create, 1 to replace, 2 to remove
          1. remove holder                   removed from the file
          2. strategy careful over 2 services [after 1]
             replace web r2 env changed: V
             create new r1 new service
          3. all of the above is in place    [after 2]
          4. remove old                      removed from the file  [after 3]
        """
    )
    assert plan.to_dict()["steps"][1]["services"] == ["web", "new"]


def test_a_custom_strategy_is_not_asked_about_removals_alone() -> None:
    web, old = service("web"), service("old")
    plan = planned([web], deployed([web, old]), strategy="careful")
    assert [step.kind for step in plan.steps] == ["remove"]


# --------------------------------------------------------------------------- any graph


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[ServiceSpec], list[ServiceSpec], str]:
    names = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    before, after = [], []
    for number, name in enumerate(names):
        needs = draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
        strategy = draw(st.sampled_from(["", "mine"]))
        spec = service(name, *needs, strategy=strategy, replicas=draw(st.integers(1, 3)))
        before.append(spec)
        if draw(st.booleans()):
            spec = changed(spec)
        if draw(st.integers(0, 9)):
            after.append(spec)
    kept = {each.name for each in after}
    after = [replace(each, policy=replace(each.policy, dependencies=_among(each, kept))) for each in after]
    return before, after, draw(st.sampled_from(["Sequential", "Parallel"]))


def _among(spec: ServiceSpec, kept: set[str]) -> tuple[Any, ...]:
    return tuple(each for each in spec.policy.dependencies if each.service in kept)


@given(worlds())
def test_with_any_mix_of_rollouts_the_plan_can_be_walked_and_serves_all_the_time(
    world: tuple[list[ServiceSpec], list[ServiceSpec], str],
) -> None:
    """Whatever order of steps the edges allow: never fewer of a rolling service are ready than before."""
    before, after, order = world
    plan = planned(after, deployed(before), rollouts=registered(rolling), settings=Settings(strategy=order))
    old = {each.name: each for each in before}
    seen: set[str] = set()
    ready_now = {(each.name, 1): each.policy.replicas for each in before}
    proven: set[str] = set()
    for step in plan.steps:
        assert seen.issuperset(step.after)
        seen.add(step.id)
        if isinstance(step, Want):
            kept = min(step.replicas, ready_now.get((step.service, step.revision), 0))
            ready_now[step.service, step.revision] = kept
            goal = plan.after[step.service]
            if goal.spec.policy.strategy == "mine" and plan.actions[step.service] == "replace":
                total = sum(count for (name, _), count in ready_now.items() if name == step.service)
                assert total >= old[step.service].policy.replicas
            if step.replicas and step.revision == goal.revision:
                needed = {each.service for each in goal.spec.policy.dependencies} & set(plan.actions)
                assert needed <= proven
        elif isinstance(step, WaitReady):
            ready_now[step.service, step.revision] = step.replicas
            if step.replicas == plan.after[step.service].replicas:
                proven.add(step.service)
        elif step.service:
            proven.add(step.service)
