"""``deploy-code history`` and ``history show N``: read from the state alone, so a broken file does not
matter.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from deploy_code.cli.options import Group, Options
from deploy_code.cli.output import emit, has_color, paint, plain, write
from deploy_code.cli.reading import open_store, redactor_of
from deploy_code.cli.tables import Cell, table, terminal_width
from deploy_code.cli.times import iso, span, stamp
from deploy_code.errors import DeployCodeError

if TYPE_CHECKING:
    from deploy_code.security.redact import Redactor
    from deploy_code.state.rows import DeploymentRow, StepRow

_STYLES = {"completed": "green", "failed": "bold red", "rolled_back": "yellow", "in_progress": "cyan"}


class _History(Group):
    """``history 12`` is what people type for ``history show 12``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, ["show", *args] if args[0].isdigit() else args)


@click.group("history", cls=_History, data=True, invoke_without_command=True)
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(min=1),
    default=20,
    help="So many, newest first [default: 20].",
)
@click.pass_context
def history(ctx: click.Context, lines: int) -> None:
    """List past deployments, or show one.

    `good` are those that a rollback without a number returns to: all services were healthy together, nothing
    was forced.
    """
    if ctx.invoked_subcommand is None:
        _list(ctx.ensure_object(Options), lines)


def _list(options: Options, limit: int) -> None:
    with open_store(options) as store:
        clean = redactor_of(store)
        rows = [_cleaned(row, clean) for row in store.deployments(limit)] if store else []
    if options.is_text:
        write(_table(rows) if rows else "No deployments yet.")
    else:
        emit([_data(row) for row in rows], options, str)


def _cleaned(row: DeploymentRow, redactor: Redactor) -> DeploymentRow:
    """What was secret only later is hidden in what was recorded earlier too."""
    report = redactor.clean_data(row.report, names={*row.before, *row.after})
    return row._replace(origin=redactor.clean(row.origin), plan=redactor.clean(row.plan), report=report)


def _table(rows: list[DeploymentRow]) -> str:
    heads = ("NUMBER", "KIND", "STATUS", "GOOD", "WHEN", "TOOK", "WHO", "SERVICES CHANGED")
    return table(heads, [_cells(row) for row in rows], color=has_color(sys.stdout), width=terminal_width())


def _cells(row: DeploymentRow) -> tuple[str | Cell, ...]:
    return (
        str(row.number),
        row.kind + (" (forced)" if row.forced else ""),
        Cell(row.status.replace("_", " "), _STYLES.get(row.status, "")),
        "yes" if row.good else "",
        stamp(row.started_at),
        span(row.finished_at - row.started_at) if row.finished_at else "",
        row.who,
        ", ".join(row.services) or "none",
    )


def _data(row: DeploymentRow) -> dict[str, Any]:
    return {
        "number": row.number,
        "kind": row.kind,
        "status": row.status,
        "good": row.good,
        "forced": row.forced,
        "started_at": iso(row.started_at),
        "finished_at": iso(row.finished_at),
        "duration": round(row.finished_at - row.started_at, 3) if row.finished_at else None,
        "who": row.who,
        "command": row.origin,
        "environment": row.environment,
        "services_changed": list(row.services),
    }


# --------------------------------------------------------------------------- one of them


@history.command("show", data=True)
@click.argument("number", metavar="N", type=click.IntRange(min=1))
@click.pass_obj
def show(options: Options, number: int) -> None:
    """Show one deployment: its plan with causes, its steps, what failed and why."""
    with open_store(options) as store:
        found = store.deployment(number) if store else None
        steps = store.steps(number) if store else []
        clean = redactor_of(store)
    if found is None:
        raise click.UsageError(f"there is no deployment {number}; '{options.line('history')}' lists them")
    row = _cleaned(found, clean)
    steps = [step._replace(cause=clean.clean(step.cause), error=clean.clean(step.error)) for step in steps]
    emit(_full_data(row, steps), options, lambda: _full_text(row, steps))


def _full_data(row: DeploymentRow, steps: list[StepRow]) -> dict[str, Any]:
    return {
        **_data(row),
        "services": {
            name: {"revision": entry.revision, "replicas": entry.replicas} for name, entry in row.wanted.items()
        },
        "plan": row.plan.splitlines(),
        "steps": [_step_data(step) for step in steps],
        "report": row.report,
    }


def _step_data(step: StepRow) -> dict[str, Any]:
    took = round(step.finished_at - step.started_at, 3) if step.finished_at else None
    return {
        "step": step.step,
        "cause": step.cause,
        "started_at": iso(step.started_at),
        "duration": took,
        "error": step.error,
    }


def _full_text(row: DeploymentRow, steps: list[StepRow]) -> str:
    color = has_color(sys.stdout)
    status = paint(row.status.replace("_", " "), _STYLES.get(row.status, ""), color)
    good = ", good" if row.good else ""
    forced = ", forced" if row.forced else ""
    parts = [
        f"{row.kind} {row.number}: {status}{good}{forced}",
        f"  when     {stamp(row.started_at)}"
        + (f", {span(row.finished_at - row.started_at)}" if row.finished_at else ""),
        f"  who      {plain(row.who)}",
        f"  command  {plain(row.origin)}",
        *_section("Plan", [f"  {plain(line)}" for line in row.plan.splitlines()]),
        *_section("Steps", _step_lines(steps, color)),
        *_section("What failed", [plain(line) for line in failure_lines(row.report or {})]),
        *_section("Warnings", [f"  {plain(line)}" for line in (row.report or {}).get("warnings", ())]),
    ]
    return "\n".join(parts)


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"{title}:", *lines] if lines else []


def _step_lines(steps: list[StepRow], color: bool) -> list[str]:
    if not steps:
        return []
    rows = [
        (
            f"  {step.step}",
            span(step.finished_at - step.started_at) if step.finished_at else "not finished",
            Cell(step.error, "red") if step.error else step.cause,
        )
        for step in steps
    ]
    return table(("  STEP", "TOOK", "CAUSE"), rows, color=color, width=terminal_width()).splitlines()


def failure_lines(report: dict[str, Any]) -> list[str]:
    """The failure reports kept with a deployment, as they were shown; else its plain errors."""
    if not report.get("failures"):
        return [f"  {error}" for error in report.get("errors", ())]
    from deploy_code.codec import from_data
    from deploy_code.orchestrator.report import FailureReport

    try:
        told = [line for each in report["failures"] for line in from_data(FailureReport, each).render()]
    except (TypeError, ValueError) as error:
        raise DeployCodeError(
            f"the report of this deployment cannot be read: {error}",
            code="E012",
            meaning="Another version of deploy-code wrote it",
            remedy="Use `--format json` to see it as it is",
        ) from error
    text = "\n".join(told)
    return told + [error for error in report.get("errors", ()) if error.split("\n")[0] not in text]
