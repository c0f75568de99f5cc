"""Finds what a project has left running: its instances, whatever they forked, and its agent.

A process belongs to a project when it carries ``DEPLOY_CODE_INSTANCE`` (or is an agent) and anything about it
(directory, open files, arguments, env) lies in the project's folder.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from support.wait import wait_until

MARK = b"DEPLOY_CODE_INSTANCE="
AGENT = "deploy_code.agent"
HOST = "deploy_code.services.host"


@dataclass(frozen=True)
class Leftover:
    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} {self.command}"


def leftovers(folder: Path) -> list[Leftover]:
    """Every process of the project(s) under ``folder``."""
    processes = (Path(entry.path) for entry in os.scandir("/proc") if entry.name.isdigit())
    return [found for proc in processes if (found := _leftover(proc, str(folder)))]


def _leftover(proc: Path, folder: str) -> Leftover | None:
    try:
        command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        env = (proc / "environ").read_bytes()
        ours = (MARK in env or AGENT in command or HOST in command) and _concerns(proc, folder, command, env)
    except OSError:  # it ended while we looked, or is not ours to look at
        return None
    return Leftover(int(proc.name), command) if ours and command else None


def _concerns(proc: Path, folder: str, command: str, env: bytes) -> bool:
    return folder in command or folder.encode() in env or any(folder in path for path in _paths(proc))


def _paths(proc: Path) -> list[str]:
    links = [proc / "cwd", proc / "root", *(Path(entry.path) for entry in os.scandir(proc / "fd"))]
    return [os.readlink(link) for link in links if link.is_symlink()]


def kill(processes: list[Leftover]) -> None:
    """SIGKILL, and wait until they are gone."""
    for each in processes:
        try:
            os.kill(each.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_until(lambda: not any(_alive(each.pid) for each in processes), what="killed processes to be gone")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
