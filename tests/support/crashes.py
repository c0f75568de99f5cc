"""Runs commands that die at a chosen step of their plan: see ``crash_cli``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.cli import Finished
from support.project import ProjectFolder

SCRIPT = Path(__file__).with_name("crash_cli.py")
MOMENTS = ("before", "after")
MOST_STEPS = 40  # more than any plan of these tests has


def crash(project: ProjectFolder, victim: str, moment: str, step: int, *args: str, timeout: float = 60) -> Finished:
    """The command, killed at that step. Code -9: it was."""
    command = [sys.executable, str(SCRIPT), victim, moment, str(step), *args]
    paths = [str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command,
        cwd=project.folder,
        env={**os.environ, **project.env, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Finished(tuple(command), done.returncode, done.stdout, done.stderr)


def killed(run: Finished) -> bool:
    return run.code == -signal.SIGKILL
