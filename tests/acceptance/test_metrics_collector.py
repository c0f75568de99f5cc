"""What services use, as programs that embed deploy-code see it: with children, per instance and summed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from deploy_code import DeployCode, DeployCodeError, DeploymentOrchestrator
from deploy_code.monitoring import MetricsCollector
from support.extensions import PAGE, extension, page
from support.ports import free_port
from support.project import ProjectFolder
from support.scenarios import pages, pid_of, pids, sleeper, until

# Holds 40 MB in a child that is in a session of its own, and three files of its own; keeps a core busy until told.
FAMILY = """
import os, subprocess, sys, time
child = "import time; taken = b'x' * (40 << 20); time.sleep(1000)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
files = [open("/dev/null") for _ in range(3)]
while not os.path.exists("rest"):
    pass
time.sleep(1000)
"""


def family(**options: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-c", FAMILY], "min_ready_seconds": 0.1} | options


async def test_children_count_and_instances_add_up(project: ProjectFolder) -> None:
    project.write({"family": family(replicas=2), "idle": sleeper()})
    orchestrator = DeploymentOrchestrator(project.config)
    assert (await orchestrator.deploy()).success
    metrics = orchestrator.metrics
    async with asyncio.timeout(20):
        while (found := await metrics.get_service_metrics("family")).memory_bytes < 80 << 20:
            await asyncio.sleep(0.05)
    assert [each.processes for each in found.instances] == [2, 2] and found.processes == 4
    assert all(each.memory_bytes > 40 << 20 for each in found.instances)
    assert found.memory_bytes == sum(each.memory_bytes for each in found.instances)
    assert found.open_files is not None and found.open_files == sum(each.open_files or 0 for each in found.instances)
    assert found.open_files >= 2 * (3 + 3 + 3), "three each of their own, and the standard ones of each process"
    await asyncio.sleep(0.3)  # something to measure
    found, idle = await asyncio.gather(*map(metrics.get_service_metrics, ("family", "idle")))
    assert found.cpu_percent > 20 > idle.cpu_percent
    assert found.cpu_seconds > 0 and found.uptime_seconds > 0 and found.restarts == 0
    assert idle.processes == 1 and idle.memory_bytes > 0
    (project.folder / "rest").touch()
    await orchestrator.stop(2)
    stopped = await metrics.get_service_metrics("family")
    assert (stopped.processes, stopped.memory_bytes, stopped.uptime_seconds) == (0, 0, 0)


async def test_restarts_and_probes_are_counted_for_services_of_every_type(project: ProjectFolder) -> None:
    extension(project, PAGE)
    pages(project, "v1")
    project.write({"site": page(free_port()), "idle": sleeper()}, plugins=["./ours.py:Page"])
    deployer = DeployCode(project.config)
    assert (await deployer.deploy()).success
    first = pid_of(project, "site")
    os.kill(first, signal.SIGKILL)
    until(lambda: pids(project).get("site", frozenset({first})) != {first}, "it to be back")
    assert await deployer.wait_for_healthy(timeout=20)
    found = deployer.get_metrics()
    assert {"cpu_percent", "memory_percent", "load_average", "disk_percent", "circuits"} <= found.keys()
    site = found["services"]["site"]
    assert (site["restarts"], site["processes"]) == (1, 1) and site["memory_bytes"] > 0
    assert site["probe_seconds"] is not None and 0 < site["probe_seconds"] < 2
    assert site["circuit"]["state"] == "closed"
    assert site["instances"][0]["phase"] == "ready"
    assert found["services"]["idle"]["restarts"] == 0
    await deployer.stop()


async def test_alone_it_measures_the_machine_and_knows_no_service(project: ProjectFolder) -> None:
    alone = MetricsCollector()
    system = await alone.get_system_metrics()
    assert 0 <= system.cpu_usage <= 100 and 0 < system.memory_usage <= 100
    for collector in (alone, DeploymentOrchestrator(str(project.write({"a": sleeper()}))).metrics):
        with pytest.raises(DeployCodeError, match=r"^S001 SERVICE_NOT_FOUND"):
            await collector.get_service_metrics("nobody")


async def test_it_works_from_another_process_and_without_an_agent(project: ProjectFolder) -> None:
    project.write({"idle": sleeper()})
    project.cli("deploy").ok()
    project.cli("agent", "stop").ok()
    found = await DeploymentOrchestrator(project.config).metrics.get_service_metrics("idle")
    assert found.processes == 1 and found.memory_bytes > 0
    project.cli("agent", "start").ok()
