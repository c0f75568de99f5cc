"""The plan: typed steps with a cause each, in an order that can be walked; dry run, tests and executor share it.

A step is about a service and a revision, never about one process or container, and each is a "make it so": walking the
same step twice does what walking it once does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from deploy_code.model import ServiceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What one service is to be: a revision of it, so many times, or stopped. ``spec.policy`` is the policy."""

    spec: ServiceSpec
    revision: int
    replicas: int
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action. ``id`` is unique in its plan; ``after`` names the steps that must be done first."""

    id: str
    service: str
    cause: str = ""
    after: tuple[str, ...] = ()

    kind: ClassVar[str] = "step"

    def __str__(self) -> str:
        return f"{self.kind} {self.service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Want(Step):
    """So many instances of this revision. Done when surplus ones are gone; that new ones are ready is WaitReady's."""

    revision: int
    replicas: int
    keeps: bool = False  # of the old revision, beside the new: these stay, none is started

    kind: ClassVar[str] = "want"

    def __str__(self) -> str:
        if self.replicas == 0:
            return f"stop {self.service} r{self.revision}"
        return f"{'keep' if self.keeps else 'start'} {self.service} r{self.revision}{_times(self.replicas)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitReady(Step):
    """The gate: all these instances have been ready. Fails at once when one of them dies."""

    revision: int
    replicas: int
    gated: bool = True  # False: a rollback to something that was not healthy before; looked at, not waited for

    kind: ClassVar[str] = "wait_ready"

    def __str__(self) -> str:
        return f"wait until {self.service} r{self.revision}{_times(self.replicas)} is ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Step):
    """A one-shot runs to its end, once per run hash."""

    revision: int
    again: bool = False  # --rerun

    kind: ClassVar[str] = "run"

    def __str__(self) -> str:
        return f"run {self.service} r{self.revision} {'again' if self.again else 'once'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Step):
    """New policy for running instances, in place."""

    revision: int

    kind: ClassVar[str] = "update"

    def __str__(self) -> str:
        return f"update {self.service} r{self.revision} in place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove(Step):
    """All instances of all revisions go; logs and volumes stay."""

    kind: ClassVar[str] = "remove"

    def __str__(self) -> str:
        return f"remove {self.service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(Step):
    """A gate without a service of its own: everything before it is in place, so what is left over may go."""

    kind: ClassVar[str] = "gate"

    def __str__(self) -> str:
        return "all of the above is in place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear(Step):
    """What runs for this project and is no instance ends. ``instances``: the uuids that it carries."""

    instances: tuple[str, ...]

    kind: ClassVar[str] = "clear"

    def __str__(self) -> str:
        return "end what belongs to no instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(Step):
    """A custom strategy over all of the run, opaque to the plan: what it deploys is planned when it asks for it."""

    strategy: str
    services: tuple[str, ...]

    kind: ClassVar[str] = "custom"

    def __str__(self) -> str:
        count = "1 service" if len(self.services) == 1 else f"{len(self.services)} services"
        return f"strategy {self.strategy} over {count}"


def _times(replicas: int) -> str:
    return f" ×{replicas}" if replicas != 1 else ""


ACTIONS = ("create", "replace", "start", "restart", "scale", "update", "run", "stop", "remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in walking order, and the full maps between which they lead."""

    project: str
    kind: str  # deploy | stop | restart | scale | rollback
    steps: tuple[Step, ...] = ()
    actions: Mapping[str, str] = field(default_factory=dict)  # service → one of ACTIONS
    causes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    before: Mapping[str, Goal] = field(default_factory=dict, repr=False)
    after: Mapping[str, Goal] = field(default_factory=dict, repr=False)

    @property
    def is_empty(self) -> bool:
        return not self.steps

    @property
    def services(self) -> tuple[str, ...]:
        """Every service this run is about, changed or not."""
        return tuple(sorted({*self.actions, *self.unchanged}))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.kind} {self.project}: {self.summary}"
        position = {step.id: number for number, step in enumerate(self.steps, 1)}
        width = max((len(str(step)) for step in self.steps), default=0)
        digits = len(str(len(self.steps)))
        for step in self.steps:
            after = ", ".join(str(number) for number in sorted(position[each] for each in step.after))
            tail = f"  [after {after}]" if after else ""
            cause = f"{step.cause}{tail}" if step.cause else tail.strip()
            yield f"  {position[step.id]:>{digits}}. {step!s:<{width}}  {cause}".rstrip()
            if isinstance(step, Custom):
                yield from self._inside(step, " " * (digits + 6))
        for note in self.notes:
            yield f"  note: {note}"
        for warning in self.warnings:
            yield f"  warning: {warning}"

    def _inside(self, step: Custom, indent: str) -> Iterator[str]:
        """What a custom strategy will be asked to change; in which order is its own affair."""
        for name in step.services:
            if action := self.actions.get(name):
                yield f"{indent}{action} {name} r{self.after[name].revision}  {self.causes.get(name, '')}".rstrip()

    @property
    def summary(self) -> str:
        """``2 to create, 1 to replace, 5 unchanged``; ``nothing to do`` where that is so."""
        counted = [(sum(1 for each in self.actions.values() if each == action), action) for action in ACTIONS]
        parts = [f"{count} to {action}" for count, action in counted if count]
        if not parts:
            parts = ["nothing to do"]
        if self.unchanged:
            parts.append(f"{len(self.unchanged)} unchanged")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML. Names of env variables appear, values never."""
        return {
            "project": self.project,
            "kind": self.kind,
            "changes": not self.is_empty,
            "summary": self.summary,
            "steps": [_step_data(step) for step in self.steps],
            "services": {
                name: {"action": self.actions.get(name, "none"), "cause": self.causes.get(name, "")}
                for name in self.services
            },
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def redacted(plan: Plan, clean: Callable[[str], str]) -> Plan:
    """The same plan with every text that may quote a value made clean."""
    return replace(
        plan,
        steps=tuple(replace(step, cause=clean(step.cause)) if step.cause else step for step in plan.steps),
        causes={name: clean(cause) for name, cause in plan.causes.items()},
        notes=tuple(map(clean, plan.notes)),
        warnings=tuple(map(clean, plan.warnings)),
    )


def _step_data(step: Step) -> dict[str, Any]:
    data: dict[str, Any] = {"id": step.id, "kind": step.kind, "service": step.service, "text": str(step)}
    for name in ("revision", "replicas", "strategy", "services"):
        if hasattr(step, name):
            value = getattr(step, name)
            data[name] = list(value) if isinstance(value, tuple) else value
    return {**data, "cause": step.cause, "after": list(step.after)}
