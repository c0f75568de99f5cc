"""What the engine may count on holds of this machine's agent and of the fake one alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from deploy_code.model import Content, HealthCheck, Policy, Wanted
from deploy_code.testing import FakePlatform, Start
from deploy_code.testing.contracts import PlatformContract, PlatformStage
from support.agents import House, shell

NEVER = HealthCheck(command=("false",), interval_seconds=0.2, timeout_seconds=1.0, retries=1000)
PROGRAMS = {"ready": "exec sleep 1000", "exits": "exit 3", "hangs": "exec sleep 1000"}


class TestLocalPlatform(PlatformContract):
    @asynccontextmanager
    async def stage(self, folder: Path) -> AsyncIterator[PlatformStage]:
        house = House(folder)

        def begin() -> int:
            if begun:
                house.end()
                house.deployment = house.begin()
            begun.append(house.deployment)
            return house.deployment

        def wanted(program: str, revision: int) -> Wanted:
            content = shell(PROGRAMS[program], env={"REVISION": str(revision)})
            policy = {"health": NEVER} if program == "hangs" else {"min_ready_seconds": 0.05}
            return house.wanted("api", content, revision=revision, **policy)

        begun: list[int] = []
        try:
            yield PlatformStage(platform=house.platform, begin=begin, wanted=wanted)
        finally:
            await house.close()


class TestFakePlatform(PlatformContract):
    @asynccontextmanager
    async def stage(self, folder: Path) -> AsyncIterator[PlatformStage]:
        numbers, fake = count(1), FakePlatform()
        starts = {"ready": Start.ready(), "exits": Start.exits(3), "hangs": Start.hangs()}

        def wanted(program: str, revision: int) -> Wanted:
            fake.will("api", starts[program])
            return Wanted(
                service="api", revision=revision, replicas=1, content=Content(command=program), policy=Policy()
            )

        yield PlatformStage(platform=fake, begin=lambda: next(numbers), wanted=wanted)
