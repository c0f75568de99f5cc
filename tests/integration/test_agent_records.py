"""What the agent writes without being waited for: in groups, and what is in no hurry with the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy_code.agent.breakers import agent_breakers
from deploy_code.agent.journal import Journal
from deploy_code.agent.records import Records, statements
from deploy_code.errors import StateError
from deploy_code.model import Breaker, Instance, Phase
from deploy_code.state.connection import Connection
from deploy_code.state.migrate import VERSION
from deploy_code.state.store import FILE
from support.agents import House, sleeper


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


def refuse(error: StateError) -> None:
    raise AssertionError(error)


def records_of(house: House) -> Records:
    return Records(Connection(str(house.state / FILE), statements()), refuse)


def instance(**fields: object) -> Instance:
    return Instance(uuid="u1", service="app", revision=1, index=0, **fields)  # type: ignore[arg-type]


async def test_what_is_in_no_hurry_goes_with_what_is(house: House) -> None:
    records = records_of(house)
    records.save_sometime(instance(restarts=1))
    await asyncio.sleep(0.1)
    assert house.store.instances() == []
    records.save(Instance(uuid="u2", service="app", revision=1, index=1))
    await house.eventually(lambda: len(house.store.instances()) == 2)
    await records.close()


async def test_it_does_not_wait_for_ever(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy_code.agent.records.SOMETIME_SECONDS", 0.05)
    records = records_of(house)
    records.save_sometime(instance(phase=Phase.READY))
    await house.eventually(house.store.instances)
    await records.close()


async def test_it_is_written_at_the_end_at_the_latest(house: House) -> None:
    records = records_of(house)
    records.save_sometime(instance(restarts=7))
    await records.close()
    assert house.store.instances()[0].restarts == 7


async def test_breakers_that_are_not_closed_are_in_the_state_and_every_change_is_an_event(house: House) -> None:
    records = records_of(house)
    breakers = agent_breakers(records, Journal(records.add_event))
    breaker = breakers.of("the docker socket", Breaker(failures=1, cooldown_seconds=0.0))
    with pytest.raises(OSError, match="refused"), breaker:
        raise OSError("connection refused")
    await house.eventually(house.store.circuits)
    (row,) = house.store.circuits()
    assert (row.protects, row.reason) == ("the docker socket", "connection refused")
    async with breakers.of("the docker socket"):
        await house.eventually(lambda: house.store.circuits()[0].state == "half-open")
    await house.eventually(lambda: not house.store.circuits())
    assert house.events() == ["CircuitOpened", "CircuitHalfOpened", "CircuitClosed"]
    await records.close()


async def test_an_agent_brings_the_state_of_an_older_version_up_to_date(house: House) -> None:
    """As when systemd starts it after an update, before any command has run."""
    for statement in ("DROP TABLE circuits", "DROP TABLE images", "PRAGMA user_version = 1"):
        house.store._sql._db.execute(statement)
    await house.want(house.wanted("app", sleeper(), min_ready_seconds=0.05))
    await house.ready("app")
    assert house.store._sql.version() == VERSION
    assert house.store.circuits() == []


async def test_a_new_agent_begins_with_all_circuits_closed(house: House) -> None:
    records = records_of(house)
    breaker = agent_breakers(records, Journal(records.add_event)).of("a host", Breaker(failures=1))
    breaker.admit().failed("gone")
    await house.eventually(house.store.circuits)  # and now it is killed
    successor = records_of(house)
    await successor.load()
    assert house.store.circuits() == []
    await successor.close()
    await records.close()
