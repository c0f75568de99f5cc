"""``deploy-code stop``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deploy_code.cli.options import Options, command, services_option, wait_option
from deploy_code.cli.output import emit, say, say_warnings

if TYPE_CHECKING:
    from deploy_code.app import App
    from deploy_code.orchestrator.leavings import Leavings


@command("stop", data=True)
@services_option("Only these [default: all]")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="How long each service may take before it is killed [default: its own stop_timeout_seconds, 30].",
)
@click.option("--volumes", is_flag=True, help="Remove the containers' named volumes too, with all data; asks first.")
@click.option("-y", "--yes", is_flag=True, help="With --volumes: remove them without being asked.")
@wait_option()
@click.pass_obj
def stop(
    options: Options, services: tuple[str, ...], timeout: float | None, volumes: bool, yes: bool, wait: bool
) -> int:
    """Stop services, dependents first.

    They stay stopped, over restarts of the agent and the machine, until the next deploy. Needs no valid file.
    """
    from deploy_code.cli.outcome import conclude
    from deploy_code.cli.run import run_engine

    app = options.app(wait=wait)
    doomed = _doomed(options, app, services, yes) if volumes else None
    report, ended = run_engine(options, app, lambda engine: engine.stop(timeout, list(services) or None))
    if report is None:
        emit(None, options, lambda: "Nothing to stop: this project was never deployed.")
        return 0
    code = conclude(options, report, ended, "stop")
    if doomed is not None and code == 0 and not options.dry_run:
        _remove(options, app, doomed, wait)
    return code


def _doomed(options: Options, app: App, services: tuple[str, ...], yes: bool) -> Leavings | None:
    """The volumes that go when all has stopped; asked about first, so that a no stops nothing either."""
    from deploy_code.cli.asking import is_wanted
    from deploy_code.cli.prune import run

    if services:
        raise click.UsageError("--volumes removes the volumes of the whole project: leave --services out")
    if not app.has_state():
        return None
    found = run(app.named_volumes().look())
    if not found.items:
        say("This project has no named volumes.", options)
        return None
    if options.dry_run:
        say(f"Would be removed with all data: {found.names}", options, level="error")
        return None
    say(f"All data in these volumes will be lost: {found.names}", options, level="error", style="yellow")
    if not is_wanted("Stop everything and remove them?", yes):
        raise click.Abort
    return found


def _remove(options: Options, app: App, doomed: Leavings, wait: bool) -> None:
    from deploy_code.cli.prune import CUT_SHORT, run

    gone = run(app.named_volumes().remove(doomed, wait=wait), cut_short=CUT_SHORT)
    say_warnings(gone.warnings, options)
    say(f"Removed {gone.names or 'no volume'}.", options)
