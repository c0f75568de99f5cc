"""What each operation wants: functions that make the planner's ``Target`` from the file or from what was recorded."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deploy_code.errors import ConfigError, DeploymentError, ServiceError
from deploy_code.model import Content, Project, ServiceSpec
from deploy_code.plan.observed import Observed, Target
from deploy_code.plan.plan import Goal

if TYPE_CHECKING:
    from deploy_code.state.rows import DeploymentRow, MapEntry
    from deploy_code.state.store import Store

MakeTarget = Callable[[Observed], Target]


def deploy(
    project: Project, services: Sequence[str] | None, rerun: Sequence[str] = (), *, strategy: str = ""
) -> MakeTarget:
    """As the file says, by a custom ``strategy`` if one is named.

    Raises S001 for names that are not in the file, E007 for disabled ones.
    """
    known([*(services or ()), *rerun], project.services, disabled=project.disabled)
    _one_shots_only(project, rerun)

    def make(observed: Observed) -> Target:
        return Target(
            project=project.name,
            goals={name: _goal(spec, observed) for name, spec in project.services.items()},
            settings=project.settings,
            only=frozenset([*services, *rerun]) if services is not None else None,
            rerun=frozenset(rerun),
            strategy=strategy,
        )

    return make


def _goal(spec: ServiceSpec, observed: Observed) -> Goal:
    """The file's number of replicas wins; where it has none, the number it was scaled to stays."""
    old = observed.of(spec.name).goal
    count = old.replicas if old is not None and not spec.policy.replicas_in_file else spec.policy.replicas
    if count != spec.policy.replicas:
        spec = replace(spec, policy=replace(spec.policy, replicas=count))
    return Goal(spec=spec, revision=observed.revision_of(spec), replicas=count)


def stop(project: str, recorded: Mapping[str, Goal], services: Sequence[str] | None) -> MakeTarget:
    """Everything down (or only ``services`` and what depends on them), and the wish to be so."""
    known(services or (), recorded)
    chosen = frozenset(recorded) if services is None else _with_dependents(services, recorded)
    wanted = {name: replace(goal, stopped=goal.stopped or name in chosen) for name, goal in recorded.items()}
    only = None if services is None else chosen
    return lambda _: Target(project=project, kind="stop", goals=wanted, only=only, run_one_shots=False)


def _with_dependents(names: Iterable[str], recorded: Mapping[str, Goal]) -> frozenset[str]:
    dependents: dict[str, list[str]] = defaultdict(list)
    for name, goal in recorded.items():
        for needed in goal.spec.policy.dependencies:
            dependents[needed.service].append(name)
    seen, todo = set(names), list(names)
    while todo:
        for each in dependents[todo.pop()]:
            if each not in seen:
                seen.add(each)
                todo.append(each)
    return frozenset(seen)


def restart(project: str, recorded: Mapping[str, Goal], services: Sequence[str] | None) -> MakeTarget:
    """The same revisions, recreated. One-shots are done once and for all: S003 for those that are named."""
    known(services or (), recorded)
    for name in services or ():
        if recorded[name].spec.content.one_shot:
            remedy = f"Run it once more with `deploy-code deploy --rerun {name}`"
            raise ServiceError(f"{name} is a one-shot: there is nothing to restart", code="S003", remedy=remedy)
    names = recorded if services is None else services
    chosen = frozenset(name for name in names if not recorded[name].spec.content.one_shot)
    wanted = {name: replace(goal, stopped=goal.stopped and name not in chosen) for name, goal in recorded.items()}
    return lambda _: Target(
        project=project, kind="restart", goals=wanted, only=chosen, recreate=chosen, run_one_shots=False
    )


def scale(project: str, recorded: Mapping[str, Goal], replicas: Mapping[str, int]) -> MakeTarget:
    """Other counts of the same revisions. Raises S003 for a count that cannot be."""
    known(replicas, recorded)
    for name, count in replicas.items():
        if count < 0 or recorded[name].spec.content.one_shot:
            raise ServiceError(
                f"{name} cannot run {count} times",
                code="S003",
                remedy="Give a count of 0 or more, and no one-shot",
            )
    wanted = {name: _scaled(goal, replicas[name]) if name in replicas else goal for name, goal in recorded.items()}
    return lambda _: Target(project=project, kind="scale", goals=wanted, only=frozenset(replicas), run_one_shots=False)


def _scaled(goal: Goal, count: int) -> Goal:
    spec = replace(goal.spec, policy=replace(goal.spec.policy, replicas=count))
    return replace(goal, spec=spec, replicas=count, stopped=False)


def rollback(project: str, wanted: Mapping[str, Goal], *, warnings: tuple[str, ...] = ()) -> MakeTarget:
    """Exactly what a deployment left, policies included. One-shots are not undone."""
    return lambda _: Target(project=project, kind="rollback", goals=wanted, run_one_shots=False, warnings=warnings)


def rollback_row(store: Store, to: int | None) -> DeploymentRow:
    """The deployment to return to. Raises E009 when there is none."""
    row = _last_good(store) if to is None else _deployment(store, to)
    if pruned := sorted({(name, entry.revision) for name, entry in row.wanted.items()} - {*store.revisions()}):
        names = ", ".join(f"{name} r{revision}" for name, revision in pruned)
        raise DeploymentError(
            f"deployment {row.number} cannot be returned to: {names} was pruned",
            code="E009",
            meaning="Nothing was changed",
            remedy="Return to a later one, see `deploy-code history`; deployment.retained_revisions says how many stay",
        )
    return row


def _deployment(store: Store, to: int) -> DeploymentRow:
    row = store.deployment(to)
    if row is None or row.status == "in_progress":
        last = ", ".join(str(each.number) for each in store.deployments(10)) or "none"
        raise ConfigError(
            f"there is no deployment {to} to return to",
            remedy=f"The last ones are {last}: see `deploy-code history`",
        )
    return row


def _last_good(store: Store) -> DeploymentRow:
    """The newest good one that differs from what is wanted; after a failure that was not undone, the newest of all."""
    last, before = store.last_deployment(), None
    now = None if last is not None and last.status == "failed" else _essence(store.current_map())
    while (row := store.last_good(before)) is not None:
        if _essence(row.wanted) != now:
            return row
        before = row.number
    raise DeploymentError(
        "there is no good deployment that differs from what is wanted now",
        code="E009",
        meaning="Nothing was changed",
        remedy="See `deploy-code history`; `rollback --to N` returns to any deployment",
    )


def _essence(entries: Mapping[str, MapEntry]) -> dict[str, tuple[object, ...]]:
    return {name: (entry.revision, entry.policy, entry.replicas, entry.stopped) for name, entry in entries.items()}


def changed_files(wanted: Mapping[str, Goal], root: str) -> Iterator[str]:
    """A warning for each service whose code was not kept and is no longer what that revision ran."""
    for name, goal in wanted.items():
        content = goal.spec.content
        if content.release is None and root:
            changed = sorted(
                path for path, digest in content.files.items() if _digest(os.path.join(root, path)) != digest
            )
            if changed:
                yield (
                    f"{name} r{goal.revision}: its code was not kept and has changed since ({', '.join(changed)}): "
                    f"what lies there now will run ({_how_to_keep(content)})"
                )


def _how_to_keep(content: Content) -> str:
    return "put it into the image to keep it" if content.is_container else "give it a `release` to keep code"


def one_shots_kept(now: Mapping[str, Goal], wanted: Mapping[str, Goal]) -> Iterator[str]:
    """A warning that names the one-shots of today which no return to ``wanted`` takes back."""
    names = sorted(
        name
        for name, goal in now.items()
        if goal.spec.content.one_shot and (name not in wanted or wanted[name].revision != goal.revision)
    )
    if names:
        yield f"one-shots that ran are not undone: {', '.join(names)}"


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


# -------------------------------------------------------------------------------------------------------------- checks


def known(names: Iterable[str], services: Mapping[str, object], *, disabled: Sequence[str] = ()) -> None:
    """Raises ServiceError: S001 for a name that is not among ``services``, E007 for a disabled one."""
    for name in names:
        if name in disabled:
            raise ServiceError(
                f"{name} is disabled in the file", code="E007", remedy=f"Set services.{name}.enabled to true"
            )
        if name not in services:
            raise _unknown(name, services)


def _unknown(name: str, services: Mapping[str, object]) -> ServiceError:
    import difflib

    near = difflib.get_close_matches(name, services, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"Known services: {', '.join(sorted(services)) or 'none'}"
    return ServiceError(f'there is no service "{name}" in this project', code="S001", remedy=hint)


def _one_shots_only(project: Project, rerun: Sequence[str]) -> None:
    for name in rerun:
        if not project.services[name].content.one_shot:
            raise ServiceError(
                f"{name} is no one-shot", code="S003", remedy=f"Use `deploy-code restart --services {name}`"
            )
