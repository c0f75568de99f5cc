"""SIGKILL for the command line, the agent, both, or a service, at every moment: nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.cli import Finished
from support.crashes import MOMENTS, MOST_STEPS, crash, killed
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import (
    agent_pid,
    agents,
    alive,
    healthy,
    history,
    kill_hard,
    last,
    pages,
    pid_of,
    pids,
    program,
    text_at,
    until,
    until_gone,
    until_served,
    web,
    write_program,
)


@dataclass
class Shop:
    """Four services in a chain of two and two, in two versions, seen only by their answers and their pids."""

    project: ProjectFolder
    ports: list[int] = field(default_factory=lambda: free_ports(5))

    def __post_init__(self) -> None:
        pages(self.project, "v1", "v2")

    def write_old(self) -> None:
        db, api, shop, old, _ = self.ports
        self._write({"db": web(db), "api": web(api, "db"), "shop": web(shop, "api"), "old": web(old)})

    def write_new(self, **broken: Any) -> None:
        """Two of three changed, one removed, one added; ``db`` is untouched."""
        db, api, shop, _, new = self.ports
        changed = {"api": web(api, "db", version="v2"), "shop": web(shop, "api", version="v2")}
        self._write({"db": web(db), **changed, "new": web(new, "db"), **broken})

    def _write(self, services: dict[str, Any]) -> None:
        self.project.write(services, deployment={"strategy": "Sequential", "timeout_seconds": 20})

    def answers(self) -> list[str]:
        return [text_at(port, "/index.html") for port in self.ports]

    def run(self, *args: str) -> Finished:
        return self.project.cli(*args)


OLD, NEW, NOTHING = ["v1", "v1", "v1", "v1", ""], ["v1", "v2", "v2", "", "v1"], [""] * 5


@pytest.fixture
def shop(project: ProjectFolder) -> Shop:
    return Shop(project)


def each_crash(shop: Shop, victim: str, moment: str, *args: str, ready: Callable[[], None]) -> Iterator[int]:
    """Crash the command at step 1, 2, … until it has no more steps; yields after each crash, ``ready`` before."""
    for step in range(1, MOST_STEPS):
        ready()
        run = crash(shop.project, victim, moment, step, *args)
        if not killed(run):
            assert step > 1, f"no step was ever carried out: {run}"
            return
        yield step
    raise AssertionError(f"still steps to crash at after {MOST_STEPS}")


def status_tells(shop: Shop, number: int) -> None:
    said = shop.run("status").ok().output
    assert "interrupted" in said and str(number) in said, said


def no_strangers(shop: Shop, *services: str) -> None:
    """One instance of each of these, nothing else, and one agent at most."""
    found = pids(shop.project)
    assert {name: len(numbers) for name, numbers in found.items()} == dict.fromkeys(services, 1)
    assert len(agents(shop.project)) <= 1


# --------------------------------------------------------------------------- the command line, at every step


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_first_deploy_killed_at_any_step_is_undone_by_the_next_command(shop: Shop, moment: str) -> None:
    for _ in each_crash(shop, "cli", moment, "deploy", ready=shop.write_old):
        status_tells(shop, last(shop.project)["number"])
        told = shop.run("stop").ok()
        assert "interrupted" in told.output, told
        assert shop.answers() == NOTHING
        assert pids(shop.project) == {}
        assert len(agents(shop.project)) <= 1
    shop.run("stop").ok()
    until_gone(shop.project)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_upgrade_killed_at_any_step_is_undone_by_the_next_deploy(shop: Shop, moment: str) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched = pid_of(shop.project, "db")
    for _ in each_crash(shop, "cli", moment, "deploy", ready=shop.write_new):
        crashed = last(shop.project)["number"]
        assert pid_of(shop.project, "db") == untouched
        status_tells(shop, crashed)
        shop.write_old()
        told = shop.run("deploy").ok()
        assert "interrupted" in told.output, told
        assert shop.answers() == OLD
        no_strangers(shop, "db", "api", "shop", "old")
        assert pid_of(shop.project, "db") == untouched
        assert healthy(shop.project)
        assert {row["number"]: row["status"] for row in history(shop.project)}[crashed] == "rolled_back"
    assert shop.answers() == NEW


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_failing_upgrade_killed_at_any_step_of_it_or_of_its_rollback_is_undone(shop: Shop, moment: str) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched = pid_of(shop.project, "db")
    broken = {"wrong": {"command": "false", "dependencies": ["shop", "new"]}}
    for _ in each_crash(shop, "cli", moment, "deploy", ready=lambda: shop.write_new(**broken)):
        assert pid_of(shop.project, "db") == untouched
        told = shop.run("recover")
        assert "undone" in told.output and "E009" not in told.output, told
        assert shop.answers() == OLD
        no_strangers(shop, "db", "api", "shop", "old")
        assert pid_of(shop.project, "db") == untouched
    assert shop.answers() == OLD


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stop_killed_at_any_step_is_finished_by_the_next_stop(shop: Shop, moment: str) -> None:
    shop.write_old()

    def up() -> None:
        shop.run("deploy").ok()
        assert shop.answers() == OLD

    for _ in each_crash(shop, "cli", moment, "stop", ready=up):
        shop.run("stop").ok()
        assert shop.answers() == NOTHING
        assert pids(shop.project) == {}
        assert shop.project.status()["overall_health"] == "stopped"
    assert shop.answers() == NOTHING
    until_gone(shop.project)


def test_a_deploy_killed_before_its_first_step_leaves_nothing_running_once_it_is_undone(shop: Shop) -> None:
    shop.write_old()
    assert killed(crash(shop.project, "cli", "before", 1, "deploy"))
    shop.run("stop").ok()
    until_gone(shop.project)


def test_a_second_stop_does_nothing_and_leaves_nothing_running(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    shop.run("stop").ok()
    shop.run("stop").ok()
    until_gone(shop.project)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rollback_killed_at_any_step_reaches_its_target_with_the_next_rollback(shop: Shop, moment: str) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched, first = pid_of(shop.project, "db"), str(last(shop.project)["number"])

    def upgraded() -> None:
        shop.write_new()
        shop.run("deploy").ok()
        assert shop.answers() == NEW

    for _ in each_crash(shop, "cli", moment, "rollback", "--to", first, ready=upgraded):
        assert pid_of(shop.project, "db") == untouched
        shop.run("rollback", "--to", first).ok()
        assert shop.answers() == OLD
        no_strangers(shop, "db", "api", "shop", "old")
        assert pid_of(shop.project, "db") == untouched
    assert shop.answers() == OLD


@pytest.mark.parametrize("step", [1, 3, 6])
def test_the_agent_by_itself_undoes_an_interrupted_deployment(shop: Shop, step: int) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched = pid_of(shop.project, "db")
    shop.write_new()
    assert killed(crash(shop.project, "cli", "after", step, "deploy"))
    until(lambda: shop.answers() == OLD and last(shop.project)["status"] != "in_progress", "the agent to undo it", 15)
    no_strangers(shop, "db", "api", "shop", "old")
    assert pid_of(shop.project, "db") == untouched


def test_an_interrupted_deployment_goes_forward_with_resume(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    shop.write_new()
    assert killed(crash(shop.project, "cli", "after", 2, "deploy"))
    shop.run("recover", "--resume").ok()
    assert shop.answers() == NEW
    no_strangers(shop, "db", "api", "shop", "new")
    shop.run("plan", "--detailed-exitcode").ok()


def test_read_only_commands_and_dry_runs_only_say_that_a_deployment_was_interrupted(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    shop.write_new()
    assert killed(crash(shop.project, "both", "after", 2, "deploy"))  # both: no agent that recovers meanwhile
    seen = shop.answers()
    for command in (["status"], ["plan"], ["--dry-run", "deploy"], ["history"], ["health"], ["logs"], ["events"]):
        run = shop.run(*command)
        assert run.code in (0, 4), run
    assert shop.answers() == seen
    assert last(shop.project)["status"] == "in_progress"
    assert not agents(shop.project)


# --------------------------------------------------------------------------- the agent


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_deploy_whose_agent_is_killed_at_any_step_still_succeeds(shop: Shop, moment: str) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched = pid_of(shop.project, "db")
    for step in range(1, MOST_STEPS):
        before = last(shop.project)["number"]
        agent = agent_pid(shop.project)
        shop.write_new()
        crash(shop.project, "agent", moment, step, "deploy").ok()
        assert shop.answers() == NEW
        no_strangers(shop, "db", "api", "shop", "new")
        assert pid_of(shop.project, "db") == untouched
        died = agent_pid(shop.project) != agent
        shop.write_old()
        shop.run("deploy").ok()
        assert last(shop.project)["number"] > before
        if not died:
            assert step > 1
            return


@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_command_line_and_agent_killed_together_at_any_step_are_undone_by_the_next_command(
    shop: Shop, moment: str
) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched = pid_of(shop.project, "db")
    for _ in each_crash(shop, "both", moment, "deploy", ready=shop.write_new):
        shop.write_old()
        told = shop.run("deploy").ok()
        assert "interrupted" in told.output, told
        assert shop.answers() == OLD
        no_strangers(shop, "db", "api", "shop", "old")
        assert pid_of(shop.project, "db") == untouched
    assert shop.answers() == NEW


def test_no_service_dies_with_the_agent_and_the_next_one_adopts_them(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    before = pids(shop.project)
    kill_hard(agent_pid(shop.project))
    assert shop.answers() == OLD
    said = shop.run("status").ok().output
    assert "agent" in said, said
    shop.run("deploy").ok()
    assert pids(shop.project) == before
    assert len(agents(shop.project)) == 1


def test_a_service_that_died_while_no_agent_lived_is_brought_back_by_the_next_one(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    kill_hard(agent_pid(shop.project))
    kill_hard(pid_of(shop.project, "shop"))
    shop.run("agent", "start").ok()
    until(lambda: shop.answers() == OLD, "shop to be back")


def test_an_adopted_service_is_still_supervised(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    kill_hard(agent_pid(shop.project))
    shop.run("agent", "start").ok()
    until(lambda: len(agents(shop.project)) == 1, "the new agent")
    victim = pid_of(shop.project, "shop")
    kill_hard(victim)
    until(lambda: shop.answers() == OLD, "shop to be back")
    assert pid_of(shop.project, "shop") != victim


# --------------------------------------------------------------------------- a service


def test_a_killed_service_comes_back_and_status_counts_the_restart(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    before = pids(shop.project)
    kill_hard(pid_of(shop.project, "api"))
    until(lambda: shop.answers() == OLD and healthy(shop.project), "api to be back")
    after = pids(shop.project)
    assert after.pop("api") != before.pop("api")
    assert after == before
    assert shop.project.status()["services"]["api"]["restarts"] == 1


def test_what_a_killed_service_forked_does_not_survive_its_restart(project: ProjectFolder, port: int) -> None:
    write_program(project)
    project.write({"app": program(port, "family")})
    project.cli("deploy").ok()
    until(lambda: len(pids(project)["app"]) == 3, "two children in sessions of their own")
    old = pids(project)["app"]
    main = next(pid for pid in old if b"app.py" in Path(f"/proc/{pid}/cmdline").read_bytes())
    kill_hard(main)
    until(lambda: not any(map(alive, old)), "the old children to be gone")
    until_served(port, "v1")
    assert len(pids(project)["app"]) == 3


# --------------------------------------------------------------------------- Ctrl-C


def _interruptible(shop: Shop) -> subprocess.Popen[str]:
    """An upgrade that waits for a service which never gets ready, after it changed others."""
    write_program(shop.project)
    shop.write_new(stuck=program(free_ports(1)[0], "deaf", dependencies=["shop", "new"]))
    running = shop.project.start("deploy")
    until(lambda: "stuck" in pids(shop.project), "the deployment to come to its last service")
    return running


def test_ctrl_c_rolls_back_in_order_and_exits_with_130(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched = pid_of(shop.project, "db")
    running = _interruptible(shop)
    os.kill(running.pid, signal.SIGINT)
    stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == 130, stderr
    assert "E017" in stdout + stderr
    assert shop.answers() == OLD
    no_strangers(shop, "db", "api", "shop", "old")
    assert pid_of(shop.project, "db") == untouched
    assert last(shop.project)["status"] == "rolled_back"


def test_ctrl_c_twice_stops_now_and_the_next_command_recovers(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    untouched = pid_of(shop.project, "db")
    running = _interruptible(shop)
    os.kill(running.pid, signal.SIGINT)
    os.kill(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=10)
    assert running.returncode == 130, stderr
    shop.write_old()
    shop.run("deploy", "--wait").ok()
    assert shop.answers() == OLD
    no_strangers(shop, "db", "api", "shop", "old")
    assert pid_of(shop.project, "db") == untouched


def test_a_deploy_goes_on_when_its_terminal_goes_away(shop: Shop) -> None:
    write_program(shop.project)
    shop.write_new(slow=program(port := free_ports(1)[0], "slow", 1))
    running = shop.project.start("deploy")
    until(lambda: "slow" in pids(shop.project), "the deployment to be in the middle")
    assert running.stdout and running.stderr
    running.stdout.close()
    running.stderr.close()
    os.kill(running.pid, signal.SIGHUP)
    assert running.wait(30) == 0
    until_served(port, "v1", 1)
    assert last(shop.project)["status"] == "completed"


def test_sigterm_is_an_orderly_end_too(shop: Shop) -> None:
    shop.write_old()
    shop.run("deploy").ok()
    running = _interruptible(shop)
    os.kill(running.pid, signal.SIGTERM)
    running.communicate(timeout=30)
    assert running.returncode != 0
    assert shop.answers() == OLD
    assert last(shop.project)["status"] == "rolled_back"


# --------------------------------------------------------------------------- the state itself


def test_services_whose_state_was_deleted_are_not_doubled(shop: Shop) -> None:
    """Somebody removes the state under running services: the next deploy says what is in the way, and harms nothing."""
    shop.write_old()
    shop.run("deploy").ok()
    kill_hard(agent_pid(shop.project))
    kept = shop.project.folder / "kept"
    shutil.move(shop.project.state, kept)
    refused = shop.run("deploy").exits(1)
    assert "S004" in refused.output, refused
    assert shop.answers() == OLD
    shutil.rmtree(shop.project.state, ignore_errors=True)
    shutil.move(kept, shop.project.state)
