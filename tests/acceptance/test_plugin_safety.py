"""Plugins hear what happens and may refuse; nothing else that they do harms a deployment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deploy_code import DeployCode, DeployCodeError
from deploy_code.events import CircuitOpened
from deploy_code.plugins import AbortDeployment, Plugin
from support.extensions import HEAD, extension, notes
from support.project import ProjectFolder
from support.scenarios import history, last, pids, sleeper, states, until_gone

HOOKS = {
    "on_deployment_start": "services",
    "before_service_rollout": "service, revision",
    "after_service_rollout": "service, revision",
    "on_failure": "report",
    "on_rollback": "report",
    "on_deployment_complete": "report",
    "on_event": "event",
}
HABITS = {
    "raises": "raise RuntimeError('I am a bad plugin')",
    "hangs": "await asyncio.sleep(1000)",
    "blocks": "time.sleep(1000)",
    "exits": "sys.exit(3)",
    "interrupts": "raise KeyboardInterrupt",
    "cancels itself": "raise asyncio.CancelledError",
    "refuses where nobody asks": "raise AbortDeployment('too late')",
    "returns nonsense": "return {'abort': True, 'success': False}",
}
EXEMPT = {  # refusing before is no bad habit; one that is slow in each of many events has a test of its own
    "refuses where nobody asks": ["before_service_rollout"],
    "hangs": ["on_event"],
    "blocks": ["on_event"],
}


def bad_plugin(habit: str, hooks: list[str]) -> str:
    """A plugin that does this in all these hooks, half of them `async` where that makes no difference."""
    body = HABITS[habit]
    lines = ["class Bad(Plugin):", "    timeout_seconds = 0.2", ""]
    for number, hook in enumerate(hooks):
        word = "async def" if "await" in body or (number % 2 and habit != "blocks") else "def"
        lines += [f"    {word} {hook}(self, {HOOKS[hook]}):", f"        note('{hook}')", f"        {body}", ""]
    return "\n".join(lines)


def write(project: ProjectFolder, services: dict[str, Any], *plugins: str, **sections: Any) -> None:
    deployment = {"timeout_seconds": 10, "circuit_breaker": {"failures": 1000}} | sections.pop("deployment", {})
    project.write(services, plugins=list(plugins), deployment=deployment, **sections)


def busy(version: str, **options: Any) -> dict[str, Any]:
    return sleeper(env={"VERSION": version}, stop_timeout_seconds=2) | options


DIES = {"command": "sh", "args": ["-c", "exit 7"], "min_ready_seconds": 0.1, "dependencies": ["a"]}


@pytest.mark.parametrize("habit", HABITS)
def test_whatever_it_does_in_any_hook_the_deployment_goes_its_way(project: ProjectFolder, habit: str) -> None:
    hooks = [hook for hook in HOOKS if hook not in EXEMPT.get(habit, ())]
    where = extension(project, bad_plugin(habit, hooks), file="bad.py")
    write(project, {"a": busy("v1")}, "./bad.py:Bad")
    done = project.cli("deploy", timeout=40).ok()
    heard = set(notes(project))
    assert states(project) == {"a": "running"} and last(project)["good"]
    before = pids(project)

    write(project, {"a": busy("v2"), "z": DIES}, "./bad.py:Bad")
    failed = project.cli("deploy", timeout=40).exits(1)
    assert "E005 SERVICE_START_FAILED: z" in failed.stderr and "was rolled back" in failed.stderr
    assert set(notes(project)) == set(hooks) >= heard, "each hook was called and did its worst"
    assert states(project) == {"a": "running"} and pids(project).keys() == before.keys()
    if habit != "returns nonsense":
        for run, hook in ((done, "on_deployment_start"), (failed, "on_rollback")):
            said = [line for line in run.output.splitlines() if "warning" in line and hook in line]
            assert said and f"{where}:Bad" in said[0], f"nobody is told whose {hook} it was: {run}"
    project.cli("stop", timeout=40).ok()
    until_gone(project)


def test_before_a_rollout_it_may_refuse_and_all_goes_back(project: ProjectFolder) -> None:
    text = """
class Gatekeeper(Plugin):
    async def before_service_rollout(self, service, revision):
        if service == "b" and revision > 1:
            raise AbortDeployment("b is frozen until Monday")
"""
    where = extension(project, text, file="gate.py")

    def services(version: str) -> dict[str, Any]:
        return {
            "a": busy(version),
            "b": busy(version, dependencies=["a"]),
            "c": busy(version, dependencies=["b"]),
        }

    write(project, services("v1"), "./gate.py:Gatekeeper")
    project.cli("deploy").ok()
    before = pids(project)
    write(project, services("v2"), "./gate.py:Gatekeeper")
    refused = project.cli("deploy").exits(1)
    cause = next(line for line in refused.stderr.splitlines() if line.startswith("E005"))
    assert "b" in cause and "b is frozen until Monday" in cause and f"{where}:Gatekeeper" in cause
    assert "was rolled back" in refused.stderr
    after = pids(project)
    assert (after["a"], after["b"]) == (before["a"], before["b"]), "not even stopped"
    assert set(states(project).values()) == {"running"}
    write(project, services("v1"), "./gate.py:Gatekeeper")
    assert "nothing to do" in project.cli("plan").ok().stdout


def test_one_that_cannot_be_had_is_found_before_anything_is_changed(project: ProjectFolder) -> None:
    extension(project, "class Poor(Plugin):\n    def __init__(self):\n        raise RuntimeError('no licence')\n")
    extension(project, "class Plugin2(Plugin:\n", file="broken.py")
    extension(project, "class NoPlugin:\n    pass\n", file="other.py")
    cases = {
        "./gone.py:Bad": "gone.py:Bad",
        "./broken.py:Plugin2": "broken.py:Plugin2",
        "./other.py:NoPlugin": "other.py:NoPlugin",
        "./ours.py:Poor": "no licence",
        "./ours.py:Rich": "ours.py:Rich",
        "ours": "ours",
    }
    for entry, word in cases.items():
        write(project, {"a": busy("v1")}, entry)
        refused = project.cli("deploy").exits(2).stderr
        assert refused.startswith("E002 CONFIG_INVALID") and word in refused, (entry, refused)
    assert not project.state.exists() or history(project) == []


def test_what_runs_can_be_stopped_when_its_plugin_is_gone(project: ProjectFolder) -> None:
    where = extension(project, "class Fine(Plugin):\n    pass\n", file="fine.py")
    write(project, {"a": busy("v1")}, "./fine.py:Fine")
    project.cli("deploy").ok()
    where.unlink()
    assert "fine.py:Fine" in project.cli("restart").ok().stderr
    project.cli("stop").ok()
    until_gone(project)


def test_a_plugin_on_a_dry_run_hears_nothing(project: ProjectFolder) -> None:
    extension(project, bad_plugin("raises", list(HOOKS)), file="bad.py")
    write(project, {"a": busy("v1")}, "./bad.py:Bad")
    project.cli("--dry-run", "deploy").ok()
    project.cli("plan").ok()
    assert notes(project) == []


def test_what_a_plugin_prints_does_not_spoil_the_data(project: ProjectFolder) -> None:
    text = """
class Loud(Plugin):
    def on_deployment_start(self, services):
        print("HELLO, I AM A PLUGIN")
"""
    extension(project, text, file="loud.py")
    write(project, {"a": busy("v1")}, "./loud.py:Loud")
    assert project.cli("deploy", "--format", "json").ok().json()["success"] is True


def test_plugins_of_an_installed_package_are_called_without_being_named(project: ProjectFolder) -> None:
    site = project.folder / "site-packages"
    info = site / "ears-1.0.dist-info"
    info.mkdir(parents=True)
    text = "class Ears(Plugin):\n    def on_deployment_complete(self, report):\n        note(report.status)\n"
    (site / "ears.py").write_text(HEAD.replace("__file__", repr(str(project.config))) + text)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ears\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deploy_code.plugins]\nears = ears:Ears\n")
    project.env["PYTHONPATH"] = str(site)
    project.write({"a": busy("v1")})
    project.cli("deploy").ok()
    assert notes(project) == ["completed"]


# --------------------------------------------------------------------------- in one's own program


@pytest.fixture
def deployer(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeployCode]:
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    project.write({"a": busy("v1"), "b": busy("v1")}, deployment={"timeout_seconds": 10})
    yield DeployCode(project.config)


class Vandal(Plugin):
    """Breaks whatever it is handed."""

    def on_deployment_start(self, services: Any) -> None:
        services.clear()

    def on_deployment_complete(self, report: Any) -> None:
        report.success = False
        report.errors.append("vandalised")

    def on_event(self, event: Any) -> None:
        event.text = event.service = "vandalised"


class Late(Plugin):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_deployment_start(self, services: Any) -> None:
        self.heard.append(sorted(services))

    def on_deployment_complete(self, report: Any) -> None:
        self.heard.append((report.success, report.errors))


async def test_what_one_plugin_breaks_no_other_and_no_report_notices(deployer: DeployCode) -> None:
    late = Late()
    deployer.add_plugin(Vandal())
    deployer.add_plugin(late)
    report = await deployer.deploy()
    assert (report.success, report.errors) == (True, [])
    assert late.heard == [["a", "b"], (True, [])]


class Again(Plugin):
    """Deploys while it is told of a deployment."""

    timeout_seconds = 5.0

    def __init__(self, deployer: DeployCode) -> None:
        self.deployer = deployer
        self.error = ""

    async def on_deployment_start(self, services: Any) -> None:
        try:
            await self.deployer.deploy()
        except DeployCodeError as error:
            self.error = str(error)


async def test_one_that_deploys_from_a_hook_is_told_that_somebody_is_at_it(deployer: DeployCode) -> None:
    again = Again(deployer)
    deployer.add_plugin(again)
    assert (await deployer.deploy()).success
    assert again.error.startswith("E011 DEPLOYMENT_LOCKED")


class Failing(Plugin):
    """Writes down when it was called, and fails."""

    def __init__(self) -> None:
        self.calls: list[float] = []

    async def before_service_rollout(self, service: str, revision: int) -> None:
        self.calls.append(time.monotonic())
        raise OSError("the webhook does not answer")


class Watching(Plugin):
    def __init__(self) -> None:
        self.opened: list[CircuitOpened] = []

    def on_event(self, event: Any) -> None:
        if isinstance(event, CircuitOpened):
            self.opened.append(event)


async def test_one_that_keeps_failing_is_left_alone_and_that_is_said(
    deployer: DeployCode, project: ProjectFolder
) -> None:
    services = {f"s{number}": busy("v1") for number in range(8)}
    breaker = {"failures": 3, "cooldown_seconds": 60}
    project.write(services, deployment={"timeout_seconds": 10, "circuit_breaker": breaker})
    failing, watching = Failing(), Watching()
    deployer.add_plugin(failing)
    deployer.add_plugin(watching)
    report = await deployer.deploy()
    assert report.success and len(failing.calls) == 3
    told = [each for each in report.warnings if "E018" in each]
    assert len(told) == 1 and "Failing" in told[0] and "the webhook does not answer" in told[0]
    [event] = watching.opened
    assert "Failing" in event.protects and event.reason and event.retry_at > time.time()
    assert "CircuitOpened" in [each["name"] for each in project.cli("events", "--format", "json").ok().json()]


async def test_one_that_is_stuck_with_events_is_left_alone_and_no_other_hook_with_it(deployer: DeployCode) -> None:
    class Stuck(Late):
        timeout_seconds = 0.3
        events = 0

        def on_event(self, event: Any) -> None:
            self.events += 1
            time.sleep(1000)

    stuck = Stuck()
    deployer.add_plugin(stuck)
    report = await deployer.deploy()
    assert report.success and report.duration < 5
    assert stuck.events <= 8, "no thread for each event"
    assert stuck.heard == [["a", "b"], (True, [])]
    assert any("Stuck" in each and "on_event" in each for each in report.warnings)


async def test_a_refusal_is_no_failure_of_the_plugin(deployer: DeployCode) -> None:
    class Never(Plugin):
        def before_service_rollout(self, service: str, revision: int) -> None:
            raise AbortDeployment("not today")

    deployer.add_plugin(Never())
    for _ in range(6):
        report = await deployer.deploy()
        assert not report.success
        assert "not today" in report.errors[0] and "E018" not in " ".join(report.warnings)


async def test_ctrl_c_is_told_to_a_plugin_once(deployer: DeployCode) -> None:
    class Slow(Late):
        timeout_seconds = 60.0

        async def before_service_rollout(self, service: str, revision: int) -> None:
            started.set()
            await asyncio.sleep(1000)

    started, slow = asyncio.Event(), Slow()
    deployer.add_plugin(slow)
    task = asyncio.create_task(deployer.deploy())
    await asyncio.wait_for(started.wait(), 20)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 20, "a hook that waits for long is not waited for"
    assert [each[0] for each in slow.heard] == ["a", False]
