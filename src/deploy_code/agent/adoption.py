"""Takes over what a dead agent left: what runs is watched again, what is missing is started, nothing twice.

Every instance has its row before it has its process, and its uuid in the environment of the process; so even what was
spawned a microsecond before the kill is found. After a reboot nothing runs, and everything wanted starts again in the
order of its dependencies.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from deploy_code.drivers.base import Running
from deploy_code.drivers.custom import MEMORY
from deploy_code.drivers.engine.order import CONTAINER, ENGINE, ENGINE_TLS
from deploy_code.errors import DeployCodeError
from deploy_code.model import Content, Gate, Instance, Phase, Policy, Wanted

from . import endings
from .instance import Supervisor
from .journal import label
from .keeper import Keeper
from .launch import BROKEN_OFF
from .records import Loaded, Pair
from .stopping import STOP_SIGNAL, STOP_TIMEOUT
from .wanted import Entry

_MEANT_TO_RUN = (Phase.STARTING, Phase.READY, Phase.UNREADY, Phase.STOPPING, Phase.UNKNOWN)


async def take_over(keeper: Keeper, loaded: Loaded) -> None:
    """Put ``keeper`` where the last agent was, then make it go on.

    First every row is understood, then all begin: what starts anew may ask where the others answer.
    """
    keeper.load(loaded.wanted)
    adoption = _Adoption(keeper, loaded.contents)
    await adoption.look_for_nameless(loaded.instances)
    found = [await adoption.attempt(instance) for instance in loaded.instances]
    for taken in found:
        keeper.supervise(taken.supervisor)
    for taken in found:
        _go_on(taken)
    keeper.reconcile_all()


class _Taken(NamedTuple):
    supervisor: Supervisor
    alive: bool = False


def _go_on(taken: _Taken) -> None:
    supervisor = taken.supervisor
    if taken.alive:
        supervisor.resume()
    if not supervisor.entry.wanted.replicas:
        supervisor.retire(None)
    elif supervisor.entry.settled:
        supervisor.settled()


class _Adoption:
    """Decides for each row what has become of it. ``contents``: of what nobody wants any more."""

    def __init__(self, keeper: Keeper, contents: dict[Pair, Content]) -> None:
        self._keeper = keeper
        self._spawned: dict[str, Running] = {}
        self._contents = contents

    async def look_for_nameless(self, instances: list[Instance]) -> None:
        """Processes of rows that do not name one: the last agent died between the row and the record of the spawn.

        Containers need no looking for: who starts one takes over what there is of it.
        """
        nameless = [
            (each, content)
            for each in instances
            if not (content := self._entry(each).wanted.content).is_container
            and not _is_named(each)
            and each.boot_id == self._keeper.boot_id
            and each.phase in _MEANT_TO_RUN
        ]
        if nameless:
            self._spawned = await self._keeper.drivers.find_spawned(nameless)

    async def attempt(self, instance: Instance) -> _Taken:
        """``adopt``; one instance that cannot be taken over does not keep the others from it."""
        try:
            return await self.adopt(instance)
        except DeployCodeError as exc:
            self._keeper.journal.trouble(f"{label(instance)} could not be taken over: {exc}")
            failed = instance.but(phase=Phase.FAILED, note=str(exc))
            return _Taken(Supervisor(self._keeper, self._entry(instance), failed))

    def _entry(self, instance: Instance) -> Entry:
        pair = instance.service, instance.revision
        return self._keeper.wanted.get(pair) or _unwanted(instance, self._contents.get(pair, Content()))

    async def adopt(self, instance: Instance) -> _Taken:
        keeper = self._keeper
        entry = self._entry(instance)
        running = self._running(instance, one_shot=entry.wanted.content.one_shot)
        if keeper.drivers.is_custom(entry.wanted.content):
            return self._take_custom(entry, instance)
        if instance.boot_id not in ("", keeper.boot_id):
            return await self._after_reboot(entry, instance)
        if running is not None:
            return await self._take(entry, instance, running)
        if entry.wanted.content.is_container and self._is_going(entry, instance):
            return self._take_doubtful(entry, instance)
        return await self._take_ended(entry, instance)

    def _is_going(self, entry: Entry, instance: Instance) -> bool:
        is_wanted = entry.wanted.replicas and instance.phase is not Phase.STOPPING
        return instance.phase in _MEANT_TO_RUN and not is_wanted

    def _take_doubtful(self, entry: Entry, instance: Instance) -> _Taken:
        """A container that was to be stopped, or that nobody wants any more, and may never have been made."""
        container = entry.wanted.content.container
        handler = {ENGINE: container.engine, ENGINE_TLS: container.engine_tls, **instance.handler}
        instance = instance.but(handler=handler)
        running = _running_of(instance)
        return _Taken(Supervisor(self._keeper, self._stopped(entry, instance), instance, running=running), alive=False)

    def _stopped(self, entry: Entry, instance: Instance) -> Entry:
        """What was being stopped goes on to be, whatever is wanted by now."""
        if instance.phase is Phase.STOPPING and entry.wanted.replicas:
            return _unwanted(instance, entry.wanted.content)
        return entry

    def _running(self, instance: Instance, *, one_shot: bool) -> Running | None:
        """The process that the row speaks of, dead or alive; None where there cannot be one."""
        if instance.phase not in _MEANT_TO_RUN or instance.boot_id != self._keeper.boot_id:
            return None
        status_path = self._keeper.launcher.folders.status_path(instance.uuid) if one_shot else ""
        found = self._spawned.get(instance.uuid)
        if found is not None:
            return dataclasses.replace(found, status_path=status_path)
        if not _is_named(instance):
            return None
        return _running_of(instance, status_path=status_path)

    def _take_custom(self, entry: Entry, instance: Instance) -> _Taken:
        """What was started is there until its handler has been asked, whatever came in between, a reboot too."""
        rebooted = instance.boot_id not in ("", self._keeper.boot_id)
        if instance.phase not in _MEANT_TO_RUN:
            return _Taken(Supervisor(self._keeper, entry, instance))
        if MEMORY not in instance.handler:
            instance = instance.but(phase=Phase.STARTING, handler={BROKEN_OFF: "yes"})
            if not entry.wanted.replicas:
                return _Taken(self._begun(entry, instance), alive=True)
            return _Taken(Supervisor(self._keeper, entry, instance))
        if rebooted:
            instance = instance.but(
                pid=0, start_time=0, boot_id=self._keeper.boot_id, ready_at=0.0, phase=Phase.STARTING, note=""
            )
        return _Taken(self._begun(entry, instance, rebooted=rebooted), alive=True)

    def _begun(self, entry: Entry, instance: Instance, *, rebooted: bool = False) -> Supervisor:
        entry = self._stopped(entry, instance)
        return Supervisor(self._keeper, entry, instance, running=_running_of(instance), rebooted=rebooted)

    async def _take(self, entry: Entry, instance: Instance, running: Running) -> _Taken:
        """It runs, or did when it was last seen; the driver's ``wait`` tells which, and how it ended."""
        alive = await self._keeper.drivers.of(entry.wanted.content).find(running)
        handler = {**instance.handler, **running.handler}
        instance = instance.but(
            pid=running.pid,
            start_time=running.start_time,
            handler=handler,
            address=running.address or instance.address,
            ports=running.ports or instance.ports,
            published=running.published or instance.published,
        )
        return _Taken(Supervisor(self._keeper, self._stopped(entry, instance), instance, running=running), alive)

    async def _take_ended(self, entry: Entry, instance: Instance) -> _Taken:
        """No process: it had ended before, or was recorded and never spawned."""
        if entry.wanted.content.one_shot and instance.phase is Phase.STARTING:
            instance = await self._one_shot_unseen(entry, instance)
        elif instance.phase in _MEANT_TO_RUN:
            instance = instance.but(phase=Phase.STARTING)
        return _Taken(Supervisor(self._keeper, entry, instance))

    async def _one_shot_unseen(self, entry: Entry, instance: Instance) -> Instance:
        """A one-shot that was about to be spawned: its wrapper may have run to the end unseen."""
        content = entry.wanted.content
        outcome = await self._keeper.records.one_shot_outcome(instance.service, content)
        if outcome != "started" or content.is_container:
            return instance  # who starts a container finds the one that has run, and how it ended
        running = Running(
            uuid=instance.uuid,
            pid=0,
            start_time=0,
            boot_id="",  # no process is known: the status file alone can tell
            status_path=self._keeper.launcher.folders.status_path(instance.uuid),
        )
        exit_ = await self._keeper.drivers.of(content).wait(running)
        await self._keeper.records.end_one_shot(instance.service, content, endings.outcome(exit_), exit_)
        return instance.but(**endings.one_shot_end(exit_))

    async def _after_reboot(self, entry: Entry, instance: Instance) -> _Taken:
        """Everything wanted starts again when its dependencies allow; a one-shot only if it never ran."""
        instance = instance.but(
            pid=0, start_time=0, ready_at=0.0, next_start_at=0.0, circuit="", boot_id=self._keeper.boot_id
        )
        if entry.wanted.content.one_shot:
            instance = await self._one_shot_after_reboot(entry, instance)
        else:
            instance = instance.but(phase=Phase.WAITING, note=endings.WAITS_AFTER_REBOOT)
        self._keeper.records.save(instance)
        return _Taken(Supervisor(self._keeper, entry, instance))

    async def _one_shot_after_reboot(self, entry: Entry, instance: Instance) -> Instance:
        content = entry.wanted.content
        match await self._keeper.records.one_shot_outcome(instance.service, content):
            case "completed":
                return instance.but(phase=Phase.COMPLETED, gate=Gate.OPEN)
            case "started":
                await self._keeper.records.end_one_shot(instance.service, content, "unknown", None)
                return instance.but(phase=Phase.FAILED, gate=Gate.FAILED, note=endings.UNKNOWN_RESULT)
            case "":
                return instance.but(phase=Phase.WAITING)
            case _:
                return instance.but(phase=Phase.FAILED, gate=Gate.FAILED)


def _is_named(instance: Instance) -> bool:
    """Does its row say which process or container it is?"""
    return bool(instance.pid) or CONTAINER in instance.handler


def _running_of(instance: Instance, *, status_path: str = "") -> Running:
    return Running(
        uuid=instance.uuid,
        pid=instance.pid,
        start_time=instance.start_time,
        boot_id=instance.boot_id,
        status_path=status_path,
        handler=instance.handler,
        address=instance.address,
        ports=instance.ports,
        published=instance.published,
    )


def _unwanted(instance: Instance, content: Content) -> Entry:
    """An orphan, ours by record and wanted by nobody, or one that was being stopped: how to stop it is in its row."""
    remembered = instance.handler
    policy = Policy(
        stop_signal=remembered.get(STOP_SIGNAL, Policy().stop_signal),
        stop_timeout_seconds=float(remembered.get(STOP_TIMEOUT, Policy().stop_timeout_seconds)),
    )
    wanted = Wanted(service=instance.service, revision=instance.revision, replicas=0, content=content, policy=policy)
    return Entry(wanted, deployment=0)
