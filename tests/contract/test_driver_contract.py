"""What every driver promises (``drivers.base.Driver``), on both event loops.

A new driver joins by an entry in ``support.drivers.HARNESSES``.
"""

import asyncio
import os
from pathlib import Path

import pytest

from deploy_code.drivers.base import Running
from deploy_code.errors import DriverError
from support.drivers import HARNESSES, harness
from support.loops import on_both_loops, until

every_driver = pytest.mark.parametrize("kind", HARNESSES)


@every_driver
@on_both_loops
async def test_the_exit_code_is_exact(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        for code in (0, 3, 255):
            exit_ = await it.driver.wait(await it.start(f"exit {code}"))
            assert (exit_.code, exit_.signal) == (code, None)


@every_driver
@on_both_loops
async def test_a_death_by_signal_names_the_signal(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        exit_ = await it.driver.wait(await it.start("kill -SEGV $$"))
        assert (exit_.code, exit_.signal) == (None, 11)


@every_driver
@on_both_loops
async def test_the_end_can_be_asked_for_by_many_and_late(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("exit 7")
        first = await asyncio.gather(*(it.driver.wait(running) for _ in range(3)))
        assert {exit_.code for exit_ in [*first, await it.driver.wait(running)]} == {7}


@every_driver
@on_both_loops
async def test_cancelling_a_wait_harms_nothing(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("read line < pipe; exit 4", working_dir=str(_with_pipe(tmp_path)))
        waiting = asyncio.create_task(it.driver.wait(running))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await it.driver.find(running)
        (tmp_path / "pipe").write_text("go\n")
        assert (await it.driver.wait(running)).code == 4


def _with_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder


@every_driver
@on_both_loops
async def test_what_it_writes_is_in_its_log(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        await it.driver.wait(await it.start("echo out; echo err >&2; cat; pwd"))
        assert it.log() == f"out\nerr\n{tmp_path}\n"


@every_driver
@on_both_loops
async def test_a_restart_continues_the_log(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        for number in (1, 2):
            await it.driver.wait(await it.start(f"echo {number}"))
        assert it.log() == "1\n2\n"


@every_driver
@on_both_loops
async def test_it_gets_exactly_the_env_of_the_order(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        env = {"DEPLOY_CODE_INSTANCE": "x1", "COLOUR": "blü\n=", "PATH": os.environ["PATH"]}
        await it.driver.wait(await it.start("", command="env", args=("-0",), env=env, uuid="x1"))
        assert dict(entry.split("=", 1) for entry in it.log().split("\0") if entry) == env


@every_driver
@on_both_loops
async def test_an_unknown_command_is_e003_and_says_where_it_was_looked_for(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        for one_shot in (False, True):
            with pytest.raises(DriverError) as caught:
                await it.start("", command="no-such-command", one_shot=one_shot)
            assert caught.value.code == "E003"
            assert "no-such-command" in str(caught.value) and "/bin" in str(caught.value)


@every_driver
@on_both_loops
async def test_a_missing_working_directory_is_e005(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        for one_shot in (False, True):
            with pytest.raises(DriverError, match="working directory /no/such does not exist") as caught:
                await it.start("", working_dir="/no/such", one_shot=one_shot)
            assert caught.value.code == "E005"


@every_driver
@on_both_loops
async def test_an_unknown_user_is_e005(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        for user in ("no-such-user", "root:no-such-group"):
            with pytest.raises(DriverError, match="no-such-") as caught:
                await it.start("", user=user)
            assert caught.value.code == "E005"


@every_driver
@on_both_loops
async def test_a_gentle_stop_ends_it_by_its_signal(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("trap 'echo bye; exit 0' INT; echo up; while :; do sleep 0.01; done")
        await until(lambda: "up" in it.log())
        assert await it.driver.stop(running, "SIGINT", 10)
        assert (await it.driver.wait(running)).code == 0
        assert it.log() == "up\nbye\n"


@every_driver
@on_both_loops
async def test_what_ignores_the_signal_is_killed_after_its_time(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("trap '' TERM; echo up; while :; do sleep 0.01; done")
        await until(lambda: "up" in it.log())
        assert not await it.driver.stop(running, "SIGTERM", 0.1)
        assert (await it.driver.wait(running)).signal == 9
        assert not await it.driver.pids(running)


@every_driver
@on_both_loops
async def test_stopping_twice_is_the_same_as_once(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("exec sleep 100")
        assert await asyncio.gather(*(it.driver.stop(running, "SIGTERM", 10) for _ in range(3))) == [True] * 3
        assert await it.driver.stop(running, "SIGTERM", 10)


@every_driver
@on_both_loops
async def test_an_unknown_signal_is_said_and_stops_nothing(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("exec sleep 100")
        with pytest.raises(DriverError, match="SIGNONE"):
            await it.driver.stop(running, "SIGNONE", 1)
        assert await it.driver.find(running)


@every_driver
@on_both_loops
async def test_stop_takes_children_along(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("sleep 100 & sleep 100 & echo up; exec sleep 100")
        await until(lambda: "up" in it.log())
        pids = await it.driver.pids(running)
        assert pids[0] == running.pid and len(pids) == 3
        assert await it.driver.stop(running, "SIGTERM", 10)
        assert not await it.driver.pids(running)


@every_driver
@on_both_loops
async def test_what_a_dead_instance_left_is_swept(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("sleep 100 & sleep 100 & exit 0")
        assert (await it.driver.wait(running)).code == 0
        assert len(await it.driver.pids(running)) == 2
        assert await it.driver.sweep(running) == 2
        assert await it.driver.sweep(running) == 0
        assert await it.driver.pids(running) == ()


@every_driver
@on_both_loops
async def test_a_living_instance_is_not_swept(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("exec sleep 100")
        with pytest.raises(DriverError, match="still runs"):
            await it.driver.sweep(running)
        assert await it.driver.find(running)


@every_driver
@on_both_loops
async def test_the_next_agent_finds_it_and_can_wait_for_and_stop_it(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("exec sleep 100")
        driver = it.fresh_driver()
        assert await driver.find(running)
        assert await driver.stop(running, "SIGTERM", 10)
        assert not await driver.find(running)


@every_driver
@on_both_loops
async def test_one_started_by_an_agent_that_could_not_record_it_is_found_by_its_uuid(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        started = [await it.start("sleep 100 & sleep 100") for _ in range(3)]
        names = [running.uuid for running in started]
        found = await it.fresh_driver().find_spawned([*names, "unknown"])
        assert {name: running.pid for name, running in found.items()} == {
            running.uuid: running.pid for running in started
        }
        assert all(found[running.uuid].start_time == running.start_time for running in started)


@every_driver
@on_both_loops
async def test_a_one_shot_that_ended_without_an_agent_still_tells_its_code(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("read line < pipe; exit 6", one_shot=True, working_dir=str(_with_pipe(tmp_path)))
        driver = it.fresh_driver()
        (tmp_path / "pipe").write_text("go\n")
        await until(lambda: os.path.exists(running.status_path))
        exit_ = await driver.wait(running)
        assert (exit_.code, exit_.signal) == (6, None)


@every_driver
@on_both_loops
async def test_after_a_reboot_nothing_of_it_is_there(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        now = await it.start("exec sleep 100")
        before = Running(uuid=now.uuid, pid=now.pid, start_time=now.start_time, boot_id="another boot")
        assert not await it.driver.find(before)
        assert await it.driver.stop(before, "SIGTERM", 1)
        assert (await it.driver.sweep(before), await it.driver.pids(before)) == (0, ())
        exit_ = await it.driver.wait(before)
        assert (exit_.code, exit_.signal) == (None, None)
        assert await it.driver.find(now)


@every_driver
@on_both_loops
async def test_closing_a_driver_kills_nothing(kind: str, tmp_path: Path) -> None:
    async with harness(kind, tmp_path) as it:
        running = await it.start("exec sleep 100")
        assert await it.fresh_driver().find(running)
