"""Health commands in containers while their runtime is away: what cannot be asked is not unwell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy_code.health.dial import ProbeNotMadeError
from deploy_code.model import ProbeResult

if TYPE_CHECKING:
    from deploy_code.drivers.engine.exec import ExecProbe


class ProbeInside:
    """``probe``, which says nothing of an instance that ``is_proven`` as long as its runtime is away.

    One that is still to prove itself gets the failure as it is: whoever waits for it learns why.
    """

    def __init__(self, probe: ExecProbe, is_proven: Callable[[], bool]) -> None:
        self.kind = probe.kind
        self._probe = probe
        self._is_proven = is_proven

    async def __call__(self) -> ProbeResult:
        """Raises ProbeNotMadeError where nobody could be asked."""
        result = await self._probe()
        if self._probe.was_lost and self._is_proven():
            raise ProbeNotMadeError(result.detail)
        return result
