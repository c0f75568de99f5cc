"""The deploy lock, with real processes holding it, waiting for it and dying with it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from deploy_code.errors import LockedError
from deploy_code.state.lock import DeployLock, Holder, holder

HOLD = """
import sys
from deploy_code.state.lock import DeployLock
lock = DeployLock(sys.argv[1])
lock.acquire("deploy-code deploy")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(directory, code=HOLD):
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert child.stdout.readline() == b"held\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture
def lock(tmp_path):
    with DeployLock(tmp_path / "project") as lock:
        yield lock


def test_one_at_a_time_and_the_second_hears_who_holds_it(tmp_path, lock):
    with another_process(tmp_path / "project") as child:
        started = time.monotonic()
        with pytest.raises(LockedError) as caught:
            lock.acquire("deploy-code stop")
        text = str(caught.value)
        assert time.monotonic() - started < 1
        assert text.startswith("E011 DEPLOYMENT_LOCKED: ")
        assert f"{Holder.this_process().user}@{os.uname().nodename} pid {child.pid}" in text
        assert "deploy-code deploy" in text and "--wait" in text
        assert time.strftime("%Y-%m-%d") in text
        assert caught.value.exit_code == 3
        assert not lock.held


def test_two_objects_in_one_process_are_two(tmp_path, lock):
    lock.acquire("deploy")
    with pytest.raises(LockedError):
        DeployLock(tmp_path / "project").acquire("deploy")


def test_what_was_released_can_be_taken_again(lock, tmp_path):
    for _ in range(3):
        lock.acquire("deploy")
        lock.release()
    lock.release()
    assert holder(tmp_path / "project") is None


def test_the_kernel_frees_it_when_its_holder_is_killed(tmp_path, lock):
    with another_process(tmp_path / "project") as child:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert holder(tmp_path / "project") is None
        lock.acquire("deploy")
        assert holder(tmp_path / "project").pid == os.getpid()


def test_nobody_holds_what_was_never_locked_and_asking_creates_nothing(tmp_path):
    assert holder(tmp_path) is None
    assert holder(tmp_path / "missing") is None
    assert list(tmp_path.iterdir()) == []


def test_asking_never_gets_in_the_way_of_taking(tmp_path, lock):
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            holder(tmp_path / "project")

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(200):
            lock.acquire("deploy")
            lock.release()
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def test_a_stranger_with_a_plain_flock_also_locks_it(tmp_path, lock):
    lock.acquire("deploy")
    lock.release()
    fd = os.open(lock.path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="Another process holds"):
            lock.acquire("deploy")
    finally:
        os.close(fd)


def test_file_and_folder_are_private(tmp_path, lock):
    lock.acquire("deploy")
    assert stat.S_IMODE(os.stat(tmp_path / "project").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(lock.path).st_mode) == 0o600


def test_a_forked_child_does_not_keep_it(tmp_path, lock):
    lock.acquire("deploy")
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:  # outlives the holder's release
        os.close(go_write)
        os.read(go_read, 1)
        os._exit(1 if lock.held else 0)
    os.close(go_read)
    try:
        lock.release()
        other = DeployLock(tmp_path / "project")
        other.acquire("deploy")
        other.release()
    finally:
        os.close(go_write)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_spawned_child_does_not_inherit_it(lock, tmp_path):
    lock.acquire("deploy")
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        lock.release()
        other = DeployLock(tmp_path / "project")
        other.acquire("deploy")
        other.release()
    finally:
        child.kill()
        child.wait()


def test_waiting_ends_when_the_holder_dies(tmp_path, lock):
    with another_process(tmp_path / "project") as child:
        threading.Timer(0.1, child.kill).start()
        lock.acquire("deploy", wait=True, timeout=30)
        assert lock.held


def test_waiting_is_bounded(tmp_path, lock):
    with another_process(tmp_path / "project"), pytest.raises(LockedError, match="pid"):
        lock.acquire("deploy", wait=True, timeout=0.05)


def test_ctrl_c_ends_the_wait(tmp_path):
    code = HOLD.replace("lock.acquire", "print('held', flush=True); lock.acquire").replace(
        '"deploy-code deploy"', '"deploy", wait=True'
    )
    with another_process(tmp_path), another_process(tmp_path, code) as waiter:
        waiter.send_signal(signal.SIGINT)
        waiter.wait(10)
        assert waiter.returncode == -signal.SIGINT


async def test_a_task_waits_without_holding_up_the_loop(tmp_path, lock):
    with another_process(tmp_path / "project") as child:
        waiting = asyncio.create_task(lock.acquire_async("deploy", wait=True))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        child.kill()
        async with asyncio.timeout(10):
            await waiting
    assert holder(tmp_path / "project").pid == os.getpid()


async def test_a_task_that_does_not_wait_is_told_at_once(tmp_path, lock):
    with another_process(tmp_path / "project"), pytest.raises(LockedError, match="E011"):
        await lock.acquire_async("deploy")
    await lock.acquire_async("deploy")
    assert lock.held


async def test_a_waiting_task_is_bounded(tmp_path, lock):
    with another_process(tmp_path / "project"), pytest.raises(LockedError):
        await lock.acquire_async("deploy", wait=True, timeout=0.05)


async def test_a_cancelled_wait_leaves_nothing_locked(tmp_path, lock):
    with another_process(tmp_path / "project"):
        waiting = asyncio.create_task(lock.acquire_async("deploy", wait=True))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    lock.acquire("deploy")
    assert lock.held
