"""Turns an error into a failure report, before the rollback wipes the evidence (DESIGN §1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy_code.codec import from_data, to_data
from deploy_code.errors import DeployCodeError
from deploy_code.model import Instance
from deploy_code.orchestrator.operations import NotReadyError
from deploy_code.orchestrator.report import FailureReport

if TYPE_CHECKING:
    from deploy_code.orchestrator.parts import Parts

LOG_LINES = 20


async def explain(parts: Parts, service: str, error: DeployCodeError, skipped: tuple[str, ...]) -> FailureReport:
    """Root cause and evidence of one failed service. Never raises for evidence that cannot be had."""
    instance = error.instance if isinstance(error, NotReadyError) else None
    report = FailureReport(
        service=service,
        code=error.code,
        message=error.text,
        skipped=skipped,
        remedies=tuple(_remedies(service, error, instance)),
    )
    if instance is None:
        return _redacted(parts, report)
    listening = await _listening(parts, instance)
    evidence = FailureReport(
        service=service,
        code=error.code,
        message=error.text,
        instance=f"{service} r{instance.revision} #{instance.index}",
        exit=instance.exit,
        probe=instance.probe,
        log_lines=_log_lines(instance),
        log_path=instance.log_path,
        listening=listening,
        skipped=skipped,
        remedies=tuple(_remedies(service, error, instance, listening)),
    )
    return _redacted(parts, evidence)


def _redacted(parts: Parts, report: FailureReport) -> FailureReport:
    return from_data(FailureReport, parts.redactor.clean_data(to_data(report)))


async def _listening(parts: Parts, instance: Instance) -> tuple[str, ...]:
    try:
        found = await parts.platform.inspect(instance)
    except DeployCodeError as exc:
        parts.warn(f"what {instance.service} listens on could not be found out: {exc}", service=instance.service)
        return ()
    return tuple(found.get("listening", ()))


def _log_lines(instance: Instance) -> tuple[str, ...]:
    from deploy_code.logs.read import read_from

    if not instance.log_path:
        return ()
    return tuple(read_from(instance.log_path, instance.log_offset, LOG_LINES))


def _remedies(
    service: str, error: DeployCodeError, instance: Instance | None, listening: tuple[str, ...] = ()
) -> list[str]:
    found = [error.remedy] if error.remedy else []
    ports = {str(number) for number in instance.ports.values()} if instance else set()
    elsewhere = [each for each in listening if each.rpartition(":")[2] not in ports]
    if error.code == "E006" and ports and elsewhere and len(elsewhere) == len(listening):
        found.append(
            f"{service} listens on {', '.join(elsewhere)}, but is expected on port {', '.join(sorted(ports))}: "
            "let it take its port from ${PORT}, or correct `ports`"
        )
    if instance is not None:
        found.append(f"See more of its log: deploy-code logs {service}")
    return found
