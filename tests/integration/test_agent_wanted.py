"""What the agent takes for an instruction, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy_code import wire
from deploy_code.errors import AgentError, StalePlanError
from deploy_code.model import Phase, Wanted
from deploy_code.platforms.spawn import connect
from support.agents import House, sleeper


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.platform.open()
    yield made
    await made.close()


async def test_a_message_of_another_deployment_is_refused_and_changes_nothing(house: House):
    wanted = house.wanted("idle", sleeper())
    with pytest.raises(StalePlanError) as caught:
        await house.platform.want(house.deployment + 1, [wanted])
    assert caught.value.code == "E012"
    assert house.store.wanted_rows() == []
    assert house.platform.instances("idle") == ()


async def test_a_message_after_the_end_of_its_deployment_is_refused(house: House):
    house.end()
    with pytest.raises(StalePlanError):
        await house.want(house.wanted("idle", sleeper()))


async def test_the_older_of_two_deployments_is_refused(house: House):
    old = house.deployment
    house.end("failed")
    house.deployment = house.begin()
    wanted = house.wanted("idle", sleeper())
    with pytest.raises(StalePlanError):
        await house.platform.want(old, [wanted])
    await house.want(wanted)


async def test_settling_another_deployment_is_refused_while_one_runs(house: House):
    with pytest.raises(StalePlanError):
        await house.platform.settle(house.deployment + 1)


async def test_a_deployment_that_is_over_can_be_settled(house: House):
    await house.want(house.wanted("idle", sleeper()))
    house.end()
    await house.settle()
    assert [row.settled for row in house.store.wanted_rows()] == [True]


async def test_what_is_wanted_is_on_disk_before_it_is_answered(house: House):
    await house.want(house.wanted("idle", sleeper(), replicas=2))
    (row,) = house.store.wanted_rows()
    assert (row.service, row.revision, row.replicas, row.deployment) == ("idle", 1, 2, house.deployment)
    assert not row.settled


async def test_content_that_is_not_recorded_is_refused(house: House):
    unknown = Wanted(service="idle", revision=7, replicas=1, content=sleeper())
    with pytest.raises(StalePlanError, match="revision 7 of idle is not recorded"):
        await house.want(unknown)


async def test_one_refused_message_does_not_harm_another_that_came_with_it(house: House):
    good, bad = house.wanted("good", sleeper()), house.wanted("bad", sleeper())
    results = await asyncio.gather(
        house.platform.want(house.deployment + 1, [bad]), house.want(good), return_exceptions=True
    )
    assert isinstance(results[0], StalePlanError)
    assert results[1] is None
    assert [row.service for row in house.store.wanted_rows()] == ["good"]


async def test_the_same_message_twice_is_the_same_as_once(house: House):
    wanted = house.wanted("idle", sleeper(), min_ready_seconds=0.05)
    await house.want(wanted)
    first = await house.ready("idle")
    await house.want(wanted)
    assert [each.uuid for each in house.platform.instances("idle")] == [first.uuid]


async def test_removing_what_is_not_there_is_done_at_once(house: House):
    await house.want(Wanted(service="never", revision=1, replicas=0))


async def test_taking_away_and_wanting_again_at_once_gives_a_new_instance(house: House):
    wanted = house.wanted("idle", sleeper(), min_ready_seconds=0.05)
    await house.want(wanted)
    first = await house.ready("idle")
    await house.want(Wanted(service="idle", revision=1, replicas=0))
    await house.want(wanted)
    (second,) = await house.until("idle", lambda all_: len(all_) == 1 and all_[0].phase is Phase.READY)
    assert second.uuid != first.uuid
    assert second.started_at > first.started_at


async def test_wishes_of_one_tick_travel_as_one_message(house: House):
    wanted = [house.wanted(f"s{number}", sleeper()) for number in range(20)]
    sent = []
    channel = house.platform._channel
    assert channel is not None
    ask = channel.ask
    channel.ask = lambda operation, **arguments: (sent.append(operation), ask(operation, **arguments))[1]  # type: ignore[method-assign,assignment]
    await asyncio.gather(*(house.want(each) for each in wanted))
    assert sent == ["want"]
    assert len(house.store.wanted_rows()) == 20


async def test_a_full_disk_is_an_error_and_services_are_kept(house: House):
    first = house.wanted("first", sleeper(), min_ready_seconds=0.05)
    await house.want(first)
    instance = await house.ready("first")
    second = house.wanted("second", sleeper())
    await asyncio.sleep(0.1)  # the mirror is written: nothing but the next message will touch the disk
    with _unwritable(house), pytest.raises(Exception) as caught:
        await house.want(second)
    assert getattr(caught.value, "code", "") in ("E004", "E008", "S005")
    assert [each.pid for each in house.platform.instances("first")] == [instance.pid]
    await house.want(second)
    await house.phase("second", Phase.STARTING, Phase.READY)


class _unwritable:
    """Somebody else keeps the database locked for longer than the agent waits."""

    def __init__(self, house: House) -> None:
        import sqlite3

        self._db = sqlite3.connect(house.state / "state.db", isolation_level=None)

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


# ------------------------------------------------------------------------------------------------- the wire itself


def ask(sock: socket.socket, line: bytes) -> dict[str, object]:
    sock.sendall(line + b"\n")
    with sock.makefile("rb") as file:
        answer: dict[str, object] = json.loads(file.readline())
    return answer


async def test_nonsense_is_answered_with_an_error_and_the_agent_goes_on(house: House):
    with await asyncio.to_thread(connect, str(house.state)) as sock:
        for line in (b"nonsense", b'{"id": 1, "op": "dance"}', b'{"id": 2, "op": "want", "want": [1]}', b"[]"):
            answer = await asyncio.to_thread(ask, sock, line)
            assert "error" in answer
        answer = await asyncio.to_thread(ask, sock, b'{"id": 3, "op": "info"}')
        assert "ok" in answer


async def test_a_watcher_that_does_not_read_costs_only_the_last_state_of_each(house: House):
    sock = await asyncio.to_thread(connect, str(house.state))
    with sock:
        sock.sendall(b'{"id": 1, "op": "watch"}\n')
        await house.want(house.wanted("idle", sleeper(), min_ready_seconds=0.05))
        await house.ready("idle")
        assert (await house.platform.info()).instances == 1


async def test_an_agent_of_another_protocol_is_refused(house: House, monkeypatch: pytest.MonkeyPatch):
    await house.platform.close()
    monkeypatch.setattr(wire, "PROTOCOL", 99)
    with pytest.raises(AgentError, match="protocol"):
        await house.platform.open()
