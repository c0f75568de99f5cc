"""``deploy-code rollback``"""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command, wait_option


@command("rollback", data=True)
@click.option("--to", metavar="N", type=click.IntRange(min=1), help="That deployment [default: the last good one].")
@wait_option()
@click.pass_obj
def rollback(options: Options, to: int | None, wait: bool) -> int:
    """Go back to an earlier deployment.

    Restores its services, commands, env, config and released code. Needs no valid file.
    """
    from deploy_code.cli.outcome import conclude
    from deploy_code.cli.run import run_engine

    report, ended = run_engine(options, options.app(wait=wait), lambda engine: engine.rollback(to))
    return conclude(options, report, ended, "rollback")
