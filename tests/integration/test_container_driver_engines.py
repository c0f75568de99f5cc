"""What becomes of containers when their engine is away, killed or started anew under the driver."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy_code.drivers.engine import driver as driver_module
from deploy_code.drivers.engine import events
from deploy_code.drivers.engine.client import EngineGoneError
from deploy_code.errors import DriverError
from support.containers import Dock, dock
from support.engine_daemons import Engine, PrivateDocker
from support.loops import until


async def lost(it: Dock) -> None:
    await until(lambda: any(text.startswith("lost: ") for text in it.told), what="that the engine is lost")


async def back(it: Dock) -> None:
    await until(lambda: any(text.endswith("it is back") for text in it.told), 20, what="that the engine is back")


async def restart(engine: Engine) -> None:
    await asyncio.to_thread(engine.start)


async def test_a_killed_engine_loses_no_container(private_podman: Engine, tmp_path: Path) -> None:
    async with dock(private_podman, tmp_path, "Host") as it:
        running = await it.run("sleep")
        waiting = asyncio.create_task(it.driver.wait(running))
        private_podman.kill()
        await lost(it)
        assert await it.driver.find(running), "until it can be asked, what was started is there"
        assert not waiting.done()
        assert await it.driver.pids(running) == (running.pid,) or (await it.driver.pids(running))[0] == running.pid
        await restart(private_podman)
        await back(it)
        assert await it.driver.find(running) and not waiting.done()
        assert await it.driver.stop(running, "SIGTERM", 10)
        async with asyncio.timeout(10):
            assert (await waiting).code == 0


async def test_a_frozen_engine_is_e014_in_time_and_is_spoken_with_when_it_thaws(
    private_podman: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_CALL_SECONDS", 0.5)
    monkeypatch.setattr(events, "_ANSWER_SECONDS", 1.0)
    record = private_podman.record
    assert record is not None
    async with dock(private_podman, tmp_path, "Host") as it:
        running = await it.run("sleep")
        os.kill(record.pid, signal.SIGSTOP)
        try:
            with pytest.raises(EngineGoneError):
                await it.driver.stop(running, "SIGTERM", 5)
            await lost(it)
            assert await it.driver.find(running), "until it can be asked, what was started is there"
        finally:
            os.kill(record.pid, signal.SIGCONT)
        await back(it)
        monkeypatch.undo()
        await it.driver.stop(running, "SIGTERM", 5)


async def test_live_restored_containers_go_on_and_so_does_their_log(
    make_private_docker: Callable[..., PrivateDocker], tmp_path: Path
) -> None:
    engine = make_private_docker("--live-restore")
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("i=0; while :; do echo line $i; i=$((i+1)); usleep 20000; done")
        await until(lambda: it.log().count("\n") > 10)
        engine.kill()
        await lost(it)
        seen = it.log().count("\n")
        await restart(engine)
        await back(it)
        await until(lambda: it.log().count("\n") > seen + 50)
        await it.driver.stop(running, "SIGKILL", 5)
        lines = it.log().splitlines()
        assert lines == [f"line {number}" for number in range(len(lines))]


async def test_what_ended_while_the_engine_was_away_is_known_when_it_is_back(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    async with dock(private_docker, tmp_path, "Host") as it:
        running = await it.run("sleep")
        ends = asyncio.create_task(it.driver.wait(running))
        private_docker.kill()  # without --live-restore the next one ends what it finds
        await lost(it)
        await restart(private_docker)
        async with asyncio.timeout(30):
            exit_ = await ends
        assert exit_.code == 0, "it heard the stop signal, and that is known"
        assert not await it.driver.find(running) and await it.driver.sweep(running) == 0
        await until(lambda: it.ours("container") == [])


async def test_what_was_swept_while_the_engine_was_away_goes_when_it_is_back(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    async with dock(private_docker, tmp_path, "Host") as it:
        running = await it.run("exit 0")
        await it.driver.wait(running)
        private_docker.kill()
        await lost(it)
        assert await it.driver.sweep(running) == 0
        await restart(private_docker)
        await until(lambda: it.ours("container") == [], 20)


async def test_a_start_waits_for_an_engine_that_is_away(private_docker: PrivateDocker, tmp_path: Path) -> None:
    async with dock(private_docker, tmp_path) as it:
        await it.driver.stop(await it.run("sleep"), "SIGTERM", 5)
        order = it.order("sleep 100", patience=30.0)
        private_docker.kill()
        await lost(it)
        starting = asyncio.create_task(it.run(order))
        await restart(private_docker)
        async with asyncio.timeout(30):
            running = await starting
        assert await it.driver.find(running)
        assert len(it.ours("container")) == 1


async def test_an_engine_killed_in_the_middle_of_starts_loses_and_doubles_nothing(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    async with dock(private_docker, tmp_path) as it:
        await it.driver.stop(await it.run("sleep"), "SIGTERM", 5)
        starts = [asyncio.create_task(it.run(it.order("sleep 1000", patience=60.0))) for _ in range(5)]
        await until(lambda: it.ours("container"))
        private_docker.kill()
        await restart(private_docker)
        async with asyncio.timeout(60):
            running = await asyncio.gather(*starts)
        # without --live-restore the engine ends what ran when it was killed: that is told, not hidden
        alive = [each for each in running if await it.driver.find(each)]
        names = it.ours("container")
        assert len(names) == len(set(names)) <= 5
        assert {each.handler["container"] for each in running} >= {each.handler["container"] for each in alive}
        for each in running:
            if each not in alive:
                async with asyncio.timeout(10):
                    await it.driver.wait(each)


async def test_an_engine_that_stays_away_is_e014_and_what_was_begun_can_be_stopped_later(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    async with dock(private_docker, tmp_path, "Host") as it:
        running = await it.run("sleep")
        order = it.order("sleep", patience=0.5)
        private_docker.kill()
        await lost(it)
        with pytest.raises(EngineGoneError) as caught:
            await it.start(order)
        assert caught.value.code == "E014" and caught.value.retryable
        with pytest.raises(DriverError) as refused:
            await it.driver.stop(running, "SIGTERM", 5)
        assert refused.value.code == "E014"
        await restart(private_docker)
        await back(it)
        assert await it.driver.stop(it.containers.begun(order), "SIGTERM", 5)
        await it.driver.stop(running, "SIGTERM", 5)
        assert it.ours("container") == []


async def test_a_socket_where_nobody_listens_is_e014_at_once_and_says_what_to_do(
    docker: Engine, tmp_path: Path
) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        order = it.order("sleep", patience=0.2, container={"engine": f"unix://{tmp_path}/no.sock"})
        with pytest.raises(EngineGoneError) as caught:
            await it.start(order)
        assert "no.sock" in str(caught.value) and "start it" in caught.value.remedy.lower()


async def test_losing_and_finding_an_engine_is_told_once_each(private_podman: Engine, tmp_path: Path) -> None:
    async with dock(private_podman, tmp_path, "Host") as it:
        running = await it.run("sleep")
        for _ in range(2):
            it.told.clear()
            private_podman.kill()
            await lost(it)
            await asyncio.sleep(0.7)  # several tries fail meanwhile
            await restart(private_podman)
            await back(it)
            assert len(it.told) == 2, it.told
        await it.driver.stop(running, "SIGTERM", 5)
