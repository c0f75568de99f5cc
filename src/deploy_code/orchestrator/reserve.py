"""Sets resources aside for a deployment before its first step, and gives back what is no longer needed at its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from deploy_code.errors import Problem, StateError
from deploy_code.orchestrator.needs import at_peak, steady
from deploy_code.resources.amounts import NOTHING, most

if TYPE_CHECKING:
    from deploy_code.model import Identity, Resources, Settings
    from deploy_code.plan.plan import Goal, Plan
    from deploy_code.resources.capacity import Capacity
    from deploy_code.resources.ledger import Ledger, Promise
    from deploy_code.resources.owners import Owner
    from deploy_code.resources.recorded import Need

log = logging.getLogger("deploy_code.resources")

REMEDY = (
    "Ask for less under `resources`, stop what holds it, raise infrastructure.overcommit, or go on with --force, "
    "which promises more than there is"
)


class Reservations:
    """What one project has been promised, in the ledger of this machine.

    A project that asks for nothing never touches the ledger. ``capacity``: what there is, if not what the machine says.
    """

    def __init__(self, identity: Identity, *, capacity: Capacity | None = None) -> None:
        self._identity = identity
        self._data_dir = os.path.dirname(os.path.realpath(identity.directories.state))
        self._capacity = capacity

    def check(self, plan: Plan, settings: Settings) -> None:
        """For a dry run: raises PreflightError (E004) as ``reserve`` would, and changes nothing."""
        needs = at_peak(plan)
        if not needs:
            return
        problems = self._problems(self._look(), plan, needs, settings, self._there())
        if problems:
            raise self._refusal(problems)

    def reserve(self, plan: Plan, settings: Settings, *, force: bool = False, check: bool = True) -> list[str]:
        """Set aside, all or nothing, what this plan needs at its peak and what its rollback needs.

        Raises PreflightError (E004), StateError when the ledger cannot be had. With ``force`` what is short is given
        back as warnings instead; without ``check`` (phase "resources" skipped) it is not looked at. The promise is
        recorded in all cases.
        """
        needs = at_peak(plan)
        try:
            if needs or self._is_known():
                return self._reserve(plan, needs, settings, force=force, check=check)
            return []
        except StateError as exc:
            if needs and check and not force:
                raise
            return [f"nothing could be set aside: {exc}"]

    def settle(self, wanted: Mapping[str, Goal]) -> None:
        """The deployment is over: from here on exactly ``wanted`` is promised. Never raises for the ledger's sake.

        What cannot be written now is put right by the next deployment.
        """
        needs = steady(wanted)
        try:
            if needs or self._is_known():
                with self._open() as ledger:
                    ledger.settle(self._owner(), needs)
        except StateError as exc:
            log.warning("the ledger of resources could not be brought up to date: %s", exc)

    # ---------------------------------------------------------------------------------------------------------- pieces

    def _reserve(
        self, plan: Plan, needs: Mapping[str, Need], settings: Settings, *, force: bool, check: bool
    ) -> list[str]:
        there = self._there()
        warnings: list[str] = []

        def judge(promises: list[Promise]) -> None:
            problems = self._problems(promises, plan, needs, settings, there) if check else []
            if problems and not force:
                raise self._refusal(problems)
            warnings.extend(f"{problem.coded()} (forced)" for problem in problems)

        with self._open() as ledger:
            ledger.reserve(self._owner(), needs, gpus=there.gpus, check=judge)
        return warnings

    def _problems(
        self,
        promises: Sequence[Promise],
        plan: Plan,
        needs: Mapping[str, Need],
        settings: Settings,
        there: Capacity,
    ) -> list[Problem]:
        from deploy_code.resources.shortage import Request, shortages
        from deploy_code.resources.written import written_gb

        own = self._owner().id
        mine = {each.service: each.resources for each in promises if each.owner.id == own and not each.is_allocated}
        request = Request(
            others=[each for each in promises if each.owner.id != own or each.is_allocated],
            needs={name: need.resources for name, need in needs.items()},
            holds=_held(mine, plan),
            overcommit=settings.overcommit,
            label=self._identity.name,
            written_gb=lambda: written_gb(promises, self._data_dir),
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

        return Ledger.open(self._data_dir)

    def _look(self) -> list[Promise]:
        with self._reader() as ledger:
            return ledger.promises() if ledger else []

    def _is_known(self) -> bool:
        """Is there anything of this project in the ledger?"""
        with self._reader() as ledger:
            return ledger is not None and ledger.owns(self._owner())

    def _reader(self) -> AbstractContextManager[Ledger | None]:
        from deploy_code.resources.ledger import Ledger

        return Ledger.reader(self._data_dir) or nullcontext()


def _held(mine: Mapping[str, Resources], plan: Plan) -> dict[str, Resources]:
    """What is held already: as written down, or, where that is missing, as the plan found it."""
    before = {name: need.resources for name, need in steady(plan.before).items()}
    return {name: most(mine.get(name, NOTHING), before.get(name, NOTHING)) for name in {*mine, *before}}
