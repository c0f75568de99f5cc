"""What the state can be asked. One method a question; commands that only read use nothing else.

Only what is asked for is paid for: no method here imports the model unless it hands out values of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from deploy_code.state.connection import Connection
from deploy_code.state.encode import deployment_row, dump, load_map, load_value
from deploy_code.state.rows import (
    CircuitRow,
    DeploymentRow,
    EventCursor,
    EventRow,
    MapEntry,
    OneShotRow,
    ProjectRow,
    ServiceMap,
    StepRow,
    WantedRow,
)

if TYPE_CHECKING:
    from deploy_code.model import Content, Instance, Policy, ServiceSpec

Pair = tuple[str, int]  # service, revision


class Questions:
    """Everything that may be read. All methods raise ``StateError`` (see ``Connection``)."""

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    # ------------------------------------------------------------------ the project and its deployments

    def project(self) -> ProjectRow | None:
        """Whose state this is."""
        row = self._sql.one("project")
        return ProjectRow(*row) if row else None

    def current_map(self) -> dict[str, MapEntry]:
        """What is wanted: where the last deployment ended; while it runs or after a crash, where it began."""
        row = self._sql.one("current_map")
        return load_map(row[0]) if row else {}

    def deployment(self, number: int) -> DeploymentRow | None:
        return self._deployment("deployment", (number,))

    def running_deployment(self) -> DeploymentRow | None:
        """The one recorded as running. Whether somebody still works on it only the lock can tell."""
        return self._deployment("running_deployment")

    def last_deployment(self) -> DeploymentRow | None:
        return self._deployment("last_deployment")

    def last_good(self, before: int | None = None) -> DeploymentRow | None:
        """The newest that completed phase "health" unforced; ``before``: older than that number."""
        return self._deployment("last_good", {"before": before})

    def deployments(self, limit: int = 20) -> list[DeploymentRow]:
        """Newest first."""
        return [deployment_row(row) for row in self._sql.mappings("deployments", (limit,))]

    def _deployment(self, name: str, parameters: Any = ()) -> DeploymentRow | None:
        rows = self._sql.mappings(name, parameters)
        return deployment_row(rows[0]) if rows else None

    def steps(self, deployment: int) -> list[StepRow]:
        """The trace of one deployment, in the order of its plan."""
        return [StepRow(*row) for row in self._sql.all("steps", (deployment,))]

    def events(
        self,
        *,
        since: float | None = None,
        limit: int | None = None,
        service: str | None = None,
        after: EventCursor | None = None,
    ) -> list[EventRow]:
        """Events of engine and agent in the order of their time, oldest first; ``limit`` keeps the newest."""
        cursor = after or EventCursor()
        parameters = {
            "since": since or 0.0,
            "limit": -1 if limit is None else limit,
            "service": service,
            "engine": cursor.engine,
            "agent": cursor.agent,
        }
        return [EventRow(*row) for row in self._sql.all("events", parameters)]

    # ------------------------------------------------------------------ what services are made of

    def known_revisions(self) -> dict[tuple[str, str], int]:
        """(service, run hash) → revision number."""
        return {(service, digest): number for service, digest, number in self._sql.all("known_revisions")}

    def latest_revisions(self) -> dict[str, int]:
        """Service → highest revision number ever given."""
        return dict(self._sql.all("latest_revisions"))

    def revision_numbers(self, specs: Iterable[ServiceSpec]) -> dict[str, int]:
        """Service → the number of this very content, or the next free one when it is new."""
        known, latest = self.known_revisions(), self.latest_revisions()
        return {spec.name: known.get((spec.name, spec.run_hash)) or latest.get(spec.name, 0) + 1 for spec in specs}

    def content(self, service: str, number: int) -> tuple[Content, tuple[str, ...]]:
        """What a revision is made of, and its secrets. Raises ``KeyError`` when there is no such revision."""
        return self.contents([(service, number)])[service, number]

    def contents(self, pairs: Iterable[Pair]) -> dict[Pair, tuple[Content, tuple[str, ...]]]:
        """Many revisions at once; unknown ones are not in the answer."""
        from deploy_code.model import Content

        rows = self._sql.all("contents", (dump(list(pairs)),))
        return {
            (service, number): (load_value(Content, content), tuple(json.loads(secrets)))
            for service, number, content, secrets in rows
        }

    def revisions(self) -> list[Pair]:
        """All that are recorded, by service and number."""
        return [(service, number) for service, number in self._sql.all("revisions")]

    def good_maps(self, limit: int) -> list[dict[str, MapEntry]]:
        """What the newest good deployments left, newest first."""
        return [load_map(row[0]) for row in self._sql.all("good_maps", (limit,))]

    def images(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What is remembered of these images, by ID; unknown ones are not in the answer."""
        rows = self._sql.all("images", (dump(list(ids)),))
        return {key: json.loads(facts) for key, facts in rows}

    def image_ids(self) -> set[str]:
        """Every image that was ever looked at for this project."""
        return {row[0] for row in self._sql.all("image_ids")}

    def policies(self, digests: Iterable[str]) -> dict[str, Policy]:
        """Policies by digest; unknown ones are not in the answer."""
        from deploy_code.model import Policy

        rows = self._sql.all("policies", (dump(sorted(set(digests))),))
        return {digest: load_value(Policy, policy) for digest, policy in rows}

    def specs(self, entries: ServiceMap) -> dict[str, ServiceSpec]:
        """Map entries as full specs, with the entry's ``replicas``. Raises ``KeyError`` if unknown."""
        from dataclasses import replace

        from deploy_code.model import ServiceSpec

        contents = self.contents((service, entry.revision) for service, entry in entries.items())
        policies = self.policies(entry.policy for entry in entries.values())
        specs = {}
        for service, entry in entries.items():
            content, secrets = contents[service, entry.revision]
            policy = policies[entry.policy]
            if policy.replicas != entry.replicas:
                policy = replace(policy, replicas=entry.replicas)
            specs[service] = ServiceSpec(name=service, content=content, policy=policy, secrets=secrets)
        return specs

    def secrets(self) -> set[str]:
        """Every secret value that any revision ever had: what no output may show."""
        return {row[0] for row in self._sql.all("secrets")}

    def resolved_get(self, digest: str) -> str | None:
        """A resolved config by the digest of its inputs, from the cache."""
        row = self._sql.one("resolved_get", (digest,))
        return row[0] if row else None

    # ------------------------------------------------------------------ what the agent recorded

    def instances(self) -> list[Instance]:
        from deploy_code.codec import from_data
        from deploy_code.model import Instance

        return [from_data(Instance, data) for data in self.instance_data()]

    def instance_data(self) -> list[dict[str, Any]]:
        """The same as plain data, defaults left out: for commands that must start fast."""
        return [json.loads(row[0]) for row in self._sql.all("instances")]

    def wanted_rows(self) -> list[WantedRow]:
        """The agent's wanted set."""
        rows = self._sql.all("wanted")
        return [
            WantedRow(service, revision, replicas, json.loads(policy), deployment, bool(settled))
            for service, revision, replicas, policy, deployment, settled in rows
        ]

    def circuits(self) -> list[CircuitRow]:
        """The agent's breakers that are not closed; only as true as an agent is there."""
        return [CircuitRow(*row) for row in self._sql.all("circuits")]

    def one_shots(self) -> list[OneShotRow]:
        """Every run of a one-shot, oldest first."""
        return [OneShotRow(*row) for row in self._sql.all("one_shots")]

    def completed_one_shots(self) -> set[tuple[str, str]]:
        """(service, run hash) of those that need not run again."""
        return {(service, digest) for service, digest in self._sql.all("completed_one_shots")}
