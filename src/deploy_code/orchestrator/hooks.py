"""Runs the programs named under ``hooks:``: on this machine, without a shell, bounded in time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from deploy_code.errors import DeploymentError

OUTPUT_LIMIT = 4096  # bytes of output that an error shows


async def run_hook(name: str, argv: tuple[str, ...], *, folder: str, env: Mapping[str, str], timeout: float) -> None:
    """Run one hook to its end. Raises DeploymentError: E003 no such program, E005 it failed, E008 it took too long."""
    process = await _start(name, argv, folder, env)
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    except TimeoutError as exc:
        raise _error(name, argv, "E008", f"did not end within {timeout:g} s and was killed") from exc
    finally:
        _kill_group(process)
    if process.returncode:
        said = output[-OUTPUT_LIMIT:].decode(errors="replace").strip()
        raise _error(name, argv, "E005", f"ended with {process.returncode}" + (f": {said}" if said else ""))


async def _start(name: str, argv: tuple[str, ...], folder: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder or None,
            env={**os.environ, **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise _error(name, argv, "E003", "was not found") from exc
    except OSError as exc:
        raise _error(name, argv, "E005", f"could not be started: {exc.strerror}") from exc


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """What the hook left running in its session goes with it; its leader's pid is the group's."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _error(name: str, argv: tuple[str, ...], code: str, what: str) -> DeploymentError:
    return DeploymentError(
        f"hook {name} ({' '.join(argv)}) {what}",
        code=code,
        remedy=f"Run it by hand to see why, or take it out of `hooks.{name}`",
    )
