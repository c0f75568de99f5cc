"""Values to JSON columns and back. Needs ``model`` only where a value of the model is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from deploy_code.state.rows import DeploymentRow, MapEntry, ServiceMap

if TYPE_CHECKING:
    from deploy_code.model import Policy, ServiceSpec

T = TypeVar("T")


def dump(data: Any) -> str:
    """Compact and stable JSON: equal values give equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def dump_value(value: Any) -> str:
    """A value of the model as JSON."""
    from deploy_code.codec import to_data

    return dump(to_data(value))


def load_value(kind: type[T], text: str) -> T:
    """The inverse of ``dump_value``."""
    from deploy_code.codec import from_data

    return from_data(kind, json.loads(text))


def policy_digest(policy: Policy) -> str:
    """The name of a policy in the state: sha256 of its canonical text, 64 hex digits."""
    return policy_row(policy)[0]


def policy_row(policy: Policy) -> tuple[str, str]:
    import hashlib

    text = dump_value(policy)
    return hashlib.sha256(text.encode()).hexdigest(), text


def revision_row(number: int, spec: ServiceSpec, created_at: float) -> tuple[Any, ...]:
    return spec.name, number, spec.run_hash, dump_value(spec.content), dump(spec.secrets), created_at


def dump_map(entries: ServiceMap) -> str:
    return dump({service: entry._asdict() for service, entry in entries.items()})


def load_map(text: str) -> dict[str, MapEntry]:
    return {service: MapEntry(**entry) for service, entry in json.loads(text).items()}


def deployment_row(row: Mapping[str, Any]) -> DeploymentRow:
    return DeploymentRow(
        number=row["number"],
        kind=row["kind"],
        status=row["status"],
        good=bool(row["good"]),
        forced=bool(row["forced"]),
        rollback_on_failure=bool(row["rollback_on_failure"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        who=row["who"],
        origin=row["origin"],
        environment=row["environment"],
        services=tuple(json.loads(row["services"])),
        before=load_map(row["before"]),
        after=load_map(row["after"]),
        final=None if row["final"] is None else load_map(row["final"]),
        plan=row["plan"],
        report=json.loads(row["report"]),
        settings=json.loads(row["settings"]),
    )
