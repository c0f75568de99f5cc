"""What services are to each other: names, profiles, dependencies, one-shots."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from deploy_code.config.compose.reader import Item, Reader
from deploy_code.config.nodes import Scalar

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


def names_of(reader: Reader, services: dict[str, Item]) -> dict[str, str]:
    """Compose's names of services → ours, which begin with a letter, a digit or ``_`` and end at 63."""
    found: dict[str, str] = {}
    for name, item in services.items():
        ours = name
        if not _NAME.fullmatch(name):
            ours = _free(
                re.sub(r"[^A-Za-z0-9_.-]", "-", name.lstrip(".-"))[:60] or "service", {*services, *found.values()}
            )
            reader.changed(f"called {ours} here: a name begins with a letter or a digit, at most 63 characters", item)
        found[name] = ours
    return found


def _free(name: str, taken: Collection[str]) -> str:
    number, found = 2, name
    while found in taken:
        number, found = number + 1, f"{name}-{number}"
    return found


def is_active(reader: Reader, item: Item, profiles: Collection[str]) -> bool:
    """Would ``docker compose up`` with these profiles start it?"""
    wanted = [reader.fixed(text) for text in reader.texts(reader.entries(item).get("profiles"), single=True)]
    return not wanted or "*" in profiles or any(name in profiles for name in wanted)


class Graph:
    """The dependencies of all services, with conditions of ours."""

    def __init__(self, reader: Reader, services: dict[str, Item], active: Collection[str]) -> None:
        self._reader = reader
        self._services = services
        self._active = active
        self._needs = {name: self._needed(name, item) for name, item in services.items()}

    @property
    def one_shots(self) -> frozenset[str]:
        """Services that somebody waits for to complete."""
        return frozenset(
            other for needs in self._needs.values() for other, (how, _) in needs.items() if how == "completed"
        )

    def dependencies(self, name: str, names: dict[str, str]) -> list[Any]:
        """As our file has them. A plain name of a service waits until it is healthy, of a one-shot until it is done."""
        found: list[Any] = []
        for other, (how, item) in self._needs[name].items():
            if other in self.one_shots and how == "healthy":
                self._reader.changed(f"waits until '{other}' has completed", item)
            usual = "completed" if other in self.one_shots else "healthy"
            found.append(names[other] if how == usual else {"service": names[other], "condition": how})
        return found

    def _needed(self, name: str, service: Item) -> dict[str, tuple[str, Item]]:
        keys = self._reader.entries(service)
        found = self._linked(keys.get("links"))
        for other, member in self._reader.members(keys.get("depends_on")).items():
            condition = self._condition(name, other, member)
            if condition:
                found[other] = condition, member
        return found

    def _linked(self, item: Item | None) -> dict[str, tuple[str, Item]]:
        """A link is a dependency too."""
        found: dict[str, tuple[str, Item]] = {}
        for text in self._reader.texts(item):
            other, _, alias = self._reader.fixed(text).partition(":")
            if other not in self._services:
                self._reader.problem(f"no service is called '{other}'", text)
            else:
                found[other] = "started", Item(Scalar("", True, "", text.place), text.path, text.place)
                if alias and alias != other:
                    self._reader.dropped(f"'{other}' is reached by its own name, not as '{alias}'", text)
        return found

    def _condition(self, name: str, other: str, item: Item) -> str:
        reader = self._reader
        keys = reader.entries(item)
        required = reader.flag(keys.get("required")) or "required" not in keys
        if "restart" in keys and reader.flag(keys["restart"]):
            reader.dropped("a service is not restarted because another one was", keys["restart"])
        condition = reader.one_of(keys.get("condition"), _CONDITIONS, "service_started")
        if not self._is_met(name, other, item, required=required):
            return ""
        if not required:
            reader.changed("is required from now on", keys["required"])
        return _CONDITIONS[condition]

    def _is_met(self, name: str, other: str, item: Item, *, required: bool) -> bool:
        """Is there such a service, and does it run where this one does?"""
        if other in self._services and (other in self._active or name not in self._active):
            return True
        if not required:
            self._reader.dropped(f"'{other}' is not there or not in an active profile", item)
        elif other not in self._services:
            self._reader.problem(f"no service is called '{other}'", item)
        else:
            self._reader.problem(f"'{other}' is not in an active profile", item, "name its profile with --profile")
        return False
