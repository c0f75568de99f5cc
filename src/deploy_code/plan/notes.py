"""What a reader of the plan should know beside the steps: gaps in service, code that cannot come back, one-shots."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from deploy_code.model import Content, Port
from deploy_code.plan.diff import Change
from deploy_code.plan.graph import Handover
from deploy_code.plan.holdings import places_held
from deploy_code.plan.observed import Target
from deploy_code.plan.plan import Goal, Plan, Step


def notes(target: Target, plan: Plan, wanted: Mapping[str, Change], handed: Sequence[Handover]) -> Iterator[str]:
    position = {step.id: number for number, step in enumerate(plan.steps, 1)}
    yield from _gaps(plan.steps, position, wanted, target.rollouts)
    for thing, old, new in sorted(handed):
        if _held_before(thing, wanted[new]):
            continue  # these two had it at the same time, and will again
        yield f"{thing} passes from {old} to {new}: nobody holds it until {new} is ready"
    yield from _data_left_behind(wanted)
    yield from _told_another_place(target, plan, wanted)
    if target.kind == "deploy":
        yield from _code_not_kept(target, wanted)
        yield from _scaled(wanted)
    if not target.run_one_shots:
        yield from _one_shots(target)


def _gaps(
    steps: tuple[Step, ...], position: Mapping[str, int], wanted: Mapping[str, Change], rollouts: Collection[str]
) -> Iterator[str]:
    for name, change in wanted.items():
        ready = position.get(f"{name}/ready")
        if not change.stale or ready is None or change.old is None or not change.old.spec.content.ports:
            continue
        if change.new is not None and change.new.spec.policy.strategy in rollouts:
            continue  # a rollout of its own may keep the old until the new is there
        first = min(position[f"{name}/stop-r{revision}"] for revision in change.stale)
        ports = ", ".join(str(port.host_port or port.container_port) for port in change.old.spec.content.ports)
        yield f"{name}: nothing answers on port {ports} between steps {first} and {ready} (old stops before new starts)"


def _held_before(thing: str, change: Change) -> bool:
    return change.old is not None and thing in places_held(change.old.spec.content)


def _data_left_behind(wanted: Mapping[str, Change]) -> Iterator[str]:
    """Each engine has volumes of its own: who moves to another one finds nothing there."""
    for name, change in wanted.items():
        if change.old is None or change.new is None:
            continue
        old, new = change.old.spec.content, change.new.spec.content
        names = [each for each in _volumes_of_engine(old) if each in _volumes_of_engine(new)]
        if names and old.container.engine != new.container.engine:
            whose = old.container.runtime
            at = f" at {old.container.engine}" if whose == new.container.runtime else ""
            yield f"{name}: the data in {_list(names)} stays in {whose}{at}: the other engine has volumes of its own"


def _told_another_place(target: Target, plan: Plan, wanted: Mapping[str, Change]) -> Iterator[str]:
    """Who runs on was told at its start where others answer, and hears of no change."""
    for moved, change in wanted.items():
        if change.old is None or change.new is None or _place(change.old) == _place(change.new):
            continue
        asked = f"${{services.{moved}."
        names = [name for name in plan.unchanged if any(asked in text for text in _texts(target.goals[name]))]
        if names:
            yield f"{moved} answers elsewhere from now on, and {_list(names)} goes on with what it was told: restart it"


def _place(goal: Goal) -> tuple[bool, tuple[Port, ...]]:
    content = goal.spec.content
    return content.has_own_network, content.ports


def _texts(goal: Goal) -> Iterator[str]:
    content = goal.spec.content
    yield from (content.command, *content.args, *content.env.values())


def _volumes_of_engine(content: Content) -> list[str]:
    if not content.is_container:
        return []
    return [f"volume {each.name}" for each in content.volumes if not each.source and not each.tmpfs]


def _code_not_kept(target: Target, wanted: Mapping[str, Change]) -> Iterator[str]:
    contents = {name: change.new.spec.content for name, change in wanted.items() if change.new is not None}
    unkept = {name: each for name, each in contents.items() if each.files and each.release is None}
    if names := [name for name, each in unkept.items() if not each.is_container]:
        yield f"code not kept for {_list(names)}: without `release` a rollback cannot bring old files back"
    if names := [name for name, each in unkept.items() if each.is_container]:
        yield f"files of this machine in {_list(names)} are not kept: a rollback brings back the image, not old files"


def _scaled(wanted: Mapping[str, Change]) -> Iterator[str]:
    for name, change in wanted.items():
        if change.action == "scale" and change.old is not None and change.new is not None:
            new, old = change.new.replicas, change.old.replicas
            yield f"{name}: the file's replicas ({new}) win over the {old} it was scaled to"


def _one_shots(target: Target) -> Iterator[str]:
    names = [name for name, goal in target.goals.items() if goal.spec.content.one_shot]
    if names and target.kind == "rollback":
        yield f"one-shots are never undone or run again by a rollback: {_list(names)}"


def _list(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more
