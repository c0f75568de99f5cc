"""``deploy-code recover``; also what the agent runs when a deployment was left behind by its process."""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import emit


@command("recover", data=True)
@click.argument("number", metavar="[N]", required=False, type=click.IntRange(min=1))
@click.option("--resume", is_flag=True, help="Go on to what it wanted, instead of back to what was before.")
@click.option("--state-dir", metavar="DIR", hidden=True, help="The project's own folder, for the agent.")
@click.pass_obj
def recover(options: Options, number: int | None, resume: bool, state_dir: str | None) -> int:
    """Finish or undo an interrupted deployment.

    Every command that changes something does this first, and the agent by itself after three seconds.
    """
    from deploy_code.cli.outcome import conclude, refuse_dry_run
    from deploy_code.cli.run import run_engine

    refuse_dry_run(options, "recover")
    app = options.app(state_dir=state_dir)
    report, ended = run_engine(options, app, lambda engine: engine.recover(number, resume=resume))
    if report is None:
        emit(None, options, lambda: "Nothing to recover: no deployment was interrupted.")
        return 0
    return conclude(options, report, ended, "recover")
