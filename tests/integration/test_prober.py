"""The prober: real servers, real programs, both loops."""

import asyncio
import os
import socket
import subprocess
import sys
import time

import pytest

from deploy_code.agent.prober import Judgement, Prober, raise_open_files_limit
from deploy_code.health.build import build_probe
from deploy_code.health.dial import ProbeNotMadeError
from deploy_code.health.probes import HttpProbe
from deploy_code.health.target import parse_target
from deploy_code.model import Content, HealthCheck, Port, ProbeResult
from support.endpoints import answer, saying, serving
from support.loops import on_both_loops, until
from support.ports import free_port
from support.zombies import children

SLOW = HealthCheck(interval_seconds=30)  # once ready, not asked again in a test
FAST = HealthCheck(interval_seconds=0.05, retries=2, timeout_seconds=5)


class Reports(list):
    """What the prober told, in order: (uuid, judgement)."""

    def __call__(self, uuid: str, judgement: Judgement) -> None:
        self.append((uuid, judgement))

    def verdicts(self) -> list[str]:
        return [judgement.verdict for _, judgement in self if judgement.changed]

    @property
    def last(self) -> Judgement:
        return self[-1][1]


class Scripted:
    """A probe that answers what it is told to, and counts."""

    def __init__(self, ok: bool = True, detail: str = "") -> None:
        self.ok, self.detail, self.calls, self.running, self.overlap = ok, detail, 0, 0, False
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self) -> ProbeResult:
        self.calls += 1
        self.overlap = self.overlap or self.running > 0
        self.running += 1
        try:
            await self.hold.wait()
        finally:
            self.running -= 1
        return ProbeResult(ok=self.ok, kind="http", target="x", at=time.time(), duration=0, detail=self.detail)


def http(port: int) -> HttpProbe:
    return HttpProbe(parse_target(f"http://127.0.0.1:{port}/"), timeout=5)


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("probe")}


@on_both_loops
async def test_a_service_that_answers_is_ready_at_once():
    reports = Reports()
    prober = Prober(reports)
    async with serving(saying(answer(200))) as server:
        prober.watch("u1", http(server.port), SLOW, born_at=time.time())
        await until(lambda: reports)
        assert reports == [("u1", Judgement(verdict="ready", result=reports.last.result, changed=True))]
        assert reports.last.result.status == 200
        await prober.close()


@on_both_loops
async def test_a_service_that_begins_to_answer_later_becomes_ready_then():
    reports = Reports()
    prober = Prober(reports)
    port = free_port()
    prober.watch("u1", http(port), SLOW, born_at=time.time())
    await asyncio.sleep(0.2)
    assert reports[0][1].verdict == "starting"
    assert reports[0][1].result.detail == "connection refused"
    ready = asyncio.create_task(_answer_on(port))
    await until(lambda: reports.last.verdict == "ready")
    await ready
    await prober.close()


async def _answer_on(port: int) -> None:
    """Answer one request on ``port``."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.setblocking(False)
        client, _ = await asyncio.get_running_loop().sock_accept(server)
        with client:
            await asyncio.get_running_loop().sock_sendall(client, answer(200))
            await asyncio.get_running_loop().sock_recv(client, 1000)


@on_both_loops
async def test_the_gate_fails_when_nobody_ever_answers():
    reports = Reports()
    prober = Prober(reports)
    check = HealthCheck(interval_seconds=0.1, retries=3)
    prober.watch("u1", http(free_port()), check, born_at=time.time())
    await until(lambda: reports.verdicts() == ["gate_failed"])
    assert reports.last.result.detail == "connection refused"
    await prober.close()


async def test_the_same_failure_of_a_starting_instance_is_not_told_again_and_again():
    reports = Reports()
    prober = Prober(reports)
    probe = Scripted(ok=False, detail="refused")
    prober.watch("u1", probe, SLOW, born_at=time.time())
    await until(lambda: probe.calls > 10)
    assert [judgement.result.detail for _, judgement in reports] == ["refused"]
    probe.detail = "HTTP 503"
    await until(lambda: len(reports) == 2)
    assert reports.last.result.detail == "HTTP 503"
    assert not reports.last.changed
    await prober.close()


@on_both_loops
async def test_ready_unready_and_ready_again_are_told_with_every_failure_but_no_routine_success():
    reports = Reports()
    prober = Prober(reports)
    probe = Scripted()
    prober.watch("u1", probe, FAST, born_at=time.time())
    await until(lambda: probe.calls >= 4)
    assert len(reports) == 1
    probe.ok = False
    await until(lambda: len(reports) >= 4)
    assert [(j.verdict, j.changed) for _, j in reports[1:4]] == [
        ("ready", False),
        ("unready", True),
        ("unready", False),
    ]
    probe.ok = True
    await until(lambda: reports.last.verdict == "ready")
    assert reports.verdicts() == ["ready", "unready", "ready"]
    await prober.close()


async def test_of_routine_successes_one_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deploy_code.agent.prober.STEADY_REPORT_SECONDS", 0.2)
    reports = Reports()
    prober = Prober(reports)
    probe = Scripted()
    prober.watch("u1", probe, HealthCheck(interval_seconds=0.01), born_at=time.time())
    await until(lambda: len(reports) >= 3)
    assert [(j.verdict, j.changed, j.steady) for _, j in reports[:3]] == [
        ("ready", True, False),
        ("ready", False, True),
        ("ready", False, True),
    ]
    first, second, third = (j.result.at for _, j in reports[:3])
    assert second - first >= 0.15 and third - second >= 0.15
    assert probe.calls > len(reports)
    await prober.close()


async def test_probes_of_one_instance_never_overlap():
    prober = Prober(Reports())
    probe = Scripted()
    probe.hold.clear()
    prober.watch("u1", probe, HealthCheck(interval_seconds=0.01), born_at=time.time())
    await until(lambda: probe.running)
    for _ in range(5):
        prober.probe_now("u1")
        await asyncio.sleep(0.02)
    assert probe.calls == 1
    probe.hold.set()
    await until(lambda: probe.calls >= 3)
    assert not probe.overlap
    await prober.close()


@on_both_loops
async def test_probe_now_does_not_wait_for_the_interval():
    prober = Prober(Reports())
    probe = Scripted()
    prober.watch("u1", probe, SLOW, born_at=time.time())
    await until(lambda: probe.calls == 1)
    await asyncio.sleep(0.05)
    assert probe.calls == 1
    prober.probe_now("u1")
    await until(lambda: probe.calls == 2)
    probe.hold.clear()
    prober.probe_now("u1")
    await until(lambda: probe.running)
    prober.probe_now("u1")  # while one is under way: once more after it
    probe.hold.set()
    await until(lambda: probe.calls == 4)
    prober.probe_now("nobody")
    await prober.close()


async def test_after_the_first_success_the_interval_is_kept():
    prober = Prober(Reports())
    probe = Scripted()
    began = time.monotonic()
    prober.watch("u1", probe, HealthCheck(interval_seconds=0.05), born_at=time.time())
    await until(lambda: probe.calls >= 11)
    assert time.monotonic() - began > 10 * 0.045
    await prober.close()


@on_both_loops
async def test_a_forgotten_watch_leaves_no_task_and_no_socket():
    reports = Reports()
    prober = Prober(reports)
    async with serving(saying(then_wait=True)) as server:
        prober.watch("u1", http(server.port), SLOW, born_at=time.time())
        await until(lambda: server.requests)
        prober.forget("u1")
        prober.forget("u1")
        await until(lambda: server.open == 0)
        await until(lambda: not tasks())
        assert reports == []
        assert prober.stats().watched == 0
        await prober.close()


@on_both_loops
async def test_close_waits_until_the_programs_of_probes_are_gone(tmp_path):
    prober = Prober(Reports())
    pid_file = tmp_path / "pid"
    probe = build_probe(
        HealthCheck(command=("sh", "-c", f"echo $$ > {pid_file}; sleep 60")),
        Content(),
        ports={},
        env={"PATH": os.environ["PATH"]},
        alive=lambda: True,
    )
    prober.watch("u1", probe, SLOW, born_at=time.time())
    await until(lambda: pid_file.exists() and pid_file.read_text())
    await prober.close()
    assert not tasks()
    assert not os.path.exists(f"/proc/{pid_file.read_text().strip()}")


async def test_watching_the_same_instance_again_replaces_the_watch():
    prober = Prober(Reports())
    old, new = Scripted(), Scripted()
    prober.watch("u1", old, FAST, born_at=time.time())
    await until(lambda: old.calls)
    prober.watch("u1", new, FAST, born_at=time.time())
    await until(lambda: new.calls >= 2)
    calls = old.calls
    await until(lambda: new.calls >= 4)
    assert old.calls == calls
    assert prober.stats().watched == 1
    await prober.close()


async def test_only_so_many_programs_run_at_once():
    prober = Prober(Reports(), commands_at_once=2)
    probes = [Scripted() for _ in range(5)]
    for index, probe in enumerate(probes):
        probe.hold.clear()
        prober.watch(f"u{index}", probe, SLOW, born_at=time.time())
    await until(lambda: all(probe.running for probe in probes))  # these start no program
    running, others = [], children()
    watch = HealthCheck(command=("sleep", "0.05"))
    for index in range(6):
        probe = build_probe(watch, Content(), ports={}, env=dict(os.environ), alive=lambda: True)
        prober.watch(f"c{index}", probe, SLOW, born_at=time.time())
    async with asyncio.timeout(10):
        while prober.starting > 5:
            running.append(len(children() - others))
            await asyncio.sleep(0.005)
    assert max(running) == 2
    await prober.close()


@on_both_loops
async def test_without_check_and_port_it_is_ready_once_it_has_lived_long_enough():
    reports = Reports()
    prober = Prober(reports)
    probe = build_probe(HealthCheck(), Content(), ports={}, env={}, alive=lambda: True)
    began = time.monotonic()
    prober.watch("u1", probe, SLOW, born_at=time.time(), min_ready=0.3)
    await until(lambda: reports.verdicts() == ["ready"])
    assert 0.29 < time.monotonic() - began < 2
    await prober.close()


async def test_the_age_of_an_instance_counts_from_its_birth():
    reports = Reports()
    prober = Prober(reports)
    probe = build_probe(HealthCheck(), Content(), ports={}, env={}, alive=lambda: True)
    prober.watch("u1", probe, SLOW, born_at=time.time() - 3600, min_ready=60)
    await until(lambda: reports.verdicts() == ["ready"])
    await prober.close()


async def test_an_adopted_instance_keeps_its_open_gate_and_its_first_success_is_told():
    reports = Reports()
    prober = Prober(reports)
    probe = Scripted(ok=False)
    prober.watch("u1", probe, FAST, born_at=time.time(), open_gate=True)
    assert prober.starting == 0
    await until(lambda: "unready" in reports.verdicts())
    probe.ok = True
    await until(lambda: reports.last.verdict == "ready")
    await prober.close()


LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("up", flush=True)
sys.stdin.read()
"""


@on_both_loops
async def test_a_port_that_a_stranger_answers_is_not_ready():
    port = free_port()
    stranger = subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    reports = Reports()
    prober = Prober(reports)
    with stranger:
        stranger.stdout.readline()
        content = Content(ports=(Port(container_port=port),))
        probe = build_probe(HealthCheck(), content, ports={}, env={}, alive=lambda: True)
        prober.watch(
            "u1",
            probe,
            SLOW,
            born_at=time.time(),
            owner_check=lambda: prober.listeners.owns(port, [os.getpid()]),
        )
        await until(lambda: reports)
        await asyncio.sleep(0.05)
        assert reports.verdicts() == []
        assert f"port {port} is answered by pid {stranger.pid} (" in reports.last.result.detail
        assert not reports.last.result.ok
        stranger.stdin.close()
    with socket.create_server(("127.0.0.1", port)):
        await until(lambda: reports.verdicts() == ["ready"])
    await prober.close()


@pytest.mark.parametrize("owned", [True, None])
async def test_what_is_not_proven_foreign_is_ready(owned):
    async def check():
        return owned

    reports = Reports()
    prober = Prober(reports)
    prober.watch("u1", Scripted(), SLOW, born_at=time.time(), owner_check=check)
    await until(lambda: reports.verdicts() == ["ready"])
    await prober.close()


async def test_a_probe_that_this_machine_could_not_make_says_nothing():
    class Impossible(Scripted):
        async def __call__(self):
            self.calls += 1
            raise ProbeNotMadeError("no files left")

    reports = Reports()
    prober = Prober(reports)
    probe = Impossible()
    prober.watch("u1", probe, HealthCheck(interval_seconds=0.01, retries=1), born_at=time.time(), open_gate=True)
    await until(lambda: probe.calls > 5)
    assert reports == []
    assert prober.stats().not_made > 4
    await prober.close()


async def test_an_error_of_a_probe_or_a_listener_is_told_and_the_watch_goes_on():
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    class Broken(Scripted):
        async def __call__(self):
            await super().__call__()
            raise RuntimeError("a bug")

    prober = Prober(Reports())
    probe = Broken()
    prober.watch("u1", probe, FAST, born_at=time.time(), open_gate=True)
    await until(lambda: probe.calls >= 3)
    assert str(told[0]["exception"]) == "a bug"
    assert "u1" in told[0]["message"]
    await prober.close()


@on_both_loops
async def test_rate_and_lag_are_measured():
    prober = Prober(Reports())
    probes = [Scripted() for _ in range(20)]
    for index, probe in enumerate(probes):
        prober.watch(f"u{index}", probe, FAST, born_at=time.time())
    await until(lambda: all(probe.calls >= 5 for probe in probes))
    stats = prober.stats()
    assert stats.watched == 20
    assert stats.probes_per_second >= 1
    assert 0 <= stats.lag_seconds <= stats.lag_max_seconds < 5
    await prober.close()


@on_both_loops
async def test_many_starting_instances_share_a_bounded_rate_of_probes():
    prober = Prober(Reports())
    probes = [Scripted(ok=False) for _ in range(500)]
    began = time.monotonic()
    for index, probe in enumerate(probes):
        prober.watch(f"u{index}", probe, SLOW, born_at=time.time())
    await until(lambda: sum(probe.calls for probe in probes) >= 1500)
    await prober.close()
    most = 500 + 4000 * (time.monotonic() - began)
    assert sum(probe.calls for probe in probes) <= most
    assert not tasks()


def test_the_limit_of_open_files_is_raised_as_far_as_allowed():
    code = (
        "import resource as r; from deploy_code.agent.prober import raise_open_files_limit as up;"
        "hard = r.getrlimit(r.RLIMIT_NOFILE)[1]; r.setrlimit(r.RLIMIT_NOFILE, (256, hard));"
        "print(up(4096), r.getrlimit(r.RLIMIT_NOFILE) == (min(4096, hard), hard), up(100) >= 4096)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["256", "True", "True"]
    assert raise_open_files_limit(1) > 0
