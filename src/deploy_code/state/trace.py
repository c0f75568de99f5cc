"""The trace and the audit, buffered: recovery never reads them, so a crash may lose the last few rows.

One commit costs as much as many rows in it; hence rows wait here until there are two hundred, or until
``flush``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_code.events import Event
    from deploy_code.state.store import Store

ROWS = 200  # at most so many wait


class EventWriter:
    """Writes steps and events of a deployment in groups. ``who`` goes with every event.

    Every method may raise ``StateError``; the rows are kept then, and the next flush tries again.
    """

    def __init__(self, store: Store, who: str = "") -> None:
        self._store = store
        self._who = who
        self._rows: list[tuple[str, tuple[Any, ...]]] = []

    def record_step_started(
        self, deployment: int, position: int, step: str, cause: str, at: float | None = None
    ) -> None:
        """``position``: place of the step in its plan. A position started again replaces what was there."""
        self._add("put_step", (deployment, position, step, cause, at or time.time()))

    def record_step_finished(self, deployment: int, position: int, error: str = "", at: float | None = None) -> None:
        """``error`` empty: done."""
        self._add("end_step", (at or time.time(), error, deployment, position))

    def record_event(self, event: Event, who: str | None = None) -> None:
        """``who``: when it is not the one the writer was made for."""
        by = self._who if who is None else who
        self._add("put_event", (event.at, event.deployment, event.service, event.name, event.text, by))

    def _add(self, name: str, row: tuple[Any, ...]) -> None:
        self._rows.append((name, row))
        if len(self._rows) >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Commit what waits."""
        if self._rows:
            self._store.write_trace(self._rows)
            self._rows = []
