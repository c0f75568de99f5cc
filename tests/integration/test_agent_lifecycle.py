"""What becomes of instances under a real agent: start, readiness, exits, restarts, stops."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy_code.model import Dependency, Gate, HealthCheck, Phase, Port, Restart, Volume
from support.agents import FAST_RESTART, QUICK, House, alive, python, shell, sleeper, web
from support.ports import answers, free_port, free_range

SERVER = """
import http.server, os, pathlib
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if not pathlib.Path(os.environ["SICK"]).exists() else 503)
        self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.platform.open()
    yield made
    await made.close()


# ------------------------------------------------------------------------------------------------- start and stop


async def test_a_wanted_service_is_started_and_becomes_ready(house: House):
    port = free_port()
    await house.want(house.wanted("web", web(port)))
    instance = await house.ready("web")
    assert answers(port)
    assert instance.gate is Gate.OPEN
    assert instance.probe is not None and instance.probe.kind == "tcp"
    assert instance.ready_at >= instance.started_at >= instance.created_at > 0


async def test_a_service_without_check_or_port_is_ready_once_it_has_lived(house: House):
    began = time.monotonic()
    await house.want(house.wanted("idle", sleeper(), min_ready_seconds=0.3))
    await house.ready("idle")
    assert time.monotonic() - began >= 0.3


async def test_wanting_none_stops_it_and_leaves_no_row(house: House):
    wanted = house.wanted("idle", sleeper())
    await house.want(wanted)
    pid = (await house.phase("idle", Phase.STARTING, Phase.READY)).pid
    await house.stop(wanted)
    assert not alive(pid)
    assert house.store.instances() == []


async def test_a_service_that_ignores_its_stop_signal_is_killed_in_time(house: House):
    wanted = house.wanted("deaf", shell("trap '' TERM; while :; do sleep 0.1; done"), stop_timeout_seconds=0.3)
    await house.want(wanted)
    await house.ready("deaf")
    began = time.monotonic()
    await house.stop(wanted)
    assert time.monotonic() - began < 5


async def test_a_stop_timeout_of_the_message_replaces_the_services_own(house: House):
    wanted = house.wanted("deaf", shell("trap '' TERM; while :; do sleep 0.1; done"), stop_timeout_seconds=60.0)
    await house.want(wanted)
    await house.ready("deaf")
    began = time.monotonic()
    await house.want(house.wanted("deaf", wanted.content, replicas=0), stop_timeout=0.2)
    await house.until("deaf", lambda found: not found)
    assert time.monotonic() - began < 5


async def test_children_in_sessions_of_their_own_go_with_their_service(house: House, tmp_path: Path):
    child = tmp_path / "child"
    wanted = house.wanted("parent", shell(f"setsid sh -c 'echo $$ > {child}; sleep 1000' & sleep 1000"))
    await house.want(wanted)
    await house.eventually(lambda: child.exists() and child.read_text().strip())
    await house.stop(wanted)
    assert not alive(int(child.read_text()))


async def test_the_log_holds_what_the_service_said_and_the_row_says_where(house: House):
    await house.want(house.wanted("talker", shell("echo hello; sleep 1000")))
    instance = await house.phase("talker", Phase.STARTING, Phase.READY)
    await house.eventually(lambda: Path(instance.log_path).read_text() == "hello\n")
    assert instance.log_path.startswith(str(house.logs))


async def test_each_start_knows_where_in_the_log_it_began(house: House):
    wanted = house.wanted("talker", shell("echo once; sleep 1000"), restart=FAST_RESTART)
    await house.want(wanted)
    first = await house.ready("talker")
    os.kill(first.pid, signal.SIGKILL)
    (second,) = await house.until("talker", lambda found: found[0].pid not in (0, first.pid))
    assert (first.log_offset, second.log_offset) == (0, len("once\n"))


# ------------------------------------------------------------------------------------------------- before the gate


async def test_a_service_that_exits_before_its_gate_is_not_restarted(house: House):
    await house.want(house.wanted("broken", shell("echo no; exit 3"), restart=FAST_RESTART))
    instance = await house.phase("broken", Phase.EXITED)
    assert instance.exit is not None and instance.exit.code == 3
    assert instance.gate is Gate.WAITING
    assert instance.restarts == 0
    assert "exit code 3" in instance.note


async def test_after_settle_the_restart_policy_holds_for_it_too(house: House, tmp_path: Path):
    runs = tmp_path / "runs"
    await house.want(house.wanted("broken", shell(f"echo x >> {runs}; exit 3"), restart=FAST_RESTART))
    await house.phase("broken", Phase.EXITED)
    await house.settle()
    await house.eventually(lambda: len(runs.read_text().split()) >= 3)


async def test_a_command_that_is_not_there_is_told_with_its_code(house: House):
    await house.want(house.wanted("ghost", sleeper().__class__(command="no-such-program-anywhere")))
    instance = await house.phase("ghost", Phase.EXITED)
    assert instance.note.startswith("E003 BINARY_NOT_FOUND: ")
    assert instance.pid == 0


async def test_a_daemonising_command_fails_with_advice_and_its_children_are_ended(house: House, tmp_path: Path):
    child = tmp_path / "child"
    await house.want(house.wanted("daemon", shell(f"setsid sh -c 'echo $$ > {child}; sleep 1000' & sleep 0.3")))
    instance = await house.phase("daemon", Phase.EXITED)
    assert "background" in instance.note and "foreground" in instance.note
    assert not alive(int(child.read_text()))


async def test_a_failed_gate_is_told_and_the_service_left_as_evidence(house: House, tmp_path: Path):
    port = free_port()
    (tmp_path / "sick").touch()
    content = python(SERVER, ports=(Port(container_port=port),), env={"SICK": str(tmp_path / "sick")})
    check = HealthCheck(endpoint="/", interval_seconds=0.1, timeout_seconds=1.0, retries=3)
    await house.want(house.wanted("sick", content, health=check))
    (instance,) = await house.until("sick", lambda found: found and found[0].gate is Gate.FAILED)
    assert instance.probe is not None and instance.probe.status == 503
    assert alive(instance.pid)


async def test_a_stranger_on_the_port_does_not_open_the_gate(house: House):
    port = free_port()
    with closing(socket.create_server(("127.0.0.1", port))):
        await house.want(house.wanted("late", sleeper(ports=(Port(container_port=port),))))
        (instance,) = await house.until("late", lambda found: found and found[0].gate is Gate.FAILED)
    assert instance.probe is not None and "not by this service" in instance.probe.detail


async def test_a_newer_deployment_gives_what_has_ended_a_new_chance(house: House, tmp_path: Path):
    mended = tmp_path / "mended"
    wanted = house.wanted("flaky", shell(f"test -e {mended} || exit 1; sleep 1000"), min_ready_seconds=0.1)
    await house.want(wanted)
    await house.phase("flaky", Phase.EXITED)
    mended.touch()
    await house.want(wanted)
    assert house.platform.instances("flaky")[0].phase is Phase.EXITED, "the same message again changes nothing"
    house.end("failed")
    house.deployment = house.begin()
    await house.want(wanted)
    await house.ready("flaky")


# ------------------------------------------------------------------------------------------------- afterwards


async def test_a_killed_service_comes_back_with_its_leftovers_swept(house: House, tmp_path: Path):
    child = tmp_path / "child"
    script = f"setsid sh -c 'echo $$ >> {child}; sleep 1000' & sleep 1000"
    await house.want(house.wanted("api", shell(script), restart=FAST_RESTART, min_ready_seconds=0.1))
    first = await house.ready("api")
    await house.eventually(child.exists)
    os.kill(first.pid, signal.SIGKILL)
    (second,) = await house.until("api", lambda all_: all_[0].phase is Phase.READY and all_[0].pid != first.pid)
    assert not alive(int(child.read_text().split()[0]))
    assert second.uuid == first.uuid
    assert second.restarts == 1
    assert second.exit is not None and second.exit.signal == signal.SIGKILL


async def test_waits_grow_between_restarts(house: House, tmp_path: Path):
    starts = tmp_path / "starts"
    restart = Restart(backoff_seconds=0.2, backoff_max_seconds=10.0, max_exits=100)
    await house.want(
        house.wanted("crasher", shell(f"date +%s.%N >> {starts}; sleep 0.1"), min_ready_seconds=0.05, restart=restart)
    )
    await house.eventually(lambda: starts.exists() and len(starts.read_text().split()) >= 4, timeout=15)
    times = [float(line) for line in starts.read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[2] > gaps[1] > gaps[0] > 0.2


async def test_a_crash_loop_opens_the_circuit_and_has_one_try_after_the_cool_down(house: House, tmp_path: Path):
    starts = tmp_path / "starts"
    restart = Restart(backoff_seconds=0.02, backoff_max_seconds=0.02, max_exits=3, cooldown_seconds=0.7)
    script = f"echo x >> {starts}; sleep 0.1"
    await house.want(house.wanted("crasher", shell(script), min_ready_seconds=0.05, restart=restart))
    failed = await house.phase("crasher", Phase.FAILED)
    assert len(starts.read_text().split()) == 3
    assert failed.next_start_at > time.time()
    assert "CircuitOpened" in await _events(house, "CircuitOpened")
    await house.until("crasher", lambda found: found[0].phase is not Phase.FAILED)
    await house.phase("crasher", Phase.FAILED)
    assert len(starts.read_text().split()) == 4


async def test_restart_never_leaves_it_ended(house: House):
    restart = Restart(policy="never")
    await house.want(house.wanted("once", shell("sleep 0.3"), min_ready_seconds=0.05, restart=restart))
    await house.ready("once")
    assert (await house.phase("once", Phase.EXITED)).restarts == 0


async def test_restart_on_failure_leaves_a_good_end_alone(house: House):
    restart = Restart(policy="on-failure", backoff_seconds=0.05)
    await house.want(house.wanted("job", shell("sleep 0.3"), min_ready_seconds=0.05, restart=restart))
    await house.ready("job")
    instance = await house.phase("job", Phase.EXITED)
    assert instance.exit is not None and instance.exit.ok


async def test_a_service_that_turns_unhealthy_is_restarted(house: House, tmp_path: Path):
    sick, port = tmp_path / "sick", free_port()
    content = python(SERVER, ports=(Port(container_port=port),), env={"SICK": str(sick)})
    check = HealthCheck(endpoint="/", interval_seconds=0.1, timeout_seconds=1.0, retries=2)
    await house.want(house.wanted("api", content, health=check, restart=FAST_RESTART))
    first = await house.ready("api")
    sick.touch()
    await house.phase("api", Phase.UNREADY)
    await house.until("api", lambda all_: all_[0].phase in (Phase.BACKOFF, Phase.STARTING))
    sick.unlink()
    (second,) = await house.until("api", lambda all_: all_[0].phase is Phase.READY)
    assert second.pid != first.pid


async def test_an_unhealthy_service_is_not_restarted_while_a_dependency_is_unready(house: House, tmp_path: Path):
    sick, port = tmp_path / "sick", free_port()
    content = python(SERVER, ports=(Port(container_port=port),), env={"SICK": str(sick)})
    check = HealthCheck(endpoint="/", interval_seconds=0.1, timeout_seconds=1.0, retries=2)
    down = Restart(policy="never")
    await house.want(house.wanted("db", sleeper(), min_ready_seconds=0.05, restart=down))
    await house.ready("db")
    dependencies = (Dependency(service="db"),)
    await house.want(house.wanted("api", content, health=check, restart=FAST_RESTART, dependencies=dependencies))
    first = await house.ready("api")
    os.kill(house.platform.instances("db")[0].pid, signal.SIGKILL)
    await house.phase("db", Phase.EXITED)
    sick.touch()
    (held,) = await house.until("api", lambda all_: "not restarted" in all_[0].note)
    assert (held.phase, held.pid) == (Phase.UNREADY, first.pid)
    assert "db" in held.note


async def test_a_changed_health_check_restarts_nothing(house: House):
    port = free_port()
    await house.want(house.wanted("web", web(port)))
    first = await house.ready("web")
    other = HealthCheck(endpoint="/missing", interval_seconds=0.2, timeout_seconds=1.0, retries=2)
    await house.want(house.wanted("web", web(port), health=other, restart=Restart(policy="never")))
    unready = await house.phase("web", Phase.UNREADY)
    assert unready.pid == first.pid
    assert unready.probe is not None and unready.probe.status == 404


# ------------------------------------------------------------------------------------------------- several, and ports


async def test_replicas_get_a_port_each_and_are_told_so(house: House):
    low, high = free_range(5)
    content = web(8080)
    content = content.__class__(
        command="busybox", args=("httpd", "-f", "-p", "127.0.0.1:${PORT}"), ports=(Port(container_port=8080),)
    )
    await house.want(house.wanted("web", content, replicas=3), port_range=(low, high))
    await house.ready("web", count=3)
    found = house.platform.instances("web")
    assert sorted(each.index for each in found) == [0, 1, 2]
    numbers = {each.ports["8080"] for each in found}
    assert len(numbers) == 3 and all(low <= number <= high for number in numbers)


async def test_scaling_down_stops_the_highest_index_first(house: House):
    await house.want(house.wanted("idle", sleeper(), replicas=3, min_ready_seconds=0.05))
    await house.ready("idle", count=3)
    await house.want(house.wanted("idle", sleeper(), replicas=1, min_ready_seconds=0.05))
    (left,) = await house.until("idle", lambda found: len(found) == 1)
    assert left.index == 0


async def test_scaling_down_stops_the_unready_first(house: House, tmp_path: Path):
    flag = tmp_path / "flag"
    script = f"test $DEPLOY_CODE_INDEX = 0 && test -e {flag} && exit 1; sleep 1000"
    wanted = house.wanted("idle", shell(script), replicas=2, min_ready_seconds=0.05, restart=Restart(policy="never"))
    await house.want(wanted)
    await house.ready("idle", count=2)
    first = next(each for each in house.platform.instances("idle") if each.index == 0)
    os.kill(first.pid, signal.SIGKILL)
    await house.phase("idle", Phase.EXITED)
    await house.want(house.wanted("idle", shell(script), replicas=1, restart=Restart(policy="never")))
    (left,) = await house.until("idle", lambda found: len(found) == 1)
    assert left.index == 1


async def test_a_dynamic_port_that_somebody_takes_in_between_is_exchanged(house: House):
    low, high = free_range(3)
    script = (
        "import os, socket, sys\n"
        f"if os.environ['PORT'] == '{low}': sys.exit('OSError: [Errno 98] Address already in use')\n"
        "s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
        "while True: s.accept()[0].close()\n"
    )
    house_range = (low, high)
    content = python(script, env={"WHERE": "${PORT}"})
    numbers = set()
    for name in ("a", "b", "c"):  # wherever the search begins, one of them meets the taken port
        await house.want(house.wanted(name, content, health=QUICK), port_range=house_range)
        instance = await house.phase(name, Phase.READY, Phase.EXITED)
        numbers.add(instance.ports["port"])
        if instance.restarts:
            break
    assert "PortTaken" in await _events(house, "PortTaken")
    assert low not in numbers


async def test_a_service_finds_another_by_its_placeholder(house: House, tmp_path: Path):
    low, high = free_range(5)
    said = tmp_path / "said"
    content = web(8080).__class__(
        command="busybox", args=("httpd", "-f", "-p", "127.0.0.1:${PORT}"), ports=(Port(container_port=8080),)
    )
    await house.want(house.wanted("web", content), port_range=(low, high))
    instance = await house.ready("web")
    script = f"echo $URL $DEPLOY_CODE_SERVICE $DEPLOY_CODE_REVISION > {said}; sleep 1000"
    env = {"URL": "http://${services.web.host}:${services.web.port}"}
    await house.want(house.wanted("client", shell(script, env=env), revision=4), port_range=(low, high))
    await house.eventually(lambda: said.exists() and said.read_text())
    assert said.read_text() == f"http://127.0.0.1:{instance.ports['8080']} client 4\n"


# ------------------------------------------------------------------------------------------------- surroundings


async def test_the_environment_is_short(house: House, tmp_path: Path):
    said = tmp_path / "env"
    os.environ["DEPLOY_CODE_TEST_LEAK"] = "1"
    try:
        await house.want(house.wanted("env", shell(f"env > {said}.new; mv {said}.new {said}; sleep 1000")))
        await house.eventually(said.exists)
    finally:
        del os.environ["DEPLOY_CODE_TEST_LEAK"]
    names = {line.partition("=")[0] for line in said.read_text().splitlines()}
    assert {"PATH", "HOME", "LANG", "DEPLOY_CODE_SERVICE", "DEPLOY_CODE_INSTANCE", "DEPLOY_CODE_REVISION"} <= names
    assert not names & {"DEPLOY_CODE_TEST_LEAK", "PYTHONPATH", "TERM", "PYTEST_CURRENT_TEST"}


async def test_a_volume_is_created_where_it_is_missing(house: House, tmp_path: Path):
    place = tmp_path / "data" / "deep"
    content = sleeper(volumes=(Volume(name="data", mount_path=str(place)),))
    await house.want(house.wanted("db", content))
    await house.phase("db", Phase.STARTING, Phase.READY)
    assert place.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_created_volume_belongs_to_the_services_user(house: House, open_folder: Path):
    place = open_folder / "data" / "deep"
    content = sleeper(volumes=(Volume(name="data", mount_path=str(place)),), user="nobody")
    await house.want(house.wanted("db", content))
    await house.phase("db", Phase.STARTING, Phase.READY)
    assert place.owner() == place.parent.owner() == "nobody"
    assert open_folder.owner() == "root"


async def test_a_volume_that_cannot_be_had_is_s005(house: House, tmp_path: Path):
    (tmp_path / "file").touch()
    content = sleeper(volumes=(Volume(name="data", mount_path=str(tmp_path / "file" / "data")),))
    await house.want(house.wanted("db", content))
    assert (await house.phase("db", Phase.EXITED)).note.startswith("S005 ")


async def test_a_released_service_runs_from_its_copy(house: House, tmp_path: Path):
    from deploy_code.model import Release

    copy = house.state / "releases" / "abc" / "app"
    copy.mkdir(parents=True)
    program = copy / "run.sh"
    program.write_text("#!/bin/sh\npwd\nsleep 1000\n")
    program.chmod(0o755)
    content = sleeper().__class__(
        command="./run.sh", working_dir="release:app", release=Release(source="/nowhere", digest="abc")
    )
    await house.want(house.wanted("app", content))
    instance = await house.phase("app", Phase.STARTING, Phase.READY)
    await house.eventually(lambda: Path(instance.log_path).read_text() == f"{copy}\n")


async def test_secrets_appear_neither_in_events_nor_in_probes(house: House):
    port = free_port()
    script = "printf 'HTTP/1.0 500 no\\r\\n\\r\\nkey hunter2secret is wrong'"
    content = shell(f"while :; do ({script}; sleep 0.1) | busybox nc -l -p {port} -s 127.0.0.1; done")
    check = HealthCheck(command=("sh", "-c", "echo hunter2secret is wrong; exit 1"), interval_seconds=0.1, retries=1)
    wanted = house.wanted("api", content, health=check)
    wanted = wanted.__class__(
        service="api", revision=1, replicas=1, content=content, policy=wanted.policy, secrets=("hunter2secret",)
    )
    await house.want(wanted)
    (instance,) = await house.until("api", lambda found: found and found[0].gate is Gate.FAILED)
    assert instance.probe is not None and "is wrong" in instance.probe.detail
    assert "hunter2secret" not in repr(instance)
    await _events(house, "GateFailed")
    assert "hunter2secret" not in repr(house.store.events())


async def test_an_instance_can_be_looked_at_from_outside(house: House):
    port = free_port()
    await house.want(house.wanted("web", web(port)))
    instance = await house.ready("web")
    found = await house.platform.inspect(instance)
    assert found["pids"][0] == instance.pid, "and, while it answers a probe, a child of its"
    assert found["listening"] == (f"tcp 127.0.0.1:{port}",)
    assert found["memory_bytes"] > 0


async def _events(house: House, name: str) -> list[str]:
    """Events once ``name`` is among them; they are written a moment after what they tell."""
    async with asyncio.timeout(5):
        while name not in (found := house.events()):
            await asyncio.sleep(0.02)
    return found
