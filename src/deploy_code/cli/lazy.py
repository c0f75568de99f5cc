"""The table of commands, so that ``--help`` and completion list them without importing a single one.

A test resolves every entry and compares its help with the command's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from deploy_code.cli.options import Group


class Entry(NamedTuple):
    """Where a command lives (``deploy_code.cli.MODULE:attribute``) and its one line of help."""

    module: str
    attribute: str
    help: str
    section: str = ""  # empty: runs, but is not listed


_RUN, _LOOK, _MORE = "Deploy and steer", "Look", "Set up"

COMMANDS: dict[str, Entry] = {
    "deploy": Entry("deploy", "deploy", "Bring the services to what the file says.", _RUN),
    "stop": Entry("stop", "stop", "Stop services, dependents first.", _RUN),
    "restart": Entry("restart", "restart", "Start services anew, in dependency order.", _RUN),
    "scale": Entry("scale", "scale", "Set how many instances a service has.", _RUN),
    "rollback": Entry("rollback", "rollback", "Go back to an earlier deployment.", _RUN),
    "prune": Entry("prune", "prune", "Remove old revisions, their images and code.", _RUN),
    "recover": Entry("recover", "recover", "Finish or undo an interrupted deployment.", _RUN),
    "status": Entry("status", "status", "Show what runs and how it is.", _LOOK),
    "health": Entry("health", "health", "Show overall health and what is wrong.", _LOOK),
    "logs": Entry("logs", "logs", "Show what services wrote, merged by time.", _LOOK),
    "plan": Entry("plan", "plan", "Show what deploy would do, and why.", _LOOK),
    "history": Entry("history", "history", "List past deployments, or show one.", _LOOK),
    "resources": Entry("resources", "resources", "Show what this machine has, what is promised, what is used.", _LOOK),
    "events": Entry("events", "events", "Show what happened, who did it and when.", _LOOK),
    "init": Entry("init", "init", "Write a small commented deploy-code.yaml.", _MORE),
    "validate": Entry("validate", "validate", "Check the configuration file.", _MORE),
    "schema": Entry("schema", "schema", "Print the JSON Schema of the file.", _MORE),
    "import": Entry("import_", "import_", "Make the file from another tool's.", _MORE),
    "export": Entry("export", "export", "Make another tool's file from this one.", _MORE),
    "agent": Entry("agent", "agent", "Start, stop, show or install the agent.", _MORE),
    "completion": Entry("completion", "completion", "Print the completion script of a shell.", _MORE),
}


class LazyGroup(Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(f"deploy_code.cli.{entry.module}"), entry.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.UsageError(_unknown(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        self.format_own_options(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for section in (_RUN, _LOOK, _MORE):
            with formatter.section(section):
                formatter.write_dl(
                    [(name.ljust(width), entry.help) for name, entry in COMMANDS.items() if entry.section == section]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=entry.help) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    return f"there is no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
