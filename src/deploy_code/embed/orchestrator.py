"""``DeploymentOrchestrator``: one project to program against."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from deploy_code.app import App
from deploy_code.embed import looks
from deploy_code.embed.arguments import Seconds, counts, names, seconds, whole
from deploy_code.embed.names import Registered
from deploy_code.embed.stream import LIMIT, EventStream, Hub
from deploy_code.embed.view import View
from deploy_code.errors import ConfigError
from deploy_code.model import OWN_TYPES, StrategyName
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.plugins import Plugin

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig, ServiceConfig
    from deploy_code.embed.registry import ProjectRegistry
    from deploy_code.monitoring import MetricsCollector
    from deploy_code.orchestrator.engine import Engine
    from deploy_code.plan.plan import Plan
    from deploy_code.resources import ResourceManager

T = TypeVar("T")


class DeploymentOrchestrator:
    """Deploys, steers and watches one project, with the engine in this process.

    ``config``: a ``DeploymentConfig`` (from a file or built in code), or the path of a file, which is then read anew
    for each operation. ``force``, ``adopt`` and ``wait`` are what the options of ``deploy-code deploy`` are: go on when
    health checks fail, take the project over from another config, queue behind whoever deploys now.

    Nothing is opened before an operation and nothing stays open after it: one object serves many operations, in one
    event loop after another. Of two operations at once the second gets E011, as from another process, unless ``wait``.
    ``async with`` ends the readers of ``events()``; services go on running.

    Raises ConfigError (E001) for a path that leads nowhere. Everything found before the first step of an operation is
    raised as DeployCodeError; what goes wrong afterwards is in its report. Arguments of a wrong type are TypeErrors.
    """

    def __init__(
        self,
        config: DeploymentConfig | str | os.PathLike[str],
        *,
        dry_run: bool = False,
        force: bool = False,
        adopt: bool = False,
        wait: bool = False,
        plugins: Iterable[Plugin] = (),
    ) -> None:
        self.dry_run = dry_run
        self.force = force
        self.adopt = adopt
        self.wait = wait
        self.config_path = os.path.abspath(_existing(config)) if isinstance(config, str | os.PathLike) else None
        self._config = None if isinstance(config, str | os.PathLike) else _taken(config)
        self._services: dict[str, ServiceConfig] = {}
        self._types = Registered("service type", OWN_TYPES)
        self._strategies = Registered("strategy", tuple(StrategyName))
        self._plugins: list[Plugin] = []
        self._hub = Hub()
        self._engines: set[Engine] = set()
        for plugin in plugins:
            self.add_plugin(plugin)

    @classmethod
    async def new(cls, config: DeploymentConfig | str | os.PathLike[str], **options: Any) -> Self:
        """One whose config has been checked: raises ConfigError (E001, E002) with all problems. Same ``options``."""
        orchestrator = cls(config, **options)
        await asyncio.to_thread(orchestrator.app().load)
        return orchestrator

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every ``events()``. Operations that run go on, and so do the services."""
        self._hub.close()

    # ------------------------------------------------------------------------------------------------------ operations

    async def deploy(
        self,
        services: Sequence[str] | None = None,
        skip_phases: Sequence[str] | None = None,
        *,
        rerun: Sequence[str] = (),
    ) -> DeploymentReport:
        """Make the project as its config says; with ``services`` only those, and what they need that is not healthy.

        ``rerun``: one-shots to run once more.
        """
        only, skipped, again = names(services), names(skip_phases, "skip_phases"), names(rerun, "rerun") or ()
        return await self._run(lambda engine: engine.deploy(only, skipped, rerun=again))

    async def plan(self, services: Sequence[str] | None = None, *, rerun: Sequence[str] = ()) -> Plan:
        """What ``deploy`` would do now, as data and as text. Changes nothing, starts nothing, creates nothing."""
        only, again = names(services), names(rerun, "rerun") or ()
        return await self._run(lambda engine: engine.plan(only, rerun=again))

    async def stop(self, timeout: Seconds | None = None, services: Sequence[str] | None = None) -> DeploymentReport:
        """Stop all services, dependents first; or only ``services``, and what depends on them.

        ``timeout`` bounds each service, instead of its own ``stop_timeout_seconds``. They stay stopped until they are
        deployed, restarted or scaled. Where nothing was ever deployed, nothing is to do.
        """
        bound, only = seconds(timeout), names(services)
        report = await self._run(lambda engine: engine.stop(bound, only))
        return report or DeploymentReport.succeeded()

    async def restart(self, services: Sequence[str] | None = None) -> DeploymentReport:
        """Recreate services at their revision, in dependency order, gated."""
        only = names(services)
        return await self._run(lambda engine: engine.restart(only))

    async def scale(self, replicas: Mapping[str, int]) -> DeploymentReport:
        """Run so many instances: ``{"web": 3}``. A number in the config wins again at the next deploy."""
        wanted = counts(replicas)
        return await self._run(lambda engine: engine.scale(wanted))

    async def rollback(self, to: int | None = None) -> DeploymentReport:
        """Restore exactly what deployment ``to`` left; without it the last good one that differs from now."""
        target = whole(to, "to")
        return await self._run(lambda engine: engine.rollback(target))

    async def recover(self, number: int | None = None, *, resume: bool = False) -> DeploymentReport | None:
        """Undo, or with ``resume`` finish, a deployment that was interrupted. None when there is none."""
        which = whole(number, "number")
        return await self._run(lambda engine: engine.recover(which, resume=resume))

    def interrupt(self) -> None:
        """End the operation that runs, as Ctrl-C does: the first call rolls back, the second leaves it as it is.

        To be called from the loop that runs it.
        """
        for engine in tuple(self._engines):
            engine.interrupt()

    # ----------------------------------------------------------------------------------------------------------- looks

    async def get_status(self, detailed: bool = False) -> View:
        """How all services are doing: the keys of ``DeployCode.status()`` as attributes, ``to_dict()`` the mapping."""
        return View(await looks.look(self.app(), detailed=detailed))

    async def wait_for_healthy(self, timeout: Seconds | None = 300, check_interval: Seconds = 5) -> None:
        """Return once every service is healthy.

        Raises DeploymentError: E006 as soon as waiting cannot help, E008 after ``timeout``. ``check_interval`` only
        bounds how old an answer may be: a change is seen when it happens.
        """
        await looks.until_healthy(self.app, timeout, check_interval)

    def events(self, limit: int = LIMIT) -> EventStream:
        """Events of this object's operations from now on, instances included, until it is closed.

        Each call makes a reader of its own. It holds ``limit`` unread events; when later ones had to be let go, an
        ``EventsLost`` in their place says how many.
        """
        return self._hub.open(max(1, whole(limit, "limit") or 1))

    # ------------------------------------------------------------------------------------------------------ extensions

    def add_plugin(self, plugin: Plugin) -> None:
        """From the next operation on, call this plugin's hooks."""
        if not isinstance(plugin, Plugin):
            raise TypeError(f"a plugin is derived from deploy_code.plugins.Plugin, got {type(plugin).__name__}")
        self._plugins.append(plugin)

    def register_type(self, name: str, factory: Callable[..., Any]) -> None:
        """Let ``factory(InstanceConfig) -> Service`` make the instances of services with this ``service_type``.

        They are supervised while this process lives. Raises ServiceError: S002 for a name that is taken, S003 for one
        of ours and for a factory that cannot be called.
        """
        self._types.add(name, factory)

    def register_strategy(self, name: str, factory: Callable[..., Any]) -> None:
        """A ``DeploymentStrategy`` class, for ``deployment.strategy``, or a plain rollout function, for a service.

        Raises ServiceError, as ``register_type``.
        """
        self._strategies.add(name, factory)

    @property
    def extensions(self) -> frozenset[str]:
        """Names of the types and strategies that were registered here."""
        return frozenset({*self._types.factories, *self._strategies.factories})

    @cached_property
    def registry(self) -> ProjectRegistry:
        """The services of this project, by name."""
        from deploy_code.embed.registry import ProjectRegistry

        return ProjectRegistry(self)

    @property
    def resources(self) -> ResourceManager:
        """What this project has been promised of the machine, and more to be had. Raises ConfigError."""
        from deploy_code.resources import ResourceManager

        overcommit = self.config.infrastructure.overcommit.model_dump()
        return ResourceManager(owner=self.app().identity.directories.state, overcommit=overcommit)

    @cached_property
    def metrics(self) -> MetricsCollector:
        """What its services use. Keeps the last look, since rates need two."""
        from deploy_code.monitoring import MetricsCollector

        return MetricsCollector(self.app().identity.directories.state)

    @property
    def config(self) -> DeploymentConfig:
        """What the next deploy goes by; read anew where a path was given. Raises ConfigError."""
        return self.app().config()

    # ---------------------------------------------------------------------------------------------------------- pieces

    def app(self) -> App:
        """The parts of one use of this project: nothing that one operation found out holds for the next."""
        return App(
            (self.config_path,) if self.config_path is not None else (),
            config=self._config,
            services=self._services,
            types=self._types.factories,
            strategies=self._strategies.factories,
            dry_run=self.dry_run,
            force=self.force,
            adopt=self.adopt,
            wait=self.wait,
        )

    async def _run(self, act: Callable[[Engine], Awaitable[T]]) -> T:
        engine = self.app().orchestrator(self._plugins)
        unsubscribe = engine.bus.subscribe(self._hub.publish)
        self._engines.add(engine)
        try:
            return await act(engine)
        finally:
            self._engines.discard(engine)
            unsubscribe()

    def _add_service(self, name: str, service: ServiceConfig) -> None:
        """Into the config that was handed over; beside the file, where that is read anew each time."""
        services = self._services if self._config is None else self._config.services
        services[name] = service


def _existing(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    if not os.path.exists(path):
        raise ConfigError(
            f"no configuration file {os.fspath(path)} in {os.getcwd()}",
            code="E001",
            remedy="Give the path of one, or make one with `deploy-code init`",
        )
    return path


def _taken(config: DeploymentConfig) -> DeploymentConfig:
    from deploy_code.config import DeploymentConfig
    from deploy_code.config.handed import take

    if not isinstance(config, DeploymentConfig):
        raise TypeError(f"config is a DeploymentConfig or the path of a file, got {type(config).__name__}")
    return take(config)
