"""Who waits for whom: whether what an instance depends on is as its conditions say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from deploy_code.model import Condition, Dependency, Phase, Policy

from .wanted import WantedSet

if TYPE_CHECKING:
    from .instance import Supervisor


class Dependencies:
    """``of``: all supervisors of a service. ``news``: gives back when any instance has changed."""

    def __init__(
        self, wanted: WantedSet, of: Callable[[str], list[Supervisor]], news: Callable[[], Awaitable[None]]
    ) -> None:
        self._wanted = wanted
        self._of = of
        self._news = news

    def unready(self, policy: Policy) -> str:
        """A service that has to be healthy for this one, and is not; empty when there is none."""
        needed = (d.service for d in policy.dependencies if d.condition is Condition.HEALTHY)
        return next((name for name in needed if self._wanted.of_service(name) and not self._any(name, Phase.READY)), "")

    async def met(self, policy: Policy) -> None:
        """Wait until all dependencies are as their conditions say."""
        while not all(map(self._is_met, policy.dependencies)):
            await self._news()

    def _is_met(self, dependency: Dependency) -> bool:
        name = dependency.service
        if not self._wanted.of_service(name):
            return True  # stopped on purpose: nobody could wait for it to come
        match dependency.condition:
            case Condition.HEALTHY:
                return self._any(name, Phase.READY, Phase.COMPLETED)
            case Condition.COMPLETED:
                return self._any(name, Phase.COMPLETED)
            case _:
                return self._any(name, Phase.STARTING, Phase.READY, Phase.UNREADY, Phase.COMPLETED, spawned=True)

    def _any(self, service: str, *phases: Phase, spawned: bool = False) -> bool:
        return any(
            s.instance.phase in phases and (s.running or not spawned or s.instance.phase is Phase.COMPLETED)
            for s in self._of(service)
        )
