"""Trace and audit of a deployment, of which neither may be the reason that it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy_code.errors import StateError

if TYPE_CHECKING:
    from deploy_code.events import Event
    from deploy_code.state.trace import EventWriter


class Audit:
    """Writes through ``EventWriter``; a disk that refuses costs the trace, is reported once, and harms nothing else.

    Recovery reads none of it, and what must be on disk (what is wanted, how it ended) is not written here.
    """

    def __init__(self, writer: EventWriter, report: Callable[[str], None]) -> None:
        self._writer = writer
        self._report = report
        self._lost = False

    def step_started(self, deployment: int, position: int, step: str, cause: str) -> None:
        self._try(lambda: self._writer.record_step_started(deployment, position, step, cause))

    def step_finished(self, deployment: int, position: int, error: str) -> None:
        self._try(lambda: self._writer.record_step_finished(deployment, position, error))

    def event(self, event: Event) -> None:
        self._try(lambda: self._writer.record_event(event))

    def flush(self) -> None:
        self._try(self._writer.flush)

    def _try(self, write: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            write()
        except StateError as exc:
            self._lost = True
            self._report(f"from here on the trace of this deployment is lost: {exc}")
