"""What a deployment says at its end: numbers, errors, and for each failure the root cause with its evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deploy_code.codec import to_data
from deploy_code.errors import title
from deploy_code.model import Exit, ProbeResult
from deploy_code.services.status import DeploymentStatus

if TYPE_CHECKING:
    from deploy_code.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """Why one service failed, with what was seen before the rollback wiped it (DESIGN §1.5). Secrets are redacted."""

    service: str
    code: str
    message: str
    instance: str = ""  # "api r8 #0"
    exit: Exit | None = None
    probe: ProbeResult | None = None
    log_lines: tuple[str, ...] = ()
    log_path: str = ""
    listening: tuple[str, ...] = ()  # what it really listens on
    skipped: tuple[str, ...] = ()  # who did not start because of it
    remedies: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{title(self.code)}: {self.message}"

    def render(self) -> list[str]:
        """Lines for people, root cause first."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield str(self)
        if self.instance:
            yield f"  instance:   {self.instance}" + (f", {self.exit}" if self.exit else "")
        if self.probe is not None:
            yield f"  last probe: {_probe_text(self.probe)}"
        if self.instance:
            yield f"  listens on: {', '.join(self.listening) or 'nothing'}"
        if self.skipped:
            yield f"  skipped:    {', '.join(self.skipped)} (need {self.service})"
        if self.log_lines:
            yield f"  last lines of its log ({self.log_path}):"
            yield from (f"    | {line}" for line in self.log_lines)
        elif self.instance:
            yield "  its log is empty"
        for remedy in self.remedies:
            yield f"  → {remedy}"


def _probe_text(probe: ProbeResult) -> str:
    status = f" {probe.status}" if probe.status is not None else ""
    detail = f": {probe.detail}" if probe.detail else ""
    return f"{probe.kind} {probe.target} {'passed' if probe.ok else 'failed'}{status}{detail}"


@dataclass(slots=True, kw_only=True)
class DeploymentReport:
    """How a deployment ended.

    Counts are of services in this run: ``deployed`` = at the wanted revision and ready, unchanged ones included.
    ``errors`` and ``warnings`` are texts, each error led by its code. ``duration`` in seconds. On a dry run
    ``plan`` is set and nothing was deployed.
    """

    success: bool = False
    total_services: int = 0
    deployed_services: int = 0
    failed_services: int = 0
    warnings: list[str] = field(default_factory=list)
    duration: float = 0.0
    phases_completed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    status: DeploymentStatus = DeploymentStatus.NOT_STARTED
    deployment: int = 0
    plan: Plan | None = field(default=None, repr=False)  # its goals hold env
    failures: list[FailureReport] = field(default_factory=list)

    @classmethod
    def succeeded(cls, **values: Any) -> DeploymentReport:
        """A report of success; any field may be given."""
        return cls(**{"success": True, "status": DeploymentStatus.COMPLETED, **values})

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what history keeps and ``--format json`` prints."""
        plain = (
            "success",
            "total_services",
            "deployed_services",
            "failed_services",
            "duration",
            "deployment",
        )
        return {
            **{name: getattr(self, name) for name in plain},
            "status": str(self.status),
            "warnings": list(self.warnings),
            "errors": list(self.errors),
            "phases_completed": list(self.phases_completed),
            "failures": [to_data(failure) for failure in self.failures],
            "plan": self.plan.to_dict() if self.plan is not None else None,
        }
