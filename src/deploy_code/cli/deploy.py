"""``deploy-code deploy``"""

from __future__ import annotations

import click

from deploy_code.cli.options import Options, command, services_option, split_names, wait_option

PHASES = ("validation", "resources", "network", "storage", "health", "monitoring", "logging")


def _phases(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    names = split_names(ctx, param, values)
    wrong = [name for name in names if name not in PHASES]
    if wrong:
        raise click.BadParameter(f"there is no phase {wrong[0]!r} to skip; there are {', '.join(PHASES)}")
    return names


@command("deploy", data=True)
@services_option("Only these, and what they depend on that is not healthy")
@click.option(
    "--skip-phases",
    metavar="PHASES",
    multiple=True,
    callback=_phases,
    help=f"Leave out any of {', '.join(PHASES)}; comma-separated or repeated.",
)
@click.option("--no-rollback", is_flag=True, help="When it fails, leave everything as it then stands.")
@wait_option()
@click.option("--adopt", is_flag=True, help="Take over a project of this name that was deployed from another file.")
@click.option(
    "--rerun",
    metavar="NAMES",
    multiple=True,
    callback=split_names,
    help="One-shots to run once more although they have run.",
)
@click.pass_obj
def deploy(
    options: Options,
    services: tuple[str, ...],
    skip_phases: tuple[str, ...],
    no_rollback: bool,
    wait: bool,
    adopt: bool,
    rerun: tuple[str, ...],
) -> int:
    """Bring the services to what the file says.

    In dependency order, gated on health; when one fails, everything that this deployment changed is put back.
    Ctrl-C once undoes it in an orderly way, twice stops at once.
    """
    from deploy_code.cli.outcome import conclude
    from deploy_code.cli.run import run_engine

    app = options.app(no_rollback=no_rollback, wait=wait, adopt=adopt)
    report, ended = run_engine(
        options,
        app,
        lambda engine: engine.deploy(list(services) or None, list(skip_phases) or None, rerun=rerun),
    )
    return conclude(options, report, ended)
