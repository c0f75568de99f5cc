"""Compares every instance with its revision, and finds what runs for this project without being an instance.

Only looks; the one thing that is ever done here is to end what belongs to nobody, when a deployment asks for it. In
doubt nothing is said: what cannot be compared is told apart from what differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator

from deploy_code.drivers.base import ComparingDriver, Running
from deploy_code.drivers.process import ProcessDriver
from deploy_code.errors import DeployCodeError, DriverError
from deploy_code.model import Drift, Drifts, Phase

from .instance import Supervisor
from .journal import label
from .keeper import Keeper

CLEAR_SECONDS = 10.0  # what is none of ours to keep gets so long to end by itself
_AT_ONCE = 16  # instances that are compared side by side: a container costs a call
_COMPARED = (Phase.STARTING, Phase.READY, Phase.UNREADY)
_MISSING = (Phase.EXITED, Phase.FAILED)


class DriftFinder:
    """Over all that ``keeper`` keeps; ``state`` is the project's folder."""

    def __init__(self, keeper: Keeper, state: str) -> None:
        self._keeper = keeper
        self._state = state

    async def look(self) -> Drifts:
        """All drift, as of now."""
        found, unseen = list[Drift](), list[str]()
        slots = asyncio.Semaphore(_AT_ONCE)

        async def compare(supervisor: Supervisor) -> None:
            async with slots:
                try:
                    found.extend([each async for each in self._compare(supervisor)])
                except DeployCodeError as exc:
                    unseen.append(f"{label(supervisor.instance)} could not be compared: {exc}")

        kept = [each for each in self._keeper.supervisors() if not each.retiring and not _is_one_shot(each)]
        async with asyncio.TaskGroup() as group:
            for supervisor in kept:
                if isinstance(self._driver(supervisor), ComparingDriver):
                    group.create_task(compare(supervisor), name=f"compare {label(supervisor.instance)}")
                else:
                    found.extend(_missing(supervisor))
        found.extend(await self._extra(unseen))
        return Drifts(found=tuple(sorted(found, key=_by_place)), unseen=tuple(sorted(unseen)))

    async def clear(self, uuids: Collection[str]) -> None:
        """End these, if they still are what ``look`` calls extra. Raises DriverError for what cannot be ended."""
        for driver in self._comparing():
            for stranger in await driver.strangers(self._state, self._known):
                if stranger.uuid in uuids:
                    self._keeper.journal.add("ExtraRemoved", stranger.service, f"ended: it belonged to no instance ({stranger.uuid})")
                    await driver.remove(stranger, CLEAR_SECONDS)
