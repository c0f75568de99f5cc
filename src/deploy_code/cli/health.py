"""``deploy-code health``"""

from __future__ import annotations

import sys
from typing import Any

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import has_color, paint, plain, to_json, to_yaml, write
from deploy_code.cli.reading import open_store

UNHEALTHY = 4
_STYLES = {"critical": "bold red", "warning": "yellow", "info": "dim"}


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
    write(render(data, options.format or "text", color=has_color(sys.stdout, options)))
    return 0 if data["status"] == "healthy" else UNHEALTHY


def render(data: dict[str, Any], format: str, *, color: bool = False) -> str:
    """The health mapping as ``text``, ``json`` or ``yaml``; what ``DeployCode.health`` hands out too."""
    if format == "json":
        return to_json(data)
    return to_yaml(data).rstrip("\n") if format == "yaml" else health_text(data, color=color)


def health_text(data: dict[str, Any], *, color: bool = False) -> str:
    """The health mapping for people."""
    up = f", up {data['uptime_hours']:g} h" if data["uptime_hours"] else ""
    style = {"healthy": "green", "unhealthy": "bold red"}.get(data["status"], "yellow")
    lines = [f"{paint(data['status'], style, color)}: score {data['score']} of 100{up}"]
    for issue in data["issues"]:
        severity = paint(f"{issue['severity']:<8}", _STYLES.get(issue["severity"], ""), color)
        who = f"{plain(issue['service'])}: " if issue["service"] else ""
        lines.append(f"  {severity}  {who}{plain(issue['message'])}")
    return "\n".join(lines)
