"""What is known of containers when an engine is slow, silent, or says things in an unlucky order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy_code.drivers.engine import events
from deploy_code.drivers.engine.client import EngineClient, EngineGoneError
from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.drivers.engine.events import EngineWatch
from support.engine_server import JSON, Served, Server, serving
from support.loops import until


class Engine:
    """``containers``: id → what an inspect says of its state; ``tell`` sends an event to whoever listens."""

    def __init__(self, server: Server) -> None:
        server.answer = self.answer
        self.server = server
        self.containers: dict[str, dict[str, Any]] = {}
        self.may_list = asyncio.Event()
        self.may_list.set()
        self.is_frozen = self.is_garbled = False
        self.streams: set[Served] = set()

    async def answer(self, served: Served) -> None:
        path = served.target.partition("?")[0].removeprefix("/v1.41")
        if path == "/events" and not self.is_frozen:
            await self._stream(served)
        elif self.is_frozen:
            await served.say_nothing()
        elif path == "/containers/json":
            key = "Name" if self.is_garbled else "Id"
            listed = [{key: name, "State": state["Status"]} for name, state in self.containers.items()]
            await self.may_list.wait()
            await served.json(listed)
        elif path == "/info":
            await served.json({})
        else:
            await self._inspected(served, path.split("/")[2])

    async def _inspected(self, served: Served, name: str) -> None:
        state = self.containers.get(name)
        await (served.json({"State": state}) if state else served.json({"message": "none"}, status=404))

    async def _stream(self, served: Served) -> None:
        await served.say(JSON + b"Transfer-Encoding: chunked\r\n\r\n")
        self.streams.add(served)
        try:
            await served.say_nothing()
        finally:
            self.streams.discard(served)

    async def tell(self, action: str, container: str, **attributes: str) -> None:
        line = json.dumps({"Action": action, "Actor": {"ID": container, "Attributes": attributes}}).encode() + b"\n"
        for served in self.streams:
            await served.say(b"%x\r\n%b\r\n" % (len(line), line))

    async def end_streams(self) -> None:
        for served in tuple(self.streams):
            await served.say(b"0\r\n\r\n")

    def asked(self, text: str) -> int:
        return sum(text in each for each in self.server.requests)


RUNS = {"Status": "running", "Running": True}


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with serving(tmp_path / "engine.sock") as server:
        engine = Engine(server)
        yield engine
        engine.may_list.set()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def watch(engine: Engine, told: list[str]) -> AsyncIterator[EngineWatch]:
    client = EngineClient(Endpoint(url=f"unix://{engine.server.path}"))
    watch = EngineWatch(client, "/state", told=told.append)
    client.unanswered = watch.doubt
    yield watch
    watch.close()
    await client.close()


async def test_an_end_is_told_to_all_who_wait_and_to_who_asks_late(engine: Engine, watch: EngineWatch) -> None:
    engine.containers["a"] = RUNS
    assert await watch.tried()
    waiting = [asyncio.create_task(watch.ended("a")) for _ in range(3)]
    await asyncio.sleep(0)
    await engine.tell("die", "a", exitCode="0")
    await engine.tell("die", "a", exitCode="0")
    assert {exit_.code for exit_ in await asyncio.gather(*waiting)} == {0}
    assert (await watch.ended("a")).code == 0


async def test_one_that_runs_for_months_does_not_keep_the_ends_of_all_others(
    engine: Engine, watch: EngineWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_ENDS_KEPT", 5)
    engine.containers["old"] = RUNS
    assert await watch.tried()
    waiting = asyncio.create_task(watch.ended("old"))
    await asyncio.sleep(0)
    for number in range(50):
        watch.started(f"c{number}")
        await engine.tell("die", f"c{number}", exitCode="0")
    await until(lambda: watch.has_ended("c49"))
    assert sum(watch.has_ended(f"c{number}") for number in range(50)) == 5
    await engine.tell("die", "old", exitCode="0")
    assert (await waiting).code == 0


async def test_a_list_that_is_older_than_a_start_does_not_hide_it(engine: Engine, watch: EngineWatch) -> None:
    engine.may_list.clear()
    watch.begin()
    await until(lambda: engine.asked("/containers/json"))
    watch.started("new")
    engine.may_list.set()
    assert await watch.tried()
    assert watch.is_alive("new")


async def test_one_that_we_told_to_end_is_not_asked_about(engine: Engine, watch: EngineWatch) -> None:
    engine.containers.update(ours=RUNS, other={"Status": "exited", "ExitCode": 143, "OOMKilled": True})
    assert await watch.tried()
    watch.started("other")
    watch.expect_end("ours")
    for name in ("ours", "other"):
        await engine.tell("die", name, exitCode="143")
    ours, other = await asyncio.gather(watch.ended("ours"), watch.ended("other"))
    assert (ours.signal, ours.out_of_memory, other.out_of_memory) == (15, False, True)
    assert engine.asked("/ours/json") == 0 and engine.asked("/other/json") == 1


async def test_a_stream_that_ends_while_the_engine_is_there_is_begun_anew_and_not_told(
    engine: Engine, watch: EngineWatch, told: list[str]
) -> None:
    engine.containers["a"] = RUNS
    assert await watch.tried()
    waiting = asyncio.create_task(watch.ended("a"))
    await asyncio.sleep(0)
    engine.containers["a"] = {"Status": "exited", "ExitCode": 7}
    await engine.end_streams()
    assert (await waiting).code == 7, "it ended while nobody listened"
    await watch.available(2.0)
    assert told == []


async def test_an_engine_that_is_frozen_is_noticed_and_so_is_its_return(
    engine: Engine, watch: EngineWatch, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_ANSWER_SECONDS", 0.1)
    engine.containers["a"] = RUNS
    assert await watch.tried()
    waiting = asyncio.create_task(watch.ended("a"))
    await asyncio.sleep(0)
    engine.is_frozen = True
    with pytest.raises(EngineGoneError):
        await watch._client.call("GET", "/containers/a/json", timeout=0.05)
    await until(lambda: any(text.startswith("lost: ") for text in told), what="that it does not answer")
    with pytest.raises(EngineGoneError):
        await watch.available(0.05)
    assert watch.is_alive("a") and not waiting.done(), "until it can be asked, what was started is there"
    engine.containers["a"] = {"Status": "exited", "ExitCode": 3}
    engine.is_frozen = False
    await watch.available(10.0)
    assert (await waiting).code == 3
    assert len(told) == 2


async def test_who_asks_of_what_is_closed_is_not_kept_waiting(engine: Engine, watch: EngineWatch) -> None:
    engine.may_list.clear()
    first = asyncio.create_task(watch.tried())
    await until(lambda: engine.asked("/containers/json"))
    watch.close()
    assert await first is False
    with pytest.raises(EngineGoneError):
        await watch.available(0.0)
    with pytest.raises(asyncio.CancelledError):
        await watch.ended("a")


async def test_an_answer_beyond_all_expectation_ends_no_watch(
    engine: Engine, watch: EngineWatch, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LONGEST_WAIT", 0.25)
    engine.containers["a"] = RUNS
    assert await watch.tried()
    waiting = asyncio.create_task(watch.ended("a"))
    await asyncio.sleep(0)
    engine.is_garbled = True
    await engine.end_streams()
    await until(lambda: any("cannot be watched" in text for text in told), what="that its answer is not understood")
    engine.is_garbled = False
    engine.containers["a"] = {"Status": "exited", "ExitCode": 5}
    async with asyncio.timeout(5):
        assert (await waiting).code == 5
