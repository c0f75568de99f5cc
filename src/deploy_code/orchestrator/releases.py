"""Keeps the code of each release: a copy under ``releases/<digest>/``, made once, never changed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

from deploy_code.config.content import left_out, tree_digest
from deploy_code.errors import StalePlanError, StateError
from deploy_code.model import Release

if TYPE_CHECKING:
    from deploy_code.plan.plan import Plan


def keep_code(plan: Plan, state: str) -> None:
    """The releases of all that ``plan`` is about to start; raises as ``keep``."""
    contents = [goal.spec.content for name, goal in plan.after.items() if name in plan.actions]
    keep([each.release for each in contents if each.release is not None], state)
    if any(
        each.user for each in contents if each.release is not None
    ):  # it must reach its code: passing through the folder is all it may
        os.chmod(state, 0o711)


def keep(releases: Iterable[Release], state: str) -> None:
    """Copy those that are not there yet.

    Raises StalePlanError E012 when a tree changed since it was hashed, StateError when it cannot be written.
    """
    root = os.path.join(state, "releases")
    for release in {each.digest: each for each in releases}.values():
        target = os.path.join(root, release.digest)
        if not os.path.isdir(target):
            _copy(release, root, target)


def _copy(release: Release, root: str, target: str) -> None:
    try:
        os.makedirs(root, mode=0o755, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=".copy-", dir=root)
        try:
            shutil.copytree(
                release.source,
                draft,
                symlinks=True,
                dirs_exist_ok=True,
                ignore=left_out(release),
            )
            _check(release, draft)
            os.chmod(draft, 0o755)
            os.rename(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except (OSError, shutil.Error) as exc:
        raise StateError(
            f"the code in {release.source} could not be copied to {target}: {exc}",
            meaning="Nothing was changed",
            remedy="Free disk space or correct the permissions there, then deploy again",
        ) from exc


def _check(release: Release, draft: str) -> None:
    if tree_digest(draft) != release.digest:
        raise StalePlanError(
            f"{release.source} changed while it was being copied",
            meaning="What was planned is not what lies there now; nothing was changed",
            remedy="Deploy again when nobody writes to it",
        )
