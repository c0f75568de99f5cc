"""The agent's breakers: what it calls that belongs to somebody else. Their changes go into the state and the events."""

from __future__ import annotations

from deploy_code.reliability.circuit import CircuitBreaker
from deploy_code.reliability.registry import Breakers, event_of

from .journal import Journal
from .records import Records


def agent_breakers(records: Records, journal: Journal) -> Breakers:
    """Breakers for use in the agent's loop. ``status`` reads those that are not closed out of the state."""

    def changed(breaker: CircuitBreaker) -> None:
        event = event_of(breaker)
        journal.happened(event.name, event.text)
        records.save_circuit(breaker.read())

    return Breakers(on_change=changed)
