"""What a user sees of a service that crashes again and again, and how it comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy_code.monitoring import MetricsCollector
from deploy_code.monitoring.collector import read_metrics
from support.project import ProjectFolder
from support.scenarios import sleeper
from support.wait import wait_until

QUICK = {
    "policy": "always",
    "backoff_seconds": 0.05,
    "backoff_max_seconds": 0.05,
    "max_exits": 3,
    "reset_after_seconds": 0.5,
}


def crasher(sick: Path, cooldown: float) -> dict[str, Any]:
    """Runs until the file is there, and then ends as often as it is started."""
    return {
        "command": "sh",
        "args": ["-c", f"while ! test -e {sick}; do sleep 0.05; done; exit 7"],
        "min_ready_seconds": 0.1,
        "restart": {**QUICK, "cooldown_seconds": cooldown},
    }


def circuit(project: ProjectFolder) -> dict[str, Any]:
    found: dict[str, Any] = project.status()["services"]["app"]["circuit"]
    return found


def deploy_and_fall_sick(project: ProjectFolder, sick: Path) -> dict[str, Any]:
    project.cli("deploy").ok()
    sick.touch()
    wait_until(lambda: circuit(project)["state"] == "open", 30, "the circuit to open")
    return circuit(project)


def test_an_open_circuit_is_said_wherever_one_looks(project: ProjectFolder) -> None:
    sick = project.folder / "sick"
    project.write({"app": crasher(sick, 250), "fine": sleeper()})
    found = deploy_and_fall_sick(project, sick)
    assert found["reason"] == "exit code 7"
    row = next(line for line in project.cli("status").ok().stdout.splitlines() if line.startswith("app"))
    assert "circuit open, next try in 4 min" in row
    assert "exit code 7" in row
    assert "circuit open" in project.cli("status", "--detailed").ok().stdout
    issue = next(line for line in project.cli("health").exits(4).stdout.splitlines() if "app:" in line)
    assert "circuit open" in issue
    told = project.cli("events", "--services", "app", "--format", "json").ok().json()
    assert [each["name"] for each in told if each["name"].startswith("Circuit")] == ["CircuitOpened"]
    measured = read_metrics(str(project.state))["services"]
    assert measured["app"]["circuit"] == found
    assert measured["fine"]["circuit"]["state"] == "closed"
    assert project.status()["services"]["fine"]["status"] == "running"


def test_it_comes_back_by_itself_once_it_is_well(project: ProjectFolder) -> None:
    sick = project.folder / "sick"
    project.write({"app": crasher(sick, 1.0)})
    deploy_and_fall_sick(project, sick)
    sick.unlink()
    wait_until(lambda: circuit(project)["state"] == "closed", 30, "the circuit to close")
    assert project.status()["overall_health"] == "healthy"
    told = project.cli("events", "--format", "json").ok().json()
    names = [each["name"] for each in told if each["name"].startswith("Circuit")]
    assert names[-2:] == ["CircuitHalfOpened", "CircuitClosed"]


def test_a_restart_does_not_wait_for_the_cool_down(project: ProjectFolder) -> None:
    sick = project.folder / "sick"
    project.write({"app": crasher(sick, 600)})
    deploy_and_fall_sick(project, sick)
    sick.unlink()
    project.cli("restart").ok()
    assert circuit(project)["state"] == "closed"
    assert project.status()["overall_health"] == "healthy"


async def test_the_metrics_of_a_project_know_its_services(project: ProjectFolder) -> None:
    burner = {"command": "sh", "args": ["-c", "sleep 1000 & while :; do :; done"], "min_ready_seconds": 0.1}
    project.write({"burner": {**burner, "replicas": 2}, "fine": sleeper()})
    project.cli("deploy").ok()
    metrics = MetricsCollector(str(project.state))
    found = await metrics.get_all_service_metrics()
    assert found["burner"].processes == 4
    assert found["burner"].cpu_percent > 10 > found["fine"].cpu_percent
    assert found["fine"].memory_bytes > 0
    detailed = project.status("--detailed")["services"]["burner"]["instances"]
    assert [each["processes"] for each in detailed] == [2, 2]
    project.cli("stop").ok()
    stopped = await metrics.get_service_metrics("burner")
    assert (stopped.processes, stopped.cpu_percent, stopped.instances) == (0, 0.0, ())
