"""The programs that run types from ``plugins:`` and entry points: one for each source and version of its code."""

from __future__ import annotations

import logging
import os

from deploy_code.drivers.custom import CustomOrder
from deploy_code.reliability.registry import Breakers
from deploy_code.wire import HOSTS

from .links import Link
from .program import Program
from .roster import Roster

log = logging.getLogger("deploy_code.agent")

PATH_FILE = "python_path"  # in the folder of hosts


class Programs:
    """All of one agent. ``open_files``: the soft limit that they, and what they start, begin with."""

    def __init__(self, state: str, breakers: Breakers, roster: Roster, open_files: int) -> None:
        self._state = state
        self._breakers = breakers
        self._roster = roster
        self._open_files = open_files
        self._python_path = _recorded_path(state)
        self._programs: dict[str, Program] = {}

    def look_in(self, python_path: str) -> None:
        """Where whoever deploys has Python look for modules; programs look there too, after a reboot as well."""
        if python_path and python_path != self._python_path:
            self._python_path = python_path
            _record_path(self._state, python_path)

    def try_now(self) -> None:
        """Somebody wants something: those that are left alone because they kept failing get a try at once."""
        for program in self._programs.values():
            program.try_now()

    async def reach(self, order: CustomOrder) -> Link:
        """The one that runs the code of ``order``, started if need be. Raises DriverError E005, E018."""
        return await self._of(order).reach(self._python_path)

    def arrived(self, link: Link) -> None:
        """It is connected, or says that it cannot run anything."""
        if program := self._programs.get(link.offer.key):
            program.arrived(link)

    def lost(self, link: Link) -> None:
        """It ended, and nobody had told it to."""
        if program := self._programs.get(link.offer.key):
            program.lost()

    def close(self) -> None:
        """Wait for nothing any more."""
        for program in self._programs.values():
            program.close()

    def _of(self, order: CustomOrder) -> Program:
        key = _key(order)
        program = self._programs.get(key)
        if program is None:
            breaker = self._breakers.of(f"the host of service type {order.service_type} ({order.handler})")
            program = Program(self._state, key, order.handler, breaker, self._roster, self._open_files)
            self._programs[key] = program
        return program


def _key(order: CustomOrder) -> str:
    import hashlib

    return hashlib.sha256(f"{order.handler}\0{order.digest}".encode()).hexdigest()[:16]


def _recorded_path(state: str) -> str:
    try:
        with open(os.path.join(state, HOSTS, PATH_FILE), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _record_path(state: str, path: str) -> None:
    """Whole or not at all: a reboot may come at any time."""
    name = os.path.join(state, HOSTS, PATH_FILE)
    try:
        os.makedirs(os.path.join(state, HOSTS), mode=0o700, exist_ok=True)
        fd = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(path)
        os.replace(f"{name}.new", name)
    except OSError as exc:
        log.warning("PYTHONPATH of hosts is not recorded: %s", exc)
