"""``deploy-code restart``"""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command, services_option, wait_option


@command("restart", data=True)
@services_option("Only these [default: all]")
@wait_option()
@click.pass_obj
def restart(options: Options, services: tuple[str, ...], wait: bool) -> int:
    """Start services anew, in dependency order.

    The same revision again, each gated on health before its dependents follow.
    """
    from deploy_code.cli.outcome import conclude
    from deploy_code.cli.run import run_engine

    report, ended = run_engine(options, options.app(wait=wait), lambda engine: engine.restart(list(services) or None))
    return conclude(options, report, ended, "restart")
