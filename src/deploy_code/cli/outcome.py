"""How the end of a deployment is told: one line when it went well, the root cause first when it did not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from deploy_code.cli.output import INTERRUPTED, emit, has_color, paint, plain, say, say_warnings, write
from deploy_code.cli.times import span

if TYPE_CHECKING:
    from deploy_code.cli.options import Options
    from deploy_code.cli.run import Outcome
    from deploy_code.orchestrator import DeploymentReport

Redact = Callable[[str], str]


def conclude(options: Options, report: DeploymentReport, ended: Outcome, verb: str = "deploy") -> int:
    """Print what came of it; the exit code: 0 done, 1 failed or rolled back, 130 after Ctrl-C."""
    say_warnings((each for each in report.warnings if each not in ended.warned), options)
    if is_dry(report):
        plan = report.plan
        emit(plan.to_dict() if plan else {}, options, lambda: str(plan))
        return 0
    emit(report.to_dict(), options, lambda: success_line(report, verb) if report.success else "")
    if report.success:
        return 0
    tell_failure(options, report, verb)
    return INTERRUPTED if ended.interrupted else 1


def is_dry(report: DeploymentReport) -> bool:
    """A dry run hands back a plan and no number of a deployment."""
    return report.success and report.plan is not None and report.deployment == 0


def success_line(report: DeploymentReport, verb: str = "deploy") -> str:
    on = has_color(sys.stdout)
    count = f"{report.deployed_services} of {report.total_services} {_services(report.total_services)}"
    if report.plan is not None and report.plan.is_empty:
        return paint(f"Nothing to {verb}: {count} already as wanted.", "green", on)
    number = f" {report.deployment}" if report.deployment else ""
    done = f"{verb}{number} completed in {span(report.duration)}"
    return paint(f"{done}." if verb == "stop" else f"{done}: {count} ready.", "green", on)


def tell_failure(options: Options, report: DeploymentReport, verb: str) -> None:
    """The failure report on stderr: evidence of each failure, what else went wrong, then how it ended and
    where to look.
    """
    told: list[str] = []
    for failure in report.failures:
        told += failure.render()
        _block(failure.render(), options)
    _block(_untold(report, told), options)
    say(_ending(report, verb), options, level="error", style="bold red")
    for hint in _hints(options, report):
        say(f"  {hint}", options, level="error")


def _block(lines: Iterable[str], options: Options) -> None:
    on = has_color(sys.stderr, options)
    shown = [plain(line) for line in lines]
    if not shown:
        return
    head, colon, tail = shown[0].partition(":")
    say("\n".join((paint(head, "bold red", on) + colon + tail, *shown[1:], "")), options, level="error")


def _untold(report: DeploymentReport, told: Iterable[str]) -> list[str]:
    """Errors that no failure report has said; who was skipped because of another is said there."""
    text = "\n".join(told)
    skips_told = any(failure.skipped for failure in report.failures)
    left = (error for error in report.errors if error.split("\n")[0] not in text)
    return [error for error in left if not (skips_told and error.startswith("E007"))]


def _ending(report: DeploymentReport, verb: str) -> str:
    how = {
        "rolled_back": "failed and was rolled back: everything it changed is as it was before",
        "failed": "failed",
        "completed": "completed with errors",
    }.get(report.status, str(report.status).replace("_", " "))
    number = f" {report.deployment}" if report.deployment else ""
    return f"{verb}{number} {how} ({span(report.duration)})."


def _hints(options: Options, report: DeploymentReport) -> list[str]:
    hints = [options.line(f"history show {report.deployment}")] if report.deployment else []
    if not any(failure.remedies for failure in report.failures):  # they name the log themselves
        hints = [options.line(f"logs {failure.service}") for failure in report.failures[:1]] + hints
    return [f"See more: {hint}" for hint in hints]


def _services(count: int) -> str:
    return "service" if count == 1 else "services"


def show_text(text: str) -> None:
    """A piece of text as data, its lines safe for a terminal."""
    write("\n".join(plain(line) for line in text.splitlines()))


def refuse_dry_run(options: Options, verb: str) -> None:
    """These act on what was recorded and have no dry run: better no than a run that is not dry."""
    if options.dry_run:
        raise click.UsageError(f"{verb} has no dry run; nothing was done. 'plan' shows what deploy would do")
