"""The agent as a process: alone, detached, small, reachable, and gone when nothing is left to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy_code.errors import AgentError
from deploy_code.model import Directories, Identity, Phase
from deploy_code.platforms import local
from deploy_code.platforms.local import LocalPlatform
from deploy_code.platforms.spawn import agent_is_alive, agent_status, spawn_agent, start_agent, stop_agent
from support.agents import House, alive, shell, sleeper
from support.zombies import zombies


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    await made.close()


async def test_it_is_detached_from_whoever_started_it(house: House):
    await house.platform.open()
    pid = house.agent_pid()
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid(), "it must not become a zombie of ours"


async def test_it_keeps_no_pipe_of_its_starter_open(house: House):
    receive, send = os.pipe()
    os.set_inheritable(send, True)
    await house.platform.open()
    os.close(send)
    assert os.read(receive, 1) == b"", "somebody still holds the other end"
    os.close(receive)


async def test_its_files_are_private(house: House):
    await house.platform.open()
    for name in ("agent.sock", "agent.lock", "agent.log"):
        assert stat.S_IMODE((house.state / name).stat().st_mode) == 0o600, name


async def test_its_environment_is_clean(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "leak")
    await house.platform.open()
    content = shell("env; sleep 1000", inherit_env=True)
    await house.want(house.wanted("env", content))
    instance = await house.phase("env", Phase.STARTING, Phase.READY)
    await house.eventually(lambda: Path(instance.log_path).read_text())
    assert "AWS_SECRET_ACCESS_KEY" not in Path(instance.log_path).read_text()


async def test_a_second_agent_ends_quietly(house: House):
    await house.platform.open()
    first = house.agent_pid()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "deploy_code.agent", str(house.state)],
        env={**os.environ, "PYTHONPATH": local.package_folder()},
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert house.agent_pid() == first


async def test_ten_starters_at_once_get_one_agent(house: House):
    platforms = [LocalPlatform(_identity(house)) for _ in range(10)]
    await asyncio.gather(*(each.open() for each in platforms))
    pids = {(await each.info()).pid for each in platforms}
    await asyncio.gather(*(each.close() for each in platforms))
    assert len(pids) == 1


async def test_without_a_state_it_refuses_to_start(tmp_path: Path):
    directories = Directories(state=str(tmp_path), logs=str(tmp_path))
    platform = LocalPlatform(Identity(name="none", directories=directories))
    platform.prestart()
    with pytest.raises(AgentError, match=r"no state\.db"):
        await platform.open()
    await platform.close()


async def test_a_socket_path_may_be_longer_than_an_address(tmp_path: Path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    house = House(deep)
    try:
        assert len(str(house.state / "agent.sock")) > 200
        await house.platform.open()
        await house.want(house.wanted("idle", sleeper(), min_ready_seconds=0.05))
        await house.ready("idle")
        assert agent_status(str(house.state)) is not None
    finally:
        await house.close()


async def test_it_listens_where_a_dead_agent_left_its_socket(house: House):
    await house.platform.open()
    await house.platform.close()
    house.kill_agent()
    assert (house.state / "agent.sock").exists()
    await house.platform.open()
    assert house.agent_pid()


async def test_it_ends_when_nothing_is_left(house: House):
    await house.platform.open()
    wanted = house.wanted("idle", sleeper())
    await house.want(wanted)
    await house.phase("idle", Phase.STARTING, Phase.READY)
    pid = house.agent_pid()
    await house.stop(wanted)
    await house.platform.close()
    house.end()
    await house.eventually(lambda: not alive(pid))


async def test_it_stays_while_something_is_wanted(house: House):
    await house.platform.open()
    await house.want(house.wanted("idle", sleeper()))
    pid = house.agent_pid()
    await house.platform.close()
    house.end()
    await asyncio.sleep(0.6)
    assert alive(pid)


async def test_started_stopped_and_asked_without_asyncio(house: House):
    state = str(house.state)
    assert agent_status(state) is None
    assert not agent_is_alive(state)
    assert not stop_agent(state)
    info = start_agent(state)
    assert agent_is_alive(state)
    assert start_agent(state).pid == info.pid
    await house.platform.open()
    await house.want(house.wanted("idle", sleeper()))
    instance = await house.phase("idle", Phase.STARTING, Phase.READY)
    await house.platform.close()
    assert stop_agent(state)
    assert not agent_is_alive(state)
    assert alive(instance.pid), "ending the agent ends no service"


async def test_sigterm_ends_it_and_leaves_services_alone(house: House):
    await house.platform.open()
    await house.want(house.wanted("idle", sleeper()))
    instance = await house.phase("idle", Phase.STARTING, Phase.READY)
    pid = house.agent_pid()
    await house.platform.close()
    os.kill(pid, signal.SIGTERM)
    await house.eventually(lambda: not alive(pid))
    assert alive(instance.pid)


async def test_it_imports_none_of_the_engines_half():
    code = (
        "import sys, json; import deploy_code.agent.agent; "
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('pydantic', 'yaml', 'rich', 'click',"
        " 'psutil') or name.startswith(('deploy_code.config', 'deploy_code.plan', 'deploy_code.orchestrator',"
        " 'deploy_code.platforms', 'deploy_code.app', 'deploy_code.client'))]))"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": local.package_folder()},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == ["deploy_code.plan"] or json.loads(done.stdout) == []


async def test_another_version_makes_it_replace_itself_and_keep_its_children(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    await house.platform.open()
    go = tmp_path / "go"
    await house.want(
        house.wanted("job", shell(f"while ! test -e {go}; do sleep 0.05; done; exit 7"), min_ready_seconds=0.05)
    )
    before = await house.ready("job")
    old = await house.platform.info()
    await house.platform.close()
    monkeypatch.setattr(local, "__version__", "99.0.0")
    await house.platform.open()
    new = await house.platform.info()
    assert new.pid == old.pid
    assert new.started_at > old.started_at
    assert house.platform.instances("job")[0].pid == before.pid
    go.touch()
    (after,) = await house.until("job", lambda found: found[0].exit is not None)
    assert after.exit is not None and after.exit.code == 7, "it is still the parent, so the exit code is known"


async def test_systemd_is_told_when_it_is_ready_and_it_stays_without_work(house: House, tmp_path: Path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(address)
        told.settimeout(20)
        agent = subprocess.Popen(
            [sys.executable, "-m", "deploy_code.agent", str(house.state)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": local.package_folder(), "NOTIFY_SOCKET": address},
            stderr=subprocess.DEVNULL,
        )
        try:
            assert b"READY=1" in await asyncio.to_thread(told.recv, 4096)
            await house.platform.open()
            wanted = house.wanted("idle", sleeper())
            await house.want(wanted)
            await house.stop(wanted)
            await house.platform.close()
            house.end()
            await asyncio.sleep(0.6)
            assert agent.poll() is None
            agent.terminate()
            assert b"STOPPING=1" in await asyncio.to_thread(told.recv, 4096)
            assert await asyncio.to_thread(agent.wait, 10) == 0
        finally:
            agent.kill()
            agent.wait()


async def test_its_own_log_is_bounded(house: House):
    log = house.state / "agent.log"
    log.write_bytes(b"old line\n" * 300_000 + b"the last line\n")
    await house.platform.open()
    assert log.stat().st_size < 300_000
    assert log.read_bytes().startswith(b"old line\n")
    assert b"the last line\n" in log.read_bytes()


async def test_orphans_of_services_are_reaped(house: House):
    await house.platform.open()
    await house.want(house.wanted("parent", shell("while :; do (sleep 0.05 &); sleep 0.1; done")))
    await house.phase("parent", Phase.STARTING, Phase.READY)
    pid = house.agent_pid()
    await asyncio.sleep(4)
    assert len(zombies(pid)) < 25


async def test_a_deployment_whose_engine_died_is_recovered(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEPLOY_CODE_RECOVERY_DELAY", "0.1")
    await house.platform.open()
    await house.want(house.wanted("idle", sleeper()))
    house.lock.release()
    await house.platform.close()
    await house.eventually(lambda: "RecoveryEnded" in house.events(), 30)


async def test_a_deployment_whose_lock_is_held_is_left_alone(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEPLOY_CODE_RECOVERY_DELAY", "0.1")
    await house.platform.open()
    await house.want(house.wanted("idle", sleeper()))
    await house.platform.close()
    await asyncio.sleep(0.8)
    assert "RecoveryStarted" not in house.events()


async def test_prestart_returns_at_once(house: House):
    began = time.monotonic()
    house.platform.prestart()
    assert time.monotonic() - began < 0.1
    await house.platform.open()


async def test_a_started_agent_that_nobody_opens_leaves_no_zombie(house: House):
    before = zombies()
    starting = spawn_agent(str(house.state))
    await asyncio.to_thread(starting.finish)
    assert zombies() <= before


def _identity(house: House) -> Identity:
    return Identity(name="shop", directories=Directories(state=str(house.state), logs=str(house.logs)))


async def test_closing_gives_up_on_what_was_not_answered_and_connects_no_more(house: House):
    await house.platform.open()
    pid = house.agent_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        asked = asyncio.create_task(house.want(house.wanted("a", sleeper())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the message is on its way by now
        asked.cancel()
        await asyncio.wait([asked])
        await asyncio.wait_for(house.platform.close(), 10)
        others = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert others == [], "nothing may go on that would connect again"
    finally:
        os.kill(pid, signal.SIGCONT)
