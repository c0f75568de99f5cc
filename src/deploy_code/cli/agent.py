"""``deploy-code agent``: the process that keeps services running, seen from outside."""

from __future__ import annotations

import time
from typing import Any

import click

from deploy_code.cli.install import install
from deploy_code.cli.options import Group, Options
from deploy_code.cli.output import emit, write
from deploy_code.cli.times import iso, span


@click.group("agent", cls=Group, data=True)
def agent() -> None:
    """Start, stop, show or install the agent.

    One per project; it starts by itself when something is deployed. Stopping it stops no service, but nothing is
    probed or restarted any more.
    """


agent.add_command(install)


@agent.command("start")
@click.pass_obj
def start(options: Options) -> None:
    """Start the agent, unless it runs."""
    from deploy_code.platforms.spawn import agent_is_alive, start_agent

    folder = options.app().identity.directories.state
    if agent_is_alive(folder):
        write("The agent is running.")
    elif options.dry_run:
        write("The agent would be started.")
    else:
        write(f"The agent runs, pid {start_agent(folder).pid}.")


@agent.command("stop")
@click.pass_obj
def stop(options: Options) -> None:
    """Stop the agent; services go on, unsupervised."""
    from deploy_code.platforms.spawn import agent_is_alive, stop_agent

    folder = options.app().identity.directories.state
    if options.dry_run:
        write("The agent would be stopped." if agent_is_alive(folder) else "No agent is running.")
    elif stop_agent(folder):
        write("The agent has stopped. Services go on, but nothing probes or restarts them.")
    else:
        write("No agent is running.")


@agent.command("status", data=True)
@click.pass_obj
def status(options: Options) -> None:
    """Show whether the agent runs, and how well it keeps up."""
    from deploy_code.platforms.spawn import agent_status

    info = agent_status(options.app().identity.directories.state)
    emit(agent_data(info), options, lambda: agent_text(info))


def agent_data(info: Any) -> dict[str, Any]:
    """What the agent says of itself (``spawn.agent_status``) as plain data; ``running`` False when there is none."""
    if info is None:
        return {"running": False}
    return {
        "running": True,
        "pid": info.pid,
        "version": info.version,
        "started_at": iso(info.started_at),
        "instances": info.instances,
        "deployment": info.deployment,
        "probes_per_second": info.probes_per_second,
        "lag_seconds": info.lag_seconds,
        "lag_max_seconds": info.lag_max_seconds,
        "memory_bytes": info.memory_bytes,
        "loop": info.loop,
        **info.details,
    }


def agent_text(info: Any) -> str:
    """Two lines for people; one when there is no agent."""
    if info is None:
        return "No agent is running. It starts with the next deployment, or by 'deploy-code agent start'."
    up = span(time.time() - info.started_at)
    lag = f"{info.lag_seconds * 1000:.1f} ms late on average, {info.lag_max_seconds * 1000:.1f} ms at most"
    return (
        f"agent {info.version}: pid {info.pid}, up {up}, {info.instances} instances, "
        f"{info.memory_bytes / 2**20:.0f} MB\n"
        f"probes: {info.probes_per_second:.1f} per second, {lag} (last minute)"
    )
