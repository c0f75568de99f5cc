"""The suites themselves: an extension that breaks a promise is caught, by a message that names what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from deploy_code.drivers.base import Driver, Running, StartOrder
from deploy_code.model import Content, Drift, Drifts, Exit, Instance, Phase, Policy, Wanted
from deploy_code.orchestrator import DeploymentReport, DeploymentStrategy
from deploy_code.plan.diff import Change
from deploy_code.plan.plan import Step, WaitReady, Want
from deploy_code.plan.rollouts.recreate import recreate
from deploy_code.plugins import AbortDeployment, Plugin
from deploy_code.services.handler import Service
from deploy_code.services.status import ServiceStatus
from deploy_code.testing import FakeDriver, FakeMachine, FakePlatform, Start
from deploy_code.testing.contracts import (
    DriverContract,
    PlatformContract,
    PlatformStage,
    PluginContract,
    RolloutContract,
    ServiceContract,
    StrategyContract,
)


def caught(suite: object, test: str, match: str, **fixtures: Any) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=match):
        getattr(suite, test)(**fixtures)


# --------------------------------------------------------------------------------------------------------- services


class Sound(Service):
    """Keeps every promise; the broken ones below differ from it in one thing each. A folder that is there is up."""

    def start(self) -> Any:
        self._folder.mkdir(exist_ok=True)
        return {"folder": str(self._folder)}

    def stop(self) -> Any:
        if "folder" in self.memory and Path(self.memory["folder"]).is_dir():
            Path(self.memory["folder"]).rmdir()

    def health_check(self) -> Any:
        there = Path(self.memory.get("folder", "/no")).is_dir()
        return ServiceStatus.RUNNING if there else ServiceStatus.STOPPED

    @property
    def _folder(self) -> Path:
        return Path(self.config.working_dir) / f"up-{self.config.index}"


class Forgetful(Sound):
    def start(self) -> Any:
        self._up = super().start()

    def health_check(self) -> Any:
        return ServiceStatus.RUNNING if hasattr(self, "_up") else ServiceStatus.UNKNOWN


class Numbers(Sound):
    def start(self) -> Any:
        return {**super().start(), "pid": 17}


class Hoarder(Sound):
    def start(self) -> Any:
        return {**super().start(), "log": "x" * 20_000}


class Touchy(Sound):
    def stop(self) -> Any:
        Path(self.memory["folder"]).rmdir()


class Optimist(Sound):
    def health_check(self) -> Any:
        return ServiceStatus.RUNNING


class Selfish(Sound):
    def start(self) -> Any:
        super().start()
        return {"folder": str(self._folder), "all": self.config.working_dir}

    def stop(self) -> Any:
        for each in Path(self.memory.get("all", "/no/such")).glob("up-*"):
            each.rmdir()


class Sleeper(Sound):
    async def start(self) -> Any:
        time.sleep(1.2)
        return super().start()


class Endless(Sound):
    async def start(self) -> Any:
        await asyncio.sleep(1000)


class Babbler(Sound):
    def health_check(self) -> Any:
        return "banana"


class Dying(Sound):
    def health_check(self) -> Any:
        return ServiceStatus.FAILED


STARTED = "test_started_it_is_running_in_time"
BROKEN_SERVICES = [
    (Forgetful, "test_an_object_made_anew_sees_it_running", "must give back all it takes"),
    (Numbers, STARTED, "'pid': 17, which is not text"),
    (Hoarder, STARTED, "bytes to remember, and the limit is"),
    (Touchy, "test_stopping_twice_is_no_error", r"stop\(\) raised FileNotFoundError"),
    (Touchy, "test_stopping_what_never_started_is_no_error", r"stop\(\) raised KeyError"),
    (Optimist, "test_stopped_it_is_not_running", "it was stopped, and health_check"),
    (Optimist, "test_what_never_started_is_not_running", "was never started"),
    (Selfish, "test_two_instances_do_not_get_into_each_other_s_way", "instance 0 was stopped, and instance 1 is"),
    (Sleeper, STARTED, "kept the event loop from running for 1"),
    (Endless, STARTED, r"start\(\) did not end within 1.5 s"),
    (Babbler, STARTED, "'banana', which is no ServiceStatus"),
    (Dying, STARTED, "says that it has ended: failed"),
]


@pytest.mark.parametrize(("kind", "test", "match"), BROKEN_SERVICES)
def test_a_service_type_that_breaks_a_promise_is_caught(
    kind: type[Service], test: str, match: str, tmp_path: Path
) -> None:
    caught(_suite_of(kind), test, match, tmp_path=tmp_path)


def _suite_of(kind: type[Service]) -> ServiceContract:
    class Suite(ServiceContract):
        service = kind
        ready_seconds = 0.5
        bound_seconds = 0.5

    return Suite()


@pytest.mark.parametrize("test", [name for name in dir(ServiceContract) if name.startswith("test_")])
def test_the_sound_one_that_they_differ_from_passes(test: str, tmp_path: Path) -> None:
    getattr(_suite_of(Sound), test)(tmp_path=tmp_path)


# --------------------------------------------------------------------------------------------------------- rollouts


def ungated(change: Change) -> Iterator[Step]:
    yield from (step for step in recreate(change) if isinstance(step, Want))


def littering(change: Change) -> Iterator[Step]:
    """Starts the new one, and lets the old one run on."""
    assert change.new is not None
    revision, replicas = change.new.revision, change.new.replicas
    yield Want(id="start", service=change.service, revision=revision, replicas=replicas)
    yield WaitReady(id="ready", service=change.service, revision=revision, replicas=replicas)


def halfhearted(change: Change) -> Iterator[Step]:
    for step in recreate(change):
        yield (
            Want(id=step.id, service=step.service, after=step.after, revision=step.revision, replicas=1)
            if (isinstance(step, Want) and step.replicas)
            else step
        )


def moody(change: Change, _calls: Iterator[int] = count()) -> Iterator[Step]:  # noqa: B008 - shared on purpose
    number = next(_calls)
    for step in recreate(change):
        assert isinstance(step, Want | WaitReady)
        yield type(step)(
            id=f"{step.id}-{number}",
            service=step.service,
            after=tuple(f"{each}-{number}" for each in step.after),
            revision=step.revision,
            replicas=step.replicas,
        )


def foreign(change: Change) -> Iterator[Step]:
    yield from recreate(change)
    yield Want(id="other", service="somebody-else", revision=1, replicas=0)


def unheard(change: Change) -> Iterator[Step]:
    yield Want(id="unheard", service=change.service, revision=99, replicas=1)
    yield from recreate(change)


def hasty(change: Change) -> Iterator[Step]:
    raise ZeroDivisionError("0 replicas")


TAKEN = "test_the_planner_takes_it"
BROKEN_ROLLOUTS = [
    (ungated, TAKEN, "it does not wait until all"),
    (littering, TAKEN, "it leaves r1 behind|which has to go|does not stop it first"),
    (halfhearted, TAKEN, "it ends with 1 of"),
    (moody, "test_the_same_change_gives_the_same_steps", "a rollout is pure"),
    (foreign, TAKEN, "is about another service"),
    (unheard, TAKEN, "about revision 99"),
    (hasty, TAKEN, "it raised ZeroDivisionError"),
]


@pytest.mark.parametrize(("function", "test", "match"), BROKEN_ROLLOUTS)
def test_a_rollout_that_breaks_a_promise_is_caught(
    function: Callable[[Change], Iterator[Step]], test: str, match: str
) -> None:
    class Suite(RolloutContract):
        rollout = staticmethod(function)

    caught(Suite(), test, match)


# ---------------------------------------------------------------------------------------------------------- plugins


class Hanging(Plugin):
    timeout_seconds = 0.2

    async def on_deployment_start(self, services: Sequence[str]) -> None:
        await asyncio.sleep(1000)


class Raising(Plugin):
    def on_failure(self, report: Any) -> None:
        raise ConnectionError("the chat is down")


class Meddling(Plugin):
    def on_deployment_complete(self, report: Any) -> None:
        report.errors.clear()


class Imperious(Plugin):
    def after_service_rollout(self, service: str, revision: int) -> None:
        raise AbortDeployment("too late")


class Stubborn(Plugin):
    def before_service_rollout(self, service: str, revision: int) -> None:
        raise AbortDeployment("never on a Friday")


class NoPlugin:
    timeout_seconds = 1.0


HOOK = "test_each_hook_ends_in_time_and_raises_nothing_but_a_refusal"
BROKEN_PLUGINS = [
    (Hanging, HOOK, r"on_deployment_start\(list\) did not end within 0.2 s", "on_deployment_start"),
    (Raising, HOOK, "raised ConnectionError", "on_failure"),
    (Meddling, HOOK, "changed what it was given", "on_deployment_complete"),
    (Imperious, HOOK, "only a before_ hook may", "after_service_rollout"),
    (Stubborn, "test_a_deployment_goes_well_with_it_and_again", "never on a Friday.*set `config`", ""),
    (NoPlugin, "test_it_is_a_plugin", "derive NoPlugin from", ""),
]


@pytest.mark.parametrize(("kind", "test", "match", "hook"), BROKEN_PLUGINS)
def test_a_plugin_that_breaks_a_promise_is_caught(kind: type[Plugin], test: str, match: str, hook: str) -> None:
    class Suite(PluginContract):
        def make_plugin(self) -> Plugin:
            return kind()

    caught(Suite(), test, f"(?s){match}", **({"hook": hook} if hook else {}))


def test_what_must_be_true_after_a_deployment_is_the_author_s_to_say() -> None:
    class Suite(PluginContract):
        def make_plugin(self) -> Plugin:
            return Plugin()

        def settled(self, plugin: Plugin, report: DeploymentReport) -> None:
            raise AssertionError(f"no message about {report.deployed_services} services has arrived")

    caught(Suite(), "test_a_deployment_goes_well_with_it_and_again", "no message about 2 services")


# ------------------------------------------------------------------------------------------------------- strategies


class Halfway(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services[:-1])
        return DeploymentReport.succeeded()


class Silent(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> Any:
        await self.deploy_services(services)


class Dawdling(DeploymentStrategy):
    async def deploy(self, services: list[str]) -> DeploymentReport:
        await self.deploy_services(services)
        await asyncio.sleep(1000)
        return DeploymentReport.succeeded()


class Demanding(DeploymentStrategy):
    def __init__(self, percentage: float) -> None:
        self._percentage = percentage


DEPLOYED = "test_it_deploys_all_services"
BROKEN_STRATEGIES = [
    (Halfway, DEPLOYED, "the deployment failed.*web"),
    (Silent, DEPLOYED, "gave back NoneType, not a DeploymentReport"),
    (Dawdling, DEPLOYED, "the deployment did not end within 1 s"),
    (Demanding, DEPLOYED, "cannot be constructed.*percentage"),
]


@pytest.mark.parametrize(("kind", "test", "match"), BROKEN_STRATEGIES)
def test_a_strategy_that_breaks_a_promise_is_caught(kind: type[DeploymentStrategy], test: str, match: str) -> None:
    class Suite(StrategyContract):
        strategy = kind
        bound_seconds = 1.0

    caught(Suite(), test, f"(?s){match}")


# ---------------------------------------------------------------------------------------------- drivers, platforms


class Amnesiac(FakeDriver):
    """Knows only what it has started itself."""

    def __init__(self, machine: FakeMachine) -> None:
        super().__init__(machine)
        self._mine: set[str] = set()

    async def start(self, order: StartOrder) -> Running:
        self._mine.add(order.uuid)
        return await super().start(order)

    async def find(self, running: Running) -> bool:
        return running.uuid in self._mine and await super().find(running)


class Rounding(FakeDriver):
    async def wait(self, running: Running) -> Exit:
        exit_ = await super().wait(running)
        return Exit(at=exit_.at, code=min(exit_.code or 0, 1))


class Killer(FakeDriver):
    def close(self) -> None:
        for uuid in self.machine.alive():
            self.machine.end(uuid, signal=9)


class Gentleman(FakeDriver):
    async def stop(self, running: Running, signal: str, timeout: float) -> bool:
        await super().stop(running, signal, timeout)
        return True


class Careless(FakeDriver):
    async def sweep(self, running: Running) -> int:
        if await self.find(running):
            self.machine.end(running.uuid, signal=9)
        return 0


BROKEN_DRIVERS = [
    (Amnesiac, "test_the_next_agent_finds_it_and_can_wait_for_and_stop_it", "a new driver finds"),
    (Rounding, "test_the_exit_code_is_exact", "ended with code 3"),
    (Killer, "test_closing_a_driver_stops_nothing", "leaves everything running"),
    (Gentleman, "test_a_gentle_stop_is_told_from_a_kill", "it had to be killed"),
    (Careless, "test_a_living_instance_is_not_swept", "DID NOT RAISE"),
]


@pytest.mark.parametrize(("kind", "test", "match"), BROKEN_DRIVERS)
def test_a_driver_that_breaks_a_promise_is_caught(
    kind: type[FakeDriver], test: str, match: str, tmp_path: Path
) -> None:
    machine = FakeMachine()

    class Suite(DriverContract):
        def make_driver(self) -> Driver:
            return kind(machine)

    caught(Suite(), test, match, tmp_path=tmp_path, loop_name="asyncio")


class Doubling(FakePlatform):
    """Starts another one for each message."""

    async def want(self, deployment: int, wanted: Sequence[Wanted], **options: Any) -> None:
        for each in wanted:
            self._forget(each)
        await FakePlatform.want(self, deployment, wanted, **options)

    def _forget(self, wanted: Wanted) -> None:
        for each in self.instances(wanted.service):
            self._found.pop(each.uuid)


class Rosy(FakePlatform):
    def instances(self, service: str) -> tuple[Instance, ...]:
        return tuple(each.but(phase=Phase.READY) for each in FakePlatform.instances(self, service))


class Obedient(FakePlatform):
    def _refuse_stale(self, deployment: int) -> None:
        return None


class Blind(FakePlatform):
    async def drift(self) -> Drifts:
        return Drifts()


class Alarmed(FakePlatform):
    async def drift(self) -> Drifts:
        return Drifts(found=tuple(Drift.of(each, "env changed (FOO)") for each in self.all()))


class Ruthless(FakePlatform):
    """Ends whatever it is given."""

    async def clear(self, instances: Sequence[str]) -> None:
        for uuid in instances:
            self._found.pop(uuid, None)


BROKEN_PLATFORMS: list[tuple[type[FakePlatform], str, str]] = [
    (Doubling, "test_the_same_message_twice_is_the_same_as_once", "no second instance"),
    (Rosy, "test_what_hangs_is_not_called_ready", "ready"),
    (Blind, "test_what_is_wanted_and_has_ended_is_missing", "is missing"),
    (Alarmed, "test_what_runs_as_its_revision_says_has_not_drifted", "as it was wanted"),
    (Ruthless, "test_what_runs_as_its_revision_says_has_not_drifted", "clear.. ends no instance"),
    (Obedient, "test_a_message_of_an_older_deployment_is_refused_and_changes_nothing", "DID NOT RAISE"),
]


@pytest.mark.parametrize(("kind", "test", "match"), BROKEN_PLATFORMS)
def test_a_platform_that_breaks_a_promise_is_caught(
    kind: type[FakePlatform], test: str, match: str, tmp_path: Path
) -> None:
    starts: Mapping[str, Start] = {"ready": Start.ready(), "exits": Start.exits(3), "hangs": Start.hangs()}

    class Suite(PlatformContract):
        @asynccontextmanager
        async def stage(self, folder: Path) -> AsyncIterator[PlatformStage]:
            platform, numbers = kind(), count(1)

            def wanted(program: str, revision: int) -> Wanted:
                platform.will("api", starts[program])
                return Wanted(service="api", revision=revision, replicas=1, content=Content(), policy=Policy())

            yield PlatformStage(platform=platform, begin=lambda: next(numbers), wanted=wanted)

    caught(Suite(), test, match, tmp_path=tmp_path, loop_name="asyncio")
