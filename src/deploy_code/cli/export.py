"""``deploy-code export``: our file as one of another tool."""

from __future__ import annotations

import os

import click

from deploy_code.cli.import_ import deliver, refuse_to_overwrite, tell
from deploy_code.cli.options import Group, Options, command
from deploy_code.cli.output import say


@click.group("export", cls=Group)
def export() -> None:
    """Make another tool's file from this one."""


@command("compose")
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write to this file.")
@click.pass_obj
def compose(options: Options, output: str | None) -> None:
    """Make a Compose file.

    For docker-compose 1.29 and newer. Variables stay variables. Everything that cannot be said there is told on
    standard error, one line each. A file that is there already is left alone, unless --force says otherwise.
    """
    from deploy_code.config import load_config
    from deploy_code.config.compose.exporter import export_compose

    refuse_to_overwrite(output, options)
    config = load_config(options.files, registered=None)
    folder = os.path.dirname(os.path.abspath(output)) if output else os.getcwd()
    done = export_compose(config, folder=folder)
    deliver(done.text, output, options)
    tell(done.findings, options)
    if output and not options.dry_run:
        say(f"Wrote {output}.", options)


export.add_command(compose)
