"""Runs what a page shows: the commands of its ``console`` blocks, one after the other in one shell, as readers do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = "$ "
MARK = "=== done: "


class Shown(NamedTuple):
    """One command, and what stands below it."""

    command: str
    output: str


def shown_in(page: Path) -> list[Shown]:
    """All commands of a page with their output, in their order."""
    return [shown for block in BLOCK.findall(page.read_text(encoding="utf-8")) for shown in _shown(block)]


def _shown(block: str) -> Iterator[Shown]:
    for part in re.split(rf"^{re.escape(PROMPT)}", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield Shown(command, output)


def run_session(
    commands: list[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> tuple[list[Shown], subprocess.CompletedProcess[str]]:
    """Run them up to the first that fails. What each printed on standard output, and how the shell ended."""
    lines = [f'{command}\nprintf "{MARK}%s\\n" {number}' for number, command in enumerate(commands)]
    program = f'deploy-code() {{ "{sys.executable}" -m deploy_code "$@"; }}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join([program, *lines])],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    outputs = re.split(rf"{MARK}\d+\n", done.stdout)
    return [Shown(command, output) for command, output in zip(commands, outputs, strict=False)], done
