"""What tests need of the machine: real servers. Missing: skipped with the reason, in CI a failure."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGES_FILE = Path(__file__).parents[1] / "system-packages.txt"

#: Podman's helpers are not on the PATH.
PODMANS_OWN = Path("/usr/lib/podman")


@cache
def packages() -> dict[str, str]:
    """Program → Debian package that brings it: the list that ``scripts/system-packages`` installs from."""
    lines = (line.split() for line in PACKAGES_FILE.read_text().splitlines() if not line.startswith("#"))
    return {program: package for program, package, *_ in lines}


@cache
def postgresql_bin() -> Path | None:
    """The folder of PostgreSQL's programs, the newest of several. Debian keeps them off the PATH."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if folders:
        return max(folders, key=lambda folder: int(folder.parent.name))
    found = shutil.which("postgres")
    return Path(found).parent if found else None


def find(program: str) -> Path | None:
    if program == "postgres":
        folder = postgresql_bin()
        return folder / program if folder else None
    found = shutil.which(program) or shutil.which(program, path=str(PODMANS_OWN))
    return Path(found) if found else None


def need(program: str) -> Path:
    """Where ``program`` is. Missing, it skips the test, and fails it in CI, where it could be installed."""
    found = find(program)
    if found is None:
        missing(f"{program} is not on this machine (Debian: apt-get install {packages()[program]})")
    return found


def need_root() -> None:
    """For tests that start things as another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can start programs as another user")


def must_be_complete() -> bool:
    """In CI, as root on Debian, what a package brings can be had: nothing may be skipped for lack of it."""
    return bool(os.environ.get("CI")) and os.geteuid() == 0 and shutil.which("apt-get") is not None


def missing(reason: str) -> NoReturn:
    """Skip the test for what this machine cannot have; in CI, fail it."""
    if must_be_complete():
        pytest.fail(f"{reason}; in CI that is a failure: scripts/system-packages should have installed it")
    pytest.skip(reason)
