"""Names of services for the TAB key: from the state if there is one, else from the raw text of the file.

Never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from deploy_code.cli.options import Options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The last of comma-separated names is the one being typed; those before it stay."""
    from click.shell_completion import CompletionItem

    done, comma, last = incomplete.rpartition(",")
    taken = set(done.split(","))
    names = (name for name in service_names(ctx.find_root().obj) if name not in taken)
    return [CompletionItem(f"{done}{comma}{name}") for name in names if name.startswith(last)]


def service_names(options: Options | None) -> list[str]:
    try:
        return sorted(_from_state(options or Options()) or _from_file(options or Options()))
    except Exception:  # completion that complains writes into the line that is being typed
        return []


def _from_state(options: Options) -> list[str]:
    store = options.app().reader()
    if store is None:
        return []
    with store:
        return list(store.current_map())


def _from_file(options: Options) -> list[str]:
    """Keys one level below ``services:``, by indentation: works while the file is being written, and imports
    nothing.
    """
    names: list[str] = []
    for file in options.files:
        with open(file, encoding="utf-8") as lines:
            names += _keys_below("services:", lines)
    return names


def _keys_below(head: str, lines: Iterable[str]) -> Iterator[str]:
    inside, indent = False, 0
    for line in lines:
        text = line.split("#", 1)[0].rstrip()
        depth = len(text) - len(text.lstrip())
        if not text:
            continue
        if depth == 0:
            inside, indent = text == head, 0
        elif inside and depth == (indent := indent or depth) and text.endswith(":"):
            yield text.strip().rstrip(":").strip("\"'")
