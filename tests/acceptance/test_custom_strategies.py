"""Strategies and rollouts of one's own, chosen by name in the file: what they decide, and what becomes of bad ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from support.extensions import HEAD, extension, notes
from support.ports import free_port
from support.project import ProjectFolder
from support.scenarios import history, last, pid_of, pids, sleeper, states, text_at, until, until_gone

# The document's CanaryDeployment in Python; `watch_seconds` stands for its five minutes.
CANARY = """
class CanaryDeployment(DeploymentStrategy):
    def __init__(self, canary_percentage=0.5, watch_seconds=0.0):
        self.canary_percentage = canary_percentage
        self.watch_seconds = watch_seconds

    async def deploy(self, services):
        count = int(len(services) * self.canary_percentage)
        await self.deploy_services(services[:count])
        note("canary", *services[:count])
        await asyncio.sleep(self.watch_seconds)
        if not await self.check_health(services[:count]):
            return DeploymentReport(success=False, errors=["the canary died"])
        note("healthy in", self.config.environment)
        await self.deploy_services(services[count:])
        return DeploymentReport.succeeded(warnings=["the canary sang"])
"""

ROLLING = """
from deploy_code.plan import WaitReady, Want

def beside(change):
    name, new = change.service, change.new
    yield Want(id="new", service=name, revision=new.revision, replicas=new.replicas)
    yield WaitReady(id="ready", service=name, revision=new.revision, replicas=new.replicas)
    for old in change.stale:
        yield Want(id=f"old-{old}", service=name, revision=old, replicas=0)
"""


def busy(version: str, *dependencies: str, **options: Any) -> dict[str, Any]:
    """A service that only runs; a new version is a new revision."""
    return sleeper(env={"VERSION": version}, dependencies=list(dependencies), stop_timeout_seconds=2) | options


def four(version: str, **of_d: Any) -> dict[str, Any]:
    return {
        "a": busy(version),
        "b": busy(version, "a"),
        "c": busy(version, "b"),
        "d": busy(version, "c", **of_d),
    }


def write(
    project: ProjectFolder, services: dict[str, Any], strategy: str = "CanaryDeployment", *plugins: str, **more: Any
) -> None:
    deployment = {"strategy": strategy, "timeout_seconds": 10, **more}
    project.write(services, plugins=list(plugins) or ["./ours.py:CanaryDeployment"], deployment=deployment)


# --------------------------------------------------------------------------- strategies


def test_the_canary_of_the_document_goes_first_and_the_others_follow(project: ProjectFolder) -> None:
    extension(project, CANARY)
    write(project, four("v1"), strategy_options={"canary_percentage": 0.25})
    plan = project.cli("plan").ok().stdout
    assert "CanaryDeployment" in plan and all(f"create {name} r1" in plan for name in "abcd")
    assert not project.data_dir.exists() and notes(project) == []
    done = project.cli("deploy").ok()
    assert "the canary sang" in done.output
    assert notes(project) == ["canary a", "healthy in development"]
    assert set(states(project).values()) == {"running"} and last(project)["good"]
    assert "nothing to do" in project.cli("plan").ok().stdout
    assert project.cli("deploy").ok() and len(notes(project)) == 2, "nothing changed: no strategy is asked"


def test_a_canary_that_dies_takes_everything_back(project: ProjectFolder) -> None:
    extension(project, CANARY)
    write(project, four("v1"))
    project.cli("deploy").ok()
    before = pids(project)
    dies = {"command": "sh", "args": ["-c", "sleep 0.4; exit 7"], "restart": {"policy": "never"}}
    services = four("v2")
    services["b"] |= dies
    write(project, services, strategy_options={"watch_seconds": 1.0})
    failed = project.cli("deploy").exits(1)
    assert "CanaryDeployment" in failed.output and "the canary died" in failed.output
    assert f"{project.folder}/ours.py:CanaryDeployment" in failed.output
    assert "rolled back" in failed.output
    after = pids(project)
    assert (after["c"], after["d"]) == (before["c"], before["d"]), "what it had not touched was not touched"
    assert set(states(project).values()) == {"running"} and after.keys() == before.keys()
    write(project, four("v1"))
    assert "nothing to do" in project.cli("plan").ok().stdout


BAD = {
    "raises in the middle": ("raise ValueError('I am lost')", ["E005", "ValueError", "I am lost"]),
    "returns nonsense": ("return {'success': True}", ["E005", "dict"]),
    "quits": ("sys.exit(0)", ["E005", "SystemExit"]),
    "leaves half of it out": ("return DeploymentReport.succeeded()", ["E005", "b"]),
    "hangs": ("await asyncio.sleep(1000)", ["E008"]),
    "blocks": ("time.sleep(1000)", ["E008"]),
    "hangs deaf to cancellation": (
        "while True:\n            with suppress(BaseException):\n                await asyncio.sleep(1000)",
        ["E008"],
    ),
    "asks for what is not there": ("await self.deploy_services(['nobody'])", ["E005", "nobody"]),
}


def test_a_strategy_that_goes_wrong_half_way_is_named_and_undone(project: ProjectFolder) -> None:
    services = {"a": busy("v1"), "b": busy("v1", "a")}
    write(project, services, "Sequential", "./none.py:CanaryDeployment")
    extension(project, CANARY, file="none.py")
    project.cli("deploy").ok()
    b = pid_of(project, "b")
    for number, (habit, (body, words)) in enumerate(BAD.items(), 1):
        text = f"""
class Bad(DeploymentStrategy):
    async def deploy(self, services):
        await self.deploy_services(services[:1])
        note("half way")
        {body}
"""
        where = extension(project, text, file=f"bad{number}.py")
        new = {"a": busy("v2"), "b": busy("v2", "a")}
        write(project, new, "Bad", f"./{where.name}:Bad", total_timeout_seconds=1)
        failed = project.cli("deploy", timeout=40).exits(1)
        assert len(notes(project)) == number, habit
        cause = [line for line in failed.stderr.splitlines() if line.startswith(words[0])]
        for word in [*words, "Bad", f"{where}:Bad"]:
            assert any(word in line for line in cause), (habit, word, str(failed))
        assert "was rolled back" in failed.output, habit
        assert pid_of(project, "b") == b and last(project)["status"] == "rolled_back", habit
    write(project, services, "Sequential", "./none.py:CanaryDeployment")
    assert "nothing to do" in project.cli("plan").ok().stdout, "everything is as it was"


def test_a_strategy_that_cannot_be_imported_is_e002_and_nothing_happens(project: ProjectFolder) -> None:
    cases = [
        ("./gone.py:Mine", "", "gone.py:Mine"),
        ("./ours.py:Mine", "raise OSError('the disk is shy')", "the disk is shy"),
        ("./ours.py:Mine", "Mine = 5", "ours.py:Mine"),
        ("no_such_package:Mine", "", "no_such_package:Mine"),
    ]
    for entry, text, word in cases:
        extension(project, text)
        write(project, {"a": busy("v1")}, "Mine", entry)
        refused = project.cli("deploy").exits(2).stderr
        assert refused.startswith("E002 CONFIG_INVALID") and word in refused
    assert not project.state.exists() or history(project) == []


def test_options_that_it_does_not_take_are_told_before_anything_is_changed(project: ProjectFolder) -> None:
    extension(project, CANARY)
    write(project, four("v1"), strategy_options={"percentage": 1})
    failed = project.cli("deploy").exits(1).output
    assert "CanaryDeployment" in failed and "percentage" in failed
    assert states(project) == {} or set(states(project).values()) == {"not_started"}


def test_a_strategy_killed_in_the_middle_is_undone_by_the_next_command(project: ProjectFolder) -> None:
    extension(project, CANARY)
    write(project, four("v1"))
    project.cli("deploy").ok()
    c = pid_of(project, "c")
    write(project, four("v2"), strategy_options={"watch_seconds": 1000})
    with project.start("deploy") as running:
        until(lambda: len(notes(project)) == 3, "the second canary")
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    assert "rolled back" in project.cli("recover").exits(1).output
    assert len(notes(project)) == 3, "the strategy was not asked again"
    assert pid_of(project, "c") == c and set(states(project).values()) == {"running"}
    write(project, four("v1"))
    assert "nothing to do" in project.cli("plan").ok().stdout


def test_ctrl_c_ends_a_strategy_and_undoes_it(project: ProjectFolder) -> None:
    extension(project, CANARY)
    write(project, four("v1"), strategy_options={"watch_seconds": 1000})
    with project.start("deploy") as running:
        until(lambda: notes(project), "the canary")
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=30)
    assert running.returncode == 130
    until_gone(project)
    assert last(project)["status"] == "rolled_back"


def test_strategies_of_an_installed_package_are_chosen_by_their_entry_point(project: ProjectFolder) -> None:
    site = project.folder / "site-packages"
    info = site / "birds-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "birds.py").write_text(HEAD + CANARY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: birds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[deploy_code.plugins]\nbird = birds:CanaryDeployment\n")
    project.env["PYTHONPATH"] = str(site)
    project.write({"a": busy("v1"), "b": busy("v1")}, deployment={"strategy": "bird"})
    assert "the canary sang" in project.cli("deploy").ok().output


# --------------------------------------------------------------------------- rollouts


def page(version: str, project: ProjectFolder, **options: Any) -> dict[str, Any]:
    (project.folder / version).mkdir(exist_ok=True)
    (project.folder / version / "index.html").write_text(version)
    return {
        "command": "busybox",
        "args": ["httpd", "-f", "-p", "127.0.0.1:${PORT}", "-h", version],
        "ports": [{"dynamic": True}],
        "strategy": "beside",
        "health_check": {"endpoint": "/index.html", "interval_seconds": 1, "timeout_seconds": 2},
        "stop_timeout_seconds": 2,
    } | options


def test_a_rollout_starts_the_new_ones_beside_the_old(project: ProjectFolder, busybox: Path) -> None:
    extension(project, ROLLING)
    write(project, {"web": page("v1", project, replicas=2)}, "Parallel", "./ours.py:beside")
    project.cli("deploy").ok()
    write(project, {"web": page("v2", project, replicas=2)}, "Parallel", "./ours.py:beside")
    plan = project.cli("plan").ok().stdout
    assert plan.index("start web r2") < plan.index("wait until web r2") < plan.index("stop web r1")
    project.cli("deploy").ok()
    told = [each["text"] for each in project.cli("events", "--format", "json").ok().json() if each["deployment"] == 2]
    both_ready = max(number for number, text in enumerate(told) if text.startswith("web r2") and " ready " in text)
    first_gone = min(number for number, text in enumerate(told) if text.startswith("web r1") and "stopped" in text)
    assert both_ready < first_gone, "at any moment two of them serve"
    ports = project.status()["services"]["web"]["ports"]
    assert [text_at(port, "/index.html") for port in ports] == ["v2", "v2"]
    project.cli("rollback").ok()
    ports = project.status()["services"]["web"]["ports"]
    assert [text_at(port, "/index.html") for port in ports] == ["v1", "v1"]


def test_a_rollout_whose_new_revision_fails_never_touches_the_old(project: ProjectFolder, busybox: Path) -> None:
    extension(project, ROLLING)
    write(project, {"web": page("v1", project)}, "Parallel", "./ours.py:beside")
    project.cli("deploy").ok()
    before = pid_of(project, "web")
    broken = page("v2", project, health_check={"endpoint": "/no-such-page", "interval_seconds": 1, "retries": 1})
    write(project, {"web": broken}, "Parallel", "./ours.py:beside", timeout_seconds=2)
    failed = project.cli("deploy").exits(1).output
    assert "E006" in failed and "rolled back" in failed
    assert pid_of(project, "web") == before
    [port] = project.status()["services"]["web"]["ports"]
    assert text_at(port, "/index.html") == "v1"


ROLLOUTS = {
    "raises": "raise KeyError('no such step')",
    "returns nonsense": "return 'stop, then start'",
    "returns nothing": "return None",
    "gives steps that are none": "return [1, 2, 3]",
    "wants another service": "return [Want(id='x', service='other', revision=1, replicas=0)]",
    "wants a revision that is not there": "return [Want(id='x', service='web', revision=99, replicas=1)]",
    "forgets the new one": "return []",
    "gives one id twice": "return [Want(id='x', service='web', revision=change.new.revision, replicas=1)] * 2",
    "turns in a circle": "new = {'service': 'web', 'revision': change.new.revision, 'replicas': 1}\n"
    "    return [Want(id='x', after=('y',), **new), WaitReady(id='y', after=('x',), **new)]",
    "quits": "sys.exit(0)",
    "never ends": "while True:\n        yield Want(id='x', service='web', revision=change.new.revision, replicas=1)",
    "hangs": "time.sleep(1000)",
}


def test_a_rollout_that_is_no_good_is_named_before_anything_is_changed(project: ProjectFolder) -> None:
    extension(
        project, ROLLING + "".join(f"\ndef odd{n}(change):\n    {body}\n" for n, body in enumerate(ROLLOUTS.values()))
    )
    services = {"web": busy("v1"), "other": busy("v1")}
    write(project, services, "Parallel", "./ours.py:beside")
    project.cli("deploy").ok()
    before = pids(project)
    for number, habit in enumerate(ROLLOUTS):
        name = f"odd{number}"
        new = {"web": busy("v2", strategy=name), "other": busy("v1")}
        write(project, new, "Parallel", f"./ours.py:{name}", timeout_seconds=2)
        refused = project.cli("deploy", timeout=45).exits(2).stderr
        assert refused.startswith("E002 CONFIG_INVALID"), (habit, refused)
        for word in ("web", f"{project.folder}/ours.py:{name}"):
            assert word in refused, (habit, refused)
    assert pids(project) == before and len(history(project)) == 1


def test_a_strategy_for_a_service_and_a_rollout_for_all_are_told_apart(project: ProjectFolder) -> None:
    extension(project, CANARY + ROLLING)
    both = ("./ours.py:CanaryDeployment", "./ours.py:beside")
    write(project, {"web": busy("v1", strategy="CanaryDeployment")}, "Parallel", *both)
    assert "CanaryDeployment" in project.cli("deploy").exits(2).stderr
    write(project, {"web": busy("v1")}, "beside", *both)
    assert "beside" in project.cli("deploy").exits(2).stderr
    write(project, {"web": busy("v1", strategy="besides")}, "Parallel", *both)
    refused = project.cli("deploy").exits(2).stderr
    assert "besides" in refused and "beside" in refused.replace("besides", ""), refused
    assert not project.state.exists() or history(project) == []


def test_new_beside_old_on_one_fixed_port_is_refused_with_the_reason(project: ProjectFolder, busybox: Path) -> None:
    extension(project, ROLLING)
    port = free_port()

    def fixed(version: str) -> dict[str, Any]:
        args = ["httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", version]
        return page(version, project, ports=[{"container_port": port}], args=args)

    write(project, {"web": fixed("v1")}, "Parallel", "./ours.py:beside")
    project.cli("deploy").ok()
    write(project, {"web": fixed("v2")}, "Parallel", "./ours.py:beside")
    refused = project.cli("deploy").exits(2).stderr
    assert "E002" in refused and "beside" in refused and str(port) in refused
    assert text_at(port, "/index.html") == "v1"
