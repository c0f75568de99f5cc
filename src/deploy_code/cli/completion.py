"""``deploy-code completion``"""

from __future__ import annotations

import click

from deploy_code.cli.options import command
from deploy_code.cli.output import write

SHELLS = ("bash", "zsh", "fish")


@command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(deploy-code completion bash)"      in ~/.bashrc
    zsh:   eval "$(deploy-code completion zsh)"       in ~/.zshrc, after compinit
    fish:  deploy-code completion fish > ~/.config/fish/completions/deploy-code.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from deploy_code.cli.main import COMPLETE_VARIABLE, PROGRAM, ROOT

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    # not kind.source(): that of bash starts a bash to ask for its version first
    write(ShellComplete.source(kind(ROOT, {}, PROGRAM, COMPLETE_VARIABLE)).rstrip("\n"))
