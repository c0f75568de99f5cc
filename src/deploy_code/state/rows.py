"""What the state answers with: named tuples, as commands that only read must not pay for dataclasses.

JSON columns come decoded; points in time are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from deploy_code.model import Policy, ServiceSpec


class ProjectRow(NamedTuple):
    """Whose state this is. ``file``: real path of the config file; ``log_dir``: where instance logs lie."""

    name: str
    file: str
    environment: str
    log_dir: str
    created_at: float


class MapEntry(NamedTuple):
    """What is wanted of one service: content by revision, policy by digest.

    ``replicas`` counts, not the one in the policy: scaling changes it alone. ``stopped``: it is to be down.
    ``ready``: in a map of what was before, whether it was healthy: what was not is restored without a gate.
    """

    revision: int
    policy: str
    replicas: int = 1
    stopped: bool = False
    ready: bool = True


ServiceMap = Mapping[str, MapEntry]


class NewDeployment(NamedTuple):
    """A deployment about to begin. ``revisions`` and ``policies`` are recorded with it."""

    kind: str  # deploy | stop | restart | scale | rollback
    who: str  # "user@host pid N"
    before: ServiceMap
    after: ServiceMap
    services: tuple[str, ...] = ()  # what this run may touch
    origin: str = ""  # the command, secrets redacted
    environment: str = ""
    forced: bool = False
    rollback_on_failure: bool = True
    plan: str = ""  # str(plan), secrets redacted
    revisions: Iterable[tuple[int, ServiceSpec]] = ()
    policies: Iterable[Policy] = ()
    settings: Mapping[str, Any] = MappingProxyType({})  # model.Settings as data
    started_at: float = 0.0  # 0: now


class DeploymentRow(NamedTuple):
    """One recorded run. ``final``: the map that held at its end; None while it runs and after a crash."""

    number: int
    kind: str
    status: str  # in_progress | completed | failed | rolled_back
    good: bool  # completed phase "health", not forced
    forced: bool
    rollback_on_failure: bool
    started_at: float
    finished_at: float | None
    who: str
    origin: str
    environment: str
    services: tuple[str, ...]
    before: dict[str, MapEntry]
    after: dict[str, MapEntry]
    final: dict[str, MapEntry] | None
    plan: str
    report: dict[str, Any]
    settings: dict[str, Any]

    @property
    def wanted(self) -> dict[str, MapEntry]:
        """The map that holds because of this deployment: the final one, or what was there before it."""
        return self.before if self.final is None else self.final


class WantedRow(NamedTuple):
    """One entry of the agent's wanted set; ``policy`` is model.Policy as data."""

    service: str
    revision: int
    replicas: int
    policy: dict[str, Any]
    deployment: int
    settled: bool


class StepRow(NamedTuple):
    """One line of the trace; ``finished_at`` None: not over, or its end was lost in a crash."""

    position: int
    step: str
    cause: str
    started_at: float
    finished_at: float | None
    error: str


class EventRow(NamedTuple):
    """One event; ``source`` is "engine" or "agent", and each counts its own ids."""

    at: float
    source: str
    id: int
    deployment: int
    service: str
    name: str
    text: str
    who: str


class EventCursor(NamedTuple):
    """How far somebody has read: hand it back as ``after`` to get only what is newer."""

    engine: int = 0
    agent: int = 0

    def past(self, rows: Iterable[EventRow]) -> EventCursor:
        """The cursor once ``rows`` have been read."""
        engine, agent = self
        for row in rows:
            if row.source == "engine":
                engine = max(engine, row.id)
            else:
                agent = max(agent, row.id)
        return EventCursor(engine, agent)


class CircuitRow(NamedTuple):
    """A breaker of the agent that is not closed. ``retry_at`` 0: a try is under way."""

    protects: str
    state: str  # open | half-open
    retry_at: float
    reason: str


class OneShotRow(NamedTuple):
    """One run of a one-shot; ``outcome`` unknown: interrupted, only an explicit deploy runs it again."""

    service: str
    run_hash: str
    outcome: str  # started | completed | failed | unknown
    exit_code: int | None
    started_at: float
    finished_at: float | None
