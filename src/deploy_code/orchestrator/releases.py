"""Keeps the code of each release: a copy under ``releases/<digest>/``, made once, never changed."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

from deploy_code.config.content import WRITTEN, TreeEntry, left_out, release_tree, tree_digest
from deploy_code.errors import StalePlanError, StateError
from deploy_code.model import Release

if TYPE_CHECKING:
    from deploy_code.plan.observed import Observed
    from deploy_code.plan.plan import Plan


def keep_code(plan: Plan, state: str, observed: Observed) -> None:
    """The releases of all that ``plan`` is about to start, those that were edited brought back.

    Raises as ``keep`` and ``restore``.
    """
    edited = [plan.after[name].spec for name in _edited(observed) if name in plan.actions and name in plan.after]
    contents = [goal.spec.content for name, goal in plan.after.items() if name in plan.actions]
    keep([each.release for each in contents if each.release is not None], state)
    restore([spec.content.release for spec in edited if spec.content.release is not None], state)
    if any(
        each.user for each in contents if each.release is not None
    ):  # it must reach its code: passing through the folder is all it may
        os.chmod(state, 0o711)


def _edited(observed: Observed) -> list[str]:
    """Services whose code was found to be altered."""
    return [name for name, found in observed.services.items() if any(each.kind == "changed" for each in found.drifts)]


def keep(releases: Iterable[Release], state: str) -> None:
    """Copy those that are not there yet.

    Raises StalePlanError E012 when a tree changed since it was hashed, StateError when it cannot be written.
    """
    root = os.path.join(state, "releases")
    for release in {each.digest: each for each in releases}.values():
        target = os.path.join(root, release.digest)
        if not os.path.isdir(target):
            _copy(release, root, target)


class UnknownCodeError(Exception):
    """A copy is not as it was made, and what it was made from has changed too: nobody can say what differs."""


def altered(release: Release, state: str) -> list[str]:
    """Files of its copy that are not as they were copied, by name.

    What a service has written beside them, or into files that end as those do which services write, does not count.
    Raises UnknownCodeError.
    """
    folder = os.path.join(state, "releases", release.digest)
    if not os.path.isdir(folder):
        return ["all of it"]
    try:
        if tree_digest(folder) == release.digest:
            return []
        if tree_digest(release.source, release.exclude) == release.digest:
            return [each.relative for each in _differing(release, folder)]
    except OSError as exc:
        raise UnknownCodeError(f"its code cannot be read: {exc}") from exc
    raise UnknownCodeError(
        f"something in {folder} was written after it was copied, and {release.source} has changed since: "
        "it cannot be told whether that is drift"
    )


def restore(releases: Iterable[Release], state: str) -> None:
    """Bring altered files of these copies back, each at once; what was written beside them stays.

    Raises StateError when that cannot be done.
    """
    for release in {each.digest: each for each in releases}.values():
        folder = os.path.join(state, "releases", release.digest)
        try:
            if tree_digest(release.source, release.exclude) == release.digest:
                for entry in _differing(release, folder):
                    _bring_back(entry, os.path.join(folder, entry.relative))
        except OSError as exc:
            raise StateError(
                f"the code in {folder} was edited, and could not be brought back: {exc}",
                remedy="Free disk space or correct the permissions there, then deploy again",
            ) from exc


def _differing(release: Release, folder: str) -> list[TreeEntry]:
    """Entries of the source that its copy has otherwise, or not at all."""
    copied = {each.relative: each for each in release_tree(Release(source=folder, digest=""))}
    return [
        each
        for each in release_tree(release)
        if not each.relative.endswith(WRITTEN) and not _is_same(each, copied.get(each.relative))
    ]


def _is_same(one: TreeEntry, other: TreeEntry | None) -> bool:
    if other is None or (one.mode, one.target) != (other.mode, other.target):
        return False
    return one.target is not None or filecmp.cmp(one.path, other.path, shallow=False)


def _bring_back(entry: TreeEntry, path: str) -> None:
    """Whoever has the edited file open keeps it as it is."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    draft = tempfile.mkdtemp(prefix=".restore-", dir=os.path.dirname(path))
    try:
        copy = shutil.copy2(entry.path, os.path.join(draft, "copy"), follow_symlinks=False)
        if os.path.isdir(path) and not os.path.islink(path):
            os.rename(path, os.path.join(draft, "was"))
        os.rename(copy, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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
