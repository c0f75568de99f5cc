"""What is promised is promised once, and a limit holds: whoever asks at the same moment, and whoever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy_code import DeployCodeError, DeploymentOrchestrator
from deploy_code.config import ResourceRequirements
from deploy_code.resources import Capacity, ResourceManager
from deploy_code.resources.capacity import cores
from support.extensions import PAGE, extension, page
from support.groups import HOG, need_groups
from support.ports import free_port, free_ports
from support.project import ProjectFolder
from support.scenarios import instances, last, pages, pids, sleeper, states, text_at, until, web
from support.wait import wait_until

CORES = cores()
QUICK = {"stop_timeout_seconds": 2, "min_ready_seconds": 0.05}


def promised() -> dict[str, float]:
    """Cores that are promised on this machine, by ``project/service``."""
    return {f"{each.owner}/{each.name}": each.cpu_cores for each in ResourceManager().allocations(everyone=True)}


def holding(**resources: float) -> dict[str, Any]:
    return sleeper(resources=resources, **QUICK)


def test_projects_that_deploy_at_the_same_moment_share_what_there_is(
    make_project: Callable[..., ProjectFolder],
) -> None:
    projects = [make_project(f"p{number}") for number in range(4)]  # each with a data_dir of its own
    for each in projects:
        each.write({"web": holding(cpu_cores=0.6 * CORES)})
    runs = [each.start("deploy") for each in projects]
    said = [run.communicate(timeout=60)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 1, 1, 1], said
    winner = projects[codes.index(0)]
    for code, text in zip(codes, said, strict=True):
        if code:
            assert "E004 INSUFFICIENT_RESOURCES" in text and f"{winner.name}/web holds" in text
    assert promised() == {f"{winner.name}/web": pytest.approx(0.6 * CORES)}
    winner.cli("stop").ok()
    next(each for each in projects if each is not winner).cli("deploy").ok()  # no refused one is in its way


TAKES = """
import asyncio, sys
from deploy_code import DeployCodeError
from deploy_code.config import ResourceRequirements
from deploy_code.resources import Capacity, ResourceManager

async def main():
    manager = ResourceManager(sys.argv[1], capacity=Capacity(cpu_cores=8, memory_mb=8000, gpus=(0, 1, 2, 3)))
    print("ready", flush=True)
    sys.stdin.readline()
    taken = []
    for number in range(20):
        try:
            wanted = ResourceRequirements(cpu_cores=0.5, gpu_count=number % 2)
            taken.append(await manager.allocate(f"job{number}", wanted))
        except DeployCodeError as error:
            assert error.code == "E004", error
    print(*(f"{each.cpu_cores}/{','.join(map(str, each.gpus))}" for each in taken), flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


def test_programs_that_allocate_at_once_never_get_the_same_gpu_and_death_gives_it_back(tmp_path: Path) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", TAKES, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for each in programs:
        assert each.stdout and each.stdout.readline() == "ready\n"
    for each in programs:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    taken = [word for each in programs if each.stdout for word in each.stdout.readline().split()]
    gpus = [gpu for word in taken for gpu in word.partition("/")[2].split(",") if gpu]
    assert sorted(gpus) == sorted(set(gpus)) and len(gpus) <= 4
    assert len(taken) <= 16, "eight cores in halves"
    manager = ResourceManager(tmp_path, capacity=Capacity(cpu_cores=8, memory_mb=8000, gpus=(0, 1, 2, 3)))
    assert manager.available().cpu_cores == pytest.approx(8 - 0.5 * len(taken))
    for each in programs:
        each.kill()
        each.communicate()
    assert manager.available() == Capacity(cpu_cores=8, memory_mb=8000, gpus=(0, 1, 2, 3))


async def test_the_manager_of_a_project_knows_its_services_and_sets_more_aside(project: ProjectFolder) -> None:
    extension(project, PAGE)
    pages(project, "v1")
    site = page(free_port(), resources={"cpu_cores": 0.25, "memory_mb": 32})
    project.write({"site": site}, plugins=["./ours.py:Page"])
    orchestrator = DeploymentOrchestrator(project.config)
    assert (await orchestrator.deploy()).success
    manager = orchestrator.resources
    [held] = manager.allocations()
    assert (held.name, held.cpu_cores, held.memory_mb, held.by_name) == ("site", 0.25, 32, False)
    mine = await manager.allocate("nightly", ResourceRequirements(cpu_cores=0.5))
    assert not await manager.check_availability(ResourceRequirements(cpu_cores=CORES - 0.5))
    project.write({"site": site, "big": holding(cpu_cores=CORES - 0.5)}, plugins=["./ours.py:Page"])
    with pytest.raises(DeployCodeError, match=r"(?s)^E004.*nightly") as refused:
        await orchestrator.deploy()
    assert "cores short" in str(refused.value)
    await manager.release(mine)
    await orchestrator.stop(5)
    assert manager.allocations() == []
    with pytest.raises(DeployCodeError, match=r"^S001"):
        await manager.release("nightly")


def test_a_killed_deployment_of_a_custom_strategy_leaves_no_promise_behind(project: ProjectFolder) -> None:
    text = """
class Half(DeploymentStrategy):
    async def deploy(self, services):
        await self.deploy_services(services[:1])
        note("half way")
        await asyncio.sleep(1000)
"""
    extension(project, text)
    project.write({"a": holding(cpu_cores=0.25)})
    project.cli("deploy").ok()
    deployment = {"strategy": "Half", "timeout_seconds": 10}
    project.write(
        {"a": holding(cpu_cores=0.5), "b": holding(cpu_cores=0.5)}, plugins=["./ours.py:Half"], deployment=deployment
    )
    with project.start("deploy") as running:
        until(lambda: (project.folder / "notes.txt").exists(), "the strategy to be half way")
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    project.cli("recover").exits(1)
    assert promised() == {"shop/a": 0.25}
    project.cli("stop").ok()
    assert promised() == {}


def test_who_takes_too_much_memory_is_killed_and_nobody_else_notices(project: ProjectFolder, busybox: Path) -> None:
    need_groups()
    pages(project, "v1")
    free, limited, port = free_ports(3)
    neighbours = {
        "free": web(free),
        "limited": web(limited, resources={"memory_mb": 32}),
        "greedy": web(port, resources={"memory_mb": 48}),
    }
    project.write(neighbours, deployment={"timeout_seconds": 20})
    project.cli("deploy").ok()
    before = pids(project)
    hog = {"command": sys.executable, "args": ["-c", HOG], "min_ready_seconds": 20, "resources": {"memory_mb": 48}}
    project.write(neighbours | {"greedy": hog}, deployment={"timeout_seconds": 20})
    failed = project.cli("deploy").exits(1).stderr
    assert "E005 SERVICE_START_FAILED: greedy r2" in failed
    assert "out of memory" in failed and "48 MB" in failed and "resources.memory_mb" in failed
    assert "was rolled back" in failed and text_at(port, "/index.html") == "v1"
    after = pids(project)
    assert (after["free"], after["limited"]) == (before["free"], before["limited"])
    assert all(each["restarts"] == 0 for each in project.status()["services"].values())
    assert "out of memory" in project.cli("events").ok().stdout
    assert "out of memory" in project.cli("history", "show", str(last(project)["number"])).ok().stdout


def test_who_grows_too_big_later_comes_back_alone(project: ProjectFolder, busybox: Path) -> None:
    need_groups()
    script = f"import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.02)\nos.remove('go')\n{HOG}"
    greedy = {
        "command": sys.executable,
        "args": ["-c", script],
        "replicas": 2,
        "min_ready_seconds": 0.1,
        "resources": {"memory_mb": 48},
        "restart": {"backoff_seconds": 0.05},
    }
    project.write({"greedy": greedy, "other": sleeper(resources={"memory_mb": 32})}, deployment={"timeout_seconds": 20})
    project.cli("deploy").ok()
    before = pids(project)
    (project.folder / "go").touch()
    wait_until(lambda: project.status()["services"]["greedy"]["restarts"] == 1, 20, "one restart")
    wait_until(lambda: states(project) == {"greedy": "running", "other": "running"}, 20)
    after = pids(project)
    assert len(after["greedy"] & before["greedy"]) == 1, "its sibling has a limit of its own"
    assert after["other"] == before["other"]
    assert sorted(each["restarts"] for each in instances(project, "greedy")) == [0, 1]


def test_the_same_name_twice_and_nonsense_are_coded_errors(tmp_path: Path) -> None:
    async def main() -> None:
        manager = ResourceManager(tmp_path, capacity=Capacity(cpu_cores=2, memory_mb=100))
        await manager.allocate("job", ResourceRequirements(cpu_cores=1))
        with pytest.raises(DeployCodeError, match=r"^S002"):
            await manager.allocate("job", ResourceRequirements(cpu_cores=1))
        with pytest.raises(DeployCodeError, match=r"(?s)^E004.*job holds 1 core") as short:
            await manager.allocate("more", ResourceRequirements(cpu_cores=1.5, memory_mb=101, gpu_count=1))
        text = str(short.value)
        assert "0.5 cores short" in text and "1 MB short" in text and "1 GPU short" in text
        assert manager.available().cpu_cores == 1, "nothing of a refused one is kept"

    asyncio.run(main())
