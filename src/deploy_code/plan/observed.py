"""What the planner is given: what is to be (``Target``) and what was found (``Observed``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy_code.model import Drift, Instance, Phase, ServiceSpec, Settings
from deploy_code.plan.plan import Goal

if TYPE_CHECKING:
    from deploy_code.plan.rollouts.custom import CustomRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedService:
    """``goal``: what was wanted last, as recorded; ``wanted``: what the agent's set says, revision → count.

    ``drifts``: where its instances are not as their revision says; what is missing the counts tell.
    """

    goal: Goal | None = None
    wanted: Mapping[int, int] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    drifts: tuple[Drift, ...] = ()

    @property
    def revisions(self) -> set[int]:
        """Every revision of which something is wanted or left."""
        return {revision for revision, count in self.wanted.items() if count} | {
            instance.revision for instance in self.instances
        }

    def ready(self, revision: int) -> int:
        return sum(1 for each in self.instances if each.revision == revision and each.phase is Phase.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that was found. ``completed``: one-shots that ended well, as (service, run hash).

    ``extra``: what runs for this project and is no instance.
    """

    services: Mapping[str, ObservedService] = field(default_factory=dict)
    revisions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    latest: Mapping[str, int] = field(default_factory=dict)
    completed: frozenset[tuple[str, str]] = frozenset()
    extra: tuple[Drift, ...] = ()

    def of(self, service: str) -> ObservedService:
        return self.services.get(service, _NOTHING)

    def revision_of(self, spec: ServiceSpec) -> int:
        """The number of this content: the recorded one, or the next free one."""
        return self.revisions.get((spec.name, spec.run_hash)) or self.latest.get(spec.name, 0) + 1


_NOTHING = ObservedService()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be. ``goals`` holds every service of the project as it shall be in the end.

    ``only``: restrict the run to these services and to what of their dependencies is not ready (None: all).
    ``recreate``: these start anew even if nothing about them changed. ``ungated``: restored without a gate.
    ``strategy``: a custom one that is to decide over all of the run, "" where none is. ``rollouts``: by name, for
    services that ask for one.
    """

    project: str
    kind: str = "deploy"
    goals: Mapping[str, Goal] = field(default_factory=dict)
    settings: Settings = Settings()
    only: frozenset[str] | None = None
    recreate: frozenset[str] = frozenset()
    ungated: frozenset[str] = frozenset()
    rerun: frozenset[str] = frozenset()
    run_one_shots: bool = True
    strategy: str = ""
    rollouts: Mapping[str, CustomRollout] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
