"""A port that was ours to choose, and that somebody took in between: the instance starts again with another number."""

from __future__ import annotations

from deploy_code.errors import DeployCodeError
from deploy_code.model import Exit, Gate, Phase

from . import endings
from .card import Card
from .ports import chosen_freely

PORT_TRIES = 3


class PortTries:
    """Of one instance, until its gate has opened; ``again`` makes them anew."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._count = 0

    @property
    def is_other(self) -> bool:
        """Is the next start one with other numbers?"""
        return self._count > 0

    def again(self) -> None:
        """It has all its tries before it."""
        self._count = 0

    def after_refusal(self, exc: DeployCodeError, note: str) -> bool:
        """It could not be started, as ``note`` says: whether it is for a port, and another is tried."""
        if exc.code != "S004" or not self._may_try():
            return False
        self._count += 1
        self._card.set(phase=Phase.STARTING, note=note)
        return True

    def after_end(self, exit_: Exit) -> bool:
        """It has ended: whether it died of a port, and another is tried."""
        card = self._card
        if exit_.ok or not self._may_try():
            return False
        if not endings.died_of_port(card.entry.wanted, card.instance):
            return False
        self._count += 1
        card.set(phase=Phase.STARTING, exit=exit_, restarts=card.instance.restarts + 1)
        card.happened("PortTaken", f"its port was taken: trying another ({self._count} of {PORT_TRIES})")
        return True

    def _may_try(self) -> bool:
        wanted = self._card.entry.wanted
        tries_left = self._card.instance.gate is not Gate.OPEN and self._count < PORT_TRIES
        return tries_left and chosen_freely(wanted.content, wanted.policy)
