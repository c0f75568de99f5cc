"""Where a project runs, as the engine sees it: one protocol for this machine's agent, later Swarm and Kubernetes.

The engine never starts or stops anything itself. It says what is wanted and reads what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from deploy_code.model import Drifts, Instance, Wanted


class Platform(Protocol):
    """Five verbs and what a report needs. All raise ``AgentError`` (E013) when the other side cannot be reached."""

    async def open(self) -> None:
        """Make sure the other half runs and the stream of states flows. Idempotent."""
        ...

    async def observe(self) -> tuple[Instance, ...]:
        """All instances of this project, now."""
        ...

    async def want(
        self,
        deployment: int,
        wanted: Sequence[Wanted],
        *,
        stop_timeout: float | None = None,
        rerun: Sequence[str] = (),
        port_range: tuple[int, int] = (30000, 40000),
        forget: bool = False,
        start_timeout: float = 300.0,
    ) -> None:
        """Change the wanted set. Returns once it is recorded; what comes of it is seen in ``instances``.

        ``forget``: of what is to go and cannot be stopped nothing is kept. ``start_timeout``: seconds that the start of
        a custom service may take.
        """
        ...

    async def settle(self, deployment: int) -> None:
        """The deployment is over, whatever its end: from here on the restart policy holds for all that is wanted."""
        ...

    def instances(self, service: str) -> tuple[Instance, ...]:
        """What the stream last said of one service."""
        ...

    async def changed(self, service: str) -> None:
        """Wait until the stream says something new of ``service``. Cancel freely; time-outs are the caller's."""
        ...

    async def inspect(self, instance: Instance) -> dict[str, Any]:
        """``pids``, ``listening``, ``cpu_percent``, ``memory_bytes`` of one instance, for the failure report."""
        ...

    async def drift(self) -> Drifts:
        """What runs, compared with what its revisions say; one-shots aside."""
        ...

    async def clear(self, instances: Sequence[str]) -> None:
        """End these (uuids), which ``drift`` called extra. What is gone, or an instance by now, is left alone."""
        ...

    async def close(self) -> None:
        """Let go of the connection; instances stay."""
        ...
