"""``deploy-code health``"""

from __future__ import annotations

import sys

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import has_color, paint, plain, write
from deploy_code.cli.reading import open_store
from deploy_code.orchestrator.health_text import health_text, render

UNHEALTHY = 4

__all__ = ["health", "render"]


@command("health", data=True)
@click.pass_obj
def health(options: Options) -> int:
    """Show overall health and what is wrong.

    Exit 0 when all is healthy, 4 when not.
    """
    from deploy_code.cli.status import read
    from deploy_code.orchestrator.status import health_of

    app = options.app()
    with open_store(options, app) as store:
        data = health_of(read(app, store))
    if options.is_text:
        on = has_color(sys.stdout, options)
        issues = [{**issue, "message": plain(issue["message"])} for issue in data["issues"]]
        write(health_text({**data, "issues": issues}, lambda text, style: paint(text, style, on)))
    else:
        write(render(data, options.format or "text"))
    return 0 if data["status"] == "healthy" else UNHEALTHY
