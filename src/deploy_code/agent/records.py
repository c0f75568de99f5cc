"""What the agent remembers across its own death: the wanted set, its instances, the one-shots that ran, its events.

Each question and each change has one method. What must be on disk before something is done is awaited; what only
mirrors the world (``save``) is written a moment later, the last state of each instance once.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from deploy_code.codec import from_data, to_data
from deploy_code.errors import StalePlanError, StateError
from deploy_code.model import Breaker, Content, Exit, Instance, Policy, Wanted, run_hash
from deploy_code.reliability.circuit import Circuit, Reading
from deploy_code.state.connection import Connection
from deploy_code.state.sql import named
from deploy_code.wire import Want

from .writer import Refusal, Writer

SAVE_DELAY_SECONDS = 0.02
SOMETIME_SECONDS = 5.0  # what is in no hurry waits so long for others to share a commit with
RETRY_SECONDS = 1.0
EVENTS_KEPT = 10_000
_PRUNE_EVERY = 500

Pair = tuple[str, int]


class WantedRow(NamedTuple):
    wanted: Wanted
    deployment: int
    settled: bool
    port_range: tuple[int, int]
    start_timeout: float


class EventRow(NamedTuple):
    at: float
    deployment: int
    service: str
    name: str
    text: str


class Loaded(NamedTuple):
    """All that a new agent needs to take over."""

    wanted: list[WantedRow]
    instances: list[Instance]
    contents: dict[Pair, Content]  # of those instances that nobody wants any more


def statements() -> dict[str, str]:
    """The statements of queries.sql by name."""
    with open(os.path.join(os.path.dirname(__file__), "queries.sql"), encoding="utf-8") as file:
        return named(file.read())


class Records:
    """The agent's tables of one project. ``on_trouble`` hears of mirror writes that failed and will be tried again."""

    def __init__(self, connection: Connection, on_trouble: Callable[[StateError], None]) -> None:
        self._writer = Writer(connection)
        self._on_trouble = on_trouble
        self._rows: dict[str, Instance] = {}
        self._dirty: set[str] = set()
        self._events: list[EventRow] = []
        self._circuits: dict[str, Reading] = {}
        self._events_since_prune = 0
        self._flush: asyncio.Task[None] | None = None
        self._sometime: asyncio.TimerHandle | None = None

    # -- questions

    async def load(self) -> Loaded:
        loaded = await self._writer.submit(_load)
        self._rows = {instance.uuid: instance for instance in loaded.instances}
        return loaded

    async def running_deployment(self) -> int | None:
        """The number of the deployment that is recorded as in progress."""
        row = await self._writer.submit(lambda db: db.one("running_deployment"))
        return None if row is None else int(row[0])

    async def breaker(self) -> Breaker:
        """When circuits open, as the last deployment's file says."""
        row = await self._writer.submit(lambda db: db.one("last_settings"))
        settings = json.loads(row[0]) if row is not None else {}
        return from_data(Breaker, settings.get("breaker", {}))

    # -- the wanted set

    async def record_want(self, want: Want, fresh: Collection[Pair]) -> None:
        """Write ``want``, if its deployment is the one in progress. Raises StalePlanError (E012), StateError.

        ``fresh``: pairs that an older deployment wanted, or none: what ended there gets a new chance, and so that this
        holds even if the agent dies now, their ended rows go in the same transaction.
        """
        await self._writer.submit(lambda db: _record_want(db, want, fresh))

    async def settle(self, deployment: int) -> None:
        """Mark all that is wanted as settled. Raises StalePlanError when another deployment is in progress.

        What is still to be mirrored is written before: whoever reads the state after a deployment reads its end.
        """
        await self._write_mirror()
        await self._writer.submit(lambda db: _settle(db, deployment))

    # -- instances

    async def commit(self, instance: Instance) -> None:
        """Write the row of ``instance`` now: it is about to be spawned. Raises StateError."""
        self._note(instance)
        await self._writer.submit(lambda db: _put_instances(db, (instance,)))

    async def commit_or_save(self, instance: Instance) -> None:
        """Write the row of ``instance`` now if the disk lets us, else soon."""
        try:
            await self.commit(instance)
        except StateError as exc:
            self._on_trouble(exc)
            self.save(instance)

    async def begin_one_shot(self, instance: Instance, content: Content) -> bool:
        """Write the row and that it started, together; False when it has completed before and must not run again."""
        self._note(instance)
        key = instance.service, run_hash(content)
        return await self._writer.submit(lambda db: _begin_one_shot(db, instance, key))

    async def end_one_shot(self, service: str, content: Content, outcome: str, exit_: Exit | None) -> None:
        code = None if exit_ is None else exit_.code
        values = (outcome, code, time.time(), service, run_hash(content))
        await self._writer.submit(lambda db: db.run("end_one_shot", values))

    async def one_shot_outcome(self, service: str, content: Content) -> str:
        """started, completed, failed, unknown; empty: it never ran."""
        key = service, run_hash(content)
        row = await self._writer.submit(lambda db: db.one("one_shot", key))
        return "" if row is None else str(row[0])

    def save(self, instance: Instance) -> None:
        """Write the row of ``instance`` soon."""
        self._rows[instance.uuid] = instance
        self._dirty.add(instance.uuid)
        self._flush_soon()

    def save_sometime(self, instance: Instance) -> None:
        """Write the row of ``instance`` with the next that are written, or after some seconds."""
        self._rows[instance.uuid] = instance
        self._dirty.add(instance.uuid)
        if self._sometime is None:
            self._sometime = asyncio.get_running_loop().call_later(SOMETIME_SECONDS, self._flush_soon)

    async def remove(self, uuid: str) -> None:
        """Delete the row; when the disk refuses, later."""
        self._rows.pop(uuid, None)
        self._dirty.discard(uuid)
        try:
            await self._writer.submit(lambda db: db.run("drop_instance", (uuid,)))
        except StateError as exc:
            self._dirty.add(uuid)
            self._on_trouble(exc)
            self._flush_soon()

    def add_event(self, event: EventRow) -> None:
        """Write the event soon. Of too many unwritten ones the oldest go."""
        self._events.append(event)
        del self._events[:-EVENTS_KEPT]
        self._flush_soon()

    def save_circuit(self, reading: Reading) -> None:
        """Write soon how a breaker is; a closed one has no row."""
        self._circuits[reading.protects] = reading
        self._flush_soon()

    async def close(self) -> None:
        """Write what is unwritten, once, and let go of the file."""
        if self._flush is not None:
            self._flush.cancel()
            await asyncio.wait([self._flush])
        if await self._write_mirror():
            with suppress(StateError):  # breakers live as long as we do; at the latest our successor forgets them
                await self._writer.submit(lambda db: db.run("forget_circuits"))
        self._writer.close()

    # -- the mirror

    def _note(self, instance: Instance) -> None:
        self._rows[instance.uuid] = instance
        self._dirty.discard(instance.uuid)

    def _flush_soon(self) -> None:
        if self._flush is None or self._flush.done():
            self._flush = asyncio.get_running_loop().create_task(self._flush_all(), name="save states")

    async def _flush_all(self) -> None:
        while self._dirty or self._events or self._circuits:
            await asyncio.sleep(SAVE_DELAY_SECONDS)
            if not await self._write_mirror():
                await asyncio.sleep(RETRY_SECONDS)

    async def _write_mirror(self) -> bool:
        if self._sometime is not None:
            self._sometime.cancel()
            self._sometime = None
        uuids, events = self._dirty, self._events
        circuits = self._circuits
        self._dirty, self._events, self._circuits = set(), [], {}
        rows = [self._rows[uuid] for uuid in uuids if uuid in self._rows]
        gone = [(uuid,) for uuid in uuids if uuid not in self._rows]
        prune = self._prune_due(len(events))
        try:
            await self._writer.submit(lambda db: _put_mirror(db, rows, gone, events, prune, circuits.values()))
        except StateError as exc:
            self._dirty |= uuids
            self._events = events + self._events
            self._circuits = circuits | self._circuits
            self._on_trouble(exc)
            return False
        return True

    def _prune_due(self, count: int) -> bool:
        self._events_since_prune += count
        if self._events_since_prune < _PRUNE_EVERY:
            return False
        self._events_since_prune = 0
        return True


# --------------------------------------------------------------------------- jobs, run in the writer's thread


def _load(db: Connection) -> Loaded:
    db.run("forget_circuits")
    return Loaded(
        wanted=[_wanted_row(row) for row in db.all("wanted")],
        instances=[from_data(Instance, json.loads(state)) for (state,) in db.all("instances")],
        contents={
            (service, number): from_data(Content, json.loads(content))
            for service, number, content in db.all("unwanted_contents")
        },
    )


def _wanted_row(row: tuple[Any, ...]) -> WantedRow:
    service, revision, replicas, policy, deployment, settled, content, secrets = row
    policy_data = json.loads(policy)
    wanted = Wanted(
        service=service,
        revision=revision,
        replicas=replicas,
        content=from_data(Content, json.loads(content)),
        policy=from_data(Policy, policy_data),
        secrets=tuple(json.loads(secrets)),
    )
    low, high = policy_data.get("port_range", Want.__dataclass_fields__["port_range"].default)
    start_timeout = policy_data.get("start_timeout", Want.__dataclass_fields__["start_timeout"].default)
    return WantedRow(wanted, deployment, bool(settled), (low, high), start_timeout)


def _record_want(db: Connection, want: Want, fresh: Collection[Pair]) -> None:
    _refuse_stale(db, want.deployment)
    for item in want.wanted:
        if item.replicas and db.one("revision_exists", (item.service, item.revision)) is None:
            raise Refusal(
                StalePlanError(f"revision {item.revision} of {item.service} is not recorded", remedy="Deploy again")
            )
    for item in want.wanted:
        _put_wanted(db, want, item, fresh=(item.service, item.revision) in fresh)


def _refuse_stale(db: Connection, deployment: int) -> None:
    row = db.one("running_deployment")
    if row is not None and row[0] == deployment:
        return
    now = f"deployment {row[0]} is in progress" if row else "no deployment is in progress"
    raise Refusal(
        StalePlanError(
            f"the agent refused a change of deployment {deployment}: {now}",
            meaning="Nothing was changed by this message",
            remedy="Run the command again; it looks at what is there now",
        )
    )


def _put_wanted(db: Connection, want: Want, item: Wanted, *, fresh: bool) -> None:
    pair = item.service, item.revision
    if not item.replicas:
        db.run("drop_wanted", pair)
        return
    if fresh:
        db.run("drop_ended_instances", pair)
        if item.service in want.rerun:
            db.run("drop_completed_instances", pair)
            db.run("forget_one_shot", (item.service, run_hash(item.content)))
    policy = {**to_data(item.policy), "port_range": want.port_range, "start_timeout": want.start_timeout}
    db.run("put_wanted", (*pair, item.replicas, json.dumps(policy), want.deployment))


def _settle(db: Connection, deployment: int) -> None:
    row = db.one("running_deployment")
    if row is not None and row[0] != deployment:
        _refuse_stale(db, deployment)
    db.run("settle")


def _put_instances(db: Connection, instances: Iterable[Instance]) -> None:
    rows = [(each.uuid, each.service, each.revision, json.dumps(to_data(each))) for each in instances]
    db.run_many("put_instance", rows)


def _begin_one_shot(db: Connection, instance: Instance, key: tuple[str, str]) -> bool:
    row = db.one("one_shot", key)
    if row is not None and row[0] == "completed":
        return False
    _put_instances(db, (instance,))
    db.run("begin_one_shot", (*key, time.time()))
    return True


def _put_mirror(
    db: Connection,
    rows: list[Instance],
    gone: list[tuple[str]],
    events: list[EventRow],
    prune: bool,
    circuits: Collection[Reading],
) -> None:
    _put_instances(db, rows)
    db.run_many("drop_instance", gone)
    db.run_many("put_event", events)
    db.run_many("drop_circuit", [(each.protects,) for each in circuits if each.state is Circuit.CLOSED])
    db.run_many("put_circuit", [each for each in circuits if each.state is not Circuit.CLOSED])
    if prune:
        db.run("prune_events", (EVENTS_KEPT,))
