"""The one place that turns errors into text and exit codes, and the only one that exits (CONTRACTS §4)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from deploy_code.cli.lazy import LazyGroup
from deploy_code.cli.options import Options
from deploy_code.cli.output import INTERRUPTED, Interrupted, fall_silent, say_error
from deploy_code.errors import DeployCodeError

PROGRAM = "deploy-code"
REPORT_TO = "https://github.com/org/deploy-code/issues"
COMPLETE_VARIABLE = "_DEPLOY_CODE_COMPLETE"


@click.pass_context
def _without_command(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


ROOT = LazyGroup(
    name=PROGRAM,
    callback=_without_command,
    help="Bring a set of services to what one YAML file says: in dependency order, gated on health, and back"
    " when it fails.",
    epilog="Start with 'deploy-code init', then 'deploy-code plan' and 'deploy-code deploy'.",
    subcommand_metavar="COMMAND [ARGS]...",
    no_args_is_help=False,
    invoke_without_command=True,
    data=True,
)


def main() -> NoReturn:
    """Run with ``sys.argv`` and exit.

    Output is flushed here, so that a closed pipe is noticed and quiet. Then the process ends at once: everything is
    closed by now, and taking the interpreter apart would cost a short command a fifth of its time.
    """
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads any more; the exit code is still true
    os._exit(code)


def run(args: Sequence[str]) -> int:
    """Run one command line; the exit code. Raises nothing."""
    options = Options(args=tuple(args))
    try:
        return _invoke(_plain_help(list(args)), options)
    except BrokenPipeError:
        fall_silent()  # whoever read our output has seen enough
        return 0
    except (KeyboardInterrupt, click.Abort, Interrupted) as stop:
        return _interrupted(stop)
    except click.ClickException as error:
        return _only_one(_usage(error), args)
    except DeployCodeError as error:
        say_error(str(error), options)
        return _only_one(error.exit_code, args)
    except Exception as error:
        return _fault(error, options)


def _plain_help(args: list[str]) -> list[str]:
    """``help deploy`` is ``deploy --help``."""
    return [*args[1:], "--help"] if args[:1] == ["help"] else args


def _invoke(args: list[str], options: Options) -> int:
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(ROOT, {"obj": options}, PROGRAM, COMPLETE_VARIABLE, instruction)
    try:
        with ROOT.make_context(PROGRAM, args, obj=options) as ctx:
            return ROOT.invoke(ctx) or 0
    except click.exceptions.Exit as done:
        return done.exit_code


def _usage(error: click.ClickException) -> int:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else PROGRAM
    message = _no_such_option(error) if isinstance(error, click.NoSuchOption) else error.format_message()
    message = " ".join(message.split()).rstrip(".")
    say_error(f"{path}: {message}{'' if message.endswith('?') else '.'} See '{path} --help'.")
    return 2


def _no_such_option(error: click.NoSuchOption) -> str:
    from difflib import get_close_matches

    near = get_close_matches(error.option_name, error.possibilities or (), n=1)
    return f"there is no option {error.option_name}" + (f"; did you mean {near[0]}?" if near else "")


def _interrupted(stop: BaseException) -> int:
    if not isinstance(stop, Interrupted):
        say_error("Interrupted; nothing was being changed.")
    return INTERRUPTED


def _only_one(code: int, args: Sequence[str]) -> int:
    """With ``--detailed-exitcode`` 2 means changes, so that every error is 1."""
    return 1 if "--detailed-exitcode" in args else code


def _fault(error: Exception, options: Options) -> int:
    if options.shows("debug"):
        import traceback

        say_error("".join(traceback.format_exception(error)).rstrip(), options)
    hint = "" if options.shows("debug") else " Run it again with --log-level debug to see where."
    say_error(
        f"Sorry, deploy-code has a fault of its own: {type(error).__name__}.{hint} Please report it: {REPORT_TO}",
        options,
    )
    return 1
