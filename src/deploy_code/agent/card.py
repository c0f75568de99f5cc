"""What is known of one instance, and everyone who has to hear of a change: the state, the watchers, the journal."""

from __future__ import annotations

from typing import Any

from deploy_code.drivers.base import Driver, Running
from deploy_code.model import Content, Instance, Policy, ProbeResult

from .site import Site
from .wanted import Entry


class Card:
    """One ``model.Instance`` that changes, what runs of it (None: nothing), and the entry that wants it."""

    def __init__(self, site: Site, entry: Entry, instance: Instance, running: Running | None = None) -> None:
        self.site = site
        self.entry = entry
        self.instance = instance
        self.running = running

    @property
    def content(self) -> Content:
        return self.entry.wanted.content

    @property
    def policy(self) -> Policy:
        return self.entry.wanted.policy

    @property
    def driver(self) -> Driver:
        return self.site.drivers.of(self.content)

    @property
    def is_custom(self) -> bool:
        """Is it of a type that somebody else wrote?"""
        return self.site.drivers.is_custom(self.content)

    @property
    def is_container(self) -> bool:
        return self.content.is_container

    @property
    def is_one_shot(self) -> bool:
        return self.content.one_shot

    @property
    def memory_mb(self) -> int:
        """Its limit; 0 for none."""
        return self.content.resources.memory_mb

    def note(self, **changes: Any) -> None:
        """Change it; nobody is told yet, because more is to follow."""
        self.instance = self.instance.but(**changes)

    def set(self, **changes: Any) -> None:
        """Change it and tell: the row is written soon, watchers hear at once."""
        self.note(**changes)
        self.site.records.save(self.instance)
        self.site.changed(self.instance)

    def mirror(self, **changes: Any) -> None:
        """Change it and tell, without hurry: the row is written with others."""
        self.note(**changes)
        self.site.records.save_sometime(self.instance)
        self.site.changed(self.instance)

    def happened(self, name: str, text: str) -> None:
        """Record an event, secrets redacted."""
        self.site.journal.happened(name, text, instance=self.instance, secrets=self.entry.wanted.secrets)

    def clean(self, text: str) -> str:
        """``text`` without this service's secrets."""
        return self.site.journal.clean(text, self.entry.wanted.secrets)

    def clean_probe(self, probe: ProbeResult | None) -> ProbeResult | None:
        return self.site.journal.clean_probe(probe, self.entry.wanted.secrets)
