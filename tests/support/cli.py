"""The installed program as a subprocess: what it printed and what it exited with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 60.0
PROGRAM = (sys.executable, "-m", "deploy_code")


@dataclass(frozen=True)
class Finished:
    """One run that has ended."""

    command: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, data first."""
        return self.stdout + self.stderr

    def json(self) -> Any:
        return json.loads(self.stdout)

    def ok(self) -> Finished:
        """Itself, when it exited with 0; AssertionError with everything it printed otherwise."""
        return self.exits(0)

    def exits(self, code: int) -> Finished:
        assert self.code == code, f"{self} was expected to exit with {code}"
        return self

    def __str__(self) -> str:
        head = f"{' '.join(self.command)}: exit code {self.code}"
        return f"{head}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def run_cli(
    *args: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = TIMEOUT_SECONDS
) -> Finished:
    """Run to the end. One that takes longer than ``timeout`` seconds is killed, and fails with its output."""
    command = tuple(map(str, args))
    with start_cli(*command, cwd=cwd, env=env) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            unfinished = Finished(command, -1, stdout, stderr)
            raise AssertionError(f"not done in {timeout:g} s: {unfinished}") from None
    return Finished(("deploy-code", *command), process.returncode, stdout, stderr)


def start_cli(*args: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start it and go on: for Ctrl-C, kills and ``logs -f``. Streams are pipes; it leads a process group."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
