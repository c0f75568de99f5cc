"""Strategies and rollouts of somebody else's, as their how-tos and the API document have them, with real processes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.api_document import section
from support.cli import Finished
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import pids, program, states, write_program
from support.wait import wait_until

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"

# What the API document shows in Rust, line by line; its health check is that of its canary services.
CANARY = """
import asyncio
from deploy_code.orchestrator import DeploymentReport, DeploymentStrategy

class CanaryDeployment(DeploymentStrategy):
    def __init__(self, canary_percentage, seconds=300):
        self.canary_percentage = canary_percentage
        self.seconds = seconds

    async def deploy(self, services):
        # Deploy canary percentage first
        canary_count = int(len(services) * self.canary_percentage)
        canary_services = services[:canary_count]

        # Deploy canary
        await self.deploy_services(canary_services)

        # Wait and check metrics
        await asyncio.sleep(self.seconds)

        if await self.check_canary_health(canary_services):
            # Deploy remaining services
            await self.deploy_services(services[canary_count:])

        return DeploymentReport.succeeded()

    async def check_canary_health(self, canary_services):
        return await self.check_health(canary_services)
"""


# A habit more for the program: it answers well for a moment, and badly from then on.
SOURS = """
import threading
if habit == "sours":
    threading.Timer(0.5, lambda: globals().update(status="500 Internal Server Error")).start()
"""


def example(page: str) -> str:
    """The first Python block of a how-to."""
    found = re.search(r"^```python\n(.*?)^```$", (HOW_TO / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no Python block"
    return found.group(1)


@pytest.fixture
def shop(project: ProjectFolder) -> ProjectFolder:
    """Four services that serve; each version of the file deploys another one."""
    write_program(project)
    project.program("canary.py", CANARY)
    return project


Habits = dict[str, tuple[str, ...]]


def write(
    shop: ProjectFolder, ports: list[int], version: str, habits: Habits | None = None, *, seconds: float = 2.0
) -> None:
    names = ["a", "b", "c", "d"]
    shop.write(
        {
            name: program(port, *(habits or {}).get(name, ("serve",)), env={"VERSION": version})
            for name, port in zip(names, ports, strict=True)
        },
        plugins=["./canary.py:CanaryDeployment"],
        deployment={
            "strategy": "CanaryDeployment",
            "strategy_options": {"canary_percentage": 0.5, "seconds": seconds},
            "timeout_seconds": 20,
        },
    )


def versions(shop: ProjectFolder) -> dict[str, set[str]]:
    """The VERSION that the env of each service's processes has."""
    return {name: {_version(pid) for pid in found} for name, found in pids(shop).items()}


def _version(pid: int) -> str:
    env = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(each.decode().partition("=")[2] for each in env if each.startswith(b"VERSION="))


def test_the_canary_is_that_of_the_document() -> None:
    rust = section("Creating Custom Deployment Strategies", 3)
    for said in re.findall(r"// (.*)", rust):
        assert f"# {said}" in CANARY
    assert "check_canary_health" in rust and "canary_percentage" in rust


def test_a_healthy_canary_is_followed_by_all_others(shop: ProjectFolder) -> None:
    ports = free_ports(4)
    write(shop, ports, "1")
    shop.cli("deploy").ok()
    write(shop, ports, "2")
    with shop.start("deploy") as process:
        wait_until(lambda: versions(shop) == {"a": {"2"}, "b": {"2"}, "c": {"1"}, "d": {"1"}}, 20)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert versions(shop) == {name: {"2"} for name in "abcd"}
    assert states(shop) == dict.fromkeys("abcd", "running")


def test_an_unhealthy_canary_ends_the_deployment_and_everything_is_put_back(shop: ProjectFolder) -> None:
    ports = free_ports(4)
    write(shop, ports, "1")
    shop.cli("deploy").ok()
    write(shop, ports, "2", {"b": ("sours",)}, seconds=6.0)
    good = (shop.folder / "app.py").read_text()
    shop.program("app.py", good.replace("with socket.create_server", f"{SOURS}\nwith socket.create_server"))
    done = shop.cli("deploy")
    assert done.code == 1, done
    assert 'strategy "CanaryDeployment"' in done.stderr and "it ended without deploying c, d" in done.stderr, done
    assert "canary.py:CanaryDeployment, plugins[0] of deploy-code.yaml" in done.stderr
    assert versions(shop) == {name: {"1"} for name in "abcd"}


def test_a_canary_that_dies_at_once_is_the_root_cause_of_the_failure(shop: ProjectFolder) -> None:
    ports = free_ports(4)
    write(shop, ports, "1")
    shop.cli("deploy").ok()
    write(shop, ports, "2", {"a": ("exit", "7")})
    done = shop.cli("deploy")
    assert done.code == 1 and "E005 SERVICE_START_FAILED: a r2" in done.stderr, done
    assert versions(shop) == {name: {"1"} for name in "abcd"}


def test_the_plan_tells_what_the_strategy_will_be_asked_for(shop: ProjectFolder) -> None:
    ports = free_ports(4)
    write(shop, ports, "1")
    text = shop.cli("plan").ok().stdout
    assert "strategy CanaryDeployment over 4 services" in text and "create d r1" in text
    steps: list[dict[str, Any]] = shop.cli("plan", "--format", "json").ok().json()["steps"]
    assert [step["services"] for step in steps] == [["a", "b", "c", "d"]]


def test_the_strategy_of_the_how_to_deploys_its_example(project: ProjectFolder) -> None:
    project.program("canary.py", example("strategy.md").replace("=60.0", "=0.1"))
    write_program(project)
    one, two = free_ports(2)
    project.write(
        {"api": program(one), "web": program(two, dependencies=["api"])},
        plugins=["./canary.py:CanaryDeployment"],
        deployment={"strategy": "CanaryDeployment"},
    )
    project.cli("deploy").ok()
    assert states(project) == {"api": "running", "web": "running"}


# --------------------------------------------------------------------------- rollouts


def rolling(project: ProjectFolder, version: str, habit: str = "serve", replicas: int = 2) -> None:
    service = program(0, habit, env={"VERSION": version})
    service |= {"ports": [{"dynamic": True}], "replicas": replicas, "strategy": "rolling"}
    project.write({"web": service}, plugins=["./rolling.py:rolling"], deployment={"timeout_seconds": 20})


_SEEN = re.compile(r"InstanceChanged: (web r\d+ #\d+) (\w+)")


def ready_counts(done: Finished, before: int) -> list[int]:
    """How many were ready after each change that the agent told of; in the beginning ``before``, all of r1."""
    ready = {f"web r1 #{number}" for number in range(before)}
    counts = [before]
    for instance, phase in _SEEN.findall(done.stderr):
        (ready.add if phase == "ready" else ready.discard)(instance)
        counts.append(len(ready))
    return counts


@pytest.fixture
def roll(project: ProjectFolder) -> ProjectFolder:
    write_program(project)
    project.program("rolling.py", example("rollout.md"))
    rolling(project, "1")
    project.cli("deploy").ok()
    return project


def test_a_rolling_rollout_never_has_fewer_ready_than_before(roll: ProjectFolder) -> None:
    rolling(roll, "2")
    counts = ready_counts(roll.cli("deploy", "--log-level", "debug").ok(), 2)
    assert versions(roll) == {"web": {"2"}} and len(pids(roll)["web"]) == 2
    assert min(counts) == 2 and max(counts) == 3 and len(counts) > 6, counts


def test_a_rolling_rollout_that_fails_leaves_the_old_ones_serving_throughout(roll: ProjectFolder) -> None:
    before = pids(roll)
    rolling(roll, "2", habit="refuse")
    done = roll.cli("deploy", "--log-level", "debug")
    assert done.code == 1 and "E006" in done.stderr and min(ready_counts(done, 2)) == 2, done
    assert pids(roll) == before and versions(roll) == {"web": {"1"}}


def test_a_rolling_rollout_goes_up_and_down_and_restarts(roll: ProjectFolder) -> None:
    roll.cli("scale", "web=3").ok()
    assert len(pids(roll)["web"]) == 3
    rolling(roll, "2", replicas=1)
    counts = ready_counts(roll.cli("deploy", "--log-level", "debug").ok(), 3)
    assert min(counts) == counts[-1] == 1 and max(counts) == 4, counts
    assert versions(roll) == {"web": {"2"}} and len(pids(roll)["web"]) == 1
    before = pids(roll)
    roll.cli("restart").ok()
    assert pids(roll) != before and states(roll) == {"web": "running"}


def test_a_rollout_that_is_none_is_refused_before_anything_is_changed(roll: ProjectFolder) -> None:
    before = pids(roll)
    roll.program("rolling.py", "def rolling(change):\n    return []\n")
    rolling(roll, "2")
    done = roll.cli("deploy")
    assert done.code == 2 and 'E002 CONFIG_INVALID: rollout "rolling"' in done.stderr, done
    assert "rolling.py:rolling, plugins[0] of deploy-code.yaml" in done.stderr and pids(roll) == before
