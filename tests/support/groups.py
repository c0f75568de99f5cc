"""Control groups as tests see them: whether this machine has them, and what is left of a project's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy_code.drivers.cgroup import Found, find
from deploy_code.drivers.group import TOP
from deploy_code.drivers.groups import domain

NOBODY = 65534

# Takes a MB of memory at a time, until it is killed.
HOG = "taken = []\nwhile True:\n    taken.append(bytearray(1 << 20))\n"


def need_groups() -> None:
    """For tests of limits that are really enforced."""
    found = find()
    if not {"cpu", "memory"} <= found.controllers:
        pytest.skip(f"limits cannot be enforced here: {found.reason}")


def groups_of(state: Path | str) -> list[Path]:
    """The folders of all groups of the project whose state this is, in every hierarchy."""
    folders = [Path(each.folder, TOP, domain(str(state))) for each in find().hierarchies]
    return [group for folder in folders if folder.exists() for group in folder.iterdir() if group.is_dir()]


def version_1_only() -> Found:
    """This machine as if it had no hierarchy of version 2."""
    return Found(tuple(each for each in find().hierarchies if not each.unified))


@contextmanager
def as_nobody() -> Iterator[None]:
    """This process as an ordinary user; only for a look at what that one may do."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
