"""``deploy-code scale``"""

from __future__ import annotations

import click

from deploy_code.cli.names import complete_names
from deploy_code.cli.options import Options, command, wait_option


def _counts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    return dict(_count(value) for value in values)


def _count(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not (name and equals and number.isascii() and number.isdigit()):
        raise click.BadParameter(f"{text!r} is not of the form SERVICE=COUNT, such as web=3")
    return name, int(number)


@command("scale", data=True)
@click.argument(
    "counts",
    metavar="SERVICE=COUNT...",
    nargs=-1,
    required=True,
    callback=_counts,
    shell_complete=complete_names,
)
@wait_option()
@click.pass_obj
def scale(options: Options, counts: dict[str, int], wait: bool) -> int:
    """Set how many instances a service has.

    Where the file has `replicas`, its number wins again at the next deploy; where it has none, this one
    stays.
    """
    from deploy_code.cli.outcome import conclude
    from deploy_code.cli.run import run_engine

    report, ended = run_engine(options, options.app(wait=wait), lambda engine: engine.scale(counts))
    return conclude(options, report, ended, "scale")
