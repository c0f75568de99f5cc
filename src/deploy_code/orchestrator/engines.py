"""The container engines that a project's services run on, as the engine of deployments speaks with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from deploy_code.drivers.engine.client import EngineClient, protects
from deploy_code.drivers.engine.endpoint import Endpoint, find_endpoint
from deploy_code.errors import DeployCodeError, DriverError, PreflightError, Problem
from deploy_code.model import Container

if TYPE_CHECKING:
    from deploy_code.reliability.registry import Breakers

RUNTIMES = ("docker", "podman")


class Engines:
    """Connections, one client an endpoint. Belongs to one event loop; ``close()`` it there."""

    def __init__(self, environ: Mapping[str, str], breakers: Breakers | None = None) -> None:
        self._environ = environ
        self._breakers = breakers
        self._clients: dict[Endpoint, EngineClient] = {}

    def endpoint(self, runtime: str) -> Endpoint:
        """Where this user's ``runtime`` listens. Raises DriverError E014."""
        if runtime not in RUNTIMES:
            raise DriverError(
                f'the container runtime "{runtime}" is not driven by this version',
                code="E014",
                remedy="write Docker or Podman under infrastructure.container_runtime",
            )
        return find_endpoint(runtime, self._environ)

    def of(self, container: Container) -> EngineClient:
        """The client of the engine that a recorded container runs on."""
        return self.client(Endpoint(url=container.engine, tls=container.engine_tls))

    def client(self, endpoint: Endpoint) -> EngineClient:
        client = self._clients.get(endpoint)
        if client is None:
            breaker = self._breakers.of(protects(endpoint)) if self._breakers is not None else None
            client = self._clients[endpoint] = EngineClient(endpoint, breaker=breaker)
        return client

    async def close(self) -> None:
        clients, self._clients = [*self._clients.values()], {}
        for client in clients:
            await client.close()


def unreachable(error: DeployCodeError, services: Iterable[str]) -> PreflightError:
    """An engine that does not answer, and who needs it."""
    problem = Problem(error.message, code="E014", path="infrastructure.container_runtime", remedy=error.remedy)
    names = ", ".join(services)
    return PreflightError(
        f"the container engine that {names} {'need' if ',' in names else 'needs'} cannot be reached;"
        " nothing was changed",
        [problem],
    )
