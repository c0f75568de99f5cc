"""Services as containers of an engine on this machine or elsewhere: what Docker and Podman have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from deploy_code.drivers.base import Running, StartOrder
from deploy_code.drivers.engine.exec import ExecProbe
from deploy_code.drivers.engine.order import ContainerOrder
from deploy_code.model import Exit
from deploy_code.reliability.registry import Breakers


class ContainerDriver:
    """``drivers.base.SlowDriver`` for containers. One serves all engines that its orders and handlers name."""

    name = "container"
    starts_slowly = True

    def __init__(self, state: str, breakers: Breakers, *, told: Callable[[str], None] = lambda text: None) -> None:
        self._state = state

    def know(self, engine: str, tls: str = "") -> None:
        """An engine on which instances of this project may run: ``find_spawned`` and ``orphans`` look there too."""
        raise NotImplementedError

    async def start(self, order: StartOrder) -> Running:
        raise NotImplementedError

    def begun(self, order: StartOrder) -> Running:
        raise NotImplementedError

    async def find(self, running: Running) -> bool:
        raise NotImplementedError

    async def find_spawned(self, uuids: Sequence[str]) -> dict[str, Running]:
        raise NotImplementedError

    async def wait(self, running: Running) -> Exit:
        raise NotImplementedError

    async def stop(self, running: Running, signal: str, timeout: float) -> bool:
        raise NotImplementedError

    async def sweep(self, running: Running) -> int:
        raise NotImplementedError

    async def pids(self, running: Running) -> tuple[int, ...]:
        raise NotImplementedError

    def probe_command(self, running: Running, argv: Sequence[str], *, timeout: float) -> ExecProbe:
        raise NotImplementedError

    async def orphans(self, known: Collection[str]) -> list[Running]:
        raise NotImplementedError

    async def differences(self, running: Running, order: ContainerOrder) -> tuple[str, ...]:
        raise NotImplementedError

    async def tidy(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def log_config(self, order: ContainerOrder) -> Mapping[str, object]:
        raise NotImplementedError
