"""Circuit breakers as users meet them: what keeps failing is left alone, that is said, and probes never are."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from deploy_code import DeployCode
from deploy_code.errors import CircuitOpenError
from deploy_code.model import Breaker
from deploy_code.reliability.registry import Breakers
from support.custom import hosts
from support.extensions import extension
from support.project import ProjectFolder
from support.scenarios import sleeper, states, until


async def test_of_fifty_callers_at_once_one_tries_and_the_others_hear_what_is_closed_and_until_when() -> None:
    breakers = Breakers(Breaker(failures=2, window_seconds=60, cooldown_seconds=0.2))
    entered: list[int] = []
    mended = asyncio.Event()

    async def post(number: int) -> str:
        try:
            async with breakers.of("the chat webhook"):
                entered.append(number)
                if not mended.is_set():
                    raise ConnectionError("refused")
                await asyncio.sleep(0.05)
                return "posted"
        except CircuitOpenError as error:
            return str(error)
        except ConnectionError:
            return "failed"

    assert [await post(0), await post(1)] == ["failed", "failed"]
    told = await post(2)
    assert told.startswith("E018 CIRCUIT_OPEN: the chat webhook") and "refused" in told and "next try" in told
    async with asyncio.timeout(5):
        while breakers.of("the chat webhook").state == "open":
            await asyncio.sleep(0.01)
    mended.set()
    entered.clear()
    answers = await asyncio.gather(*map(post, range(50)))
    assert len(entered) == 1 and answers.count("posted") == 1
    assert sum(each.startswith("E018") for each in answers) == 49
    assert await asyncio.gather(*map(post, range(50))) == ["posted"] * 50


def dying(**options: Any) -> dict[str, Any]:
    check = {"interval_seconds": 0.05, "timeout_seconds": 2}
    return {"service_type": "Dying", "health_check": check, "stop_timeout_seconds": 1} | options


def test_a_program_of_a_service_type_that_keeps_dying_is_left_alone_and_everybody_can_see_it(
    project: ProjectFolder,
) -> None:
    text = """
class Dying(Service):
    def start(self):
        return {"a": "b"}

    def stop(self):
        pass

    def health_check(self):
        if os.path.exists(os.path.join(HERE, "deadly")):
            os._exit(9)
        return ServiceStatus.RUNNING
"""
    extension(project, text)
    project.write(
        {"ill": dying(), "well": sleeper()},
        plugins=["./ours.py:Dying"],
        deployment={"circuit_breaker": {"failures": 2, "cooldown_seconds": 400}},
    )
    project.cli("deploy").ok()
    (project.folder / "deadly").touch()
    until(lambda: project.status()["circuits"], "the circuit to open", 30)
    [circuit] = project.status()["circuits"]
    assert circuit["state"] == "open"
    assert 300 < circuit["retry_at"] - time.time() <= 400, "as the file says"
    assert "Dying" in circuit["protects"] and f"{project.folder}/ours.py:Dying" in circuit["protects"]
    assert "Dying" in project.cli("status").ok().stdout
    assert "CircuitOpened" in [each["name"] for each in project.cli("events", "--format", "json").ok().json()]
    assert DeployCode(project.config).get_metrics()["circuits"] == [circuit]
    assert hosts(project.folder) == [], "it is not started again and again"
    assert states(project)["well"] == "running"
    (project.folder / "deadly").unlink()
    project.cli("restart", "--services", "ill").ok()
    until(lambda: states(project) == {"ill": "running", "well": "running"}, "a person's wish to be tried at once")


def test_a_probe_is_made_however_often_it_has_failed(project: ProjectFolder) -> None:
    probes, sick = project.folder / "probes", project.folder / "sick"

    def made() -> int:
        return len(probes.read_bytes())

    probe = ["sh", "-c", f"printf . >> {probes}; test ! -e {sick}"]
    check = {"command": probe, "interval_seconds": 0.05, "timeout_seconds": 2, "retries": 10_000}
    breaker = {"failures": 2, "cooldown_seconds": 600}
    services = {"app": sleeper(health_check=check)}
    project.write(services, deployment={"timeout_seconds": 20, "circuit_breaker": breaker})
    project.cli("deploy").ok()
    sick.touch()
    failed = made() + 30
    until(lambda: made() > failed, "thirty that failed")
    sick.unlink()
    answered = made() + 2
    until(lambda: made() > answered, "some more")
    assert project.status()["circuits"] == []
    assert project.status()["services"]["app"]["health"] == "healthy"


def test_the_thresholds_are_in_the_file_and_nonsense_is_refused(project: ProjectFolder) -> None:
    for wrong in ({"failures": 0}, {"cooldown_seconds": -1}, {"window_seconds": "long"}, {"tries": 3}):
        project.write({"app": sleeper()}, deployment={"circuit_breaker": wrong})
        [key] = wrong
        said = project.cli("validate").exits(2).output
        assert f"deployment.circuit_breaker.{key}" in said, said
