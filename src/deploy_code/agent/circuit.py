"""The circuit of one instance's crash loop as everybody sees it: on the card, in events, closed again once proven.

An instance that ended too often is left alone for the cool-down, then tried once. Each instance has a circuit of its
own, so that one bad replica takes none of the good ones along; but of those of one revision only one at a time makes
its try, the one that has waited longest. How that goes decides for the others: ready, they follow; ended again, they
wait with it.
"""

from __future__ import annotations

import asyncio
import time

from deploy_code.model import Instance, Phase
from deploy_code.reliability.circuit import Circuit

from .card import Card
from .restart import Next, RestartBook

CLOSED = ""  # in the row: the default, so that rows stay short


class LoopCircuit:
    """Keeps ``Instance.circuit``. ``closed`` in the row is the empty text."""

    def __init__(self, card: Card, book: RestartBook) -> None:
        self._card = card
        self._book = book
        self._opened_at = 0.0
        self._proof: asyncio.TimerHandle | None = None
        if self.instance.circuit != CLOSED or self.instance.phase is Phase.FAILED:  # adopted
            book.opened()

    @property
    def instance(self) -> Instance:
        return self._card.instance

    @property
    def _is_open(self) -> bool:
        return self.instance.phase is Phase.FAILED and self.instance.circuit == Circuit.OPEN

    @property
    def _is_unproven(self) -> bool:
        """Does it make its try, and is not ready yet?"""
        return self.instance.circuit == Circuit.HALF_OPEN and self.instance.phase is not Phase.READY

    def open(self, follow: Next, note: str) -> None:
        """It ended once too often; ``note``: how it ended."""
        failed_try = self.instance.circuit == Circuit.HALF_OPEN
        self._opened_at = time.time()
        why = "its one try has ended too" if failed_try else f"it ended {follow.exits} times in a short while"
        self._card.set(
            phase=Phase.FAILED,
            circuit=str(Circuit.OPEN),
            note=f"{note}; {why}",
            next_start_at=follow.at,
            restarts=self.instance.restarts + 1,
        )
        self._card.happened("CircuitOpened", f"circuit open: {why}; next try in {follow.at - time.time():.1f} s")

    async def turn(self) -> None:
        """The cool-down is over: begin the try, unless another instance of the revision comes first.

        Gives back at once when somebody wants a fresh start; with ``next_start_at`` in the future when a try failed.
        """
        while self._is_open and any(map(self._follows, self._beside())):
            await self._card.site.news()
        if not self._is_open:
            return
        at = max((each.instance.next_start_at for each in self._beside() if each._is_open), default=0.0)
        if at > self.instance.next_start_at:
            self._card.set(next_start_at=at)
            return
        self._book.tries(time.time())
        self._card.set(phase=Phase.STARTING, circuit=str(Circuit.HALF_OPEN), next_start_at=0.0)
        self._card.happened("CircuitHalfOpened", "circuit half-open: one try is made")

    def watch(self) -> None:
        """It was judged: one that is ready in its try is proven when it has been so for long enough."""
        instance = self.instance
        if instance.circuit != Circuit.HALF_OPEN or instance.phase is not Phase.READY:
            return
        self.forget()
        due = instance.ready_at + self._card.policy.restart.reset_after_seconds
        self._proof = asyncio.get_running_loop().call_later(
            max(0.0, due - time.time()), self._proven, instance.ready_at
        )

    def _proven(self, ready_at: float) -> None:
        if self.instance.phase is Phase.READY and self.instance.ready_at == ready_at:
            self.close("circuit closed: it has proven itself")

    def close(self, text: str) -> None:
        """Forget all ends; ``text`` says why in the event."""
        self._book.forgive()
        self.closed(text)

    def closed(self, text: str) -> None:
        """Its ends are forgotten already, or count no more."""
        self.forget()
        if self.instance.circuit != CLOSED:
            self._card.set(circuit=CLOSED)
            self._card.happened("CircuitClosed", text)

    def forget(self) -> None:
        """It is not watched any more."""
        if self._proof is not None:
            self._proof.cancel()
            self._proof = None

    def _beside(self) -> list[LoopCircuit]:
        return self._card.site.circuits_beside(self.instance)

    def _follows(self, other: LoopCircuit) -> bool:
        """Must this one wait for ``other``?"""
        return other._is_unproven or (other._is_open and other._rank < self._rank)

    @property
    def _rank(self) -> tuple[float, int]:
        return self._opened_at, self.instance.index
