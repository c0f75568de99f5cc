"""What drivers of real processes promise on top: signals, logs, env, folders, users, children."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from deploy_code.drivers.base import Running, StartOrder
from deploy_code.errors import DriverError
from deploy_code.testing.contracts.driver import DriverContract, DriverStage, plain_order
from deploy_code.testing.contracts.loops import on_both_loops, until

UP = "up $$"  # each start says its own pid: the log of the last one is still there
LOOP = "while :; do sleep 0.01; done"
SCRIPTS = {"sleep": f"echo {UP}; exec sleep 1000", "deaf": f"trap '' TERM; echo {UP}; {LOOP}"}


class ProcessDriverContract(DriverContract):
    """For a driver that runs programs of this machine. Supply ``make_driver``; it needs ``sh``, ``sleep``, ``env``."""

    def order(self, program: str, stage: DriverStage) -> StartOrder:
        if program.startswith("no-such-command"):
            return plain_order(stage, program)
        return self.script(stage, SCRIPTS.get(program, program))

    def script(self, stage: DriverStage, text: str, **changes: object) -> StartOrder:
        """An order for a shell script."""
        return plain_order(stage, "sh", "-c", text, **changes)

    async def until_up(self, stage: DriverStage, running: Running) -> None:
        line = f"{UP.replace('$$', str(running.pid))}\n"
        await until(lambda: stage.log_path.exists() and line in stage.log(), what=f"the line {line!r} in the log")

    @on_both_loops
    async def test_a_death_by_signal_names_the_signal(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            exit_ = await it.driver.wait(await it.start(self.script(it, "kill -SEGV $$")))
            assert (exit_.code, exit_.signal) == (None, 11), f"it died by SIGSEGV (11), wait() says {exit_}"

    @on_both_loops
    async def test_a_wait_that_was_cancelled_can_be_taken_up_again(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await it.start(self.script(it, "read line < pipe; exit 4", working_dir=_with_pipe(tmp_path)))
            waiting = asyncio.create_task(it.driver.wait(running))
            await asyncio.sleep(0)
            waiting.cancel()
            assert await it.driver.find(running)
            (tmp_path / "pipe").write_text("go\n")
            assert (await it.driver.wait(running)).code == 4

    # ------------------------------------------------------------------------------------------------ what it is given

    @on_both_loops
    async def test_what_it_writes_is_in_its_log(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            await it.driver.wait(await it.start(self.script(it, "echo out; echo err >&2; cat; pwd")))
            assert it.log() == f"out\nerr\n{tmp_path}\n", "stdout and stderr are in the log; stdin is empty"

    @on_both_loops
    async def test_a_restart_continues_the_log(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            for number in (1, 2):
                await it.driver.wait(await it.start(self.script(it, f"echo {number}")))
            assert it.log() == "1\n2\n"

    @on_both_loops
    async def test_it_gets_exactly_the_env_of_the_order(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            env = {"DEPLOY_CODE_INSTANCE": "x1", "COLOUR": "blü\n=", "PATH": os.environ["PATH"]}
            await it.driver.wait(await it.start(plain_order(it, "env", "-0", env=env, uuid="x1")))
            assert dict(entry.split("=", 1) for entry in it.log().split("\0") if entry) == env

    @on_both_loops
    async def test_an_unknown_command_says_where_it_was_looked_for(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            with pytest.raises(DriverError, match="/bin"):
                await it.start(plain_order(it, "no-such-command"))

    @on_both_loops
    async def test_a_missing_working_directory_is_e005(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            for one_shot in (False, True):
                with pytest.raises(DriverError, match="working directory /no/such does not exist") as caught:
                    await it.start(self.script(it, "", working_dir="/no/such", one_shot=one_shot))
                assert caught.value.code == "E005"

    @on_both_loops
    async def test_an_unknown_user_is_e005(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            for user in ("no-such-user", "root:no-such-group"):
                with pytest.raises(DriverError, match="no-such-") as caught:
                    await it.start(self.script(it, "", user=user))
                assert caught.value.code == "E005"

    # ------------------------------------------------------------------------------------------------------ how it ends

    @on_both_loops
    async def test_a_gentle_stop_ends_it_by_its_signal(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await it.start(self.script(it, f"trap 'echo bye; exit 0' INT; echo {UP}; {LOOP}"))
            await self.until_up(it, running)
            assert await it.driver.stop(running, "SIGINT", 10)
            assert (await it.driver.wait(running)).code == 0
            assert it.log() == f"up {running.pid}\nbye\n"

    @on_both_loops
    async def test_what_ignores_the_signal_is_killed_after_its_time(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await self.start(it, "deaf")
            assert not await it.driver.stop(running, "SIGTERM", 0.1)
            assert (await it.driver.wait(running)).signal == 9
            assert not await it.driver.pids(running)

    @on_both_loops
    async def test_stop_takes_children_along(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await it.start(self.script(it, f"sleep 100 & sleep 100 & echo {UP}; exec sleep 100"))
            await self.until_up(it, running)
            pids = await it.driver.pids(running)
            assert pids[0] == running.pid and len(pids) == 3, f"itself and two children: {pids}"
            assert await it.driver.stop(running, "SIGTERM", 10)
            assert not await it.driver.pids(running), "stop() leaves no child behind"

    @on_both_loops
    async def test_what_a_dead_instance_left_is_swept(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            running = await it.start(self.script(it, "sleep 100 & sleep 100 & exit 0"))
            assert (await it.driver.wait(running)).code == 0
            assert len(await it.driver.pids(running)) == 2, "its two children outlived it"
            assert await it.driver.sweep(running) == 2
            assert await it.driver.sweep(running) == 0
            assert await it.driver.pids(running) == ()

    @on_both_loops
    async def test_one_that_could_not_be_recorded_is_found_whatever_children_it_has(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            started = [await it.start(self.script(it, "sleep 100 & sleep 100")) for _ in range(3)]
            found = await it.successor().find_spawned([*(each.uuid for each in started), "unknown"])
            assert {name: running.pid for name, running in found.items()} == {
                running.uuid: running.pid for running in started
            }

    @on_both_loops
    async def test_a_one_shot_that_ended_without_an_agent_still_tells_its_code(self, tmp_path: Path) -> None:
        async with self.stage(tmp_path) as it:
            script = self.script(it, "read line < pipe; exit 6", one_shot=True, working_dir=_with_pipe(tmp_path))
            running = await it.start(script)
            driver = it.successor()
            (tmp_path / "pipe").write_text("go\n")
            await until(lambda: os.path.exists(running.status_path))
            exit_ = await driver.wait(running)
            assert (exit_.code, exit_.signal) == (6, None)


def _with_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder)
