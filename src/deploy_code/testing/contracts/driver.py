"""What every driver promises, processes or not."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from deploy_code.codec import from_data, to_data
from deploy_code.drivers.base import Driver, Running, StartOrder
from deploy_code.errors import DriverError
from deploy_code.model import Exit
from deploy_code.testing.contracts.loops import on_both_loops

ENDS_SECONDS = 10.0
KILL_SECONDS = 5.0


class DriverStage:
    """A driver with a folder, and all that it started; ``successor()`` plays the next agent."""

    def __init__(self, folder: Path, make: Callable[[], Driver]) -> None:
        self.folder = folder
        self._make = make
        self.driver = make()
        self.started: list[Running] = []

    @property
    def log_path(self) -> Path:
        return self.folder / "api.0.log"

    def log(self) -> str:
        return self.log_path.read_text()

    async def start(self, order: StartOrder) -> Running:
        self.started.append(await self.driver.start(order))
        return self.started[-1]

    def successor(self) -> Driver:
        """A new driver; the old one forgets everything, as when the agent is replaced."""
        self.driver.close()
        self.driver = self._make()
        return self.driver

    async def close(self) -> None:
        for running in self.started:
            with suppress(DriverError):
                await self.driver.stop(running, "SIGKILL", KILL_SECONDS)
        self.driver.close()


class DriverContract:
    """Subclass it, and supply ``make_driver``; ``order`` too, where your runtime has no programs of these names.

    ``make_driver()`` gives a new driver each time it is called, and all of one test see the same machine.
    """

    def make_driver(self) -> Driver:
        """A new driver, as the agent makes one at its start."""
        raise NotImplementedError(f"{type(self).__name__} does not override make_driver()")

    def order(self, program: str, stage: DriverStage) -> StartOrder:
        """How ``program`` is started: ``exit N`` ends at once with N, ``sleep`` runs on, ``deaf`` must be killed.

        Without an override the first word is the command and the others are its arguments.
        """
        command, *args = program.split()
        return plain_order(stage, command, *args)

    async def until_up(self, stage: DriverStage, running: Running) -> None:
        """Wait until ``sleep`` or ``deaf`` is past its beginning; most runtimes need no such wait."""

    @asynccontextmanager
    async def stage(self, folder: Path) -> AsyncIterator[DriverStage]:
        made = DriverStage(folder, self.make_driver)
        try:
            yield made
        finally:
            await made.close()

    async def start(self, stage: DriverStage, program: str, **changes: object) -> Running:
        running = await stage.start(replace(self.order(program, stage), **changes))  # type: ignore[arg-type]
        if program in ("sleep", "deaf"):
            await self.until_up(stage, running)
        return running

    # ------------------------------------------------------------------------------------------------------ start, find

    @on_both_loops
    async def test_what_was_started_is_found_and_has_its_uuid(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            order = self.order("sleep", it)
            running = await it.start(order)
            assert running.uuid == order.uuid, "start() gives back the uuid of the order"
            assert running.boot_id, "start() says in which boot of the machine it was: a pid alone may be used again"
            assert await it.driver.find(running) is True, "find() sees what start() has just started"

    @on_both_loops
    async def test_what_must_be_remembered_is_plain_data(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            copy = from_data(Running, json.loads(json.dumps(to_data(running))))
            assert copy == running, "what start() gives survives a trip through the state"
            assert await it.successor().find(copy) is True, "and is enough to find the instance again"

    @on_both_loops
    async def test_an_unknown_command_is_e003_and_names_it(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            for one_shot in (False, True):
                with pytest.raises(DriverError) as caught:
                    await self.start(it, "no-such-command", one_shot=one_shot)
                assert caught.value.code == "E003", f"no such command is E003, and this was {caught.value.code}"
                assert "no-such-command" in str(caught.value), "the error names the command"

    @on_both_loops
    async def test_the_next_agent_finds_it_and_can_wait_for_and_stop_it(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            driver = it.successor()
            assert await driver.find(running) is True, "a new driver finds what the one before it started"
            assert await driver.stop(running, "SIGTERM", 10), "and can stop it"
            await self.ends(driver, running)
            assert await driver.find(running) is False, "what was stopped is not found any more"

    @on_both_loops
    async def test_one_started_by_an_agent_that_could_not_record_it_is_found_by_its_uuid(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            started = {each.uuid: each for each in [await self.start(it, "sleep") for _ in range(3)]}
            found = await it.successor().find_spawned([*started, "unknown"])
            assert found.keys() == started.keys(), "find_spawned() finds those that run, and only those"
            for name, running in started.items():
                same = (found[name].pid, found[name].start_time, found[name].boot_id)
                assert same == (running.pid, running.start_time, running.boot_id), "as start() would have told them"

    @on_both_loops
    async def test_closing_a_driver_stops_nothing(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            assert await it.successor().find(running) is True, "close() forgets, and leaves everything running"

    # ------------------------------------------------------------------------------------------------------------- wait

    @on_both_loops
    async def test_the_exit_code_is_exact(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            for code in (0, 3, 255):
                exit_ = await self.ends(it.driver, await self.start(it, f"exit {code}"))
                assert (exit_.code, exit_.signal) == (code, None), f"it ended with code {code}, wait() says {exit_}"

    @on_both_loops
    async def test_the_end_can_be_asked_for_by_many_and_late(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "exit 7")
            first = await asyncio.gather(*(self.ends(it.driver, running) for _ in range(3)))
            codes = {exit_.code for exit_ in [*first, await self.ends(it.driver, running)]}
            assert codes == {7}, f"everybody who waits hears of the same end: {codes}"

    @on_both_loops
    async def test_cancelling_a_wait_harms_nothing(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            waiting = asyncio.create_task(it.driver.wait(running))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert await it.driver.find(running) is True, "cancelling wait() stops nothing"
            await it.driver.stop(running, "SIGTERM", 10)
            await self.ends(it.driver, running)

    @on_both_loops
    async def test_a_one_shot_that_ended_tells_the_next_agent_its_code(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "exit 6", one_shot=True)
            await self.ends(it.driver, running)
            exit_ = await self.ends(it.successor(), running)
            assert exit_.code == 6, f"a one-shot's code outlives the agent; the next driver says {exit_}"

    async def ends(self, driver: Driver, running: Running) -> Exit:
        """Its end, which has to come soon."""
        try:
            async with asyncio.timeout(ENDS_SECONDS):
                return await driver.wait(running)
        except TimeoutError:
            raise AssertionError(f"wait() did not come back within {ENDS_SECONDS:g} s of the end") from None

    # ------------------------------------------------------------------------------------------------------ stop, sweep

    @on_both_loops
    async def test_a_gentle_stop_is_told_from_a_kill(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            gentle = await self.start(it, "sleep")
            assert await it.driver.stop(gentle, "SIGTERM", 10) is True, "it went by itself: stop() gives True"
            deaf = await self.start(it, "deaf")
            assert await it.driver.stop(deaf, "SIGTERM", 0.1) is False, "it had to be killed: stop() gives False"
            for running in (gentle, deaf):
                await self.ends(it.driver, running)
                assert await it.driver.pids(running) == (), "nothing is left when stop() comes back"

    @on_both_loops
    async def test_stopping_twice_is_the_same_as_once(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            at_once = await asyncio.gather(*(it.driver.stop(running, "SIGTERM", 10) for _ in range(3)))
            assert at_once == [True] * 3, f"three stops of one instance at once: {at_once}"
            assert await it.driver.stop(running, "SIGTERM", 10) is True, "stopping what has gone is no error"

    @on_both_loops
    async def test_an_unknown_signal_is_said_and_stops_nothing(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            with pytest.raises(DriverError, match="SIGNONE"):
                await it.driver.stop(running, "SIGNONE", 1)
            assert await it.driver.find(running) is True, "a stop that was refused has stopped nothing"

    @on_both_loops
    async def test_a_living_instance_is_not_swept(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            with pytest.raises(DriverError, match="still runs"):
                await it.driver.sweep(running)
            assert await it.driver.find(running) is True, "sweep() refused, and killed nothing"

    @on_both_loops
    async def test_there_is_nothing_to_sweep_after_a_clean_end(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "exit 0")
            await self.ends(it.driver, running)
            assert await it.driver.sweep(running) == 0, "it left nothing behind"
            assert await it.driver.pids(running) == ()

    @on_both_loops
    async def test_the_instance_s_own_process_comes_first(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "sleep")
            pids = await it.driver.pids(running)
            assert pids[:1] == (running.pid,), f"pids() begins with the instance's own: {pids}, pid {running.pid}"

    @on_both_loops
    async def test_after_a_reboot_nothing_of_it_is_there(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            now = await self.start(it, "sleep")
            before = replace(now, boot_id="another boot")
            assert await it.driver.find(before) is False, "what ran before a reboot is not what has its pid now"
            assert await it.driver.stop(before, "SIGTERM", 1) is True, "to stop it is no error"
            assert (await it.driver.sweep(before), await it.driver.pids(before)) == (0, ())
            exit_ = await it.driver.wait(before)
            assert (exit_.code, exit_.signal) == (None, None), "how it ended is not known"
            assert await it.driver.find(now) is True, "and the one that runs now was not touched"


def plain_order(stage: DriverStage, command: str, /, *args: str, **changes: object) -> StartOrder:
    """An order with a uuid of its own, a log and the small env that every instance gets."""
    name = uuid.uuid4().hex
    values: dict[str, object] = {
        "uuid": name,
        "service": "api",
        "command": command,
        "args": args,
        "env": {"PATH": os.environ["PATH"], "DEPLOY_CODE_INSTANCE": name},
        "working_dir": str(stage.folder),
        "log_path": str(stage.log_path),
        "status_path": str(stage.folder / f"{name}.status"),
    }
    return StartOrder(**{**values, **changes})  # type: ignore[arg-type]
