"""Sets resources aside for a deployment before its first step, and gives back what is no longer needed at its end.

Nothing of ``resources`` is imported for a project that asks for none of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from deploy_code.errors import Problem, StateError
from deploy_code.model import Resources
from deploy_code.resources.place import machine_dir, path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy_code.model import Identity, Settings
    from deploy_code.plan.plan import Goal, Plan
    from deploy_code.resources.capacity import Capacity
    from deploy_code.resources.ledger import Ledger, Promise
    from deploy_code.resources.owners import Owner
    from deploy_code.resources.recorded import Need
    from deploy_code.resources.written import Written

log = logging.getLogger("deploy_code.resources")

REMEDY = (
    "Ask for less under `resources`, stop what holds it, raise infrastructure.overcommit, or go on with --force, "
    "which promises more than there is"
)
NONE = Resources()


class Reservations:
    """What one project has been promised, in the ledger of this machine.

    A project that asks for nothing never touches the ledger. ``capacity``: what there is, if not what the machine says.
    """

    def __init__(self, identity: Identity, *, capacity: Capacity | None = None) -> None:
        self._identity = identity
        self._data_dir = os.path.dirname(os.path.realpath(identity.directories.state))
        self._capacity = capacity
        self._has_nothing = False

    def check(self, plan: Plan, settings: Settings) -> None:
        """For a dry run: raises PreflightError (E004) as ``reserve`` would, and changes nothing."""
        needs = _at_peak(plan)
        if not needs:
            return
        problems = self._rehearse(plan, needs, settings, self._there(), self._written())
        if problems:
            raise self._refusal(problems)

    def reserve(self, plan: Plan, settings: Settings, *, force: bool = False, check: bool = True) -> list[str]:
        """Set aside, all or nothing, what this plan needs at its peak and what its rollback needs.

        Raises PreflightError (E004), StateError when the ledger cannot be had. With ``force`` what is short is given
        back as warnings instead; without ``check`` (phase "resources" skipped) it is not looked at. The promise is
        recorded in all cases.
        """
        needs = _at_peak(plan)
        try:
            self._has_nothing = not needs and (bool(plan.before) or not self._is_known())
            return [] if self._has_nothing else self._reserve(plan, needs, settings, force=force, check=check)
        except StateError as exc:
            if needs and check and not force:
                raise
            return [f"nothing could be set aside: {exc}"]

    def settle(self, wanted: Mapping[str, Goal]) -> None:
        """The deployment is over: from here on exactly ``wanted`` is promised. Never raises for the ledger's sake.

        What cannot be written now is put right by the next deployment.
        """
        needs = _steady(wanted)
        try:
            if needs or not (self._has_nothing or not self._is_known()):
                self._settle(needs)
        except StateError as exc:
            log.warning("the ledger of resources could not be brought up to date: %s", exc)

    def confirm(self, wanted: Mapping[str, Goal]) -> None:
        """Nothing is deployed, since all is as it should be: so should be the ledger, lost or moved away as it may be.

        Never raises for the ledger's sake.
        """
        if not (needs := _steady(wanted)):
            return
        try:
            with self._reader() as ledger:
                is_so = ledger is not None and ledger.agrees(self._owner(), needs)
            if not is_so:
                self._settle(needs)
        except StateError as exc:
            log.warning("the ledger of resources could not be brought up to date: %s", exc)

    # ---------------------------------------------------------------------------------------------------------- pieces

    def _reserve(
        self, plan: Plan, needs: Mapping[str, Need], settings: Settings, *, force: bool, check: bool
    ) -> list[str]:
        there, written = self._there(), self._written()
        warnings: list[str] = []
        if check and any(need.resources.storage_gb for need in needs.values()):
            self._rehearse(plan, needs, settings, there, written)

        def judge(promises: list[Promise]) -> None:
            measured = lambda: written.gb(promises)  # noqa: E731  # nobody waits for a look at the disk
            problems = self._problems(promises, plan, needs, settings, there, measured) if check else []
            if problems and not force:
                raise self._refusal(problems)
            warnings.extend(f"{problem.coded()} (forced)" for problem in problems)

        with self._open() as ledger:
            ledger.reserve(self._owner(), needs, gpus=there.gpus, check=judge)
        return warnings

    def _settle(self, needs: Mapping[str, Need]) -> None:
        asks_for_gpus = any(need.resources.gpu_count for need in needs.values())
        gpus = self._there().gpus if asks_for_gpus else ()
        with self._open() as ledger:
            ledger.settle(self._owner(), needs, gpus=gpus)

    def _rehearse(
        self, plan: Plan, needs: Mapping[str, Need], settings: Settings, there: Capacity, written: Written
    ) -> list[Problem]:
        """What would be short now. How full the disk is, is measured when that decides it."""
        promises = self._look()
        return self._problems(promises, plan, needs, settings, there, lambda: written.measure(promises))

    def _problems(
        self,
        promises: Sequence[Promise],
        plan: Plan,
        needs: Mapping[str, Need],
        settings: Settings,
        there: Capacity,
        written_gb: Callable[[], int],
    ) -> list[Problem]:
        from deploy_code.resources.shortage import Request, shortages
        from deploy_code.resources.written import here

        own, promises = self._owner().id, here(promises, self._data_dir)
        mine = {each.service: each.resources for each in promises if each.owner.id == own and not each.is_allocated}
        request = Request(
            others=[each for each in promises if each.owner.id != own or each.is_allocated],
            needs={name: need.resources for name, need in needs.items()},
            holds=_held(mine, plan),
            settled={name: need.resources for name, need in _steady(plan.after).items()},
            overcommit=settings.overcommit,
            label=self._identity.name,
            owner=own,
            written_gb=written_gb,
        )
        return shortages(there, request)

    def _refusal(self, problems: Sequence[Problem]) -> Exception:
        from deploy_code.resources.shortage import insufficient

        return insufficient(problems, remedy=REMEDY)

    def _there(self) -> Capacity:
        from deploy_code.resources.capacity import read_capacity

        return self._capacity or read_capacity(self._data_dir)

    def _owner(self) -> Owner:
        from deploy_code.resources.owners import Owner

        return Owner.project(self._identity.directories.state, self._identity.name)

    def _open(self) -> Ledger:
        from deploy_code.resources.ledger import Ledger

        return Ledger.open(self._home())

    def _look(self) -> list[Promise]:
        with self._reader() as ledger:
            return ledger.promises() if ledger else []

    def _is_known(self) -> bool:
        """Is there anything of this project in the ledger?"""
        with self._reader() as ledger:
            return ledger is not None and ledger.owns(self._owner())

    def _reader(self) -> AbstractContextManager[Ledger | None]:
        home = self._home()
        if not os.path.exists(path_of(home)):
            return nullcontext()
        from deploy_code.resources.ledger import Ledger

        return Ledger.reader(home) or nullcontext()

    def _home(self) -> str:
        return machine_dir(self._data_dir)

    def _written(self) -> Written:
        from deploy_code.resources.written import Written

        return Written(self._data_dir)


def _asks(*maps: Mapping[str, Goal]) -> bool:
    return any(goal.spec.content.resources != NONE for goals in maps for goal in goals.values())


def _at_peak(plan: Plan) -> dict[str, Need]:
    if not _asks(plan.before, plan.after):
        return {}
    from deploy_code.orchestrator.needs import at_peak

    return at_peak(plan)


def _steady(wanted: Mapping[str, Goal]) -> dict[str, Need]:
    if not _asks(wanted):
        return {}
    from deploy_code.orchestrator.needs import steady

    return steady(wanted)


def _held(mine: Mapping[str, Resources], plan: Plan) -> dict[str, Resources]:
    """What is held already: as written down, or, where that is missing, as the plan found it."""
    from deploy_code.resources.amounts import NOTHING, most

    before = {name: need.resources for name, need in _steady(plan.before).items()}
    return {name: most(mine.get(name, NOTHING), before.get(name, NOTHING)) for name in {*mine, *before}}
