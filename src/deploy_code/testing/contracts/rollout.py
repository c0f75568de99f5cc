"""What a rollout promises: a pure function from a ``Change`` to steps that lead to the goal, whatever the change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deploy_code.errors import ConfigError
from deploy_code.model import Content, Phase, Policy, Port, ServiceSpec
from deploy_code.plan.diff import Change
from deploy_code.plan.plan import Goal, Step, WaitReady, Want
from deploy_code.plan.rollouts.custom import CustomRollout
from deploy_code.testing.contracts.loops import in_a_loop
from deploy_code.testing.platform import Start
from deploy_code.testing.project import FakeProject

SERVICE = "api"
NAME = "on-trial"
REPLICAS = 3
MOST_REPLICAS = 5


class RolloutContract:
    """Subclass it, and set ``rollout`` to your function. Needs hypothesis, which makes up the changes."""

    rollout: Any  # Callable[[Change], Iterable[Step]]; but then type checkers would take a function for a method

    def steps(self, change: Change) -> tuple[Step, ...]:
        """As the planner takes them: ids and gates completed, and refused where they make no sense."""
        try:
            return CustomRollout(name=self.name, where="its contract suite", make=type(self).rollout).steps(change)
        except ConfigError as exc:
            raise AssertionError(f"the planner refuses it for {_about(change)}: {exc.message}") from exc

    @property
    def name(self) -> str:
        return getattr(type(self).rollout, "__name__", "rollout")

    def test_the_planner_takes_it(self) -> None:
        @for_every_change
        def check(change: Change) -> None:
            assert self.steps(change), f"no step at all for {_about(change)}"

        check()

    def test_the_same_change_gives_the_same_steps(self) -> None:
        @for_every_change
        def check(change: Change) -> None:
            assert self.steps(change) == self.steps(change), (
                "a rollout is pure: no clock, no random, no state of its own"
            )

        check()

    def test_only_revisions_of_the_change_are_wanted(self) -> None:
        @for_every_change
        def check(change: Change) -> None:
            known = _revisions(change)
            for step in _wants(self.steps(change)):
                assert step.revision in known, (
                    f"nobody knows r{step.revision} here; the change is about {sorted(known)}"
                )
                assert step.replicas >= 0, f"{step.id!r} wants {step.replicas} replicas"

        check()

    def test_wishes_about_one_revision_follow_each_other(self) -> None:
        @for_every_change
        def check(change: Change) -> None:
            steps = self.steps(change)
            before = _all_before(steps)
            for revision in _revisions(change):
                wants = [step for step in _wants(steps) if step.revision == revision]
                for earlier, later in pairwise(wants):
                    assert earlier.id in before[later.id], (
                        f"{earlier.id!r} and {later.id!r} both say how many of r{revision} there are, and neither is "
                        "`after` the other: which one counts is left to chance"
                    )

        check()

    def test_it_leads_to_the_goal_and_leaves_nothing_stale(self) -> None:
        @for_every_change
        def check(change: Change) -> None:
            assert change.new is not None
            _, end = list(_walk(change, self.steps(change)))[-1]
            goal = {change.new.revision: change.new.replicas} if change.new.replicas else {}
            assert end == goal, f"at the end {_shown(end)} runs, and {_shown(goal)} is to be"

        check()

    def test_it_ends_with_the_gate_of_all_that_is_new(self) -> None:
        @for_every_change
        def check(change: Change) -> None:
            assert change.new is not None
            steps = self.steps(change)
            gates = [step for step in steps if isinstance(step, WaitReady)]
            if not change.new.replicas:
                return  # there is nothing to wait for
            assert gates, "no WaitReady: nobody would know whether the new revision works"
            gate, before = gates[-1], _all_before(steps)
            what = (gate.revision, gate.replicas)
            whole = (change.new.revision, change.new.replicas)
            assert what == whole, f"the last gate waits for r{what[0]} ×{what[1]}, the goal is r{whole[0]} ×{whole[1]}"
            brought = [step for step in _wants(steps) if step.revision == gate.revision]
            late = [step.id for step in brought if step.id not in before[gate.id]]
            assert not late, f"{late} want something of r{gate.revision}, and the last gate does not come `after` them"

        check()

    @in_a_loop
    async def test_the_engine_walks_it_to_a_new_revision(self) -> None:
        async with FakeProject(_project(version=1), strategies={NAME: type(self).rollout}) as project:
            for version in (1, 2):
                project.change(_project(version=version))
                report = await project.deploy()
                assert report.success, f"every instance is healthy, and the deployment failed: {report.errors}"
                found = Counter(each.revision for each in project.platform.all() if each.phase is Phase.READY)
                assert found == {version: REPLICAS}, f"ready after deployment {version}, by revision: {dict(found)}"

    @in_a_loop
    async def test_where_the_new_revision_fails_the_old_one_is_back(self) -> None:
        async with FakeProject(_project(version=1), strategies={NAME: type(self).rollout}) as project:
            await project.deploy()
            project.change(_project(version=2))
            project.platform.will(SERVICE, Start.exits(3), Start.ready())
            report = await project.deploy()
            assert not report.success, "an instance ended with code 3, and the deployment says success"
            found = Counter(each.revision for each in project.platform.all())
            assert found == {1: REPLICAS}, f"after the rollback there are, by revision: {dict(found)}"


def _project(*, version: int) -> dict[str, Any]:
    """One service of several instances, each on a port of its own."""
    service = {
        "command": "api",
        "args": [f"v{version}"],
        "ports": [{"dynamic": True}],
        "replicas": REPLICAS,
        "strategy": NAME,
    }
    return {"name": "trial", "services": {SERVICE: service}}


# ------------------------------------------------------------------------------------------------------ made-up changes


def _goal(revision: int, replicas: int) -> Goal:
    content = Content(command="api", args=(str(revision),), ports=(Port(dynamic=True),))
    policy = Policy(replicas=replicas)
    return Goal(spec=ServiceSpec(name=SERVICE, content=content, policy=policy), revision=revision, replicas=replicas)


def _change(action: str, old: Goal | None, new: Goal, stale: Iterable[int] = (), *, gated: bool = True) -> Change:
    return Change(
        service=SERVICE, action=action, cause="made up", old=old, new=new, stale=tuple(sorted(stale)), gated=gated
    )


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Everything that a rollout may be asked for: something new, something else, as before but anew, more or fewer."""
    action = draw(st.sampled_from(["create", "replace", "restart", "start", "scale"]))
    number, gated = draw(st.integers(2, 9)), draw(st.booleans())
    new = _goal(number, draw(st.integers(1, MOST_REPLICAS)))
    old = _goal(number, draw(st.integers(1, MOST_REPLICAS)))
    if action == "create":
        return _change(action, None, new, gated=gated)
    if action == "replace":
        left = draw(st.sets(st.integers(1, number - 1), min_size=1, max_size=2))
        return _change(action, _goal(max(left), old.replicas), new, left, gated=gated)
    if action == "restart":
        return _change(action, old, replace(new, replicas=old.replicas), [number], gated=gated)
    if action == "scale":
        new = _goal(number, draw(st.integers(0, MOST_REPLICAS)))
    return _change(action, old, new, gated=gated)


class _Case:
    """A change that is shown in a few words: all that it holds would fill a page."""

    def __init__(self, change: Change) -> None:
        self.change = change

    def __repr__(self) -> str:
        return _about(self.change)


@st.composite
def _cases(draw: st.DrawFn) -> _Case:
    return _Case(draw(changes()))


def for_every_change(check: Callable[[Change], None]) -> Callable[[], None]:
    def tried_on(case: _Case) -> None:
        check(case.change)

    simplest = _Case(_change("create", None, _goal(1, 1)))
    tried = given(_cases())(example(simplest)(tried_on))
    quiet = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    run: Callable[[], None] = quiet(tried)
    return run


def _about(change: Change) -> str:
    old = f"r{change.old.revision} ×{change.old.replicas}" if change.old else "nothing"
    new = f"r{change.new.revision} ×{change.new.replicas}" if change.new else "nothing"
    return f"{change.action} (from {old} to {new}, stale: {list(change.stale)})"


# ---------------------------------------------------------------------------------------------------- looking at steps


def _wants(steps: Iterable[Step]) -> list[Want]:
    return [step for step in steps if isinstance(step, Want)]


def _revisions(change: Change) -> set[int]:
    goals = {goal.revision for goal in (change.old, change.new) if goal is not None}
    return goals | set(change.stale)


def _all_before(steps: Iterable[Step]) -> dict[str, set[str]]:
    """Step → all that must be done first, directly or not."""
    found: dict[str, set[str]] = {}
    for step in steps:
        found[step.id] = set(step.after).union(*(found.get(each, set()) for each in step.after))
    return found


def _walk(change: Change, steps: Iterable[Step]) -> Iterator[tuple[Step, dict[int, int]]]:
    """What is wanted after each step, as revision → count."""
    running = dict.fromkeys(change.stale, change.old.replicas if change.old else 1)
    if change.old is not None and not change.stale and change.action != "create":
        running[change.old.revision] = change.old.replicas
    for step in steps:
        if isinstance(step, Want):
            running[step.revision] = step.replicas
        yield step, {revision: count for revision, count in running.items() if count}


def _shown(running: dict[int, int]) -> str:
    return ", ".join(f"r{revision} ×{count}" for revision, count in sorted(running.items())) or "nothing"
