"""SIGKILL for the command line, the agent, or both, at every step of a deploy with containers in it.

Afterwards each service runs once, in one revision whole; no container is lost, and none is doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.crashes import MOST_STEPS, crash, killed
from support.harbour import Harbour, page, shell
from support.leftovers import kill
from support.scenarios import agent_pid, agents, healthy, history, last, pid_of, pids, sleeper, until, until_gone


class Town:
    """The container ``db`` stays, the container ``app`` and the process ``front`` become v2, ``old`` goes."""

    def __init__(self, harbour: Harbour) -> None:
        self.harbour, self.project = harbour, harbour.project

    def _write(self, version: int, **more: object) -> None:
        front = sleeper(args=[str(1000 + version)], dependencies=["app"])
        services = {"db": shell(), "app": page(version, "db"), "front": front, **more}
        self.harbour.write(services, deployment={"strategy": "Sequential"})

    def write_old(self) -> None:
        self._write(1, old=shell())

    def write_new(self) -> None:
        self._write(2)

    def run(self, *args: str) -> str:
        return self.harbour.run(*args).ok().output

    def is_whole(self, version: int) -> None:
        """As that file has it: nothing else by any name, one process, one agent at most."""
        services = {"app": 1, "db": 1} | ({"old": 1} if version == 1 else {})
        found = self.harbour.names()
        assert self.harbour.running() == services, found
        assert len(found) == len(services), found
        assert self.harbour.text("app") == f"v{version}"
        assert {name: len(numbers) for name, numbers in pids(self.project).items()} == {"front": 1}
        assert len(agents(self.project)) <= 1
        assert healthy(self.project)

    def is_nothing(self) -> None:
        assert self.harbour.names() == []
        assert pids(self.project) == {}


@pytest.fixture
def town(harbour: Harbour) -> Town:
    return Town(harbour)


@pytest.fixture
def dock_town(dock: Harbour) -> Town:
    """On Docker alone."""
    return Town(dock)


#: One engine before each step, the other after it: below the driver they differ, in the order of steps they do not.
each_engine = pytest.mark.parametrize(
    ("engine", "moment"), [("docker", "after"), ("podman", "before")], indirect=["engine"]
)


def each_crash(town: Town, victim: str, moment: str, *args: str, ready: Callable[[], object]) -> Iterator[int]:
    """Crash the command at step 1, 2, … until it has no more steps; yields after each crash, ``ready`` before."""
    for step in range(1, MOST_STEPS):
        ready()
        run = crash(town.project, victim, moment, step, *args)
        if not killed(run):
            assert step > 1, f"no step was ever carried out: {run}"
            return
        yield step
    raise AssertionError(f"still steps to crash at after {MOST_STEPS}")


# --------------------------------------------------------------------------- the command line


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["after"])
def test_a_first_deploy_killed_at_any_step_is_undone_by_the_next_command(dock_town: Town, moment: str) -> None:
    town = dock_town
    for _ in each_crash(town, "cli", moment, "deploy", ready=town.write_old):
        assert "interrupted" in town.run("stop")
        town.is_nothing()
    town.is_whole(1)


@pytest.mark.timeout(300)
@each_engine
def test_an_upgrade_killed_at_any_step_is_undone_by_the_next_deploy(town: Town, moment: str) -> None:
    town.write_old()
    town.run("deploy")
    untouched = town.harbour.id_of("db")
    for _ in each_crash(town, "cli", moment, "deploy", ready=town.write_new):
        crashed = last(town.project)["number"]
        town.write_old()
        assert "interrupted" in town.run("deploy")
        town.is_whole(1)
        assert town.harbour.id_of("db") == untouched
        assert {row["number"]: row["status"] for row in history(town.project)}[crashed] == "rolled_back"
    town.is_whole(2)
    assert town.harbour.id_of("db") == untouched


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["before"])
def test_a_stop_killed_at_any_step_is_finished_by_the_next_stop(dock_town: Town, moment: str) -> None:
    town = dock_town

    def up() -> None:
        town.write_old()
        town.run("deploy")

    for _ in each_crash(town, "cli", moment, "stop", ready=up):
        town.run("stop")
        town.is_nothing()
    town.is_nothing()
    until_gone(town.project)


@pytest.mark.timeout(300)
def test_a_rollback_killed_at_any_step_reaches_its_target_with_the_next(dock_town: Town) -> None:
    town = dock_town
    town.write_old()
    town.run("deploy")
    first = str(last(town.project)["number"])

    def upgraded() -> None:
        town.write_new()
        town.run("deploy")

    for _ in each_crash(town, "cli", "after", "rollback", "--to", first, ready=upgraded):
        town.run("rollback", "--to", first)
        town.is_whole(1)
    town.is_whole(1)


@pytest.mark.parametrize("step", [2, 4])
def test_the_agent_by_itself_undoes_an_interrupted_deployment(town: Town, step: int) -> None:
    town.write_old()
    town.run("deploy")
    town.write_new()
    assert killed(crash(town.project, "cli", "after", step, "deploy"))
    until(lambda: last(town.project)["status"] != "in_progress" and town.harbour.text("app") == "v1", "recovery", 30)
    town.harbour.settled("all well", lambda: healthy(town.project))
    town.is_whole(1)


def test_an_interrupted_deployment_goes_forward_with_resume(dock_town: Town) -> None:
    town = dock_town
    town.write_old()
    town.run("deploy")
    town.write_new()
    assert killed(crash(town.project, "cli", "after", 3, "deploy"))
    town.run("recover", "--resume")
    town.is_whole(2)
    town.harbour.run("plan", "--detailed-exitcode").ok()


# --------------------------------------------------------------------------- the agent


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["after"])
def test_a_deploy_whose_agent_is_killed_at_any_step_still_succeeds(dock_town: Town, moment: str) -> None:
    town = dock_town
    town.write_old()
    town.run("deploy")
    untouched = town.harbour.id_of("db")
    for step in range(1, MOST_STEPS):
        agent = agent_pid(town.project)
        town.write_new()
        crash(town.project, "agent", moment, step, "deploy").ok()
        town.is_whole(2)
        assert town.harbour.id_of("db") == untouched
        died = agent_pid(town.project) != agent
        town.write_old()
        town.run("deploy")
        town.is_whole(1)
        if not died:
            assert step > 1
            return


@pytest.mark.timeout(300)
@each_engine
def test_command_line_and_agent_killed_together_at_any_step_are_undone(town: Town, moment: str) -> None:
    town.write_old()
    town.run("deploy")
    untouched = town.harbour.id_of("db")
    for _ in each_crash(town, "both", moment, "deploy", ready=town.write_new):
        town.write_old()
        assert "interrupted" in town.run("deploy")
        town.is_whole(1)
        assert town.harbour.id_of("db") == untouched
    town.is_whole(2)


def test_no_container_dies_with_the_agent_and_the_next_one_adopts_them(town: Town) -> None:
    town.write_old()
    town.run("deploy")
    before, front = town.harbour.ids(), pid_of(town.project, "front")
    kill(agents(town.project))
    assert town.harbour.text("app") == "v1"
    assert "agent" in town.run("status")
    town.run("deploy")
    assert (town.harbour.ids(), pid_of(town.project, "front")) == (before, front)
    assert len(agents(town.project)) == 1
    victim = town.harbour.id_of("app")
    town.harbour.engine.api("POST", f"/containers/{victim}/kill", signal="SIGKILL")
    town.harbour.settled("app to be back", lambda: town.harbour.text("app") == "v1" and healthy(town.project))
    town.is_whole(1)


def test_a_container_that_died_while_no_agent_lived_is_brought_back_by_the_next_one(town: Town) -> None:
    town.write_old()
    town.run("deploy")
    kill(agents(town.project))
    town.harbour.engine.api("POST", f"/containers/{town.harbour.id_of('app')}/kill", signal="SIGKILL")
    town.run("agent", "start")
    town.harbour.settled("app to be back", lambda: town.harbour.text("app") == "v1" and healthy(town.project))
    town.is_whole(1)


@pytest.mark.parametrize("moment", range(3))
def test_an_agent_killed_while_a_container_is_being_made_leaves_none_behind(dock_town: Town, moment: int) -> None:
    """At any time of the start of many: whatever is half made is taken over or goes."""
    town = dock_town
    services = {f"s{number}": shell() for number in range(6)}
    town.harbour.write(services)
    deploying = town.project.start("deploy")
    try:
        until(lambda: len(town.harbour.names()) >= moment, "some containers to be there", 30)
        kill(agents(town.project))
        _, said = deploying.communicate(timeout=60)
    finally:
        deploying.kill()
        deploying.wait()
    if deploying.returncode == 0:
        assert town.harbour.running() == dict.fromkeys(services, 1), said
        assert len(town.harbour.names()) == 6
    town.run("deploy")
    assert town.harbour.running() == dict.fromkeys(services, 1)
    assert len(town.harbour.names()) == 6
    town.run("stop")
    town.is_nothing()


def test_a_project_whose_state_was_lost_leaves_its_containers_to_nobody_else(dock_town: Town) -> None:
    """The same folder, deployed again after somebody removed the state: what runs is ours by its label."""
    town = dock_town
    town.write_old()
    town.run("deploy")
    kill(agents(town.project))
    for path in sorted(town.project.state.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    kill(town.project.leftovers())
    town.run("deploy")
    town.is_whole(1)
