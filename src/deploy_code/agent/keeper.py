"""Makes the wanted set so, and keeps it so: for each entry as many supervised instances as it wants.

What one instance goes through is its supervisor's business; here is what concerns several: which are missing, which are
surplus, who depends on whom, who holds which port, and who is told of changes.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
import zlib
from collections.abc import Callable, Iterator

from deploy_code.drivers.custom import CustomOrder
from deploy_code.errors import DriverError
from deploy_code.model import Condition, Content, Dependency, Instance, Phase, Policy
from deploy_code.reliability.registry import Breakers
from deploy_code.wire import Want

from . import ports
from .circuit import LoopCircuit
from .drivers import Drivers
from .instance import Supervisor
from .journal import Journal
from .launch import Launcher, WhereIs
from .placeholders import Place
from .places import seen
from .prober import Judgement, Prober
from .published import Numbers, assign_numbers
from .records import Pair, Records, WantedRow
from .share import Share
from .wanted import Entry, WantedSet

Listener = Callable[[Instance], None]

LOOK_SECONDS = 4.0  # a first look at custom services may take so long; it includes the start of their hosts


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
        self.prober = Prober(self._judged)
        self.launcher = launcher(self.where_is)
        self.watchers: set[Listener] = set()
        self.on_change: Callable[[], None] = lambda: None
        self._supervisors: dict[str, Supervisor] = {}
        self._by_service: dict[str, dict[str, Supervisor]] = {}
        self._book = ports.PortBook(seed=zlib.crc32(project.encode()))
        self._book.is_fixed = self.wanted.binds
        self._share = share
        if share is not None:
            share.instances, self._book.lease = self.instances, share.lease
        self._news: asyncio.Future[None] | None = None
        self._looks: set[asyncio.Future[None]] = set()
        self._left: dict[tuple[str, int], str] = {}  # addresses of removed containers, for successors

    # -- what the outside asks for

    async def want(self, want: Want) -> None:
        """Record ``want``, then begin to make it so. Raises StalePlanError E012, StateError; then nothing changes."""
        fresh = await self.wanted.change(want)
        self._know_ports()
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
        self._know_ports()

    def supervise(self, supervisor: Supervisor) -> None:
        """Take over ``supervisor`` and begin."""
        instance = supervisor.instance
        self._book.hold(instance.uuid, instance.held_ports)
        self._supervisors[instance.uuid] = supervisor
        self._by_service.setdefault(instance.service, {})[instance.uuid] = supervisor
        supervisor.begin()

    def reconcile_all(self) -> None:
        """Create what is missing of everything wanted: what a new agent does after it has taken over what runs."""
        if self._share is not None:
            self._share.keep_gpus()
        for entry in self.wanted:
            self._reconcile(entry.pair, None)

    def _know_ports(self) -> None:
        self._book.use(self.wanted.port_range)

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
            address=self._left.pop((service, index), "") if entry.wanted.content.has_own_network else "",
        )
        going = [each for each in self._of(service) if each.retiring and _is_in_the_way(each, entry, index)]
        tasks = [each.task for each in going if each.task is not None]
        self.supervise(Supervisor(self, entry, instance, predecessors=tasks))

    def _kept(self, pair: Pair) -> list[Supervisor]:
        return [s for s in self._of(pair[0]) if s.entry.pair == pair and not s.retiring]

    def _of(self, service: str) -> list[Supervisor]:
        return list(self._by_service.get(service, {}).values())

    def give_back_ports(self) -> None:
        """Nothing is kept, so other projects may have the ports that were ours."""
        if self._share is not None:
            self._share.give_back_ports()
        self._book.give_back()

    # -- what supervisors ask for

    def assign_ports(self, entry: Entry, instance: Instance, *, anew: bool) -> Numbers:
        """The ports for a start of ``instance``: those it had, unless ``anew``. Raises DriverError S004."""
        wanted = entry.wanted
        kept = Numbers({}, {}) if anew else Numbers(dict(instance.ports), dict(instance.published))
        return assign_numbers(instance.uuid, wanted.content, wanted.policy, self._book, kept=kept)

    def chance(self) -> float:
        return random.random()

    def changed(self, instance: Instance) -> None:
        for watcher in self.watchers:
            watcher(instance)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def gone(self, instance: Instance) -> None:
        left = self._supervisors.pop(instance.uuid, None)
        if instance.address:
            self._left[instance.service, instance.index] = instance.address
        self._book.release(instance.uuid)
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

    def unready_dependency(self, policy: Policy) -> str:
        """A service that has to be healthy for this one, and is not; empty when there is none."""
        needed = (d.service for d in policy.dependencies if d.condition is Condition.HEALTHY)
        return next((name for name in needed if self.wanted.of_service(name) and not self._any(name, Phase.READY)), "")

    async def dependencies_met(self, policy: Policy) -> None:
        """Wait until all dependencies are as their conditions say."""
        while not all(map(self._is_met, policy.dependencies)):
            await self.news()

    def _is_met(self, dependency: Dependency) -> bool:
        name = dependency.service
        if not self.wanted.of_service(name):
            return True  # stopped on purpose: nobody could wait for it to come
        match dependency.condition:
            case Condition.HEALTHY:
                return self._any(name, Phase.READY, Phase.COMPLETED)
            case Condition.COMPLETED:
                return self._any(name, Phase.COMPLETED)
            case _:
                return self._any(name, Phase.STARTING, Phase.READY, Phase.UNREADY, Phase.COMPLETED, spawned=True)

    def circuits_beside(self, instance: Instance) -> list[LoopCircuit]:
        """Those of the other instances of its revision."""
        kept = self._kept((instance.service, instance.revision))
        return [each.circuit for each in kept if each.instance.uuid != instance.uuid]

    def _any(self, service: str, *phases: Phase, spawned: bool = False) -> bool:
        return any(
            s.instance.phase in phases and (s.running or not spawned or s.instance.phase is Phase.COMPLETED)
            for s in self._of(service)
        )

    async def news(self) -> None:
        """Wait until any instance changes."""
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)

    def engine_returned(self) -> None:
        """A container runtime can be asked again: what waits for that need not wait any longer."""
        for supervisor in self.supervisors():
            if supervisor.entry.wanted.content.is_container:
                supervisor.engine_returned()

    # -- what the hosts of custom services ask for (``hosts.HostSite``)

    def order_of(self, uuid_: str) -> CustomOrder:
        """How an object of this instance is made. Raises DriverError for what is not kept."""
        supervisor = self._supervisors.get(uuid_)
        if supervisor is not None:
            order = self.launcher.launch(supervisor.entry.wanted, supervisor.instance, lenient=True).order
            if isinstance(order, CustomOrder):
                return order
        raise DriverError(f"no custom service has the instance {uuid_}")

    def handler_moved(self, uuid_: str, holder: str) -> None:
        """Another host holds it now."""
        if supervisor := self._supervisors.get(uuid_):
            supervisor.moved(holder)

    def handler_lost(self, uuid_: str, note: str) -> None:
        """Nobody can be asked about it any more."""
        if supervisor := self._supervisors.get(uuid_):
            supervisor.unknown(note)

    def ask_again(self, uuid_: str) -> None:
        """Its host went away, or can be asked again: ask now, not at the next interval."""
        if supervisor := self._supervisors.get(uuid_):
            supervisor.known_again()
            self.prober.probe_now(uuid_)

    async def handlers_came(self, types: tuple[str, ...]) -> None:
        """A process that registered these types is there: what runs of them is asked, for a bounded time."""
        concerned = [
            each
            for each in self.supervisors()
            if not each.entry.wanted.content.handler and each.entry.wanted.content.service_type in types
        ]
        for supervisor in concerned:
            if supervisor.running is None:
                supervisor.known_again()
        await self._look_at(concerned)

    async def look_at_custom(self) -> None:
        """Ask all custom services how they are, for a bounded time, so that what is shown first is true."""
        await self._look_at([s for s in self.supervisors() if self.drivers.is_custom(s.entry.wanted.content)])

    async def _look_at(self, supervisors: list[Supervisor]) -> None:
        looks = {asyncio.ensure_future(each.look(LOOK_SECONDS)) for each in supervisors}
        for look in looks:
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        if looks:
            await asyncio.wait(looks, timeout=LOOK_SECONDS)  # one that takes longer goes on

    def _judged(self, uuid_: str, judgement: Judgement) -> None:
        supervisor = self._supervisors.get(uuid_)
        if supervisor is not None:
            supervisor.judged(judgement)


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
