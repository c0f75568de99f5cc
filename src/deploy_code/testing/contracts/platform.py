"""What every platform promises the engine: wishes are recorded, states come back, nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from deploy_code.errors import StalePlanError
from deploy_code.model import Gate, Instance, Phase, Wanted
from deploy_code.platforms.base import Platform
from deploy_code.testing.contracts.loops import on_both_loops

SOON_SECONDS = 15.0
ANSWER_SECONDS = 5.0
DEAD = (Phase.EXITED, Phase.FAILED, Phase.BACKOFF)

Seen = tuple[Instance, ...]


@dataclass(slots=True, kw_only=True)
class PlatformStage:
    """A platform, and how to want something of it.

    ``begin()``: the number of a new deployment that is now in progress, the one before is over. ``wanted(program,
    revision)``: one instance of ``api`` at that revision, for three programs: ``ready`` comes up and stays, ``exits``
    ends at once with code 3, ``hangs`` runs and never gets ready.
    """

    platform: Platform
    begin: Callable[[], int]
    wanted: Callable[[str, int], Wanted]
    deployment: int = field(init=False)

    def __post_init__(self) -> None:
        self.deployment = self.begin()

    async def want(self, program: str = "ready", replicas: int = 1, *, revision: int = 1, **options: Any) -> None:
        wish = replace(self.wanted(program, revision), replicas=replicas)
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.platform.want(self.deployment, [wish], **options)

    async def until(self, condition: Callable[[Seen], object], what: str) -> Seen:
        """The instances of ``api`` once they are so; waits with ``changed`` as the engine does."""
        try:
            async with asyncio.timeout(SOON_SECONDS):
                while not condition(found := self.platform.instances("api")):
                    await self.platform.changed("api")
        except TimeoutError:
            seen = self.platform.instances("api")
            raise AssertionError(f"{what}: not seen within {SOON_SECONDS:g} s, but {_short(seen)}") from None
        return found

    async def ready(self, count: int = 1, *, revision: int = 1) -> Seen:
        found = await self.until(
            lambda seen: len(_ready(seen, revision)) == count, f"{count} ready instances of revision {revision}"
        )
        return _ready(found, revision)

    async def gone(self) -> None:
        await self.until(lambda seen: not seen, "no instance left")


class PlatformContract:
    """Subclass it, and supply ``stage``: an async context manager over a ``PlatformStage`` in a folder."""

    def stage(self, folder: Path) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not override stage()")

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[PlatformStage]:
        async with self.stage(folder) as it:
            await it.platform.open()
            try:
                yield it
            finally:
                await it.platform.close()

    # ----------------------------------------------------------------------------------------------------- what is seen

    @on_both_loops
    async def test_what_is_wanted_gets_ready_and_says_since_when(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want()
            (instance,) = await it.ready()
            assert (instance.service, instance.revision, instance.index) == ("api", 1, 0)
            assert instance.gate is Gate.OPEN, "a ready instance has passed its gate"
            assert instance.ready_at > 0, "it says since when it is ready: phase health counts from there"
            assert instance.started_at > 0
            assert await it.platform.observe() == (instance,), "observe() and instances() say the same"

    @on_both_loops
    async def test_of_a_service_that_nobody_wanted_nothing_is_seen(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            assert await it.platform.observe() == ()
            assert it.platform.instances("never") == ()

    @on_both_loops
    async def test_what_dies_before_it_is_ready_is_said_with_its_code(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want("exits")
            (instance,) = await it.until(lambda seen: seen and seen[0].phase in DEAD, "an instance that has ended")
            assert instance.exit is not None and instance.exit.code == 3, f"it ended with 3, seen {instance.exit}"
            assert instance.gate is not Gate.OPEN, "it was never proven ready"

    @on_both_loops
    async def test_what_hangs_is_not_called_ready(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want("hangs")
            (instance,) = await it.until(lambda seen: seen, "an instance")
            assert instance.phase is Phase.STARTING and instance.ready_at == 0, _short((instance,))

    @on_both_loops
    async def test_inspect_says_what_a_failure_report_shows(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want()
            (instance,) = await it.ready()
            found = await it.platform.inspect(instance)
            missing = {"pids", "listening", "cpu_percent", "memory_bytes"} - found.keys()
            assert not missing, f"inspect() does not tell {sorted(missing)}"

    @on_both_loops
    async def test_what_runs_as_its_revision_says_has_not_drifted(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            assert (await it.platform.drift()).found == (), "nothing is there that could differ"
            await it.want(replicas=2)
            before = await it.ready(2)
            assert (await it.platform.drift()).found == (), "it runs as it was wanted"
            await it.platform.clear(["nobody", before[0].uuid])
            seen = await it.platform.observe()
            assert {each.uuid for each in seen} == {each.uuid for each in before}, "clear() ends no instance"

    @on_both_loops
    async def test_what_is_wanted_and_has_ended_is_missing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want("exits")
            (instance,) = await it.until(lambda seen: seen and seen[0].phase in DEAD, "an instance that has ended")
            found = (await it.platform.drift()).found
            assert len(found) == 1, f"what is wanted and has ended is missing, and drift() finds {found}"
            (drift,) = found
            assert (drift.kind, drift.service, drift.revision, drift.index) == ("missing", "api", 1, 0)
            assert drift.instance == instance.uuid and "exit code 3" in drift.text

    # ----------------------------------------------------------------------------------------------- what is made of it

    @on_both_loops
    async def test_the_same_message_twice_is_the_same_as_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want()
            first = await it.ready()
            await it.want()
            again = it.platform.instances("api")
            assert [each.uuid for each in again] == [each.uuid for each in first], "no second instance, no restart"

    @on_both_loops
    async def test_a_number_is_reached_from_below_and_from_above(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want(replicas=1)
            (first,) = await it.ready(1)
            await it.want(replicas=3)
            three = await it.ready(3)
            assert sorted(each.index for each in three) == [0, 1, 2], "indices are 0, 1, 2 …, each once"
            assert first.uuid in {each.uuid for each in three}, "what was ready stays"
            await it.want(replicas=1)
            (left,) = await it.until(lambda seen: len(seen) == 1, "one instance")
            assert left.uuid == first.uuid, "the highest indices go first"

    @on_both_loops
    async def test_none_wanted_is_none_left(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want(replicas=2)
            await it.ready(2)
            await it.want(replicas=0)
            await it.gone()
            assert await it.platform.observe() == ()

    @on_both_loops
    async def test_taking_away_what_is_not_there_is_no_error(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want(replicas=0, revision=1)
            assert it.platform.instances("api") == ()

    @on_both_loops
    async def test_two_revisions_live_side_by_side(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want(revision=1)
            (old,) = await it.ready(revision=1)
            await it.want(revision=2)
            (new,) = await it.ready(revision=2)
            assert old.uuid != new.uuid
            assert _ready(it.platform.instances("api"), 1) == (old,), "the old one is untouched while the new one comes"
            await it.want(revision=1, replicas=0)
            await it.until(lambda seen: [each.uuid for each in seen] == [new.uuid], "only the new one")

    @on_both_loops
    async def test_what_died_is_started_anew_for_the_next_deployment(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want("exits")
            (dead,) = await it.until(lambda seen: seen and seen[0].phase in DEAD, "an instance that has ended")
            it.deployment = it.begin()
            await it.want("exits")
            await it.until(
                lambda seen: seen and seen[0].phase in DEAD and seen[0].started_at > dead.started_at, "another try"
            )

    # ------------------------------------------------------------------------------------------------- who may say what

    @on_both_loops
    async def test_a_message_of_an_older_deployment_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want()
            await it.ready()
            old, it.deployment = it.deployment, it.begin()
            await it.want()
            with pytest.raises(StalePlanError) as caught:
                await it.platform.want(old, [replace(it.wanted("ready", 1), replicas=0)])
            assert caught.value.code == "E012"
            assert len(await it.ready()) == 1, "a refused message changes nothing"

    @on_both_loops
    async def test_a_deployment_can_be_settled_and_settled_again(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.want()
            await it.ready()
            await it.platform.settle(it.deployment)
            await it.platform.settle(it.deployment)
            assert len(await it.ready()) == 1

    # ------------------------------------------------------------------------------------------------------ waiting

    @on_both_loops
    async def test_cancelling_a_wait_harms_neither_others_nor_the_instance(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            gives_up = asyncio.create_task(it.platform.changed("api"))
            stays = asyncio.create_task(it.platform.changed("api"))
            await asyncio.sleep(0)
            gives_up.cancel()
            await asyncio.wait([gives_up])
            await it.want()
            async with asyncio.timeout(SOON_SECONDS):
                await stays
            await it.ready()

    @on_both_loops
    async def test_opening_twice_is_the_same_as_once_and_closing_stops_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as it:
            await it.platform.open()
            await it.want()
            (instance,) = await it.ready()
            await it.platform.close()
            await it.platform.open()
            found = await it.platform.observe()
            assert [each.uuid for each in found] == [instance.uuid], "close() lets go of the connection only"


def _ready(seen: Seen, revision: int) -> Seen:
    return tuple(each for each in seen if each.revision == revision and each.phase is Phase.READY)


def _short(seen: Seen) -> str:
    listed = ", ".join(f"{each.service} r{each.revision} #{each.index} {each.phase}" for each in seen)
    return listed or "no instance at all"
