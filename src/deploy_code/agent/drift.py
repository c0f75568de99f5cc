"""Compares every instance with its revision, and finds what runs for this project without being an instance.

Only looks; the one thing that is ever done here is to end what belongs to nobody, when a deployment asks for it. In
doubt nothing is called drift: what cannot be compared is told apart from what differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from deploy_code.drivers.base import ComparingDriver, Running, StartOrder
from deploy_code.drivers.made import said
from deploy_code.errors import DeployCodeError
from deploy_code.model import Drift, Drifts, Phase

from .instance import Supervisor
from .journal import label
from .keeper import Keeper

CLEAR_SECONDS = 10.0  # so long may what is nobody's take to end by itself
_AT_ONCE = 16  # comparisons side by side: that of a container is a call
_COMPARED = (Phase.STARTING, Phase.READY, Phase.UNREADY)
_MISSING = (Phase.EXITED, Phase.FAILED)


async def look(keeper: Keeper) -> Drifts:
    """All drift as of now. One-shots have none: they are done, or a deployment runs them."""
    found: list[Drift] = []
    unseen: list[str] = []
    slots = asyncio.Semaphore(_AT_ONCE)

    async def compare(supervisor: Supervisor) -> None:
        async with slots:
            try:
                found.extend(await _differences(keeper, supervisor))
            except DeployCodeError as exc:
                unseen.append(f"{label(supervisor.instance)} could not be compared: {exc}")

    async with asyncio.TaskGroup() as group:
        for supervisor in keeper.supervisors():
            content = supervisor.entry.wanted.content
            if supervisor.retiring or content.one_shot:
                continue
            if content.is_container:
                group.create_task(compare(supervisor), name=f"compare {label(supervisor.instance)}")
            else:
                await compare(supervisor)  # at once: nothing of it waits
    for driver, running in await _extra(keeper, unseen):
        found.append(_extra_drift(driver, running))
    return Drifts(found=tuple(sorted(found, key=_by_place)), unseen=tuple(sorted(unseen)))


async def clear(keeper: Keeper, uuids: Collection[str]) -> None:
    """End these, where they still are what ``look`` calls extra. Raises DriverError for what cannot be ended."""
    for driver, running in await _extra(keeper, []):
        if running.uuid in uuids:
            keeper.journal.happened("ExtraRemoved", f"{_extra_drift(driver, running)}; it is ended")
            await driver.stop(running, "SIGTERM", CLEAR_SECONDS)


# --------------------------------------------------------------------------- one instance


async def _differences(keeper: Keeper, supervisor: Supervisor) -> list[Drift]:
    instance = supervisor.instance
    if instance.phase in _MISSING and supervisor.running is None:
        return [Drift.of(instance, f"missing: {_why_missing(supervisor)}")]
    driver = keeper.drivers.of(supervisor.entry.wanted.content)
    running = supervisor.running
    if running is None or instance.phase not in _COMPARED or not isinstance(driver, ComparingDriver):
        return []
    words = await driver.differences(running, _order(keeper, supervisor))
    if supervisor.running is not running or supervisor.retiring:
        return []  # it ended meanwhile: whatever was seen of it says nothing
    return [Drift.of(instance, text) for text in words]


def _order(keeper: Keeper, supervisor: Supervisor) -> StartOrder:
    """What its revision says, in the shape that its driver compares with."""
    wanted, instance = supervisor.entry.wanted, supervisor.instance
    if wanted.content.is_container:
        return keeper.launcher.launch(wanted, instance, lenient=True).order
    return said(wanted.content, instance.uuid, instance.service)


def _why_missing(supervisor: Supervisor) -> str:
    instance = supervisor.instance
    ended = str(instance.exit) if instance.exit else ""
    note = instance.note if not ended or not instance.note.startswith(ended) else instance.note.removeprefix(ended)
    return "; ".join(part for part in (ended, note.strip("; ")) if part) or "it does not run"


# --------------------------------------------------------------------------- what belongs to nobody


async def _extra(keeper: Keeper, unseen: list[str]) -> list[tuple[ComparingDriver, Running]]:
    """What carries this project's marks and is no instance; what came or went while it was looked for is not in it."""
    before = _known(keeper)
    found: list[tuple[ComparingDriver, Running]] = []
    for driver in keeper.drivers:
        if isinstance(driver, ComparingDriver):
            try:
                found.extend((driver, running) for running in await driver.orphans(before))
            except DeployCodeError as exc:
                unseen.append(f"what runs on {driver.name} beside the instances could not be seen: {exc}")
    after = _known(keeper)
    return [(driver, running) for driver, running in found if running.uuid not in after]


def _known(keeper: Keeper) -> set[str]:
    return {instance.uuid for instance in keeper.instances()}


def _extra_drift(driver: ComparingDriver, running: Running) -> Drift:
    what = running.handler.get("name") or f"pid {running.pid}"
    kind = "processes" if driver.name == "process" else "a container"
    text = f"extra: {kind} of no instance ({what})"
    return Drift(service=running.handler.get("service", ""), kind="extra", text=text, instance=running.uuid)


def _by_place(drift: Drift) -> tuple[str, int, int, str]:
    return drift.service, drift.revision, drift.index or 0, drift.text
