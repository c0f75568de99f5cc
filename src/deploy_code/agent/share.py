"""What this project has of the machine for itself: dynamic ports and GPUs, by the ledger that all projects share.

Ports are leased in blocks, so that hundreds of instances cost a handful of transactions, and are given back when the
last instance is gone. Where the ledger cannot be had ports are only tested, as strangers' ports are in any case.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence

from deploy_code.errors import DriverError, StateError
from deploy_code.model import Instance, Wanted
from deploy_code.resources.amounts import times
from deploy_code.resources.gpus import gpus, visible
from deploy_code.resources.ledger import Ledger
from deploy_code.resources.owners import Owner
from deploy_code.resources.place import machine_dir
from deploy_code.resources.recorded import Need, folders_of

log = logging.getLogger("deploy_code.agent")

BLOCK = 64  # ports leased at once; who has more in use gets as many again
BLOCKS_IN_RANGE = 16  # and no more than this part of the range: others want some, too


class Share:
    """One project's part. ``instances``: all that are there now."""

    def __init__(self, state: str, project: str) -> None:
        self.instances: Callable[[], list[Instance]] = list
        self._owner = Owner.project(state, project)
        self._home = machine_dir(os.path.dirname(self._owner.id))
        self._knows_its_ports = False

    # -- ports

    def lease(self, candidates: Sequence[int], held: Collection[int]) -> Collection[int]:
        """More ports for this project alone, the first free ones of ``candidates``; all that it has from now on.

        The first call gives what it had already, if anything. ``held``: what its instances hold.
        """
        try:
            if not self._knows_its_ports and (known := self._leased()):
                return known
            count = max(1, min(max(BLOCK, len(held)), len(candidates) // BLOCKS_IN_RANGE))
            with Ledger.open(self._home) as ledger:
                return ledger.lease_ports(self._owner, candidates, count, held)
        except StateError as exc:
            log.warning("dynamic ports are chosen without regard to other projects: %s", exc)
            return candidates

    def _leased(self) -> set[int]:
        self._knows_its_ports = True
        ledger = Ledger.reader(self._home)
        if ledger is None:
            return set()
        with ledger:
            return ledger.ports_of(self._owner)

    def give_back_ports(self) -> None:
        """Nothing runs any more, so that others may have them."""
        try:
            if self._leased():
                with Ledger.open(self._home) as ledger:
                    ledger.release_ports(self._owner)
        except StateError as exc:
            log.warning("leased ports could not be given back: %s", exc)

    # -- GPUs

    def gpu_env(self, wanted: Wanted, instance: Instance) -> dict[str, str]:
        """The env that shows ``instance`` its own GPUs; nothing where it asks for none, or no GPU can be seen at all.

        Raises DriverError (E005) when the ledger cannot be had: without it two services might use the same device.
        """
        count = wanted.content.resources.gpu_count
        if not count:
            return {}
        alive = [(each.revision, each.index) for each in self.instances() if each.service == instance.service]
        own = instance.revision, instance.index
        try:
            if not self._is_known(instance.service) and not self._remember(wanted):
                return {}
            with Ledger.open(self._home) as ledger:
                given = ledger.assign_gpus(self._owner, instance.service, own, count, alive)
            return visible(given) if given or gpus() else {}
        except StateError as exc:
            raise DriverError(f"which GPUs are its own cannot be told: {exc.message}", retryable=True) from exc

    def _is_known(self, service: str) -> bool:
        ledger = Ledger.reader(self._home)
        if ledger is None:
            return False
        with ledger:
            return service in ledger.services_of(self._owner)

    def _remember(self, wanted: Wanted) -> bool:
        """Deployed before there was a ledger, or before this one. False where no GPU can be seen."""
        indices = [each.index for each in gpus()]
        if indices:
            need = Need(times(wanted.content.resources, wanted.replicas), folders_of(wanted.content))
            with Ledger.open(self._home) as ledger:
                ledger.remember(self._owner, wanted.service, need, indices)
        return bool(indices)

    def keep_gpus(self) -> None:
        """Take back the GPUs of instances that are no more."""
        alive: dict[str, set[tuple[int, int]]] = {}
        for each in self.instances():
            alive.setdefault(each.service, set()).add((each.revision, each.index))
        try:
            if self._has_gpus():
                with Ledger.open(self._home) as ledger:
                    ledger.keep_gpus(self._owner, alive)
        except StateError as exc:
            log.warning("GPUs that are free again could not be given back: %s", exc)

    def _has_gpus(self) -> bool:
        ledger = Ledger.reader(self._home)
        if ledger is None:
            return False
        with ledger:
            return any(each.gpus for each in ledger.promises() if each.owner.id == self._owner.id)
