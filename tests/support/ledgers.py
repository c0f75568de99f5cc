"""Ledgers and who writes in them: projects with a real state, and processes that die in the middle."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from deploy_code.model import Content, Policy, Resources, ServiceSpec
from deploy_code.resources.capacity import Capacity
from deploy_code.resources.ledger import Check, Ledger, Promise
from deploy_code.resources.owners import Owner
from deploy_code.resources.recorded import Need
from deploy_code.resources.shortage import Request, insufficient, shortages
from deploy_code.state.rows import MapEntry, NewDeployment
from deploy_code.state.store import Store, policy_digest

SMALL = Capacity(cpu_cores=4.0, memory_mb=1000, storage_gb=50, gpus=(0, 1, 2))


IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a thousand commits wait for no disk


def amount(cpu: float = 0.0, memory: int = 0, storage: int = 0, gpus: int = 0) -> Resources:
    return Resources(cpu_cores=cpu, memory_mb=memory, storage_gb=storage, gpu_count=gpus)


def anything(promises: list[Promise]) -> None:
    """A check that lets everything through, as --force does."""


def fits(owner: Owner, needs: Mapping[str, Resources], capacity: Capacity = SMALL) -> Check:
    """The check of a deployment of ``owner``: raises PreflightError (E004)."""

    def check(promises: list[Promise]) -> None:
        request = Request(
            others=[each for each in promises if each.owner.id != owner.id or each.is_allocated],
            needs=needs,
            holds={
                each.service: each.resources for each in promises if each.owner.id == owner.id and not each.is_allocated
            },
            label=owner.name,
        )
        if problems := shortages(capacity, request):
            raise insufficient(problems, remedy="")

    return check


def child(work: Callable[[], None]) -> None:
    """Do ``work`` in a process of its own that ends without a word, as if it was killed."""
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the child failed: see its traceback"


class LedgerProject:
    """A project with a real state, of one service ``web``, and its share in the ledger of ``data_dir``."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / name
        with Store.create(self.folder, name=name, file="", environment="production", log_dir=str(data_dir)) as store:
            store.put_policies([Policy()])
        self.owner = Owner.project(str(self.folder), name)
        self._revisions: list[Resources] = []

    def reserve(self, resources: Resources, *, check: Check | None = None, gpus: Iterable[int] = SMALL.gpus) -> None:
        """As the engine does before the first step, in this process."""
        needs = {"web": resources}
        with Ledger.open(str(self.data_dir)) as ledger:
            ledger.reserve(
                self.owner, {"web": Need(resources)}, gpus=tuple(gpus), check=check or fits(self.owner, needs)
            )

    def settle(self, resources: Resources) -> None:
        with Ledger.open(str(self.data_dir)) as ledger:
            ledger.settle(self.owner, {"web": Need(resources)})

    def begin(self, resources: Resources) -> int:
        """Record a deployment as running; its number."""
        with Store.open(self.folder) as store:
            before = store.current_map()
            after = {"web": MapEntry(self._revision(resources), policy_digest(Policy()))}
            spec = ServiceSpec(name="web", content=Content(resources=resources))
            return store.begin_deployment(
                NewDeployment(
                    kind="deploy",
                    who="test",
                    before=before,
                    after=after,
                    services=("web",),
                    revisions=[(after["web"].revision, spec)],
                )
            )

    def finish(self, number: int, *, rolled_back: bool = False) -> None:
        with Store.open(self.folder) as store:
            row = store.deployment(number)
            assert row is not None
            final = row.before if rolled_back else row.after
            status = "rolled_back" if rolled_back else "completed"
            store.finish_deployment(number, status=status, good=not rolled_back, report={}, final_map=final)

    def _revision(self, resources: Resources) -> int:
        if resources not in self._revisions:
            self._revisions.append(resources)
        return self._revisions.index(resources) + 1


def promises(data_dir: Path) -> dict[str, Resources]:
    """All that counts now, by ``owner/service``; allocations by name with a ``!``."""
    ledger = Ledger.reader(str(data_dir))
    if ledger is None:
        return {}
    with ledger:
        return {each.label + ("!" if each.is_allocated else ""): each.resources for each in ledger.promises()}


def holders(data_dir: Path) -> dict[str, tuple[int, ...]]:
    """GPUs by who holds them."""
    ledger = Ledger.reader(str(data_dir))
    if ledger is None:
        return {}
    with ledger:
        return {each.label: each.gpus for each in ledger.promises() if each.gpus}
