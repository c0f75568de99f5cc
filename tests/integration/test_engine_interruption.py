"""Ctrl-C, cancellation and crashes of the engine, and what takes a deployment up again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deploy_code.errors import DeployCodeError
from deploy_code.plan.plan import Remove, Step, WaitReady, Want
from deploy_code.plugins import Plugin
from deploy_code.services.status import DeploymentStatus
from support.engine import engine, give_up, held_at, revisions, row, until_runs, wanted
from support.project import ProjectFolder
from support.scenarios import kill_hard, pid_of, pids, sleeper

pytestmark = pytest.mark.usefixtures("no_recovery_by_the_agent")


STUCK = {"min_ready_seconds": 60}


def write(project: ProjectFolder, services: dict[str, Any], **sections: Any) -> None:
    deployment = {"strategy": "Parallel", "timeout_seconds": 30, **sections.pop("deployment", {})}
    project.write(services, deployment=deployment, **sections)


async def crashed_upgrade(project: ProjectFolder) -> None:
    """``a`` replaced, ``new`` added, ``old`` to be removed; given up while ``stuck`` waits for its gate."""
    write(project, {"a": sleeper(), "stuck": sleeper(), "old": sleeper()})
    assert (await engine(project).deploy()).success
    changed = {"env": {"V": "2"}}
    write(project, {"a": sleeper(**changed), "stuck": sleeper(**changed, **STUCK), "new": sleeper()})
    run = engine(project)
    task = asyncio.create_task(run.deploy())
    await until_runs(project, "a", "stuck", "new")
    await give_up(run, task)
    assert row(project).status == "in_progress"


# --------------------------------------------------------------------------- interruptions


async def test_one_interruption_undoes_what_was_begun(project: ProjectFolder) -> None:
    write(project, {"a": sleeper()})
    assert (await engine(project).deploy()).success
    write(project, {"a": sleeper(), "stuck": sleeper(**STUCK)})
    run = engine(project)
    task = asyncio.create_task(run.deploy())
    await until_runs(project, "stuck")
    run.interrupt()
    report = await task
    assert report.status is DeploymentStatus.ROLLED_BACK
    assert report.errors[0].startswith("E017")
    assert pids(project).keys() == {"a"}


async def test_two_interruptions_at_once_leave_it_recorded_as_running(project: ProjectFolder) -> None:
    write(project, {"stuck": sleeper(**STUCK)})
    run = engine(project)
    task = asyncio.create_task(run.deploy())
    await until_runs(project, "stuck")
    run.interrupt()
    run.interrupt()
    with pytest.raises(DeployCodeError, match=r"^E017"):
        await task
    assert row(project).status == "in_progress"


async def test_a_second_interruption_ends_a_failure_hook_that_hangs(project: ProjectFolder) -> None:
    hung = project.folder / "hung"
    hook = ["sh", "-c", f"touch {hung}; sleep 600"]
    write(project, {"stuck": sleeper(**STUCK)}, hooks={"on_failure": [hook]})
    run = engine(project)
    task = asyncio.create_task(run.deploy())
    await until_runs(project, "stuck")
    run.interrupt()
    async with asyncio.timeout(10):
        while not hung.exists():
            await asyncio.sleep(0.02)
        run.interrupt()
        with pytest.raises(DeployCodeError, match=r"^E017"):
            await task
    assert row(project).status == "in_progress"


async def test_a_cancelled_deploy_is_undone_and_still_ends_as_cancelled(project: ProjectFolder) -> None:
    write(project, {"stuck": sleeper(**STUCK)})
    task = asyncio.create_task(engine(project).deploy())
    await until_runs(project, "stuck")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert row(project).status == "rolled_back"
    assert pids(project) == {}


async def test_a_deploy_under_a_time_out_of_the_caller_is_undone_and_ends_in_it(project: ProjectFolder) -> None:
    write(project, {"stuck": sleeper(**STUCK)})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await engine(project).deploy()
    assert row(project).status == "rolled_back"


async def test_cancelled_twice_it_ends_as_cancelled_and_can_be_recovered(project: ProjectFolder) -> None:
    write(project, {"stuck": sleeper(**STUCK)})
    heard = Ends()
    task = asyncio.create_task(engine(project, [heard]).deploy())
    await until_runs(project, "stuck")
    async with held_at(lambda step: isinstance(step, Remove)) as undoing:
        task.cancel()
        await undoing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert row(project).status == "in_progress"
    assert heard.ends == 1
    report = await engine(project).recover()
    assert report is not None and report.status is DeploymentStatus.ROLLED_BACK
    assert pids(project) == {}


class Ends(Plugin):
    """Counts how often it hears of an end, however slowly it listens."""

    def __init__(self) -> None:
        self.starts = self.ends = 0

    async def on_deployment_start(self, services: Any) -> None:
        self.starts += 1

    async def on_deployment_complete(self, report: Any) -> None:
        await asyncio.sleep(0.05)
        self.ends += 1


async def test_cancelling_while_plugins_hear_of_the_end_takes_nothing_from_them(project: ProjectFolder) -> None:
    write(project, {"a": sleeper()})
    first, second = Ends(), Ends()
    task = asyncio.create_task(engine(project, [first, second]).deploy())
    await until_runs(project, "a")
    while row(project).status == "in_progress":
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (first.ends, second.ends) == (1, 1)
    assert row(project).status == "completed"


async def test_a_pre_deploy_hook_that_is_interrupted_changes_nothing_and_is_told_to_plugins(
    project: ProjectFolder,
) -> None:
    begun = project.folder / "begun"
    write(project, {"a": sleeper()}, hooks={"pre_deploy": [["sh", "-c", f"touch {begun}; sleep 600"]]})
    heard = Ends()
    task = asyncio.create_task(engine(project, [heard]).deploy())
    async with asyncio.timeout(10):
        while not begun.exists():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert pids(project) == {}
    assert (heard.starts, heard.ends) == (1, 1)


async def test_an_interrupted_stop_stays_recorded_and_is_finished_by_a_recovery(project: ProjectFolder) -> None:
    write(project, {"a": sleeper(), "b": sleeper(dependencies=["a"])})
    assert (await engine(project).deploy()).success
    run = engine(project)
    async with held_at(lambda step: step.service == "a") as reached:
        task = asyncio.create_task(run.stop())
        await reached.wait()
        run.interrupt()
        with pytest.raises(DeployCodeError, match=r"^E017"):
            await task
    assert row(project).status == "in_progress"
    report = await engine(project).recover()
    assert report is not None and report.success
    assert pids(project) == {}
    assert all(each.stopped for each in wanted(project).values())


async def test_an_interruption_between_a_recovery_and_the_deployment_is_not_lost(project: ProjectFolder) -> None:
    await crashed_upgrade(project)
    run = engine(project)
    run.bus.subscribe(lambda event: run.interrupt() if event.name == "DeploymentFinished" else None)
    with pytest.raises(DeployCodeError, match=r"^E017"):
        await run.deploy()
    assert row(project).number == 2 and row(project).status == "rolled_back"


async def test_after_an_interruption_no_image_is_looked_for(project: ProjectFolder) -> None:
    project.env["DOCKER_HOST"] = f"unix://{project.folder}/nobody.sock"
    await crashed_upgrade(project)
    write(project, {"a": {"image": "app:1"}}, infrastructure={"container_runtime": "Docker"})
    run = engine(project)
    run.bus.subscribe(lambda event: run.interrupt() if event.name == "DeploymentFinished" else None)
    with pytest.raises(DeployCodeError, match=r"^E017.*before it began"):
        await run.deploy()


# --------------------------------------------------------------------------- recovery


async def test_a_recovered_deployment_records_what_was_wanted_before_it(project: ProjectFolder) -> None:
    await crashed_upgrade(project)
    before = row(project).before
    report = await engine(project).recover()
    assert report is not None and report.status is DeploymentStatus.ROLLED_BACK, report
    assert revisions(project) == {"a": 1, "stuck": 1, "old": 1}
    assert row(project).final is not None and row(project).final.keys() == before.keys()
    assert pids(project).keys() == {"a", "stuck", "old"}


async def test_a_recovery_that_is_interrupted_again_and_again_gets_there_in_the_end(project: ProjectFolder) -> None:
    await crashed_upgrade(project)
    steps: list[type[Step]] = [Want, WaitReady, Remove]
    for kind in steps:
        run = engine(project)
        async with held_at(lambda step, kind=kind: isinstance(step, kind)) as reached:  # type: ignore[misc]
            task = asyncio.create_task(run.recover())
            async with asyncio.timeout(10):
                done, _ = await asyncio.wait(
                    {task, asyncio.create_task(reached.wait())}, return_when=asyncio.FIRST_COMPLETED
                )
            if task in done:
                break
            run.interrupt()
            with pytest.raises(DeployCodeError, match=r"^E017"):
                await task
        assert row(project).status == "in_progress"
    await engine(project).recover()
    assert row(project).status == "rolled_back"
    assert pids(project).keys() == {"a", "stuck", "old"}


async def test_a_recovery_starts_afresh_what_died_in_the_meantime(project: ProjectFolder) -> None:
    """The agent takes a wish of the same deployment for a repetition, and would leave the dead one dead."""
    write(project, {"a": sleeper(), "b": sleeper(dependencies=["a"])})
    assert (await engine(project).deploy()).success
    run = engine(project)
    async with held_at(lambda step: step.id == "a/ready") as reached:
        task = asyncio.create_task(run.restart())
        await reached.wait()
        await until_runs(project, "a")
        kill_hard(pid_of(project, "a"))
        await give_up(run, task)
    report = await engine(project).recover()
    assert report is not None and report.status is DeploymentStatus.ROLLED_BACK, report.errors
    assert pids(project).keys() == {"a", "b"}


async def test_a_recovery_does_not_wait_for_what_was_sick_before(project: ProjectFolder) -> None:
    check = {"command": ["false"], "interval_seconds": 60, "timeout_seconds": 1, "retries": 9}
    sick = {"command": "sleep", "args": ["1000"], "health_check": check}
    write(project, {"sick": sick, "a": sleeper()}, deployment={"timeout_seconds": 1})
    assert (await engine(project, force=True).deploy()).success
    write(project, {"sick": sick | {"env": {"V": "2"}}, "a": sleeper()}, deployment={"timeout_seconds": 60})
    run = engine(project)
    task = asyncio.create_task(run.deploy())
    async with asyncio.timeout(10):
        while not row(project).number == 2:
            await asyncio.sleep(0.02)
        await until_runs(project, "sick")
    await give_up(run, task)
    async with asyncio.timeout(20):
        report = await engine(project).recover()
    assert report is not None and report.status is DeploymentStatus.ROLLED_BACK, report.errors


async def test_a_dry_run_and_a_plan_only_say_that_a_deployment_was_interrupted(project: ProjectFolder) -> None:
    await crashed_upgrade(project)
    seen = pids(project)
    report = await engine(project, dry_run=True).deploy()
    plan = await engine(project).plan()
    assert any("deploy 2 was interrupted" in each for each in report.warnings), report.warnings
    assert any("deploy 2 was interrupted" in each for each in plan.warnings)
    assert row(project).status == "in_progress"
    assert pids(project) == seen


async def test_what_was_forced_is_not_good_although_it_is_resumed_without_force(project: ProjectFolder) -> None:
    write(project, {"a": sleeper(min_ready_seconds=1.5)})
    run = engine(project, force=True)
    task = asyncio.create_task(run.deploy())
    await until_runs(project, "a")
    await give_up(run, task)
    report = await engine(project).recover(resume=True)
    assert report is not None and report.success, report
    assert not row(project).good
