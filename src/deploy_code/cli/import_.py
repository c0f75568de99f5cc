"""``deploy-code import``: files of other tools as a file of ours."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from deploy_code.cli.options import Group, Options, command
from deploy_code.cli.output import plain, say, write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deploy_code.config.compose.findings import Finding


@click.group("import", cls=Group)
def import_() -> None:
    """Make the file from another tool's."""


@command("compose")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write to this file.")
@click.option("--profile", "profiles", metavar="NAME", multiple=True, help="An active profile; repeated: several.")
@click.option(
    "--env-file",
    "env_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="Read variables from this file instead of .env; repeated: several.",
)
@click.pass_obj
def compose(
    options: Options, files: tuple[str, ...], output: str | None, profiles: tuple[str, ...], env_files: tuple[str, ...]
) -> None:
    """Make the file from Compose files.

    Several are merged as Compose merges them. Everything that changes its meaning or is dropped is told on
    standard error, one line each. A file that is there already is left alone, unless --force says otherwise.
    """
    from deploy_code.config.compose.importer import import_compose

    refuse_to_overwrite(output, options)
    folder = os.path.dirname(os.path.abspath(output)) if output else os.getcwd()
    done = import_compose(files, folder=folder, environ=os.environ, profiles=profiles, env_files=env_files)
    deliver(done.text, output, options)
    tell(done.findings, options)
    if output and not options.dry_run:
        where = f"-c {output} " if os.path.basename(output) != "deploy-code.yaml" or os.path.dirname(output) else ""
        say(f"Wrote {output}. Next: deploy-code {where}validate, then deploy-code {where}plan.", options)


import_.add_command(compose)


# --------------------------------------------------------------------------- shared with ``export``


def refuse_to_overwrite(output: str | None, options: Options) -> None:
    """What is there already is somebody's work."""
    if output and os.path.lexists(output) and not (options.force or options.dry_run):
        raise click.UsageError(f"{output} is there already and was left alone; --force writes over it")


def deliver(text: str, output: str | None, options: Options) -> None:
    """``text`` to the file, whole or not at all; without one, or with ``--dry-run``, to standard output."""
    if output is None or options.dry_run:
        write(text.rstrip("\n"))
        return
    beside = f"{output}.{os.getpid()}.new"
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, output)
    except OSError as error:
        with suppress(OSError):
            os.unlink(beside)
        raise click.UsageError(f"{output} cannot be written: {error.strerror}") from error


def tell(findings: Iterable[Finding], options: Options) -> None:
    """One line each."""
    for finding in findings:
        say(plain(str(finding)), options, level="warn", style="yellow")
