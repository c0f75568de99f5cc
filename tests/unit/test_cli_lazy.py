"""The table of commands: what it says of a module must be true, because nothing else checks it before a user
does.
"""

import click
import pytest

from deploy_code.cli.lazy import COMMANDS, LazyGroup
from deploy_code.cli.main import ROOT
from deploy_code.cli.options import Group, SharedOption

SHARED = {"config", "project", "log_level", "quiet", "dry_run", "force", "no_color", "version"}


def every_command():
    for name in COMMANDS:
        command = ROOT.get_command(click.Context(ROOT), name)
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_entry_resolves_to_a_command_of_that_name(name):
    assert ROOT.get_command(click.Context(ROOT), name).name == name


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_in_the_table_is_the_first_line_of_the_commands_own(name):
    command = ROOT.get_command(click.Context(ROOT), name)
    assert command.help.strip().splitlines()[0] == COMMANDS[name].help


@pytest.mark.parametrize(("name", "command"), list(every_command()), ids=lambda value: str(value))
def test_every_command_has_the_shared_options(name, command):
    assert {param.name for param in command.params if isinstance(param, SharedOption)} == SHARED


@pytest.mark.parametrize(("name", "command"), list(every_command()), ids=lambda value: str(value))
def test_no_command_takes_a_shared_name_or_letter_for_something_else(name, command):
    letters = [letter for param in command.params for letter in (*param.opts, *param.secondary_opts)]
    assert len(letters) == len(set(letters))


@pytest.mark.parametrize(("name", "command"), list(every_command()), ids=lambda value: str(value))
def test_every_option_explains_itself(name, command):
    silent = [param.name for param in command.params if isinstance(param, click.Option) and not param.help]
    assert silent == []


def test_groups_below_the_root_are_ours_too():
    assert all(isinstance(command, Group) for _, command in every_command() if isinstance(command, click.Group))
    assert isinstance(ROOT, LazyGroup)
