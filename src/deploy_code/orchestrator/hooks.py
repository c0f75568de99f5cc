"""Runs the programs named under ``hooks:``: on this machine, without a shell, bounded in time.

A hook has ended when its own process has: what it left running goes with it, and its output is a file, which nobody who
was left behind can keep open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from deploy_code.errors import DeploymentError

OUTPUT_LIMIT = 4096  # bytes of output that an error shows
REAP_SECONDS = 1.0


async def run_hook(name: str, argv: tuple[str, ...], *, folder: str, env: Mapping[str, str], timeout: float) -> None:
    """Run one hook to its end. Raises DeploymentError: E003 no such program, E005 it failed, E008 it took too long."""
    with tempfile.TemporaryFile() as output:
        process = _start(name, argv, folder, env, output)
        try:
            async with asyncio.timeout(timeout):
                await _ended(process.pid)
        except TimeoutError as exc:
            raise _error(name, argv, "E008", f"did not end within {timeout:g} s and was killed") from exc
        finally:
            _kill_group(process.pid)
            with suppress(subprocess.TimeoutExpired):  # one that became root may not be killed by us
                process.wait(timeout=REAP_SECONDS)  # the others have ended by now
        if process.returncode:
            said = _tail(output)
            raise _error(name, argv, "E005", f"ended with {process.returncode}" + (f": {said}" if said else ""))


def _start(
    name: str, argv: tuple[str, ...], folder: str, env: Mapping[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            cwd=folder or None,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise _error(name, argv, "E003", "was not found") from exc
    except OSError as exc:
        raise _error(name, argv, "E005", f"could not be started: {exc.strerror}") from exc


async def _ended(pid: int) -> None:
    """Wait for a child without reaping it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    fd = os.pidfd_open(pid)
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _kill_group(leader: int) -> None:
    """What the hook left running in its session goes with it; its leader's pid is the group's."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - OUTPUT_LIMIT))
    return output.read().decode(errors="replace").strip()


def _error(name: str, argv: tuple[str, ...], code: str, what: str) -> DeploymentError:
    return DeploymentError(
        f"hook {name} ({' '.join(argv)}) {what}",
        code=code,
        remedy=f"Run it by hand to see why, or take it out of `hooks.{name}`",
    )
