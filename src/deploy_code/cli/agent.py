"""``deploy-code agent``: the process that keeps services running, seen from outside."""

from __future__ import annotations

import click

from deploy_code.cli.options import Group, Options


@click.group("agent", cls=Group)
def agent() -> None:
    """Start, stop, show or install the agent.

    It starts by itself when something is deployed; stopping it stops no service.
    """
