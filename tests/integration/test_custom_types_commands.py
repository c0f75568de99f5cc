"""Custom service types from the file, through the commands: deploy, restart, scale, rollback, recovery, stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_code.platforms.spawn import stop_agent
from support.custom import HEAD, WEB, hosts, kill_hosts
from support.ports import free_port
from support.project import ProjectFolder
from support.scenarios import agent_pid
from support.wait import wait_until
from support.web import fetch

SITE: dict[str, Any] = {
    "service_type": "Web",
    "ports": [{"dynamic": True}],
    "health_check": {"interval_seconds": 0.2, "timeout_seconds": 2, "retries": 3},
}


@pytest.fixture
def project(make_project: Callable[..., ProjectFolder]) -> ProjectFolder:
    """Of a name of its own: dynamic ports are chosen by the name, and tests run side by side."""
    return make_project(f"shop-{free_port()}")


@pytest.fixture
def types(project: ProjectFolder) -> ProjectFolder:
    """A project with the type Web, and a process beside it that needs it."""
    project.program("kinds.py", HEAD + WEB)
    return project


def write(project: ProjectFolder, **changes: object) -> None:
    project.write(
        {
            "site": {**SITE, **changes},
            "front": {"command": "sleep", "args": ["1000"], "dependencies": ["site"]},
        },
        plugins=["./kinds.py:Web"],
        deployment={"timeout_seconds": 15},
    )


def site(project: ProjectFolder) -> dict[str, object]:
    status = project.status("--detailed")["services"]["site"]
    assert status["status"] == "running", status
    return status


def instance(project: ProjectFolder) -> dict[str, object]:
    [one] = site(project)["instances"]  # type: ignore[misc]
    found: dict[str, object] = one
    return found


def test_it_goes_through_all_commands_as_a_process_does(types: ProjectFolder) -> None:
    write(types)
    types.cli("deploy").ok()
    first = instance(types)
    assert fetch(f"http://127.0.0.1:{first['ports']['port']}/").status == 404  # type: ignore[index]
    assert "nothing" in types.cli("deploy").ok().output.lower() or instance(types)["pid"] == first["pid"]
    assert "start" in types.cli("logs", "site").ok().stdout
    types.cli("restart", "--services", "site").ok()
    second = instance(types)
    assert second["pid"] != first["pid"]
    types.cli("scale", "site=2").ok()
    assert site(types)["ready"] == 2
    types.cli("stop").ok()
    assert types.status()["services"]["site"]["status"] == "stopped"
    wait_until(lambda: hosts(types.folder) == [])


def test_a_bad_change_is_rolled_back_to_the_old_instance(types: ProjectFolder) -> None:
    write(types)
    types.cli("deploy").ok()
    write(types, health_check={**SITE["health_check"], "command": ["false"]}, env={"NEW": "1"})
    failed = types.cli("deploy")
    assert failed.code == 1 and "E006" in failed.output
    assert site(types)["revision"] == 1


def test_a_start_that_hangs_fails_the_deployment_at_its_gate_and_is_cleaned_up(types: ProjectFolder) -> None:
    text = "class Web(Service):\n    async def start(self): await asyncio.sleep(1000)\n"
    types.program("kinds.py", HEAD + text + "    def stop(self): said(self.config, 'cleaned')\n")
    write(types)
    types.write({"site": SITE}, plugins=["./kinds.py:Web"], deployment={"timeout_seconds": 2})
    failed = types.cli("deploy")
    assert failed.code == 1 and "E006" in failed.output
    assert "cleaned" in (types.log_dir / types.name / "site.0.log").read_text()


def test_an_unchanged_deploy_after_the_death_of_agent_and_host_does_nothing(types: ProjectFolder) -> None:
    write(types)
    types.cli("deploy").ok()
    before = instance(types)
    os.kill(agent_pid(types), signal.SIGKILL)
    kill_hosts(types.folder)
    unknown = types.status()["services"]["site"]
    assert unknown["status"] in ("running", "unknown")
    types.cli("deploy").ok()
    assert instance(types)["pid"] == before["pid"]
    assert types.cli("history").ok().stdout.count("deploy ") <= 2


def test_an_interrupted_deployment_is_undone_by_recovery(types: ProjectFolder) -> None:
    write(types)
    types.cli("deploy").ok()
    check = {**SITE["health_check"], "command": ["false"], "start_period_seconds": 60}
    write(types, health_check=check, env={"N": "1"})
    run = types.start("deploy")
    wait_until(lambda: types.status()["deployment"] == 2, 15)
    run.kill()
    run.communicate()
    os.kill(agent_pid(types), signal.SIGKILL)
    assert "has been undone" in types.cli("recover").exits(1).output
    assert site(types)["revision"] == 1


def test_the_class_of_the_how_to_does_what_its_page_says(project: ProjectFolder) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "service-type.md").read_text()
    text, file = (re.search(f"^```{mark}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) for mark in ("python", "yaml"))
    assert text is not None and file is not None
    project.program("kinds.py", text[1])
    document = yaml.safe_load(file[1])
    project.write(document["services"], plugins=document["plugins"])
    project.cli("deploy").ok()
    shown = instance(project)
    assert shown["pid"] and fetch(f"http://127.0.0.1:{shown['ports']['port']}/").status == 200
    project.cli("stop").ok()


PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from deploy_code import DeployCode
from types_in_code import Web

async def main():
    deployer = DeployCode(sys.argv[2])
    deployer.register_type("Web", lambda config: Web())
    report = await deployer.deploy()
    print("deployed" if report.success else report.errors, flush=True)

asyncio.run(main())
sys.stdin.read()
"""


@contextmanager
def started(project: ProjectFolder, program: str) -> Iterator[subprocess.Popen[str]]:
    """The program once it has deployed; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(project.folder), str(project.config)],
        env={**os.environ, **project.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "deployed\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_type_registered_in_code_is_unknown_when_its_process_ends_and_stop_says_why(project: ProjectFolder) -> None:
    project.program("types_in_code.py", HEAD + WEB)
    project.write({"site": SITE})
    with started(project, PROGRAM) as process:
        assert site(project)["ready"] == 1
    unknown = wait_until(lambda: _unknown(project))
    assert (unknown["health"], f"process {process.pid}" in str(unknown["detail"])) == ("unknown", True)
    stopped = project.cli("stop", timeout=20)
    assert stopped.code == 1
    assert f'E014 RUNTIME_UNAVAILABLE: site r1 #0: service_type "Web" was registered in process {process.pid}' in (
        stopped.output
    )
    assert "--force" in stopped.output
    project.cli("stop", "--force").ok()
    assert project.status()["services"]["site"]["status"] == "stopped"
    assert "forgotten" in project.cli("events").ok().stdout


def test_what_can_never_be_stopped_is_forgotten_by_stop_with_force(project: ProjectFolder) -> None:
    text = """
class Web(Service):
    def start(self): pass
    def stop(self): raise RuntimeError("never")
    def health_check(self): return "running"
"""
    project.program("kinds.py", HEAD + text)
    write(project)
    project.cli("deploy").ok()
    stopped = project.cli("stop", "--force").ok()
    assert "could not be stopped" in stopped.output and "stop() raised RuntimeError: never" in stopped.output
    assert project.status()["services"]["site"]["status"] == "stopped"
    write(project)
    project.cli("deploy").ok()
    assert site(project)["ready"] == 1
    project.cli("stop", "--force").ok()


DEPLOYS_TWICE = PROGRAM.replace(
    "    print(",
    """    import yaml
    document = yaml.safe_load(open(sys.argv[2]))
    document["services"]["site"]["env"] = {"NEW": "1"}
    document["services"]["site"]["health_check"].update(command=["false"], start_period_seconds=60)
    open(sys.argv[2], "w").write(yaml.safe_dump(document))
    print("deployed", flush=True)
    report = await deployer.deploy()
    print(""",
)


def test_while_its_process_lives_other_commands_can_use_a_type_that_it_registered(project: ProjectFolder) -> None:
    project.program("types_in_code.py", HEAD + WEB)
    project.write({"site": SITE})
    with started(project, PROGRAM):
        before = instance(project)
        project.cli("restart").ok()
        assert instance(project)["pid"] != before["pid"]
        project.cli("scale", "site=2").ok()
        assert site(project)["ready"] == 2
        project.cli("rollback", "--to", "1").ok()
        assert site(project)["ready"] == 1
        project.cli("stop").ok()


def test_a_recovery_that_needs_a_type_of_a_dead_process_ends_in_e009_that_names_it(project: ProjectFolder) -> None:
    project.program("types_in_code.py", HEAD + WEB)
    project.env["DEPLOY_CODE_RECOVERY_DELAY"] = "600"
    project.write({"site": SITE})
    with started(project, DEPLOYS_TWICE) as process:
        wait_until(lambda: any(each["revision"] == 2 and each["pid"] for each in _instances(project)), 20)
    recovered = project.cli("recover", timeout=30)
    assert recovered.code == 1
    assert "E009 ROLLBACK_FAILED" in recovered.output
    assert f'service_type "Web" was registered in process {process.pid}' in recovered.output
    assert "unknown" in project.cli("status").output
    for each in project.leftovers():
        if "httpd" in each.command:
            os.kill(each.pid, signal.SIGKILL)
    stop_agent(str(project.state))


def _instances(project: ProjectFolder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.status("--detailed")["services"]["site"]["instances"]
    return found


def _unknown(project: ProjectFolder) -> dict[str, object] | None:
    status: dict[str, object] = project.status()["services"]["site"]
    return status if status["status"] == "unknown" else None
