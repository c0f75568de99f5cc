"""``deploy-code plan``"""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command, services_option

CHANGES = 2


@command("plan", data=True)
@services_option("Only these, and what they depend on that is not healthy")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 0: nothing to do, 2: changes, 1: any error.")
@click.pass_obj
def plan(options: Options, services: tuple[str, ...], detailed_exitcode: bool) -> int:
    """Show what deploy would do, and why.

    Every step with its cause, in the order in which deploy walks them. Changes nothing, starts nothing.
    """
    from deploy_code.cli.outcome import show_text
    from deploy_code.cli.output import emit
    from deploy_code.cli.run import run_engine

    options.dry_run = True
    found, _ = run_engine(options, options.app(), lambda engine: engine.plan(list(services) or None), live=False)
    if options.is_text:
        show_text(str(found))
    else:
        emit(found.to_dict(), options, str)
    return CHANGES if detailed_exitcode and not found.is_empty else 0
