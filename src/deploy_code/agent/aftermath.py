"""What becomes of one instance that has ended, or could not be started: it comes back, stays ended, or is left alone.

The restart policy decides that, but for what is evidence of a failed deployment, and for one-shots, whose outcome is
recorded instead.
"""

from __future__ import annotations

import time

from deploy_code.errors import DeployCodeError, StateError, title
from deploy_code.model import Exit, Gate, Phase

from . import endings
from .card import Card
from .circuit import LoopCircuit
from .journal import label
from .port_tries import PortTries
from .restart import Decision, RestartBook, counts_as_success


class Aftermath:
    """Of one instance. ``rebooted``: if it turns out to have ended, the machine's reboot was why."""

    def __init__(
        self, card: Card, book: RestartBook, circuit: LoopCircuit, port_tries: PortTries, *, rebooted: bool
    ) -> None:
        self._card = card
        self._book = book
        self._circuit = circuit
        self._port_tries = port_tries
        self._rebooted = rebooted

    # -- what has happened

    async def could_not_start(self, exc: DeployCodeError) -> None:
        note = self._card.clean(f"{title(exc.code)}: {exc.text}")
        self._card.happened("InstanceStartFailed", note)
        if self._port_tries.after_refusal(exc, note):
            return
        self._card.note(exit=None)
        if not self._card.is_one_shot:
            self._follow(ok=False, ready_for=0.0, note=note)
            return
        if not isinstance(exc, StateError):
            await self.record_outcome("failed", None)
        self._card.set(phase=Phase.FAILED, note=note)

    async def ended(self, exit_: Exit, left: int, reason: str) -> None:
        """``left``: processes that it left behind; ``reason``: why we ended it ourselves, empty if it did by itself."""
        if self._card.is_one_shot:
            await self._one_shot_ended(exit_)
        else:
            self._service_ended(exit_, left, reason)

    def settled(self) -> None:
        """The deployment that it ended in is over, and it lies there as it ended."""
        instance = self._card.instance
        self._follow(ok=counts_as_success(instance.exit), ready_for=0.0, note=instance.note)

    # -- a service

    def _service_ended(self, exit_: Exit, left: int, reason: str) -> None:
        instance = self._card.instance
        how = endings.own_word(exit_) if self._card.is_custom else endings.note(exit_, left, self._card.memory_mb)
        note = self._card.clean(reason or how)
        self._card.happened("InstanceExited", note)
        if self._rebooted and not instance.ready_at:
            self._rebooted = False
            self._card.set(phase=Phase.WAITING, note=endings.WAITS_AFTER_REBOOT)
            return
        if self._port_tries.after_end(exit_):
            return
        ready_for = exit_.at - instance.ready_at if instance.ready_at else 0.0
        self._card.note(exit=exit_, ready_at=0.0)
        self._follow(ok=counts_as_success(exit_) and not reason and not left, ready_for=ready_for, note=note)

    def _follow(self, *, ok: bool, ready_for: float, note: str) -> None:
        """It is dead: what now?"""
        card = self._card
        if card.instance.gate is not Gate.OPEN and not card.entry.settled:
            card.set(phase=Phase.EXITED, note=note)
            return
        follow = self._book.ended(card.policy.restart, now=time.time(), ok=ok, ready_for=ready_for)
        if follow.decision is Decision.CIRCUIT_OPEN:
            self._circuit.open(follow, note)
            return
        self._circuit.closed("circuit closed: it had proven itself" if follow.at else "circuit closed: it stays ended")
        if follow.decision is Decision.STAY:
            card.set(phase=Phase.EXITED, note=note)
        else:
            self._come_back(follow.at, note)

    def _come_back(self, at: float, note: str) -> None:
        card = self._card
        card.set(phase=Phase.BACKOFF, note=note, next_start_at=at, restarts=card.instance.restarts + 1)
        card.happened("RestartScheduled", f"starts again in {at - time.time():.1f} s")

    # -- a one-shot

    async def _one_shot_ended(self, exit_: Exit) -> None:
        outcome = endings.outcome(exit_)
        await self.record_outcome(outcome, exit_)
        self._card.set(**endings.one_shot_end(exit_, self._card.memory_mb))
        self._card.happened("OneShotEnded", f"{outcome}: {exit_}")

    async def record_outcome(self, outcome: str, exit_: Exit | None) -> None:
        """How a one-shot ended; what cannot be recorded is told."""
        card = self._card
        try:
            await card.site.records.end_one_shot(card.instance.service, card.content, outcome, exit_)
        except StateError as exc:
            card.site.journal.trouble(f"{label(card.instance)}: its outcome could not be recorded: {exc}")
