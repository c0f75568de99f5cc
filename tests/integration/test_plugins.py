"""Plugins over a real agent: what they hear, what they may refuse, and that nothing else they do does harm."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy_code.errors import ConfigError, DeploymentError, LockedError, PreflightError
from deploy_code.events import CircuitOpened, Event, WarningRaised
from deploy_code.orchestrator import DeploymentReport
from deploy_code.orchestrator.plugin_host import GATHER_SECONDS, PluginHost
from deploy_code.plan.plan import WaitReady
from deploy_code.plugins import AbortDeployment, Plugin
from deploy_code.services.status import DeploymentStatus
from support.engine import engine, give_up, held_at, until, wanted
from support.project import ProjectFolder
from support.scenarios import pids, sleeper
from support.wait import wait_until


def beside(project: ProjectFolder, text: str, *names: str) -> list[str]:
    """A file of plugins beside the config, and the entries that name them."""
    project.program("mine.py", "import asyncio, os, sys, time\nfrom deploy_code.plugins import *\n" + text)
    return [f"./mine.py:{name}" for name in names]


LISTENER = """
class Writes(Plugin):
    def _say(self, *words):
        with open(os.environ["HEARD"], "a") as file:
            print(*words, file=file)
    def on_deployment_start(self, services):
        self._say("start", *services)
    async def on_deployment_complete(self, report):
        self._say("complete", report.success)
    def before_service_rollout(self, service, revision):
        self._say("before", service, revision)
    async def after_service_rollout(self, service, revision):
        self._say("after", service, revision)
    def on_rollback(self, report):
        self._say("rollback")
"""


@pytest.fixture
def heard(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = project.folder / "heard"
    monkeypatch.setenv("HEARD", str(path))
    return path


def lines(path: Path) -> list[str]:
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


async def test_a_plugin_of_the_file_hears_every_operation(project: ProjectFolder, heard: Path) -> None:
    project.write({"a": sleeper()}, plugins=beside(project, LISTENER, "Writes"))
    assert (await engine(project).deploy()).success
    assert lines(heard) == ["start a", "before a 1", "after a 1", "complete True"]
    assert (await engine(project).restart()).success
    assert lines(heard) == ["start a", "before a 1", "after a 1", "complete True"]
    assert (await engine(project).scale({"a": 2})).success
    assert lines(heard) == ["start a", "before a 1", "after a 1", "complete True"]
    project.write({"a": sleeper(env={"V": "2"})}, plugins=["./mine.py:Writes"])
    assert (await engine(project).deploy()).success
    assert lines(heard)[1:3] == ["before a 2", "after a 2"]
    assert (await engine(project).rollback()).success
    assert lines(heard)[1:3] == ["before a 1", "after a 1"]
    await engine(project).stop()
    assert lines(heard) == ["start a", "complete True"]


async def test_a_plugin_that_is_gone_only_warns_where_the_file_is_not_read(project: ProjectFolder) -> None:
    project.write({"a": sleeper()}, plugins=beside(project, LISTENER, "Writes"))
    assert (await engine(project).deploy()).success
    (project.folder / "mine.py").unlink()
    report = await engine(project).restart()
    assert report.success and any("mine.py:Writes" in each and "No such file" in each for each in report.warnings)
    with pytest.raises(ConfigError, match=r"plugins\[0\] of deploy-code.yaml"):
        await engine(project).deploy()
    assert (await engine(project).stop()) is not None and not pids(project)


async def test_before_hooks_come_before_the_first_change_of_their_service(project: ProjectFolder) -> None:
    project.write({"a": sleeper()})
    assert (await engine(project).deploy()).success
    running = pids(project)

    class Looks(Plugin):
        seen: object = None

        def before_service_rollout(self, service: str, revision: int) -> None:
            self.seen = pids(project)

    project.write({"a": sleeper(env={"V": "2"})})
    looks = Looks()
    assert (await engine(project, [looks]).deploy()).success
    assert looks.seen == running != pids(project)


REFUSES = """
class Careful(Plugin):
    def before_service_rollout(self, service, revision):
        if service == "b":
            raise AbortDeployment("it is Friday")
"""


async def test_a_plugin_may_refuse_one_service_and_the_deployment_is_rolled_back(project: ProjectFolder) -> None:
    project.write({"a": sleeper(), "b": sleeper(dependencies=["a"])})
    assert (await engine(project).deploy()).success
    before, running = wanted(project), pids(project)["b"]
    changed = {"a": sleeper(env={"V": "2"}), "b": sleeper(env={"V": "2"}, dependencies=["a"])}
    project.write(changed, plugins=beside(project, REFUSES, "Careful"))
    report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK and wanted(project) == before
    assert [each.service for each in report.failures] == ["b"] and pids(project)["b"] == running
    assert "plugin Careful (" in report.errors[0] and "mine.py:Careful, plugins[0] of deploy-code.yaml)" in str(report)
    assert "refused the rollout of b r2: it is Friday" in report.errors[0] and "E005" in report.errors[0]


BAD = """
class NoWords(Exception):
    def __repr__(self): raise ValueError("no words")
class NoReason(AbortDeployment):
    def __init__(self): pass
    def __getattr__(self, name): raise ValueError(name)
class Raises(Plugin):
    def before_service_rollout(self, service, revision): raise RuntimeError("bad day")
class RaisesAsync(Plugin):
    async def on_deployment_start(self, services): raise KeyError("nothing")
class Quits(Plugin):
    def before_service_rollout(self, service, revision): sys.exit(3)
class QuitsAsync(Plugin):
    async def after_service_rollout(self, service, revision): raise SystemExit(3)
class CancelsAll(Plugin):
    async def on_deployment_start(self, services):
        for task in asyncio.all_tasks(): task.cancel()
        await asyncio.sleep(1)
class Refuses(Plugin):
    def on_deployment_start(self, services): raise AbortDeployment("too late for that")
class Hangs(Plugin):
    timeout_seconds = 0.3
    async def on_deployment_start(self, services): await asyncio.sleep(1000)
class HangsPlain(Plugin):
    timeout_seconds = 0.3
    def before_service_rollout(self, service, revision): time.sleep(1000)
class Blocks(Plugin):
    timeout_seconds = 0.3
    async def before_service_rollout(self, service, revision): time.sleep(1000)
    async def on_deployment_complete(self, report): open(os.environ["HEARD"], "w").close()
class Unspeakable(Plugin):
    def before_service_rollout(self, service, revision): raise NoWords
class RefusesBadly(Plugin):
    async def before_service_rollout(self, service, revision): raise NoReason
class NoTime(Plugin):
    @property
    def timeout_seconds(self): raise RuntimeError("no idea")
    def on_deployment_start(self, services): raise RuntimeError("bad day")
class Nonsense(Plugin):
    timeout_seconds = "soon"
    def on_deployment_start(self, services): services.clear(); return 17
    def on_deployment_complete(self, report): report.errors.append("mine"); report.success = False; return report
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises", "before_service_rollout"),
        ("RaisesAsync", "KeyError('nothing')"),
        ("Quits", "SystemExit(3)"),
        ("QuitsAsync", "SystemExit(3)"),
        ("CancelsAll", "it cancelled itself"),
        ("Refuses", "AbortDeployment('too late for that')"),
        ("Hangs", "did not end within 0.3 s and was given up on"),
        ("HangsPlain", "did not end within 0.3 s and was given up on"),
        ("Blocks", "did not end within 0.3 s and was given up on"),
        ("Unspeakable", "failed: NoWords"),
        ("NoTime", "bad day"),
        ("Nonsense", ""),
    ],
)
async def test_what_a_plugin_does_wrong_is_reported_with_its_place_and_changes_nothing(
    project: ProjectFolder, heard: Path, name: str, said: str
) -> None:
    project.write({"a": sleeper()}, plugins=beside(project, BAD, name))
    report = await engine(project).deploy()
    assert report.success and report.errors == [] and set(pids(project)) == {"a"}
    if said:
        told = [each for each in report.warnings if f"plugin {name}." in each]
        assert told and said in told[0] and "mine.py" in told[0] and "plugins[0]" in told[0], report.warnings
    else:
        assert not any("plugin Nonsense" in each for each in report.warnings), report.warnings
    if name == "Blocks":
        wait_until(heard.exists)  # another loop has taken the place of the one that is blocked


async def test_a_refusal_whose_reason_cannot_be_had_is_one_all_the_same(project: ProjectFolder) -> None:
    project.write({"a": sleeper()}, plugins=beside(project, BAD, "RefusesBadly"))
    async with asyncio.timeout(30):
        report = await engine(project).deploy()
    assert report.status is DeploymentStatus.ROLLED_BACK and not pids(project)
    assert "refused the rollout of a r1: no reason given" in report.errors[0]


async def test_ctrl_c_while_a_plugin_is_told_of_the_start_ends_the_deployment(project: ProjectFolder) -> None:
    class Slow(Plugin):
        told: DeploymentReport | None = None

        def __init__(self) -> None:
            self.begun, self.goes_on = threading.Event(), threading.Event()

        def on_deployment_start(self, services: Sequence[str]) -> None:
            self.begun.set()
            self.goes_on.wait(20)

        def on_deployment_complete(self, report: DeploymentReport) -> None:
            self.told = report

    project.write({"a": sleeper()})
    plugin = Slow()
    run = engine(project, [plugin])
    task = asyncio.create_task(run.deploy())
    await until(plugin.begun.is_set)
    run.interrupt()
    plugin.goes_on.set()
    with pytest.raises(DeploymentError, match="interrupted"):
        await task
    assert not pids(project) and not wanted(project)
    assert plugin.told is not None and not plugin.told.success


@pytest.mark.usefixtures("no_recovery_by_the_agent")
async def test_nobody_may_refuse_that_an_interrupted_deployment_is_undone(project: ProjectFolder) -> None:
    class Refuses(Plugin):
        def before_service_rollout(self, service: str, revision: int) -> None:
            raise AbortDeployment("it is Friday")

    project.write({"a": sleeper()})
    assert (await engine(project).deploy()).success
    before = wanted(project)
    project.write({"a": sleeper(env={"V": "2"})})
    run = engine(project)
    async with held_at(lambda step: isinstance(step, WaitReady)) as reached:
        task = asyncio.create_task(run.deploy())
        await reached.wait()
        await give_up(run, task)
    report = await engine(project, [Refuses()]).recover()
    assert report is not None and report.status is DeploymentStatus.ROLLED_BACK, report
    assert wanted(project) == before and set(pids(project)) == {"a"}


async def test_a_plugin_hears_nothing_any_more_when_the_deployment_is_over() -> None:
    host = PluginHost([AlwaysFails()], lambda line: None)
    await host.close()
    host.listen(WarningRaised(message="too late"))
    await asyncio.sleep(3 * GATHER_SECONDS)  # an event that must not arrive
    assert not [each for each in threading.enumerate() if each.name == "plugin AlwaysFails"]


async def test_what_an_open_circuit_says_has_no_secret_in_it(project: ProjectFolder) -> None:
    class Tells(Plugin):
        def before_service_rollout(self, service: str, revision: int) -> None:
            raise RuntimeError("wrong token hunter2hunter2")

    project.write({"a": sleeper(env={"API_TOKEN": "hunter2hunter2"})}, deployment={"circuit_breaker": {"failures": 1}})
    run, seen = engine(project, [Tells()]), list[Event]()
    run.bus.subscribe(seen.append)
    report = await run.deploy()
    assert report.success and any("CIRCUIT_OPEN" in each for each in report.warnings)
    assert any(isinstance(each, CircuitOpened) for each in seen)
    assert "hunter2hunter2" not in str(report.warnings) + repr(seen)


SECRETIVE = """
class Built(Plugin):
    def __init__(self): raise RuntimeError("wrong token hunter2hunter2")
def rolls(change):
    raise RuntimeError(str(change.new.spec.content.env))
"""


@pytest.mark.parametrize("name", ["Built", "rolls"])
async def test_what_an_extension_raises_before_the_first_step_has_no_secret_in_it(
    project: ProjectFolder, name: str
) -> None:
    strategy = {"strategy": name} if name == "rolls" else {}
    service = sleeper(env={"API_TOKEN": "hunter2hunter2"}, **strategy)
    project.write({"a": service}, plugins=beside(project, SECRETIVE, name))
    with pytest.raises(ConfigError, match=r"\[redacted\]") as caught:
        await engine(project).deploy()
    assert "hunter2hunter2" not in str(caught.value) and not pids(project)


async def test_the_threads_of_plugins_end_with_the_deployment(project: ProjectFolder, heard: Path) -> None:
    project.write({"a": sleeper()}, plugins=beside(project, LISTENER, "Writes"))
    assert (await engine(project).deploy()).success
    await asyncio.to_thread(wait_until, lambda: not [t for t in threading.enumerate() if t.name == "plugin Writes"])


class AlwaysFails(Plugin):
    calls = 0

    def on_event(self, event: Event) -> None:
        self.calls += 1
        raise RuntimeError(f"event {self.calls}")


async def test_an_on_event_that_always_fails_neither_slows_a_deploy_nor_fills_the_report(
    project: ProjectFolder,
) -> None:
    project.write({f"s{number}": sleeper() for number in range(20)})
    plugin, began = AlwaysFails(), time.monotonic()
    report = await engine(project, [plugin]).deploy()
    assert report.success and time.monotonic() - began < 10
    assert plugin.calls < 20  # it goes on until the engine hears of the fifth failure
    told = "E018 CIRCUIT_OPEN: plugin AlwaysFails.on_event"
    assert sum(told in each for each in report.warnings) == 1
    assert len([each for each in report.warnings if "AlwaysFails" in each]) == 6, report.warnings


async def test_a_plugin_that_keeps_hanging_is_soon_left_alone(project: ProjectFolder) -> None:
    class Hangs(Plugin):
        timeout_seconds = 0.5
        calls = 0

        def before_service_rollout(self, service: str, revision: int) -> None:
            self.calls += 1
            time.sleep(3)

    services = {f"s{number}": sleeper() for number in range(12)}
    project.write(services, deployment={"strategy": "Sequential", "circuit_breaker": {"failures": 2}})
    plugin = Hangs()
    report = await engine(project, [plugin]).deploy()
    assert report.success and plugin.calls == 2
    told = [each for each in report.warnings if "E018 CIRCUIT_OPEN: plugin Hangs" in each]
    assert len(told) == 1 and "time-out" in told[0], report.warnings


async def test_a_plugin_is_tried_again_when_its_circuit_has_cooled_down(project: ProjectFolder) -> None:
    class Recovers(Plugin):
        calls: list[str]

        def __init__(self) -> None:
            self.calls = []

        def before_service_rollout(self, service: str, revision: int) -> None:
            self.calls.append(service)
            if len(self.calls) == 1:
                raise RuntimeError("not yet")

    limits = {"failures": 1, "cooldown_seconds": 0.2}
    services = {name: sleeper(min_ready_seconds=0.15) for name in "abcdef"}
    project.write(services, deployment={"strategy": "Sequential", "circuit_breaker": limits})
    plugin = Recovers()
    assert (await engine(project, [plugin]).deploy()).success
    assert plugin.calls[0] == "a" and "b" not in plugin.calls and len(plugin.calls) >= 3


async def test_a_plugin_that_deploys_the_same_project_is_refused_at_once(project: ProjectFolder) -> None:
    class Again(Plugin):
        error: Exception | None = None

        async def on_deployment_start(self, services: Sequence[str]) -> None:
            try:
                await engine(project).deploy()
            except LockedError as exc:
                self.error = exc

    project.write({"a": sleeper()})
    plugin = Again()
    assert (await engine(project, [plugin]).deploy()).success
    assert plugin.error is not None and "E011" in str(plugin.error)


async def test_plugins_added_in_code_run_in_the_loop_of_who_added_them(project: ProjectFolder) -> None:
    class Shares(Plugin):
        loops: set[Any] = set()  # noqa: RUF012

        async def on_deployment_start(self, services: Sequence[str]) -> None:
            self.loops.add(asyncio.get_running_loop())

        async def on_event(self, event: Event) -> None:
            self.loops.add(asyncio.get_running_loop())

    project.write({"a": sleeper()})
    plugin = Shares()
    assert (await engine(project, [plugin]).deploy()).success
    assert plugin.loops == {asyncio.get_running_loop()}


async def test_one_plugin_that_fails_takes_nothing_from_another(project: ProjectFolder, heard: Path) -> None:
    names = beside(project, LISTENER + BAD, "Raises", "Writes", "Hangs")
    project.write({"a": sleeper()}, plugins=names)
    report = await engine(project).deploy()
    assert report.success
    assert lines(heard) == ["start a", "before a 1", "after a 1", "complete True"]


async def test_a_plugin_that_cannot_be_used_is_told_by_a_plan_too_and_changes_nothing(project: ProjectFolder) -> None:
    project.write(
        {"a": sleeper()}, plugins=beside(project, "class Broken(Plugin): ...\nraise OSError(5, 'no')\n", "Broken")
    )
    for call in (engine(project).plan(), engine(project).deploy(), engine(project, dry_run=True).deploy()):
        with pytest.raises(ConfigError, match=r"mine.py:Broken.*plugins\[0\] of deploy-code.yaml"):
            await call
    assert not project.state.exists()


async def test_a_plugin_that_cannot_be_constructed_stops_a_deploy_and_no_dry_run(project: ProjectFolder) -> None:
    text = "class Broken(Plugin):\n    def __init__(self): raise OSError(5, 'no')\n"
    project.write({"a": sleeper()}, plugins=beside(project, text, "Broken"))
    assert (await engine(project, dry_run=True).deploy()).success
    with pytest.raises(ConfigError, match="cannot be constructed"):
        await engine(project).deploy()
    assert not project.state.exists()


async def test_a_type_that_nobody_registered_is_refused_with_those_that_are(project: ProjectFolder) -> None:
    text = "from deploy_code.services.handler import Service\nclass Known(Service): ...\n"
    services = {"a": sleeper(service_type="unheard-of"), "b": {"service_type": "Known"}}
    project.write(services, plugins=beside(project, text, "Known"))
    with pytest.raises(PreflightError) as caught:
        await engine(project).plan()
    said = 'nothing is registered for service_type "unheard-of" (registered: Known)'
    assert caught.value.code == "E014" and said in str(caught.value) and len(caught.value.problems) == 1


def test_the_exception_says_why() -> None:
    assert AbortDeployment("no").reason == "no" and AbortDeployment().reason == "no reason given"
