"""Sets resources aside for a deployment before its first step, and gives back what is no longer needed at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_code.model import Identity, Settings
    from deploy_code.plan.plan import Goal, Plan


class Reservations:
    """What one project has been promised, in the ledger of this machine."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def check(self, plan: Plan, settings: Settings) -> None:
        """For a dry run: raises ResourceError (E004) as ``reserve`` would, and changes nothing."""

    def reserve(self, plan: Plan, settings: Settings, *, force: bool = False, check: bool = True) -> list[str]:
        """Set aside, all or nothing, what this plan needs at its peak and what its rollback needs.

        Raises PreflightError (E004). With ``force`` what is short is given back as warnings instead; without ``check``
        (phase "resources" skipped) it is not looked at. The promise is recorded in all cases.
        """
        return []

    def settle(self, wanted: Mapping[str, Goal]) -> None:
        """The deployment is over: from here on exactly ``wanted`` is promised. Never raises for the ledger's sake."""
