"""``deploy-code status``: the state, read by plain SQLite, as a table, as data, or again and again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import Interrupted, emit, has_color, is_terminal, stream_item, write
from deploy_code.cli.reading import open_store, redactor_of, ticks

if TYPE_CHECKING:
    from deploy_code.app import App
    from deploy_code.state.store import Store

UNHEALTHY = 4

Data = dict[str, Any]


@command("status", data=True)
@click.option("--detailed", is_flag=True, help="Each instance too: its last probe, exit, ports and log.")
@click.option("--watch", is_flag=True, help="Go on: refresh in place on a terminal, else print what changed.")
@click.option("--check", is_flag=True, help="Exit 4 when not everything is healthy.")
@click.option("--drift", is_flag=True, help="Compare what runs with what was deployed; exit 4 when it differs.")
@click.pass_obj
def status(options: Options, detailed: bool, watch: bool, check: bool, drift: bool) -> int:
    """Show what runs and how it is.

    Reads the state alone: works beside a running deployment, without the agent, and with a broken file. With --drift
    the agent is asked, if one is running.
    """
    if watch and drift:
        raise click.UsageError("--drift is looked for once: take --watch out")
    app = options.app()
    if watch:
        _watch(options, app, detailed)
    data = _read(options, app, detailed, drift)
    emit(data, options, lambda: _text(options, data, detailed))
    return UNHEALTHY if (check and data["overall_health"] != "healthy") or data.get("drift") else 0


def _text(options: Options, data: Data, detailed: bool) -> str:
    from deploy_code.cli.status_text import status_text
    from deploy_code.cli.tables import terminal_width

    return status_text(data, detailed=detailed, color=has_color(sys.stdout, options), width=terminal_width())


# --------------------------------------------------------------------------- reading


def _read(options: Options, app: App, detailed: bool, drift: bool = False) -> Data:
    with open_store(options, app) as store:
        return read(app, store, detailed, drift)


def read(app: App, store: Store | None, detailed: bool = False, drift: bool = False) -> Data:
    """The mapping of DESIGN §9, with what the lock knows added to its notes; secrets redacted. ``drift``: and that."""
    from deploy_code.orchestrator.status import empty_status, read_status

    identity = app.identity
    if store is None:
        data = empty_status(identity.name, identity.environment)
        data["notes"] = ["nothing was deployed yet"]
        return {**data, "drift": []} if drift else data
    folder = identity.directories.state
    data = read_status(store, detailed=detailed, agent_alive=app.agent_is_alive())
    data["notes"] = [*_deploying(store, folder), *data["notes"]]
    if detailed and data["agent_running"]:
        _add_agent(data, folder)
    if drift:
        _add_drift(data, store, folder)
    clean: Data = redactor_of(store).clean_data(data, names=set(data["services"]))
    return clean


def _add_drift(data: Data, store: Store, folder: str) -> None:
    """What is not as it was deployed, as ``drift``; what could not be compared is a note. Raises AgentError."""
    from dataclasses import asdict

    from deploy_code.orchestrator.drift import read_drift

    seen = read_drift(store, folder)
    data["drift"] = [asdict(each) for each in seen.found]
    data["notes"] += [f"drift: {each}" for each in seen.unseen]


def _add_agent(data: Data, folder: str) -> None:
    """How late probes are, and the like; an agent that does not answer is a note, not the end of the status."""
    from deploy_code.cli.agent import agent_data
    from deploy_code.errors import AgentError
    from deploy_code.platforms.spawn import agent_status

    try:
        data["agent"] = agent_data(agent_status(folder, timeout=1.0))
    except AgentError as error:
        data["notes"].append(str(error))


def _deploying(store: Store, folder: str) -> Iterator[str]:
    """Who deploys right now, or that somebody's deployment was interrupted, and what becomes of it."""
    row = store.running_deployment()
    if row is None:
        return
    from deploy_code.cli.times import clock
    from deploy_code.state.lock import holder

    what, who = f"{row.kind} {row.number}", holder(folder)
    if who is not None:
        yield f"{what} is running, by {who} since {clock(who.since)}"
        return
    undone = "undone" if row.rollback_on_failure and row.kind not in ("stop", "rollback") else "finished"
    yield (
        f"{what} (begun {clock(row.started_at)} by {row.who}) was interrupted: it will be {undone} by the "
        "agent, by the next command that changes something, or now by 'deploy-code recover'"
    )


# --------------------------------------------------------------------------- watching


def _watch(options: Options, app: App, detailed: bool) -> None:
    """Until Ctrl-C. On a terminal the same picture again and again, elsewhere a line for each change."""
    from deploy_code.cli.run import stay

    stay()
    in_place = options.is_text and is_terminal(sys.stdout)
    show = _InPlace(options, detailed) if in_place else _Changes(options)
    try:
        for _ in ticks(app.identity.directories.state):
            show(_read(options, app, detailed))
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise Interrupted from None


class _InPlace:
    """Paints over what it painted before, cropped to the terminal."""

    def __init__(self, options: Options, detailed: bool) -> None:
        self._options = options
        self._detailed = detailed
        self._painted = 0

    def __call__(self, data: Data) -> None:
        from os import get_terminal_size

        height = get_terminal_size(sys.stdout.fileno()).lines
        lines = _text(self._options, data, self._detailed).splitlines()[: max(height - 1, 1)]
        up = f"\x1b[{self._painted}A" if self._painted else ""
        sys.stdout.write(f"{up}\r\x1b[J" + "\n".join(lines) + "\n")
        self._painted = len(lines)


class _Changes:
    """The first time all services, then those that are not what they were."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._seen: dict[str, tuple[str, ...]] = {}

    def __call__(self, data: Data) -> None:
        now = {name: _words(each) for name, each in data["services"].items()}
        for name in [*now, *(self._seen.keys() - now.keys())]:
            if self._seen.get(name) != now.get(name):
                self._tell(name, data["services"].get(name))
        self._seen = now

    def _tell(self, name: str, service: Data | None) -> None:
        if self._options.is_text:
            from deploy_code.cli.status_text import change_line

            write(change_line(name, service, color=has_color(sys.stdout, self._options)))
            return
        row = {"service": name, **(service or {"status": "removed", "health": "none"})}
        write(stream_item(row, self._options))


def _words(service: Data) -> tuple[str, ...]:
    keys = ("status", "health", "ready", "replicas", "revision", "restarts")
    return (*(str(service[key]) for key in keys), service["circuit"]["state"])
