"""``deploy-code stop``"""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command, services_option, wait_option
from deploy_code.cli.output import emit


@command("stop", data=True)
@services_option("Only these [default: all]")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="How long each service may take before it is killed [default: its own stop_timeout_seconds, 30].",
)
@wait_option()
@click.pass_obj
def stop(options: Options, services: tuple[str, ...], timeout: float | None, wait: bool) -> int:
    """Stop services, dependents first.

    They stay stopped, over restarts of the agent and the machine, until the next deploy. Needs no valid file.
    """
    from deploy_code.cli.outcome import conclude
    from deploy_code.cli.run import run_engine

    report, ended = run_engine(
        options, options.app(wait=wait), lambda engine: engine.stop(timeout, list(services) or None)
    )
    if report is None:
        emit(None, options, lambda: "Nothing to stop: this project was never deployed.")
        return 0
    return conclude(options, report, ended, "stop")
