"""The process driver against programs that misbehave as real ones do."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from deploy_code.drivers.base import Running
from deploy_code.drivers.process import ProcessDriver
from deploy_code.drivers.proctree import Table, boot_id, look_up
from deploy_code.drivers.scans import SharedScan
from deploy_code.errors import DriverError
from support.drivers import Harness, harness
from support.loops import on_both_loops, until
from support.needs import need_root

CLEARED = "env -i"
DETACHED = "setsid -f"


def program(folder: Path, text: str, mode: int = 0o755, name: str = "prog") -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


async def error_of(it: Harness, **order: object) -> str:
    with pytest.raises(DriverError) as caught:
        await it.start("", **{"args": (), **order})
    return str(caught.value)


# --------------------------------------------------------------------------- starting


async def test_a_file_that_is_not_executable_is_e005_with_the_cure(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        path = program(tmp_path, "#!/bin/sh\n", 0o644)
        for one_shot in (False, True):
            text = await error_of(it, command=path, one_shot=one_shot)
            assert text.startswith("E005") and f"chmod +x {path}" in text


async def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        text = await error_of(it, command=program(tmp_path, "#!/opt/no/python3 -u\n"))
        assert text.startswith("E005") and '"/opt/no/python3 -u"' in text


async def test_a_script_without_a_first_line_is_told_to_get_one(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        text = await error_of(it, command=program(tmp_path, "echo hello\n"))
        assert text.startswith("E005") and "#!/bin/sh" in text


async def test_a_path_is_taken_from_the_working_directory(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        program(tmp_path, "#!/bin/sh\nexit 5\n")
        for one_shot in (False, True):
            running = await it.start("", command="./prog", args=(), one_shot=one_shot)
            assert (await it.driver.wait(running)).code == 5
        text = await error_of(it, command="./other")
        assert text.startswith("E003") and f"there is no file {tmp_path}/./other" in text


async def test_a_directory_is_no_command(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        assert (await error_of(it, command=str(tmp_path))).startswith("E005")


async def test_a_null_byte_is_an_error_and_no_crash(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        assert (await error_of(it, command="echo", args=("a\0b",))).startswith("E005")


async def test_too_long_a_command_line_is_an_error(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        assert (await error_of(it, command="echo", args=("x" * 3_000_000,))).startswith("E005")


async def test_a_failed_start_leaves_no_process_and_no_file_descriptor(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        before = set(os.listdir("/proc/self/fd"))
        for command in ("no-such-command", program(tmp_path, "text"), str(tmp_path)):
            await error_of(it, command=command)
        assert set(os.listdir("/proc/self/fd")) == before
        assert not [proc for proc in Table.scan().procs.values() if proc.ppid == os.getpid() and proc.alive]


async def test_the_folder_of_the_log_is_made_and_the_log_is_not_for_everyone(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        log = tmp_path / "logs" / "shop" / "api.0.log"
        await it.driver.wait(await it.start("echo hello", log_path=str(log)))
        assert log.read_text() == "hello\n"
        assert stat.S_IMODE(log.stat().st_mode) & 0o137 == 0


async def test_a_log_that_is_a_link_is_refused(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        (tmp_path / "api.0.log").symlink_to(tmp_path / "elsewhere")
        assert (await error_of(it, command="true")).startswith("S005")
        assert not (tmp_path / "elsewhere").exists()


async def test_a_full_disk_under_the_log_is_e004() -> None:
    from deploy_code.drivers.base import StartOrder
    from deploy_code.drivers.spawn import _log_error

    error = _log_error(StartOrder(uuid="u", service="api", command="true"), OSError(28, "No space left on device"))
    assert error.code == "E004" and error.retryable


async def test_it_inherits_nothing_but_its_three_files(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        await it.start("exec sleep 100")
        await it.driver.wait(await it.start("ls /proc/self/fd"))
        assert it.log().split() == ["0", "1", "2", "3"]  # 3: the folder that ls reads


async def test_it_leads_a_session_of_its_own_and_has_default_signals(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start("grep SigIgn /proc/self/status; exec sleep 100")
        await until(lambda: "SigIgn" in it.log())
        found = look_up(running.pid)
        assert found and found.sid == running.pid
        own = int(Path("/proc/self/status").read_text().partition("SigIgn:")[2].split()[0], 16)  # nohup's, say
        assert int(it.log().split()[1], 16) & ~own == 0


async def test_another_user_gets_its_groups_and_owns_its_log(open_folder: Path) -> None:
    need_root()
    async with harness("process", open_folder) as it:
        for one_shot in (False, True):
            running = await it.start("id -u; id -gn; id -G", user="nobody:daemon", one_shot=one_shot)
            assert (await it.driver.wait(running)).code == 0
        uid, group, groups = it.log().splitlines()[:3]
        assert (uid, group) == ("65534", "daemon")
        assert it.log().splitlines()[3:] == [uid, group, groups]
        assert "0" not in groups.split()
        assert (open_folder / "api.0.log").stat().st_uid == 65534


async def test_another_user_may_open_its_standard_output_again(open_folder: Path) -> None:
    need_root()
    async with harness("process", open_folder) as it:
        await it.driver.wait(await it.start("echo hello >> /dev/stderr", user="nobody"))
        assert it.log() == "hello\n"


async def test_the_status_of_another_users_one_shot_is_kept_where_that_user_cannot_write(open_folder: Path) -> None:
    need_root()
    closed = open_folder / "state"
    closed.mkdir(mode=0o700)
    async with harness("process", open_folder) as it:
        status = str(closed / "status")
        running = await it.start("exit 9", user="nobody", one_shot=True, status_path=status)
        assert (await it.driver.wait(running)).code == 9
        assert stat.S_IMODE(os.stat(status).st_mode) == 0o600


async def test_numbers_are_users_too(open_folder: Path) -> None:
    need_root()
    async with harness("process", open_folder) as it:
        await it.driver.wait(await it.start("id -u; id -g", user="12345:54321"))
        assert it.log().split() == ["12345", "54321"]


# --------------------------------------------------------------------------- one-shots


@on_both_loops
async def test_a_one_shot_dies_of_the_signal_that_its_command_died_of(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        exit_ = await it.driver.wait(await it.start("kill -ABRT $$", one_shot=True))
        assert (exit_.code, exit_.signal) == (None, 6)


async def test_a_one_shot_gets_exactly_its_env(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        env = {"DEPLOY_CODE_INSTANCE": "u1", "LC_ALL": "C", "PYTHONHOME": "/nowhere", "PATH": os.environ["PATH"]}
        running = await it.start("", command="env", args=(), env=env, uuid="u1", one_shot=True)
        assert (await it.driver.wait(running)).code == 0
        assert dict(line.split("=", 1) for line in it.log().splitlines()) == env


async def test_a_one_shot_is_stopped_gently_through_its_wrapper(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done", one_shot=True)
        await until(lambda: "up" in it.log())
        assert await it.driver.stop(running, "SIGTERM", 10)
        assert (await it.driver.wait(running)).code == 3
        assert it.log() == "up\nbye\n"


async def test_a_one_shot_that_hangs_is_killed_with_its_wrapper(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start("trap '' TERM; echo up; while :; do sleep 0.01; done", one_shot=True)
        await until(lambda: "up" in it.log())
        assert not await it.driver.stop(running, "SIGTERM", 0.05)
        assert (await it.driver.wait(running)).signal == 9
        assert await it.driver.pids(running) == ()


async def test_the_status_of_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        status = str(tmp_path / "status")
        await it.driver.wait(await it.start("exit 0", one_shot=True, status_path=status))
        second = await it.start("echo up; exec sleep 100", one_shot=True, status_path=status)
        await until(lambda: "up" in it.log())
        os.kill(second.pid, signal.SIGKILL)
        assert (await it.driver.wait(second)).signal == 9
        assert await it.driver.sweep(second) == 1


# --------------------------------------------------------------------------- stopping


async def test_children_in_sessions_of_their_own_go_too(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start("setsid sleep 100 & setsid sleep 100 & echo up; exec sleep 100")
        await until(lambda: len(_pids_of(it, "sleep 100")) == 3)
        assert await it.driver.stop(running, "SIGTERM", 10)
        assert not _pids_of(it, "sleep 100")


async def test_a_detached_child_that_forgot_its_parent_is_found_by_its_environment(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start(f"{DETACHED} sleep 101; exec sleep 101")
        await until(lambda: len(_pids_of(it, "sleep 101")) == 2)
        assert await it.driver.stop(running, "SIGTERM", 10)
        assert not _pids_of(it, "sleep 101")


async def test_a_child_that_cleared_its_environment_is_found_by_its_session(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start(f"{CLEARED} sleep 102 & exit 1")
        await it.driver.wait(running)
        await until(lambda: len(_pids_of(it, "sleep 102")) == 1)
        assert await it.driver.sweep(running) == 1


async def test_a_child_with_neither_environment_nor_session_is_found_by_its_parent(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start(f"{CLEARED} setsid sleep 103 & exec sleep 103")
        await until(lambda: len(_pids_of(it, "sleep 103")) == 2)
        assert await it.driver.stop(running, "SIGTERM", 10)
        assert not _pids_of(it, "sleep 103")


async def test_what_outlives_its_leader_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    worker = "trap 'echo worker done; exit' TERM; echo up; while :; do sleep 0.01; done"
    async with harness("process", tmp_path) as it:
        running = await it.start(f'sh -c "{worker}" & wait')
        await until(lambda: "up" in it.log())
        stopping = asyncio.create_task(it.driver.stop(running, "SIGTERM", 10))
        await it.driver.wait(running)
        assert await it.driver.sweep(running) == 0, "a sweep must not cut the stop short"
        assert await stopping
        assert "worker done" in it.log()


async def test_a_child_that_ignores_the_signal_is_killed_when_the_time_is_over(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start("(trap '' TERM; echo up; while :; do sleep 0.01; done) & wait")
        await until(lambda: "up" in it.log())
        assert not await it.driver.stop(running, "SIGTERM", 0.2)
        assert await it.driver.pids(running) == ()


async def test_a_stopped_process_can_be_stopped(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start("exec sleep 100")
        os.kill(running.pid, signal.SIGSTOP)
        await until(lambda: (proc := look_up(running.pid)) and proc.state == "T")
        assert await it.driver.stop(running, "SIGTERM", 10)


async def test_a_tree_that_forks_while_it_is_killed_is_killed(tmp_path: Path) -> None:
    grow = "trap '' TERM; grow() { while :; do sleep 0.3 & sleep 0.01; done; }; grow & grow & grow & grow"
    async with harness("process", tmp_path) as it:
        running = await it.start(grow)
        await until(lambda: _count(running) > 40)
        assert not await it.driver.stop(running, "SIGTERM", 0.05)
        assert await it.driver.pids(running) == ()


async def test_a_daemonising_command_shows_as_pids_without_its_own(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start(f"{DETACHED} sleep 104; exit 0")
        assert (await it.driver.wait(running)).code == 0
        await until(lambda: len(_pids_of(it, "sleep 104")) == 1)
        left = await it.driver.pids(running)
        assert left and running.pid not in left
        assert await it.driver.stop(running, "SIGTERM", 10)
        assert await it.driver.pids(running) == ()


async def test_a_pid_that_belongs_to_another_by_now_is_left_alone(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        stranger = await it.start("exec sleep 100")
        mistaken = Running(uuid="x", pid=stranger.pid, start_time=stranger.start_time - 1, boot_id=boot_id())
        assert not await it.driver.find(mistaken)
        assert await it.driver.stop(mistaken, "SIGKILL", 1)
        assert await it.driver.sweep(mistaken) == 0
        assert await it.driver.find(stranger)


async def test_many_are_stopped_at_once(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        started = [await it.start("exec sleep 100") for _ in range(60)]
        stopped = await asyncio.gather(*(it.driver.stop(running, "SIGTERM", 10) for running in started))
        assert all(stopped)
        ends = await asyncio.gather(*(it.driver.wait(running) for running in started))
        assert {end.signal for end in ends} == {signal.SIGTERM}


@on_both_loops
async def test_all_who_ask_at_once_share_one_look_at_proc() -> None:
    looks: list[int] = []

    def scan(*, since: int) -> Table:
        looks.append(since)
        return Table([])

    scans = SharedScan(scan)
    await asyncio.gather(*(scans.fresh(since) for since in range(7, 207)))
    await scans.fresh(5)
    assert looks == [7, 5]


async def test_one_who_gives_up_asking_does_not_disturb_the_others() -> None:
    scans = SharedScan()
    asking = [asyncio.create_task(scans.fresh(0)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert all(os.getpid() in table.procs for table in await asyncio.gather(*asking[1:]))


async def test_a_service_that_fills_its_log_can_be_stopped_at_any_time(tmp_path: Path) -> None:
    async with harness("process", tmp_path) as it:
        running = await it.start("exec yes 'a rather long line of no interest'")
        await until(lambda: (tmp_path / "api.0.log").stat().st_size > 5_000_000)
        assert await it.driver.stop(running, "SIGTERM", 10)


async def test_nothing_of_postgresql_survives_the_death_of_its_postmaster(open_folder: Path, pg_bin: Path) -> None:
    need_root()  # the cluster must belong to another user than ours, or initdb refuses
    data = open_folder / "data"
    async with harness("process", open_folder) as it:
        env = {"PATH": f"{pg_bin}:{os.environ['PATH']}", "LC_ALL": "C", "DEPLOY_CODE_INSTANCE": "pg"}
        data.mkdir()
        os.chown(data, 65534, -1)
        init = ("-D", str(data), "--no-sync", "-A", "trust", "-U", "postgres")
        made = await it.start("", command="initdb", args=init, env=env, user="nobody", one_shot=True, uuid="pg")
        assert (await it.driver.wait(made)).code == 0, it.log()
        serve = ("-D", str(data), "-c", "listen_addresses=", "-k", str(data))
        running = await it.start("", command="postgres", args=serve, env=env, user="nobody", uuid="pg")
        await until(lambda: "ready to accept connections" in it.log(), timeout=30)
        it.driver.reap_strangers()  # type: ignore[attr-defined]  # as the agent does every second
        backends = await it.driver.pids(running)
        assert len({proc.sid for pid in backends if (proc := look_up(pid))}) > 3
        os.kill(running.pid, signal.SIGKILL)
        assert (await it.driver.wait(running)).signal == 9
        await it.driver.sweep(running)
        assert await it.driver.pids(running) == ()
        assert not [pid for pid in backends if (proc := look_up(pid)) and proc.alive]


# --------------------------------------------------------------------------- an agent that dies

AGENT = """
    import asyncio, os, signal, sys
    sys.path[:0] = {path!r}
    from deploy_code.drivers.base import StartOrder
    from deploy_code.drivers.process import ProcessDriver

    async def main():
        driver = ProcessDriver()
        for name, script, one_shot in (("a", "exec sleep 105", False), ("b", "read x < pipe; exit 8", True)):
            running = await driver.start(StartOrder(
                uuid=name, service=name, command="sh", args=("-c", script), working_dir={folder!r}, one_shot=one_shot,
                env={{"PATH": os.environ["PATH"], "DEPLOY_CODE_INSTANCE": name}}, log_path={folder!r} + "/log",
                status_path={folder!r} + "/status"))
            print(running.pid, running.start_time, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
"""


def _started_by_an_agent_that_was_killed(folder: Path) -> tuple[Running, Running]:
    os.mkfifo(folder / "pipe")
    source = textwrap.dedent(AGENT).format(path=sys.path, folder=str(folder))
    ended = subprocess.run([sys.executable, "-c", source], stdout=-1, text=True)
    assert ended.returncode == -signal.SIGKILL
    (pid, at), (other, other_at) = (map(int, line.split()) for line in ended.stdout.splitlines())
    status = str(folder / "status")
    return (
        Running(uuid="a", pid=pid, start_time=at, boot_id=boot_id()),
        Running(uuid="b", pid=other, start_time=other_at, boot_id=boot_id(), status_path=status),
    )


@on_both_loops
async def test_services_outlive_a_killed_agent_and_its_successor_takes_them_over(tmp_path: Path) -> None:
    service, one_shot = _started_by_an_agent_that_was_killed(tmp_path)
    driver = ProcessDriver()
    assert await driver.find(service) and await driver.find(one_shot)
    (tmp_path / "pipe").write_text("go\n")
    exit_ = await driver.wait(one_shot)
    assert (exit_.code, exit_.signal) == (8, None)
    assert await driver.stop(service, "SIGTERM", 10)
    exit_ = await driver.wait(service)
    assert (exit_.code, exit_.signal) == (None, None), "nobody could wait for it: unknown is the truth"
    driver.close()


# --------------------------------------------------------------------------- what else must be looked after

SUBREAPER = """
    import asyncio, os, sys, time
    sys.path[:0] = {path!r}
    from deploy_code.drivers import reaper
    from deploy_code.drivers.process import ProcessDriver
    from deploy_code.drivers.proctree import Table

    reaper.become_subreaper()
    signal_ignored = __import__("signal").signal(1, 1)
    reaper.ignore_no_signals()

    def zombies():
        return [p for p in Table.scan().procs.values() if p.ppid == os.getpid() and not p.alive]

    async def main():
        driver = ProcessDriver()
        waited = await asyncio.create_subprocess_exec("sh", "-c", "setsid -f true; exit 3")
        assert await waited.wait() == 3
        while not zombies():
            await asyncio.sleep(0.01)
        assert driver.reap_strangers() == 0, "it may be somebody's child"
        await asyncio.sleep(0.1)
        print(driver.reap_strangers(), len(zombies()), __import__("signal").getsignal(1) == 0)

    asyncio.run(main())
"""


def test_orphans_that_were_handed_to_us_are_reaped_and_ignored_signals_are_not_handed_on() -> None:
    source = textwrap.dedent(SUBREAPER).format(path=sys.path)
    ended = subprocess.run([sys.executable, "-c", source], stdout=-1, text=True, check=True)
    assert ended.stdout.split() == ["1", "0", "True"]


def _pids_of(it: Harness, command: str) -> list[int]:
    """Living processes with this command line whose working directory is the test's."""
    found = []
    for pid in Table.scan().procs:
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if text == command and os.readlink(f"/proc/{pid}/cwd") == str(it.folder):
                found.append(pid)
        except OSError:
            continue
    return found


def _count(running: Running) -> int:
    return sum(proc.sid == running.pid for proc in Table.scan().procs.values())
