"""Makes the wanted set so, and keeps it so: for each entry as many supervised instances as it wants.

What one instance goes through is its supervisor's business; here is what concerns several: which are missing, which are
surplus, who has to go before who can come, where a service answers, and who is told of changes.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterator

from deploy_code.model import Content, Instance, Phase
from deploy_code.reliability.registry import Breakers
from deploy_code.wire import Want

from .addresses import Addresses
from .circuit import LoopCircuit
from .dependencies import Dependencies
from .drivers import Drivers
from .instance import Supervisor
from .journal import Journal
from .launch import Launcher, WhereIs
from .placeholders import Place
from .places import seen
from .prober import Judgement, Prober
from .records import Pair, Records, WantedRow
from .share import Share
from .wanted import Entry, WantedSet

Listener = Callable[[Instance], None]


class Keeper:
    """All supervisors of one project.

    ``watchers`` are called, in the loop, with every instance that changed. ``open_files``: the soft limit that services
    start with; ours is higher, and programs that use select() break beyond 1024.
    """

    def __init__(
        self,
        *,
        drivers: Drivers,
        records: Records,
        journal: Journal,
        breakers: Breakers,
        launcher: Callable[[WhereIs], Launcher],
        boot_id: str,
        project: str = "",
        open_files: int = 1024,
        share: Share | None = None,
    ) -> None:
        self.drivers = drivers
        self.records = records
        self.journal = journal
        self.breakers = breakers
        self.boot_id = boot_id
        self.open_files = open_files
        self.wanted = WantedSet(records)
        self.addresses = Addresses(project, self.wanted.binds, share)
        self.dependencies = Dependencies(self.wanted, self._of, self.news)
        self.prober = Prober(self._judged)
        self.launcher = launcher(self.where_is)
        self.watchers: set[Listener] = set()
        self.on_change: Callable[[], None] = lambda: None
        self._supervisors: dict[str, Supervisor] = {}
        self._by_service: dict[str, dict[str, Supervisor]] = {}
        self._share = share
        if share is not None:
            share.instances = self.instances
        self._news: asyncio.Future[None] | None = None

    # -- what the outside asks for

    async def want(self, want: Want) -> None:
        """Record ``want``, then begin to make it so. Raises StalePlanError E012, StateError; then nothing changes."""
        fresh = await self.wanted.change(want)
        self.addresses.use(self.wanted.port_range)
        self.journal.deployment = want.deployment
        for wanted in want.wanted:
            pair = wanted.service, wanted.revision
            if pair in fresh:
                self._renew(pair, rerun=wanted.service in want.rerun)
            self._reconcile(pair, want.stop_timeout)
            self._hurry(pair, forget=want.forget)
        self.on_change()

    async def settle(self, deployment: int) -> None:
        """The restart policy holds for all that is wanted from here on. Raises as ``want``."""
        await self.wanted.settle(deployment)
        for supervisor in self.supervisors():
            supervisor.settled()
        self.on_change()

    def probe_now(self, services: list[str]) -> None:
        for service in services:
            for supervisor in self._of(service):
                self.prober.probe_now(supervisor.instance.uuid)

    def out_of_memory(self, uuid_: str) -> None:
        """One of the processes of this instance was killed, and the instance lives on."""
        if supervisor := self._supervisors.get(uuid_):
            supervisor.lost_a_process()

    def engine_returned(self) -> None:
        """A container runtime can be asked again: what waits for that need not wait any longer."""
        for supervisor in self.supervisors():
            if supervisor.entry.wanted.content.is_container:
                supervisor.engine_returned()

    def instances(self) -> list[Instance]:
        return [supervisor.instance for supervisor in self._supervisors.values()]

    def supervisor(self, uuid_: str) -> Supervisor | None:
        return self._supervisors.get(uuid_)

    def supervisors(self) -> Iterator[Supervisor]:
        return iter(tuple(self._supervisors.values()))

    @property
    def is_idle(self) -> bool:
        """Nothing is wanted and nothing is left."""
        return not self._supervisors and not len(self.wanted)

    async def let_go(self) -> None:
        """Stop keeping; all instances stay as they are."""
        await asyncio.gather(*(supervisor.let_go() for supervisor in self.supervisors()))
        await self.prober.close()
        self.drivers.close()

    # -- making it so

    def load(self, rows: list[WantedRow]) -> None:
        """Take over the wanted set as it was recorded."""
        self.wanted.load(rows)
        self.addresses.use(self.wanted.port_range)

    def supervise(self, supervisor: Supervisor) -> None:
        """Take over ``supervisor`` and begin."""
        instance = supervisor.instance
        self.addresses.hold(instance)
        self._supervisors[instance.uuid] = supervisor
        self._by_service.setdefault(instance.service, {})[instance.uuid] = supervisor
        supervisor.begin()

    def reconcile_all(self) -> None:
        """Create what is missing of everything wanted: what a new agent does after it has taken over what runs."""
        if self._share is not None:
            self._share.keep_gpus()
        for entry in self.wanted:
            self._reconcile(entry.pair, None)

    def _renew(self, pair: Pair, *, rerun: bool) -> None:
        for supervisor in self._kept(pair):
            supervisor.renew(rerun=rerun)

    def _reconcile(self, pair: Pair, stop_timeout: float | None) -> None:
        entry = self.wanted.get(pair)
        kept = self._kept(pair)
        wanted = entry.wanted.replicas if entry else 0
        for victim in surplus(kept, wanted):
            victim.retire(stop_timeout)
        if entry is None:
            return
        for supervisor in kept:
            supervisor.adjust(entry)
        for index in missing({supervisor.instance.index for supervisor in kept}, wanted - len(kept)):
            self._create(entry, index)

    def _hurry(self, pair: Pair, *, forget: bool) -> None:
        """Somebody waits for what could not be stopped so far: try again now. ``forget``: for the last time."""
        for supervisor in self._of(pair[0]):
            if supervisor.retiring and supervisor.entry.pair == pair:
                supervisor.hurry(forget=forget)

    def _create(self, entry: Entry, index: int) -> None:
        service, revision = entry.pair
        instance = Instance(
            uuid=uuid.uuid4().hex,
            service=service,
            revision=revision,
            index=index,
            created_at=time.time(),
            address=self.addresses.left_for(entry, index),
        )
        going = [each for each in self._of(service) if each.retiring and _is_in_the_way(each, entry, index)]
        tasks = [each.task for each in going if each.task is not None]
        self.supervise(Supervisor(self, entry, instance, predecessors=tasks))

    def _judged(self, uuid_: str, judgement: Judgement) -> None:
        supervisor = self._supervisors.get(uuid_)
        if supervisor is not None:
            supervisor.judged(judgement)

    def _kept(self, pair: Pair) -> list[Supervisor]:
        return [s for s in self._of(pair[0]) if s.entry.pair == pair and not s.retiring]

    def _of(self, service: str) -> list[Supervisor]:
        return list(self._by_service.get(service, {}).values())

    # -- what supervisors ask for

    def chance(self) -> float:
        return random.random()

    def changed(self, instance: Instance) -> None:
        for watcher in self.watchers:
            watcher(instance)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def gone(self, instance: Instance) -> None:
        left = self._supervisors.pop(instance.uuid, None)
        self.addresses.gone(instance)
        self.drivers.custom.forget(instance.uuid)
        siblings = self._by_service.get(instance.service, {})
        siblings.pop(instance.uuid, None)
        if not siblings:
            self._by_service.pop(instance.service, None)
        if self._share is not None and left is not None and left.entry.wanted.content.resources.gpu_count:
            self._share.keep_gpus()
        self.changed(instance)
        self.on_change()

    def where_is(self, service: str, by: Content) -> Place:
        """Where a ready instance of ``service``, else any, answers for somebody made of ``by``."""
        found = sorted(self._of(service), key=lambda s: (s.retiring, s.instance.phase is not Phase.READY))
        wanted = [*(s.entry for s in found), *self.wanted.of_service(service)]
        content = wanted[0].wanted.content if wanted else Content()
        return seen(service, content, [s.instance for s in found], by)

    def circuits_beside(self, instance: Instance) -> list[LoopCircuit]:
        """Those of the other instances of its revision."""
        kept = self._kept((instance.service, instance.revision))
        return [each.circuit for each in kept if each.instance.uuid != instance.uuid]

    async def news(self) -> None:
        """Wait until any instance changes."""
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)


def _is_in_the_way(going: Supervisor, entry: Entry, index: int) -> bool:
    """Does an instance of ``entry`` have to wait for this one? Of a container that nobody can ask about it is not known
    whether it still writes to what they share."""
    if going.entry.pair == entry.pair and going.instance.index == index:
        return True
    return going.instance.phase is Phase.UNKNOWN and going.entry.wanted.content.is_container


def surplus(kept: list[Supervisor], wanted: int) -> list[Supervisor]:
    """Who has to go: unready first, then the highest index (DESIGN §5)."""
    order = sorted(kept, key=lambda s: (s.instance.phase is Phase.READY, -s.instance.index))
    return order[: max(0, len(kept) - wanted)]


def missing(indexes: set[int], count: int) -> list[int]:
    """The ``count`` lowest indexes that are not taken."""
    found: list[int] = []
    index = 0
    while len(found) < count:
        if index not in indexes:
            found.append(index)
        index += 1
    return found
