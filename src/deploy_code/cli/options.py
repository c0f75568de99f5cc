"""What every command understands, before its name or after it, and the one value all that is merged into.

Each of our commands carries the shared options itself; their callbacks write into the ``Options`` of the run,
those after the command last, so that they win. Config files add up: overlays merge in the order given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from deploy_code.app import App

DEFAULT_FILE = "deploy-code.yaml"
LEVELS = ("trace", "debug", "info", "warn", "error")
FORMATS = ("text", "json", "yaml")


@dataclass(slots=True)
class Options:
    """The shared options of this run. ``format`` None: not asked for, so text."""

    config: list[str] = field(default_factory=list)
    project: str | None = None
    log_level: str = "info"
    dry_run: bool = False
    force: bool = False
    format: str | None = None
    no_color: bool = False
    args: tuple[str, ...] = ()  # the command line as typed, for the audit

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.config) or (DEFAULT_FILE,)

    @property
    def is_text(self) -> bool:
        return self.format in (None, "text")

    def shows(self, level: str) -> bool:
        """Is something of this level to be said at all?"""
        return LEVELS.index(level) >= LEVELS.index(self.log_level)

    def app(self, **more: Any) -> App:
        """The application these options describe; reads nothing yet.

        ``more``: what only some commands have.
        """
        import shlex

        from deploy_code.app import App

        origin = shlex.join(("deploy-code", *self.args))
        return App(self.files, project=self.project, dry_run=self.dry_run, force=self.force, origin=origin, **more)

    def line(self, command: str) -> str:
        """A command for people to copy: the same project as this run."""
        import shlex

        words = ["deploy-code"]
        for file in self.config:
            words += ["-c", shlex.quote(file)]
        if self.project:
            words += ["--project", shlex.quote(self.project)]
        return " ".join((*words, command))


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Write what was given here into the run's options; what was not given changes nothing."""
    options = ctx.ensure_object(Options)
    if value is None or value is False or param.name is None:
        return
    if param.name == "config":
        options.config.extend(value)
    elif param.name == "quiet":
        options.log_level = "error"
    else:
        setattr(options, param.name, value)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from deploy_code._version import __version__

        click.echo(f"deploy-code {__version__}")
        ctx.exit()


class _Level(click.Choice[str]):
    """``--log-level``, in any case, and ``warning`` as people write it."""

    def __init__(self) -> None:
        super().__init__(LEVELS, case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert("warn" if str(value).lower() == "warning" else value, param, ctx)


class SharedOption(click.Option):
    """An option that all commands have; shown apart in their help."""


def _shared(*names: str, **settings: Any) -> SharedOption:
    return SharedOption(names, expose_value=False, callback=_note, **settings)


def shared_options() -> list[click.Parameter]:
    """The options that every command takes, fresh: click keeps state of its own in them."""
    file_type = click.Path(dir_okay=False)
    return [
        _shared(
            "-c",
            "--config",
            metavar="FILE",
            type=file_type,
            multiple=True,
            help=f"The file [default: {DEFAULT_FILE}]; repeated: later ones go over earlier ones.",
        ),
        _shared("--project", metavar="NAME", help="Name of the project, where its file is missing or broken."),
        _shared(
            "-l",
            "--log-level",
            type=_Level(),
            metavar="LEVEL",
            help="How much to say: trace, debug, info, warn, error [default: info].",
        ),
        _shared("-q", "--quiet", is_flag=True, help="Say only what went wrong: --log-level error."),
        _shared("--dry-run", is_flag=True, help="Show what would be done; change nothing."),
        _shared(
            "--force",
            is_flag=True,
            help="Go on when health checks or resources fail; never counts as good. stop: forget what it cannot stop.",
        ),
        _shared("--no-color", is_flag=True, help="No colours; NO_COLOR in the environment does the same."),
        SharedOption(
            ("-V", "--version"),
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version.",
        ),
    ]


def format_option() -> click.Option:
    """``--format``, for commands that print data."""
    return click.Option(
        ("--format",),
        type=click.Choice(FORMATS, case_sensitive=False),
        expose_value=False,
        callback=_note,
        help="How to print the result [default: text].",
    )


class _Shared(click.Command):
    """What commands and groups of ours have in common: the shared options, ``-h``, and help in two parts."""

    def __init__(self, *args: Any, data: bool = False, **settings: Any) -> None:
        settings["context_settings"] = {
            "help_option_names": ["-h", "--help"],
            **settings.get("context_settings", {}),
        }
        super().__init__(*args, **settings)
        self.prints_data = data
        self.params.extend([format_option()] if data else [])
        self.params.extend(shared_options())

    def invoke(self, ctx: click.Context) -> Any:
        asked = ctx.ensure_object(Options).format
        if asked and not self.prints_data:
            raise click.UsageError(f"{ctx.info_name} prints no data, so it has no --format", ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_own_options(ctx, formatter)

    def format_own_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                is_shared = isinstance(param, SharedOption) or "--help" in param.opts
                (shared if is_shared else own).append(record)
        for title, records in (("Options", own), ("Global options, before or after the command", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Command(_Shared):
    """A command of ours. ``data``: it prints data, so it has ``--format``."""


class Group(_Shared, click.Group):
    """A group of ours; its own commands are ``Command`` too."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        return click.Group.invoke(self, ctx)  # a group only passes on; the command says whether it prints data

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_own_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def command(name: str, *, data: bool = False, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command of ours; it may return an exit code."""
    return click.command(name, cls=Command, data=data, **settings)


def split_names(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Callback: names comma-separated or repeated, in order, each once."""
    names = (name.strip() for value in values for name in value.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def services_option(purpose: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--services a,b`` or repeated; completes names from the state or the file."""
    from deploy_code.cli.names import complete_names

    return click.option(
        "--services",
        metavar="NAMES",
        multiple=True,
        callback=split_names,
        shell_complete=complete_names,
        help=f"{purpose}; comma-separated or repeated.",
    )


def wait_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--wait``, for every command that takes the lock."""
    return click.option(
        "--wait", is_flag=True, help="Queue when another deployment is running, instead of failing with E011."
    )
