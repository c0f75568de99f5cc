"""From probe results to one word: starting, ready, unready or gate_failed. Pure: times are handed in.

The rule is CONTRACTS §2. Until the first success, failures inside ``start_period_seconds`` do not count;
after it the gate fails once probes have failed for ``retries`` times ``interval_seconds`` without a success.
After the first success ``retries`` failures in a row mean unready, and one success means ready again.
"""

from __future__ import annotations

from typing import Literal

from deploy_code.model import HealthCheck

State = Literal["starting", "ready", "unready", "gate_failed"]

MIN_ALIVE_SECONDS = 1.0  # how long a service with neither check nor port must live to be ready, unless it says


class Verdict:
    """The judgement over one instance; ``state`` is the last word.

    ``born_at`` is when the instance was started, on the clock of all times handed in. ``hold_seconds``: no
    success counts before this age (services of which only their life can be told). ``open_gate``: it was
    ready before and is only watched anew (an adopted instance): judged by ``retries`` from the beginning, and
    its first success is told as a change.

    A failed gate is not the end: a later success means ready, for deployments that go on all the same.
    """

    def __init__(
        self, check: HealthCheck, *, born_at: float, hold_seconds: float = 0.0, open_gate: bool = False
    ) -> None:
        self.state: State = "ready" if open_gate else "starting"
        self._counts_from = born_at + check.start_period_seconds
        self._ready_from = born_at + hold_seconds
        self._patience = check.retries * check.interval_seconds
        self._retries = check.retries
        self._failing_since: float | None = None
        self._failures = 0
        self._proven = False  # since this verdict began

    @property
    def was_ready(self) -> bool:
        """Has its gate opened?"""
        return self.state in ("ready", "unready")

    def until_hold_ends(self, now: float) -> float:
        """Seconds until a success may count; 0 when it may."""
        return max(0.0, self._ready_from - now)

    def judge(self, ok: bool, at: float) -> bool:
        """Take in one result, known at ``at``. True when ``state`` changed, or was confirmed for the first
        time.
        """
        return self._succeeded(at) if ok else self._failed(at)

    def _succeeded(self, at: float) -> bool:
        self._failures = 0
        self._failing_since = None
        if self.state == "starting" and at < self._ready_from:
            return False
        changed = self.state != "ready" or not self._proven
        self.state, self._proven = "ready", True
        return changed

    def _failed(self, at: float) -> bool:
        if self.state == "starting":
            return self._failed_before_gate(at)
        self._failures += 1
        if self.state != "ready" or self._failures < self._retries:
            return False
        self.state = "unready"
        return True

    def _failed_before_gate(self, at: float) -> bool:
        if at < self._counts_from:
            return False
        if self._failing_since is None:
            self._failing_since = at
        if at - self._failing_since < self._patience:
            return False
        self.state = "gate_failed"
        return True


def hold_seconds(*, only_alive: bool, min_ready_seconds: float) -> float:
    """The least age of a ready instance: 0 where it can be asked, else ``min_ready_seconds`` or 1."""
    if not only_alive:
        return 0.0
    return min_ready_seconds or MIN_ALIVE_SECONDS
