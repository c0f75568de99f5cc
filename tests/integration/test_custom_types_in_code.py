"""Service types that a process registered in code: they live as long as it does, and come back with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy_code.model import Content, HealthCheck, Instance, Phase, Wanted
from deploy_code.services.code_host import CodeHost
from deploy_code.services.handler import InstanceConfig, Service
from deploy_code.services.status import ServiceStatus
from support.agents import FAST_RESTART, House, alive
from support.custom import HEAD, calls

TYPE = Content(service_type="sleeper")
REGISTERS = (
    HEAD
    + """
import sys
from deploy_code.services.code_host import CodeHost


class Sleeper(Service):
    def start(self):
        said(self.config, "start")
        folder = os.path.dirname(self.config.log_path)
        sleeper = subprocess.Popen(["sleep", "1000"], env=dict(self.config.env), cwd=folder, start_new_session=True)
        return {"pid": str(sleeper.pid)}

    def stop(self):
        said(self.config, "stop")
        if "pid" in self.memory:
            with suppress(ProcessLookupError):
                os.kill(int(self.memory["pid"]), signal.SIGKILL)
            while lives(self.memory["pid"]):
                time.sleep(0.01)

    def health_check(self):
        return ServiceStatus.RUNNING if lives(self.memory["pid"]) else ServiceStatus.FAILED


CodeHost({"sleeper": lambda config: Sleeper()}).attach(sys.argv[1])
print("attached", flush=True)
sys.stdin.read()
"""
)

Register = Callable[[], subprocess.Popen[str]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.platform.open()
    yield made
    await made.close()


@pytest.fixture
def register(house: House) -> Iterator[Register]:
    """Starts a process that registers the type "sleeper", and waits until the agent knows."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", REGISTERS, str(house.state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "attached\n"
        return process

    yield start
    for process in started:
        ended(process)


def ended(process: subprocess.Popen[str]) -> None:
    """Kill it. What it started has its standard output too, so nobody may wait for the end of that."""
    process.kill()
    process.wait()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.stdout.close()


async def deployed(house: House, **policy: object) -> tuple[Wanted, Instance]:
    wanted = house.wanted("site", TYPE, restart=FAST_RESTART, **policy)
    await house.want(wanted)
    instance = await house.ready("site")
    await house.settle()
    return wanted, instance


async def test_it_is_supervised_by_the_process_that_registered_it(house: House, register: Register) -> None:
    process = register()
    wanted, instance = await deployed(house)
    assert alive(instance.pid) and instance.handler["holder"].startswith(f"{process.pid} ")
    await house.stop(wanted)
    assert calls(instance) == ["start", "stop"] and not alive(instance.pid)


async def test_when_that_process_ends_it_is_unknown_and_when_the_type_is_back_it_is_resumed(
    house: House, register: Register
) -> None:
    first = register()
    wanted, before = await deployed(house)
    first.kill()
    unknown = await house.phase("site", Phase.UNKNOWN)
    assert unknown.note == f'service_type "sleeper" was registered in process {first.pid}, which has ended'
    register()
    after = await house.ready("site")
    assert (after.pid, after.restarts, after.note, calls(after)) == (before.pid, 0, "", ["start"])
    await house.stop(wanted)


async def test_what_ended_meanwhile_is_started_again_when_the_type_is_back(house: House, register: Register) -> None:
    first = register()
    _, before = await deployed(house)
    first.kill()
    await house.phase("site", Phase.UNKNOWN)
    os.kill(before.pid, signal.SIGKILL)
    register()
    [after] = await house.until("site", lambda found: found[0].ready_at and found[0].pid != before.pid)
    assert calls(after) == ["start", "stop", "start"]


async def test_nobody_waits_for_a_stop_that_nobody_can_make_and_it_is_made_later(
    house: House, register: Register
) -> None:
    first = register()
    wanted, before = await deployed(house)
    first.kill()
    await house.phase("site", Phase.UNKNOWN)
    await house.want(replace(wanted, replicas=0))
    [found] = await house.until("site", lambda found: found[0].note.startswith("E014"))
    assert found.phase is Phase.UNKNOWN and f"process {first.pid}, which has ended" in found.note
    await house.end_agent()
    await house.platform.open()
    [found] = await house.until("site", lambda found: found[0].phase is Phase.UNKNOWN)
    assert found.note.startswith("E014"), "the next agent says the same"
    register()
    await house.until("site", lambda found: not found)
    assert not alive(before.pid)


async def test_a_start_that_nobody_can_make_fails_at_once_and_says_so(house: House) -> None:
    await house.end_agent()
    await house.platform.open()
    await house.want(house.wanted("site", TYPE))
    failed = await house.phase("site", Phase.EXITED)
    assert failed.note.startswith("E014") and '"sleeper" is registered in code' in failed.note


async def test_a_new_agent_finds_the_process_again(house: House, register: Register) -> None:
    register()
    wanted, before = await deployed(house)
    await house.end_agent()
    await house.platform.open()
    [after] = house.platform.instances("site")
    assert (after.phase, after.pid) == (Phase.READY, before.pid)
    await house.stop(wanted)
    assert calls(before) == ["start", "stop"]


async def test_a_new_agent_knows_at_once_that_the_process_has_ended(house: House, register: Register) -> None:
    first = register()
    await deployed(house)
    await house.end_agent()
    first.kill()
    first.wait()
    await house.platform.open()
    [found] = house.platform.instances("site")
    assert found.phase is Phase.UNKNOWN and f"process {first.pid}, which has ended" in found.note


async def test_of_two_processes_with_one_type_the_second_takes_over_when_the_first_ends(
    house: House, register: Register
) -> None:
    first = register()
    wanted, before = await deployed(house)
    second = register()
    assert before.handler["holder"].startswith(f"{first.pid} ")
    first.kill()
    [after] = await house.until("site", lambda found: found[0].handler["holder"].startswith(f"{second.pid} "))
    await house.until("site", lambda found: found[0].phase is Phase.READY and found[0].probe.ok)
    assert (after.pid, calls(before)) == (before.pid, ["start"])
    await house.stop(wanted)


async def test_while_the_first_lives_but_does_not_answer_nobody_else_gets_its_object(
    house: House, register: Register
) -> None:
    first = register()
    patient = HealthCheck(interval_seconds=0.2, timeout_seconds=1.0, retries=1000)  # not restarted for being unready
    _, before = await deployed(house, health=patient)
    register()
    first.send_signal(signal.SIGSTOP)
    unknown = await house.phase("site", Phase.UNKNOWN, timeout=30)
    assert unknown.note.endswith(f"was registered in process {first.pid}, which does not answer")
    first.send_signal(signal.SIGCONT)
    after = await house.ready("site")
    assert (after.pid, after.handler["holder"]) == (before.pid, before.handler["holder"])
    assert calls(after) == ["start"]


class Counted(Service):
    """Runs in this very process."""

    async def start(self) -> dict[str, str]:
        return {"service": self.config.service}

    async def stop(self) -> None:
        return None

    async def health_check(self) -> ServiceStatus:
        return ServiceStatus.RUNNING if self.memory["service"] == self.config.service else ServiceStatus.FAILED


async def test_any_callable_makes_objects_with_the_config_or_without(house: House) -> None:
    made: list[InstanceConfig] = []

    def factory(config: InstanceConfig) -> Counted:
        made.append(config)
        return Counted()

    host = CodeHost({"with": factory, "without": Counted})
    host.attach(str(house.state))
    try:
        both = [
            house.wanted("one", Content(service_type="with", options={"deep": [1, {"x": None}]}, args=("a",))),
            house.wanted("two", Content(service_type="without")),
        ]
        await house.want(*both)
        await house.ready("one")
        await house.ready("two")
        assert [(each.service, each.args, each.options) for each in made] == [
            ("one", ("a",), {"deep": [1, {"x": None}]})
        ]
        await house.stop(*both)
    finally:
        host.close()


async def test_types_that_are_added_later_are_offered_with_the_next_attach(house: House) -> None:
    host = CodeHost({"one": Counted})
    host.attach(str(house.state))
    try:
        host.add({"two": Counted})
        host.attach(str(house.state))
        wanted = house.wanted("site", Content(service_type="two"))
        await house.want(wanted)
        await house.ready("site")
        await house.stop(wanted)
    finally:
        host.close()


async def test_a_forked_child_does_not_keep_its_dead_parent_alive(house: House) -> None:
    script = REGISTERS.replace(
        'CodeHost({"sleeper": lambda config: Sleeper()}).attach(sys.argv[1])',
        'from deploy_code.services.code_host import serve_types\nserve_types(sys.argv[1], {"sleeper": Sleeper})\n'
        "if os.fork() == 0:\n    sys.stdin.read()\n    os._exit(0)",
    )
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(house.state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None and parent.stdout.readline() == "attached\n"
    _, before = await deployed(house)
    parent.kill()
    await house.phase("site", Phase.UNKNOWN)
    ended(parent)  # its standard input ends too, and so does the child
    assert alive(before.pid)
