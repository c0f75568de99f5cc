"""Says what happened: one line for people in the state's events, and in agent.log what nobody else would see.

Every text passes the redactor of its service first: bodies of answers, stderr and error texts may hold anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from deploy_code.model import Instance, ProbeResult
from deploy_code.security.redact import Redactor

from .records import EventRow

log = logging.getLogger("deploy_code.agent")


class Journal:
    """Writes events of the agent. ``write`` takes finished rows; ``deployment`` is the last one heard of."""

    def __init__(self, write: Callable[[EventRow], None]) -> None:
        self._write = write
        self._redactors: dict[tuple[str, ...], Redactor] = {}
        self.deployment = 0

    def happened(
        self, name: str, text: str, *, instance: Instance | None = None, secrets: tuple[str, ...] = ()
    ) -> None:
        """Record an event: ``name`` in the past tense (``InstanceStarted``), ``text`` one line."""
        service = instance.service if instance else ""
        line = self.clean(f"{label(instance)} {text}" if instance else text, secrets)
        self._write(EventRow(time.time(), self.deployment, service, name, line))

    def trouble(self, text: str) -> None:
        """Something of the agent itself failed; services are not affected."""
        log.warning("%s", text)
        self.happened("AgentTroubled", text)

    def clean(self, text: str, secrets: tuple[str, ...]) -> str:
        """``text`` without the values of ``secrets``."""
        return self._redactor(secrets).clean(text) if secrets and text else text

    def clean_probe(self, result: ProbeResult | None, secrets: tuple[str, ...]) -> ProbeResult | None:
        if result is None or not secrets:
            return result
        return replace(result, target=self.clean(result.target, secrets), detail=self.clean(result.detail, secrets))

    def _redactor(self, secrets: tuple[str, ...]) -> Redactor:
        redactor = self._redactors.get(secrets)
        if redactor is None:
            redactor = self._redactors[secrets] = Redactor(secrets)
        return redactor


def label(instance: Instance) -> str:
    """``api r7 #0``"""
    return f"{instance.service} r{instance.revision} #{instance.index}"
