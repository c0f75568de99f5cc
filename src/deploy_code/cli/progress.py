"""What a running deployment looks like, put together from events: one row per service.

Pure; painting is ``live``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deploy_code import events
from deploy_code.events import Event

PHASES = ("validation", "resources", "network", "storage", "services", "health", "monitoring", "logging")

WAITING, ACTIVE, DONE, FAILED, SKIPPED, UNDONE = "waiting", "active", "done", "failed", "skipped", "undone"

# the first that any instance is in speaks for the service
_WORST_FIRST = (
    "failed",
    "exited",
    "backoff",
    "unready",
    "stopping",
    "starting",
    "waiting",
    "ready",
    "completed",
)
_HEALTH = {
    "ready": "healthy",
    "starting": "starting",
    "unready": "unhealthy",
    "failed": "unhealthy",
    "exited": "unhealthy",
    "backoff": "unhealthy",
}


@dataclass(slots=True)
class Row:
    """One service: ``group`` says how far it is, ``state`` the word people read."""

    service: str
    group: str = WAITING
    state: str = "waiting"
    cause: str = ""
    detail: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    running_steps: int = 0
    instances: dict[str, str] = field(default_factory=dict)  # "api r7 #0" → phase

    @property
    def health(self) -> str:
        return _HEALTH.get(self._worst, "")

    @property
    def _worst(self) -> str:
        phases = set(self.instances.values())
        return next((phase for phase in _WORST_FIRST if phase in phases), "")

    def elapsed(self, now: float) -> float:
        return (self.finished_at or now) - self.started_at if self.started_at else 0.0

    @property
    def why(self) -> str:
        return self.detail or self.cause

    # ------------------------------------------------------------------ what can happen to it

    def begin(self, verb: str, cause: str, at: float) -> None:
        self.running_steps += 1
        if self.group == FAILED:
            return  # why it failed stays in sight while it is being undone
        self.group, self.finished_at = ACTIVE, 0.0
        self.started_at = self.started_at or at
        self.state = _STATE_OF_VERB.get(verb, self.state if self.state != "waiting" else "working")
        self.cause = cause or self.cause

    def end(self, error: str, at: float, group: str = DONE) -> None:
        self.running_steps = max(self.running_steps - 1, 0)
        if error:
            self.fail("failed", error, at)
        elif not self.running_steps and self.group == ACTIVE:
            self.group, self.finished_at = group, at
            self.state = _STATE_WHEN_DONE.get(self.state, self.state)

    def fail(self, state: str, detail: str, at: float) -> None:
        self.group = SKIPPED if state == "skipped" else FAILED
        self.state, self.detail, self.finished_at = state, detail, at

    def see(self, instance: str, phase: str, detail: str) -> None:
        if phase == "gone":
            self.instances.pop(instance, None)
        else:
            self.instances[instance] = phase
        if self.group in (ACTIVE, DONE, UNDONE) and self._worst:
            self.state = {"completed": "done"}.get(self._worst, self._worst)
        if detail and phase not in ("ready", "gone", "completed"):
            self.detail = detail
        elif phase in ("ready", "completed"):
            self.detail = ""


_STATE_OF_VERB = {
    "start": "starting",
    "stop": "stopping",
    "remove": "removing",
    "run": "running",
    "update": "updating",
}
_STATE_WHEN_DONE = {"stopping": "stopped", "removing": "removed", "updating": "updated", "running": "done"}


@dataclass(slots=True)
class Fetch:
    """An image on its way."""

    image: str
    doing: str
    done: int = 0
    total: int = 0
    began: float = 0.0

    @property
    def share(self) -> float | None:
        """How much of it is done, 0 to 1; None where that is not known."""
        return min(self.done / self.total, 1.0) if self.total else None


class Progress:
    """Everything a view needs; fed by ``apply``, which is a bus listener."""

    def __init__(self) -> None:
        self.kind = ""
        self.number = 0
        self.phase = ""
        self.rollback = ""
        self.status = ""
        self.started_at = 0.0
        self.finished_at = 0.0
        self.fetches: dict[str, Fetch] = {}
        self.rows: dict[str, Row] = {}
        self.seen: dict[str, dict[str, str]] = {}  # service → instance → phase
        self.changed = False

    def apply(self, event: Event) -> None:
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)
            self.changed = True

    def row(self, service: str) -> Row:
        return self.rows.setdefault(service, Row(service))

    def count(self, group: str) -> int:
        return sum(1 for row in self.rows.values() if row.group == group)

    def elapsed(self, now: float) -> float:
        return (self.finished_at or now) - self.started_at if self.started_at else 0.0

    def shown(self, room: int) -> list[Row]:
        """At most ``room`` rows, in their order: all when they fit, else failed before active before the
        rest.
        """
        rows = list(self.rows.values())
        if len(rows) <= room:
            return rows
        urgent = sorted(rows, key=lambda row: _URGENCY[row.group])[: max(room, 0)]
        chosen = {row.service for row in urgent if row.group in (FAILED, ACTIVE)}
        return [row for row in rows if row.service in chosen]

    def folded(self, shown: Sequence[Row]) -> str:
        """``180 done, 15 waiting``: what ``shown`` leaves out; empty when nothing."""
        names = {row.service for row in shown}
        hidden = [row.group for row in self.rows.values() if row.service not in names]
        counts = ((group, hidden.count(group)) for group in (FAILED, ACTIVE, DONE, UNDONE, WAITING, SKIPPED))
        return ", ".join(f"{count} {group}" for group, count in counts if count)


_URGENCY = {FAILED: 0, ACTIVE: 1, SKIPPED: 2, WAITING: 3, DONE: 4, UNDONE: 4}


def _started(view: Progress, event: events.DeploymentStarted) -> None:
    """A fresh picture; the recovery of an earlier deployment may have come before."""
    view.kind, view.number, view.started_at, view.phase = event.kind, event.deployment, event.at, PHASES[0]
    view.rollback, view.status, view.finished_at = "", "", 0.0
    view.rows, view.fetches = {}, {}
    for service in event.services:
        view.row(service).instances = dict(view.seen.get(service, {}))


def _finished(view: Progress, event: events.DeploymentFinished) -> None:
    view.status, view.finished_at = event.status, event.at
    for row in view.rows.values():
        if row.group == WAITING:
            row.state = "unchanged" if event.status == "completed" or row.instances else "not begun"
        if row.group == FAILED and row.instances and event.status == "rolled_back":
            row.state = "restored"  # what it was before runs again; why it failed stays in sight beside it
        if row.group in (WAITING, ACTIVE) and event.status == "completed":
            row.group = DONE


def _phase(view: Progress, event: events.PhaseCompleted) -> None:
    following = PHASES[PHASES.index(event.phase) + 1 :] if event.phase in PHASES else ()
    view.phase = following[0] if following else event.phase


def _step_started(view: Progress, event: events.StepStarted) -> None:
    if event.service:
        view.row(event.service).begin(event.step.partition(" ")[0], event.cause, event.at)


def _step_finished(view: Progress, event: events.StepFinished) -> None:
    if event.service:
        view.row(event.service).end(event.error, event.at, UNDONE if view.rollback else DONE)


def _skipped(view: Progress, event: events.ServiceSkipped) -> None:
    view.row(event.service).fail("skipped", event.reason, event.at)


def _instance(view: Progress, event: events.InstanceChanged) -> None:
    """Remembered for services without a row too: it tells the health of what is there before a run begins."""
    seen = view.seen.setdefault(event.service, {})
    seen[event.instance] = event.phase
    if event.phase == "gone":
        del seen[event.instance]
    if event.service in view.rows:
        view.rows[event.service].see(event.instance, event.phase, event.detail)


def _rollback(view: Progress, event: events.RollbackStarted) -> None:
    """Steps in flight were cancelled; what comes now are the steps back."""
    view.rollback = event.reason
    for row in view.rows.values():
        row.running_steps, row.detail = 0, row.detail if row.group == FAILED else ""


def _fetching(view: Progress, event: events.ImageProgress) -> None:
    """Images come before anything is recorded: there is no other row yet."""
    fetch = view.fetches.setdefault(event.image, Fetch(event.image, event.doing, began=event.at))
    fetch.doing, fetch.done, fetch.total = event.doing, event.done, event.total


def _fetched(view: Progress, event: events.ImageReady) -> None:
    view.fetches.pop(event.image, None)


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    events.ImageProgress: _fetching,
    events.ImageReady: _fetched,
    events.DeploymentStarted: _started,
    events.DeploymentFinished: _finished,
    events.PhaseCompleted: _phase,
    events.StepStarted: _step_started,
    events.StepFinished: _step_finished,
    events.ServiceSkipped: _skipped,
    events.InstanceChanged: _instance,
    events.RollbackStarted: _rollback,
}
