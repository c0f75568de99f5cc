"""Says in the plan which limits of CPU and memory will not be enforced on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_code.plan.plan import Plan


def unenforced(plan: Plan) -> Iterator[str]:
    """Notes for the plan; none where control groups can be written."""
    yield from ()
