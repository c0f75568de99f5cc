"""Where on this machine control groups can be made that limit CPU, memory and processes. It looks, and creates nothing.

Nothing is assumed of paths: mount points and the place of a process are read from /proc. Version 2 is one hierarchy
for everything; version 1 has one for each controller; many machines have both, with version 2 knowing members only.
As root the groups lie at the top of a hierarchy, where container runtimes put theirs; everybody else needs a part of
the hierarchy that was given to them (``Delegate=yes`` in a systemd unit).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from deploy_code.model import Resources

SUBGROUP = "agent"  # under systemd the agent sits in this part of its unit's group (platforms/unit.py)
CONTROLLERS = ("cpu", "memory", "pids")
_NAMES = {"cpu": "CPU", "memory": "memory", "pids": "process"}
_OCTAL = re.compile(r"\\([0-7]{3})")


class Hierarchy(NamedTuple):
    """One tree of control groups. ``folder``: an existing group of it that we may make groups in."""

    folder: str
    unified: bool  # version 2
    controllers: frozenset[str]  # what can be limited there; nothing: it only tells who belongs together


@dataclass(frozen=True, slots=True)
class Found:
    """What a machine lets us do. ``reason``: why something is missing, for people."""

    hierarchies: tuple[Hierarchy, ...] = ()
    reason: str = ""

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset().union(*(each.controllers for each in self.hierarchies))

    def unenforced(self, resources: Resources) -> str:
        """The limits among these that cannot be enforced: ``"CPU"``, ``"CPU and memory"``, mostly nothing."""
        missing = [_NAMES[name] for name in CONTROLLERS if name in limited(resources) - self.controllers]
        return " and ".join((", ".join(missing[:-1]), missing[-1]) if len(missing) > 1 else missing)


def limited(resources: Resources) -> frozenset[str]:
    """The controllers that these limits ask for."""
    asked = {"cpu": resources.cpu_cores > 0, "memory": resources.memory_mb > 0, "pids": resources.pids > 0}
    return frozenset(name for name, wanted in asked.items() if wanted)


def find(pid: int = 0) -> Found:
    """Where process ``pid`` (0: this one) may make groups. Two files of /proc and a handful of looks.

    Never raises: a /proc that cannot be read is a machine without control groups.
    """
    process = f"/proc/{pid or 'self'}"
    try:
        return found_in(_text(f"{process}/mountinfo"), _text(f"{process}/cgroup"))
    except OSError as exc:
        return Found(reason=f"{exc.filename} cannot be read: {exc.strerror}")


def found_in(mountinfo: str, membership: str) -> Found:
    """``find`` for the texts of /proc/PID/mountinfo and /proc/PID/cgroup."""
    mounts, places = list(_mounts(mountinfo)), _places(membership)
    if not mounts:
        return Found(reason="no control groups are mounted")
    limiting = [*_version_2(mounts, places), *_version_1(mounts, places)]
    hierarchies = tuple(each for each in limiting if each.controllers)
    found = Found(hierarchies)
    if len(found.controllers) < len(CONTROLLERS):
        found = Found(hierarchies, _reason(mounts))
    if not hierarchies:
        return found
    return Found((*(each for each in limiting if not each.controllers), *hierarchies), found.reason)


def folder_of(pid: int, name: str) -> dict[str, bool]:
    """The groups called ``name`` that process ``pid`` is in: folder → is it version 2."""
    mounts, places = list(_mounts(_text(f"/proc/{pid}/mountinfo"))), _places(_text(f"/proc/{pid}/cgroup"))
    return {
        chain[-1]: mount.unified
        for mount in mounts
        for key in mount.keys & places.keys()
        if os.path.basename((chain := mount.chain(places[key]))[-1]) == name
    }


# --------------------------------------------------------------------------- what /proc says


class _Mount(NamedTuple):
    point: str
    root: str  # the group that is seen at ``point``
    unified: bool
    keys: frozenset[str]  # controllers of version 1; of version 2: the empty one

    def chain(self, place: str) -> list[str]:
        """Folders from the mount point down to the group ``place``; the mount point alone if that is not seen here."""
        root = "" if self.root == "/" else self.root
        if place.startswith("/..") or not (place == root or place.startswith(f"{root}/")):
            return [self.point]
        folders = [self.point]
        for part in place[len(root) :].split("/"):
            if part:
                folders.append(f"{folders[-1]}/{part}")
        return folders


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """The mounted hierarchies, as proc_pid_mountinfo(5) describes them."""
    for line in mountinfo.splitlines():
        mount, _, kind = line.partition(" - ")
        fields = mount.split()
        fstype, _, options = [*kind.split(None, 2), "", "", ""][:3]
        if fstype in ("cgroup", "cgroup2") and len(fields) > 4:
            keys = frozenset(options.split(",")) if fstype == "cgroup" else frozenset([""])
            yield _Mount(_plain(fields[4]), _plain(fields[3]), fstype == "cgroup2", keys)


def _plain(path: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def _places(membership: str) -> dict[str, str]:
    """Where the process is, by controller; version 2 has the empty one."""
    places = {}
    for line in membership.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names or number == "0":
            places.update(dict.fromkeys(names.split(","), path))
    return places


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


# --------------------------------------------------------------------------- where groups can be made


def _version_2(mounts: list[_Mount], places: Mapping[str, str]) -> list[Hierarchy]:
    """The topmost group of ours that can be divided with most controllers."""
    mount = next((each for each in mounts if each.unified), None)
    if mount is None or "" not in places:
        return []
    folders = [each for each in _preferred(mount.chain(places[""])) if _is_ours(each)]
    found = [Hierarchy(each, True, _divisible(each)) for each in folders]
    return [max(found, key=lambda each: len(each.controllers))] if found else []


def _preferred(chain: list[str]) -> list[str]:
    """Whoever sits in the agent's part of a unit was given that unit; all others look from the top."""
    return [*(chain[-2:-1] if os.path.basename(chain[-1]) == SUBGROUP else ()), *chain]


def _divisible(folder: str) -> frozenset[str]:
    """What groups made in ``folder`` could limit.

    Controllers can be handed down only by a group without processes of its own; the root of all is exempt.
    """
    offered = frozenset(CONTROLLERS) & _words(f"{folder}/cgroup.controllers")
    given = offered & _words(f"{folder}/cgroup.subtree_control")
    is_root = not os.path.exists(f"{folder}/cgroup.type")
    free = is_root or not _words(f"{folder}/cgroup.procs")
    return offered if free and os.access(f"{folder}/cgroup.subtree_control", os.W_OK) else given


def _version_1(mounts: list[_Mount], places: Mapping[str, str]) -> list[Hierarchy]:
    """For each controller the topmost group of ours in its own hierarchy."""
    found: dict[str, set[str]] = {}
    for name in CONTROLLERS:
        for mount in mounts:
            if name in mount.keys & places.keys() and "cpuset" not in mount.keys:  # those need CPUs assigned first
                for folder in [each for each in mount.chain(places[name]) if _is_ours(each)][:1]:
                    found.setdefault(folder, set()).add(name)
    return [Hierarchy(folder, False, frozenset(names)) for folder, names in found.items()]


def _is_ours(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.access(f"{folder}/cgroup.procs", os.W_OK)


def _words(path: str) -> set[str]:
    try:
        return set(_text(path).split())
    except OSError:  # no such file: nothing is offered
        return set()


def _reason(mounts: list[_Mount]) -> str:
    if os.geteuid() != 0:
        return (
            f"uid {os.geteuid()} may write no control group for it; run deploy-code as root, or let systemd run the "
            "agent in a unit with Delegate=yes (`deploy-code agent install`)"
        )
    if not any(_is_ours(mount.point) for mount in mounts):
        return "control groups are mounted read-only here, as in most containers"
    return "no control group for it can be divided here, as in most containers"
