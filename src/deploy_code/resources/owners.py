"""Who may be promised something: a project, as long as its state is there, or a process, as long as it lives."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import NamedTuple

from deploy_code.drivers.proctree import boot_id, look_up

_AGENT_LOCK = "agent.lock"  # in the state folder; see ``wire``


class Process(NamedTuple):
    """A process that cannot be mistaken for another with its pid."""

    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def current(cls) -> Process:
        found = look_up(os.getpid())
        return cls(os.getpid(), found.start_time if found else 0, boot_id())

    @property
    def is_alive(self) -> bool:
        if not self.pid or self.boot_id != boot_id():
            return False
        found = look_up(self.pid)
        return found is not None and found.start_time == self.start_time and found.alive


NOBODY = Process(0, 0, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """``id`` is unique on this machine. ``process``: itself, or of a project the one that deploys it now."""

    id: str
    name: str
    is_project: bool
    process: Process = NOBODY

    @classmethod
    def project(cls, state: str, name: str = "") -> Owner:
        """The project whose state lies in ``state``."""
        folder = os.path.realpath(state)
        return cls(id=folder, name=name or os.path.basename(folder), is_project=True)

    @classmethod
    def this_process(cls) -> Owner:
        own = Process.current()
        return cls(id=":".join(map(str, own)), name=f"process {own.pid}", is_project=False, process=own)

    def deploying(self) -> Owner:
        """Itself, with this process at work on it."""
        return replace(self, process=Process.current())

    @property
    def exists(self) -> bool:
        """Does what it was promised still count?"""
        return os.path.isdir(self.id) if self.is_project else self.process.is_alive

    @property
    def has_agent(self) -> bool:
        """Is the process there that called itself the agent of this project? In doubt it is."""
        try:
            with open(os.path.join(self.id, _AGENT_LOCK)) as file:
                text = file.read().strip()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        found = look_up(int(text)) if text.isdigit() else None
        return found is not None and found.alive

    @property
    def left_deploying(self) -> bool:
        """Has the process that deployed this project died before it could say how that ended?"""
        return self.is_project and self.process.pid > 0 and not self.process.is_alive
