"""``ServiceRegistry``: services by name. Alone it only knows; that of an orchestrator acts on the project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_code.embed import looks
from deploy_code.embed.arguments import Seconds, seconds
from deploy_code.embed.names import Registered
from deploy_code.errors import DeploymentError, ServiceError
from deploy_code.model import OWN_TYPES
from deploy_code.services.status import ServiceStatus

if TYPE_CHECKING:
    from deploy_code.config.schema import ServiceConfig
    from deploy_code.embed.orchestrator import DeploymentOrchestrator


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """How one service is doing. ``error``: why, "" where nothing is wrong. ``health``: as in ``status()``."""

    status: ServiceStatus
    error: str = ""
    health: str = "none"


class ServiceRegistry:
    """Services and types of services, by name. This one stands alone: what is registered is known, and runs nowhere.

    ``DeploymentOrchestrator.registry`` is the project's own: what is registered there is deployed next time.
    """

    def __init__(self) -> None:
        self._registered: dict[str, ServiceConfig] = {}
        self._types = Registered("service type", OWN_TYPES)

    @property
    def services(self) -> Mapping[str, ServiceConfig]:
        """What is registered; a copy."""
        return dict(self._registered)

    async def register(self, name: str, config: ServiceConfig) -> None:
        """Add a service. Raises ServiceError: S002 for a name that is taken, S003 for what is no valid service.

        What a service needs of others (its dependencies, ports that two want) is judged when all are deployed.
        """
        if not isinstance(name, str):
            raise ServiceError(f"the name of a service is text, got {name!r}", code="S003", remedy="Give it a name")
        if name in self.services:
            raise ServiceError(f'the service "{name}" is registered already', code="S002", remedy="Take another name")
        from deploy_code.config.handed import problems_of_one

        problems = problems_of_one(name, config, self._folder(), self._extensions())
        if problems:
            listed = "; ".join(map(str, problems))
            raise ServiceError(f'"{name}" is no valid service: {listed}', code="S003")
        self._add(name, config)

    def register_type(self, name: str, factory: Callable[..., Any]) -> None:
        """Let ``factory(InstanceConfig) -> Service`` make the instances of services with this ``service_type``.

        Raises ServiceError: S002 for a name that is taken, S003 for one of ours and for what cannot be called.
        """
        self._types.add(name, factory)

    async def get_status(self, name: str) -> ServiceState:
        """How a service is doing. Raises ServiceError (S001) for a name that is not registered."""
        self._require(name)
        return ServiceState(status=ServiceStatus.NOT_STARTED)

    async def stop_service(self, name: str, timeout: Seconds | None = None) -> None:
        """Stop a service; ``timeout`` instead of its own ``stop_timeout_seconds``. Raises ServiceError (S001)."""
        seconds(timeout)  # a slip is told here as it is where something runs
        self._require(name)

    def _require(self, name: str) -> None:
        from deploy_code.config.check import require_services

        require_services([name], self.services)

    def _extensions(self) -> Iterable[str]:
        """Names of types and strategies that a service may use."""
        return self._types.factories

    def _folder(self) -> str:
        """Where relative paths start; "" for the current folder."""
        return ""

    def _add(self, name: str, config: ServiceConfig) -> None:
        self._registered[name] = config


class ProjectRegistry(ServiceRegistry):
    """The registry of one orchestrator: the services of its config, and how they are doing on this machine."""

    def __init__(self, orchestrator: DeploymentOrchestrator) -> None:
        super().__init__()
        self._orchestrator = orchestrator

    @property
    def services(self) -> Mapping[str, ServiceConfig]:
        """All services of the config. Raises ConfigError where a file is wrong."""
        return dict(self._orchestrator.config.services)

    def register_type(self, name: str, factory: Callable[..., Any]) -> None:
        self._orchestrator.register_type(name, factory)

    async def get_status(self, name: str) -> ServiceState:
        """As recorded and observed now; ``not_started`` for one that was never deployed. Raises ServiceError (S001)."""
        found = (await looks.look(self._orchestrator.app()))["services"].get(name)
        if found is None:
            return await super().get_status(name)
        bad = found["status"] in ("failed", "unknown") or found["health"] == "unhealthy"
        return ServiceState(
            status=ServiceStatus(found["status"]), error=found["detail"] if bad else "", health=found["health"]
        )

    async def stop_service(self, name: str, timeout: Seconds | None = None) -> None:
        """Stop a service and what depends on it, as ``stop(services=[name])``; nothing to do where it never ran.

        Raises ServiceError (S001), and DeploymentError when something could not be stopped.
        """
        if name not in (await looks.look(self._orchestrator.app()))["services"]:
            return await super().stop_service(name, timeout)
        report = await self._orchestrator.stop(timeout, [name])
        if not report.success:
            raise DeploymentError("; ".join(report.errors), service=name, code=report.errors[0][:4])

    def _extensions(self) -> Iterable[str]:
        return self._orchestrator.extensions

    def _folder(self) -> str:
        return self._orchestrator.app().root()

    def _add(self, name: str, config: ServiceConfig) -> None:
        self._orchestrator._add_service(name, config)
