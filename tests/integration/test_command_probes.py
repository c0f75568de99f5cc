"""Command probes: real programs, ill-behaved ones included, and nothing left of them."""

import asyncio
import os
import pwd
import sys
import time
from pathlib import Path

import pytest

from deploy_code.health.child import Child
from deploy_code.health.probes import CommandProbe
from support.loops import on_both_loops, until
from support.zombies import zombies

ENV = {"PATH": os.environ["PATH"]}


def command(*argv: str, timeout: float = 10.0, **more) -> CommandProbe:
    return CommandProbe(argv, timeout=timeout, env=more.pop("env", ENV), **more)


def script(text: str, **more) -> CommandProbe:
    return command("sh", "-c", text, **more)


def is_gone(pid: int) -> bool:
    """No such process, or only its zombie that its own (dead) parent left to init."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z" and stat.rpartition(")")[2].split()[1] != str(os.getpid())


@on_both_loops
async def test_a_program_that_ends_with_0_is_ready():
    before = zombies()
    result = await script("echo fine; echo really >&2")()
    assert result.ok
    assert (result.kind, result.status, result.detail) == ("command", 0, "fine\nreally")
    assert result.target == "sh -c echo fine; echo really >&2"
    assert zombies() <= before


@on_both_loops
async def test_any_other_exit_code_is_not_and_the_output_is_shown():
    result = await script("echo no connection to the database >&2; exit 3")()
    assert not result.ok
    assert result.status == 3
    assert result.detail == "exit code 3: no connection to the database"


async def test_a_program_killed_by_a_signal_says_by_which():
    result = await script("kill -SEGV $$")()
    assert not result.ok
    assert result.detail == "killed by SIGSEGV"


async def test_a_missing_program_is_a_result():
    result = await command("no-such-program-at-all")()
    assert not result.ok
    assert result.detail == "no such program: no-such-program-at-all"


async def test_a_file_that_is_no_program_is_a_result(tmp_path):
    (tmp_path / "plain").write_text("text")
    assert "not permitted to run" in (await command(str(tmp_path / "plain"))()).detail
    (tmp_path / "plain").chmod(0o755)
    assert "exec format error" in (await command(str(tmp_path / "plain"))()).detail


async def test_a_missing_working_directory_is_named(tmp_path):
    result = await command("true", working_dir=str(tmp_path / "gone"))()
    assert result.detail == f"its working directory {tmp_path / 'gone'} does not exist"


async def test_no_shell_takes_part():
    result = await command("echo", "$HOME; exit 1")()
    assert result.ok
    assert result.detail == "$HOME; exit 1"


async def test_it_runs_with_the_env_and_directory_of_the_service(tmp_path):
    env = ENV | {"PORT": "4711"}
    result = await script('echo "$PORT $(pwd) ${USER-none}"', env=env, working_dir=str(tmp_path))()
    assert result.detail == f"4711 {tmp_path} none"


async def test_the_program_is_looked_up_on_the_path_of_the_service(tmp_path):
    tool = tmp_path / "my-check"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert (await command("my-check", env={"PATH": str(tmp_path)})()).detail == "found"
    assert (await command("./my-check", working_dir=str(tmp_path))()).detail == "found"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_it_runs_as_the_user_of_the_service():
    nobody = pwd.getpwnam("nobody")
    assert (await script("id -u; id -g", user="nobody")()).detail == f"{nobody.pw_uid}\n{nobody.pw_gid}"
    assert (await script("id -g", user="nobody:daemon")()).detail == "1"
    assert (await script("id -u", user=str(nobody.pw_uid))()).detail == str(nobody.pw_uid)


async def test_an_unknown_user_is_a_result():
    assert "no such user" in (await command("true", user="nobody-of-that-name")()).detail
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert (await command("true", user=me)()).ok


async def test_it_has_a_session_of_its_own_and_no_input():
    result = await script("cat; cut -d' ' -f1,6 /proc/self/stat")()
    _, session = result.detail.split()
    assert int(session) != os.getsid(0)


@on_both_loops
async def test_it_is_killed_with_its_whole_group_when_the_time_is_over(tmp_path):
    before = zombies()
    pids = tmp_path / "pids"
    result = await script(f"sleep 60 & echo $! $$ > {pids}; echo waiting; wait", timeout=0.3)()
    assert not result.ok
    assert result.detail == "no end within 0.3 s, killed: waiting"
    assert 0.25 < result.duration < 5
    await until(lambda: all(is_gone(int(pid)) for pid in pids.read_text().split()))
    assert zombies() <= before


async def test_it_cannot_refuse_to_die():
    began = time.monotonic()
    result = await script("trap '' TERM INT HUP; while :; do sleep 1; done", timeout=0.2)()
    assert not result.ok
    assert time.monotonic() - began < 5


@on_both_loops
async def test_what_it_leaves_in_its_group_does_not_outlive_it(tmp_path):
    pids = tmp_path / "pid"
    began = time.monotonic()
    result = await script(f"sleep 60 & echo $! > {pids}; echo done")()
    assert result.ok
    assert result.detail == "done"
    assert time.monotonic() - began < 10  # the pipe that sleep still held was not waited for
    await until(lambda: is_gone(int(pids.read_text())))


@on_both_loops
async def test_output_is_bounded_to_its_last_2_kb_and_never_blocks_the_program():
    noisy = "import sys; sys.stdout.write('x' * 1_000_000 + 'the end'); sys.exit(1)"
    result = await command(sys.executable, "-c", noisy)()
    assert result.status == 1
    assert result.detail.endswith("xxxthe end")
    assert 1900 < len(result.detail) <= 2048


@on_both_loops
async def test_a_cancelled_probe_leaves_no_process_and_no_file(tmp_path):
    before = zombies()
    pids = tmp_path / "pids"
    await script("true")()
    files = set(os.listdir("/proc/self/fd"))
    task = asyncio.create_task(script(f"sleep 60 & echo $! $$ > {pids}; wait")())
    await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: all(is_gone(int(pid)) for pid in pids.read_text().split()))
    assert zombies() <= before
    assert set(os.listdir("/proc/self/fd")) == files


async def test_a_hundred_programs_leave_no_file_open():
    await command("true")()
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        results = await asyncio.gather(*(command("true")() for _ in range(20)))
        assert all(result.ok for result in results)
    assert len(os.listdir("/proc/self/fd")) == files


async def test_a_program_that_somebody_else_reaped_is_not_taken_for_a_success():
    child = Child(["sleep", "0.05"], env=ENV)
    os.waitpid(child.pid, 0)
    assert await child.wait(5)
    assert child.returncode == 255
