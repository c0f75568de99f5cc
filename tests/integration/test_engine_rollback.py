"""What a deployment that goes wrong leaves behind: everything as it was, and a record that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy_code.services.status import DeploymentStatus
from support.engine import engine, revisions, row, until, wanted
from support.project import ProjectFolder
from support.scenarios import kill_hard, one_shot, pid_of, pids, sleeper

DIES = {"command": "sh", "args": ["-c", "exit 7"], "min_ready_seconds": 0.1}


pytestmark = pytest.mark.usefixtures("no_recovery_by_the_agent")


def write(project: ProjectFolder, services: dict[str, Any], **deployment: Any) -> None:
    project.write(services, deployment={"strategy": "Parallel", "timeout_seconds": 10, **deployment})


def one_at_a_time(slot: Path) -> dict[str, Any]:
    """A service of which only one instance can run: the others exit with 3."""
    return {"command": "sh", "args": ["-c", f"mkdir {slot} 2>/dev/null || exit 3; exec sleep 1000"],
            "min_ready_seconds": 0.1}  # fmt: skip


# --------------------------------------------------------------------------- what comes back


async def test_a_scale_that_fails_goes_back_to_the_instances_that_ran(project: ProjectFolder) -> None:
    write(project, {"app": one_at_a_time(project.folder / "slot")})
    assert (await engine(project).deploy()).success
    before = pids(project)
    report = await engine(project).scale({"app": 3})
    assert report.status is DeploymentStatus.ROLLED_BACK, report.errors
    assert pids(project) == before
    assert wanted(project)["app"].replicas == 1


async def test_a_restart_that_fails_once_is_put_back_by_starting_the_same_revision_again(
    project: ProjectFolder,
) -> None:
    flag = project.folder / "flag"
    script = f"if [ -e {flag} ]; then rm {flag}; exit 4; fi; exec sleep 1000"
    app = {"command": "sh", "args": ["-c", script], "min_ready_seconds": 0.1}
    write(project, {"app": app, "other": sleeper(dependencies=["app"])})
    assert (await engine(project).deploy()).success
    flag.touch()
    report = await engine(project).restart()
    assert report.status is DeploymentStatus.ROLLED_BACK, report.errors
    assert pids(project).keys() == {"app", "other"}


async def test_a_one_shot_that_hangs_does_not_outlive_the_rollback(project: ProjectFolder) -> None:
    write(project, {"migrate": one_shot("pass"), "app": sleeper()})
    assert (await engine(project).deploy()).success
    write(project, {"migrate": one_shot("import time; time.sleep(1000)"), "app": sleeper()}, timeout_seconds=1)
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK, report.errors
    assert report.failures[0].service == "migrate" and report.failures[0].code == "E008"
    assert pids(project).keys() == {"app"}


async def test_one_shots_that_ran_are_named_by_the_rollback(project: ProjectFolder) -> None:
    write(project, {"app": sleeper()})
    assert (await engine(project).deploy()).success
    write(project, {"app": sleeper(), "migrate": one_shot("pass"), "bad": DIES | {"dependencies": ["migrate"]}})
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK
    assert "one-shots that ran are not undone: migrate" in report.warnings


async def test_policies_and_removed_services_come_back_too(project: ProjectFolder) -> None:
    write(project, {"app": sleeper(stop_timeout_seconds=7), "old": sleeper()})
    assert (await engine(project).deploy()).success
    before, policy = pids(project), wanted(project)["app"].policy
    write(project, {"app": sleeper(stop_timeout_seconds=9), "bad": DIES | {"dependencies": ["app"]}})
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK, report.errors
    assert pids(project) == before
    assert wanted(project)["app"].policy == policy


async def test_a_service_that_was_stopped_before_is_stopped_again(project: ProjectFolder) -> None:
    write(project, {"app": sleeper(), "idle": sleeper()})
    assert (await engine(project).deploy()).success
    await engine(project).stop(services=["idle"])
    write(project, {"app": sleeper(), "idle": sleeper(), "bad": DIES | {"dependencies": ["idle"]}})
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK, report.errors
    assert pids(project).keys() == {"app"}
    assert wanted(project)["idle"].stopped


# --------------------------------------------------------------------------- what the record says


async def test_a_failure_left_as_it_stands_records_only_what_was_begun(project: ProjectFolder) -> None:
    write(project, {"bad": sleeper(), "later": sleeper(dependencies=["bad"]), "gone": sleeper()})
    assert (await engine(project).deploy()).success
    write(
        project,
        {"bad": DIES, "later": sleeper(dependencies=["bad"], env={"V": "2"})},
        rollback_on_failure=False,
        strategy="Sequential",
    )
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.FAILED
    assert revisions(project) == {"bad": 2, "later": 2, "gone": 1}, "later was stopped, gone was not yet removed"
    assert pids(project).keys() == {"gone"}


async def test_after_a_rollback_that_failed_a_rollback_by_hand_goes_to_the_last_good_one(
    project: ProjectFolder,
) -> None:
    script = project.program("app.sh", "#!/bin/sh\nexec sleep 1000\n")
    write(project, {"app": {"command": str(script), "min_ready_seconds": 0.1}, "side": sleeper()})
    assert (await engine(project).deploy()).success
    script.write_text("#!/bin/sh\nexit 5\n")
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.FAILED and "E009" in report.errors[-1], report.errors
    assert revisions(project)["app"] == 1, "what is wanted is what was before, although it does not run"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    again = await engine(project).rollback()
    assert again.success, again.errors
    assert pids(project).keys() == {"app", "side"}


async def test_a_stop_is_never_what_a_rollback_without_a_number_returns_to(project: ProjectFolder) -> None:
    write(project, {"app": sleeper()})
    assert (await engine(project).deploy()).success
    await engine(project).stop()
    assert not row(project).good
    write(project, {"app": sleeper(env={"V": "2"})})
    assert (await engine(project).deploy()).success
    report = await engine(project).rollback()
    assert report.success and revisions(project) == {"app": 1}
    assert pids(project).keys() == {"app"}


async def test_a_partial_deploy_beside_a_sick_service_is_not_good(project: ProjectFolder) -> None:
    write(project, {"sick": {"command": "sleep", "args": ["1000"], "health_check": {
        "command": ["false"], "interval_seconds": 1, "timeout_seconds": 1, "retries": 1}}, "app": sleeper()},
        timeout_seconds=2)  # fmt: skip
    assert (await engine(project, force=True).deploy()).success
    assert not row(project).good
    write(project, {"sick": {"command": "sleep", "args": ["1000"]}, "app": sleeper(env={"V": "2"})})
    assert (await engine(project).deploy(["app"])).success
    assert not row(project).good


async def test_services_that_never_came_to_their_turn_are_not_called_dependents(project: ProjectFolder) -> None:
    write(project, {"bad": DIES, "next": sleeper(), "needs": sleeper(dependencies=["bad"])}, strategy="Sequential")
    report = await engine(project).deploy()
    assert report.failures[0].skipped == ("needs",)
    said = {line for line in report.errors if line.startswith("E007")}
    assert said == {
        "E007 DEPENDENCY_FAILED: needs was not started: bad, which it needs, failed",
        "E007 DEPENDENCY_FAILED: next was not touched: bad failed before its turn came",
    }


async def test_when_the_time_of_the_whole_runs_out_the_report_shows_who_was_under_way(project: ProjectFolder) -> None:
    write(project, {"quick": sleeper(), "slow": sleeper(min_ready_seconds=60)}, total_timeout_seconds=1)
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK
    assert report.errors[0].startswith("E008")
    assert [each.service for each in report.failures] == ["slow"]
    assert report.failed_services == 1


# --------------------------------------------------------------------------- stop, restart, scale


async def test_stopping_one_service_starts_nothing_that_it_needs(project: ProjectFolder) -> None:
    write(project, {"db": sleeper(restart="never"), "api": sleeper(dependencies=["db"])})
    assert (await engine(project).deploy()).success
    kill_hard(pid_of(project, "db"))
    report = await engine(project).stop(services=["api"])
    assert report is not None and report.plan is not None and dict(report.plan.actions) == {"api": "stop"}
    assert pids(project) == {}


async def test_stopping_a_service_stops_what_depends_on_it(project: ProjectFolder) -> None:
    write(project, {"db": sleeper(), "api": sleeper(dependencies=["db"]), "web": sleeper(dependencies=["api"]),
                    "other": sleeper()})  # fmt: skip
    assert (await engine(project).deploy()).success
    await engine(project).stop(services=["db"])
    assert pids(project).keys() == {"other"}
    assert {name for name, each in wanted(project).items() if each.stopped} == {"db", "api", "web"}


async def test_a_service_scaled_to_none_is_nothing_to_do_for_a_file_without_replicas(project: ProjectFolder) -> None:
    write(project, {"app": sleeper()})
    assert (await engine(project).deploy()).success
    assert (await engine(project).scale({"app": 0})).success
    report = await engine(project).deploy()
    assert report.plan is not None and report.plan.is_empty
    assert pids(project) == {}


async def test_a_stop_counts_nothing_as_deployed(project: ProjectFolder) -> None:
    write(project, {"app": sleeper()})
    assert (await engine(project).deploy()).success
    for _ in range(2):  # the second one finds nothing to do
        report = await engine(project).stop()
        assert report is not None and report.success
        assert (report.deployed_services, report.total_services) == (0, 1)


async def test_a_forced_deploy_does_not_count_what_is_not_ready(project: ProjectFolder) -> None:
    check = {"command": ["false"], "interval_seconds": 1, "timeout_seconds": 1, "retries": 1}
    write(project, {"sick": {"command": "sleep", "args": ["1000"], "health_check": check}, "app": sleeper()})
    report = await engine(project, force=True).deploy()
    assert report.success
    assert (report.deployed_services, report.total_services) == (1, 2)


async def test_status_right_after_a_deployment_shows_what_it_reached(project: ProjectFolder) -> None:
    from deploy_code.client import DeployCode

    write(project, {f"s{number}": sleeper() for number in range(5)})
    deployer = DeployCode(project.config)
    assert (await deployer.deploy()).success
    assert (await deployer.status())["overall_health"] == "healthy"
    await deployer.stop()
    await until(lambda: not pids(project))
    assert (await deployer.status())["overall_health"] == "stopped"
