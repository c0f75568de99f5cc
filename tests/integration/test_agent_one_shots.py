"""One-shots run once per service and content, for ever recorded (DESIGN §5, §7)."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy_code.model import Gate, Phase, Wanted
from support.agents import House, shell


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.platform.open()
    yield made
    await made.close()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def job(house: House, runs: Path, rest: str = "true", **more: object) -> Wanted:
    return house.wanted("job", shell(f"echo x >> {runs}; {rest}", one_shot=True), **more)  # type: ignore[arg-type]


async def next_deployment(house: House) -> None:
    house.end()
    house.deployment = house.begin()


async def forget_instance(house: House, wanted: Wanted) -> None:
    await house.stop(wanted)


async def test_one_that_ends_well_is_completed_and_recorded(house: House, runs: Path):
    await house.want(job(house, runs))
    instance = await house.phase("job", Phase.COMPLETED)
    assert instance.gate is Gate.OPEN
    assert instance.exit is not None and instance.exit.code == 0
    (row,) = house.store.one_shots()
    assert (row.service, row.outcome) == ("job", "completed")


async def test_one_that_fails_is_failed_and_recorded(house: House, runs: Path):
    await house.want(job(house, runs, "exit 7"))
    instance = await house.phase("job", Phase.FAILED)
    assert instance.exit is not None and instance.exit.code == 7
    (row,) = house.store.one_shots()
    assert (row.outcome, row.exit_code) == ("failed", 7)


async def test_what_has_completed_does_not_run_again(house: House, runs: Path):
    wanted = job(house, runs)
    await house.want(wanted)
    await house.phase("job", Phase.COMPLETED)
    await forget_instance(house, wanted)
    await next_deployment(house)
    await house.want(wanted)
    await house.phase("job", Phase.COMPLETED)
    assert runs.read_text() == "x\n"


async def test_rerun_runs_it_again_but_a_repeated_message_does_not(house: House, runs: Path):
    wanted = job(house, runs)
    await house.want(wanted)
    await house.phase("job", Phase.COMPLETED)
    await next_deployment(house)
    await house.want(wanted, rerun=("job",))
    await house.eventually(lambda: runs.read_text() == "x\nx\n")
    await house.phase("job", Phase.COMPLETED)
    await house.want(wanted, rerun=("job",))
    await house.settle()
    assert runs.read_text() == "x\nx\n"


async def test_other_content_is_another_one_shot(house: House, runs: Path):
    await house.want(job(house, runs))
    await house.phase("job", Phase.COMPLETED)
    await house.want(job(house, runs, ":", revision=2))
    await house.until("job", lambda found: any(i.revision == 2 and i.phase is Phase.COMPLETED for i in found))
    assert runs.read_text() == "x\nx\n"


async def test_a_failed_one_runs_again_for_a_newer_deployment_only(house: House, runs: Path):
    wanted = job(house, runs, "exit 1")
    await house.want(wanted)
    await house.phase("job", Phase.FAILED)
    await house.want(wanted)
    await house.settle()
    assert runs.read_text() == "x\n"
    await next_deployment(house)
    await house.want(wanted)
    await house.eventually(lambda: runs.read_text() == "x\nx\n")


async def test_one_that_runs_while_the_agent_dies_is_adopted_with_its_result(house: House, runs: Path, tmp_path: Path):
    go = tmp_path / "go"
    await house.want(job(house, runs, f"while ! test -e {go}; do sleep 0.05; done; exit 5"))
    await house.eventually(runs.exists)
    await house.end_agent()
    await house.platform.open()
    go.touch()
    instance = await house.phase("job", Phase.FAILED)
    assert instance.exit is not None and instance.exit.code == 5
    assert runs.read_text() == "x\n"


async def test_one_that_ends_while_no_agent_is_there_is_known_all_the_same(house: House, runs: Path, tmp_path: Path):
    go = tmp_path / "go"
    await house.want(job(house, runs, f"while ! test -e {go}; do sleep 0.05; done"))
    instance = await house.phase("job", Phase.STARTING)
    await house.end_agent()
    go.touch()
    await house.eventually(lambda: not Path(f"/proc/{instance.pid}").exists())
    await house.platform.open()
    await house.phase("job", Phase.COMPLETED)
    assert runs.read_text() == "x\n"


async def test_one_with_an_unknown_result_is_not_run_again_by_itself(house: House, runs: Path):
    await house.want(job(house, runs, "sleep 1000"))
    instance = await house.phase("job", Phase.STARTING)
    await house.eventually(runs.exists)
    await house.end_agent()
    os.killpg(instance.pid, signal.SIGKILL)
    await house.platform.open()
    after = await house.phase("job", Phase.FAILED)
    assert "unknown" in after.note
    assert house.store.one_shots()[0].outcome == "unknown"
    await house.settle()
    assert runs.read_text() == "x\n"


async def test_only_a_newer_deployment_runs_one_with_an_unknown_result(house: House, runs: Path, tmp_path: Path):
    wanted = job(house, runs, f"test -e {tmp_path}/quick || sleep 1000")
    await house.want(wanted)
    instance = await house.phase("job", Phase.STARTING)
    await house.eventually(runs.exists)
    await house.end_agent()
    os.killpg(instance.pid, signal.SIGKILL)
    (tmp_path / "quick").touch()
    await house.platform.open()
    await house.phase("job", Phase.FAILED)
    await next_deployment(house)
    await house.want(wanted)
    await house.phase("job", Phase.COMPLETED)
    assert runs.read_text() == "x\nx\n"


async def test_one_that_is_stopped_has_failed(house: House, runs: Path):
    wanted = job(house, runs, "sleep 1000")
    await house.want(wanted)
    await house.phase("job", Phase.STARTING)
    await house.stop(wanted)
    assert house.store.one_shots()[0].outcome == "failed"


async def test_a_command_that_is_not_there_is_e003(house: House):
    content = shell("true", one_shot=True).__class__(command="no-such-program-anywhere", one_shot=True)
    await house.want(house.wanted("job", content))
    assert (await house.phase("job", Phase.FAILED)).note.startswith("E003 ")
