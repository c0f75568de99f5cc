"""What a deployment works with, built once by ``app`` and handed to everything in the engine."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from deploy_code.events import Bus, Event, ImageProgress, StepFinished, StepStarted, WarningRaised

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.model import Identity, Project
    from deploy_code.orchestrator.audit import Audit
    from deploy_code.orchestrator.plugin_host import PluginHost
    from deploy_code.orchestrator.prepare import Preparation
    from deploy_code.orchestrator.reserve import Reservations
    from deploy_code.platforms.base import Platform
    from deploy_code.plugins import Plugin
    from deploy_code.security.redact import Redactor
    from deploy_code.state.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How this one call is to go; each is a flag of the command line."""

    dry_run: bool = False
    force: bool = False
    no_rollback: bool = False
    adopt: bool = False
    wait: bool = False
    origin: str = "python"  # the command, for the audit
    who: str = ""


class Host(Protocol):
    """What the engine asks of whoever composed it (``app.App``)."""

    @property
    def options(self) -> Options: ...

    @property
    def identity(self) -> Identity: ...

    @property
    def environ(self) -> Mapping[str, str]: ...

    def has_state(self) -> bool: ...

    def reader(self) -> Store | None: ...

    def agent_is_alive(self) -> bool: ...

    def root(self) -> str: ...

    def load(self) -> Project: ...

    def config(self) -> DeploymentConfig: ...

    @property
    def code_types(self) -> Collection[str]: ...

    def reservations(self) -> Reservations: ...

    def preparation(self) -> Preparation: ...

    def check_owner(self, store: Store) -> None: ...

    def redactor(self, project: Project | None = None) -> Redactor: ...

    def prestart(self, bus: Bus) -> None: ...

    async def forget_prestarted(self) -> None: ...

    def session(
        self, bus: Bus, project: Project | None, plugins: Iterable[Plugin]
    ) -> AbstractAsyncContextManager[Parts]: ...


@dataclass(slots=True, kw_only=True)
class Parts:
    """The open things of one project. ``redactor`` grows as secrets become known."""

    identity: Identity
    store: Store
    platform: Platform
    bus: Bus
    plugins: PluginHost
    audit: Audit
    redactor: Redactor
    options: Options
    reservations: Reservations
    warnings: list[str] = field(default_factory=list)

    def publish(self, event: Event) -> None:
        """Record it for the audit (steps have a trace of their own), then tell everybody who listens."""
        if not isinstance(event, StepStarted | StepFinished | ImageProgress):
            self.audit.event(event)
        self.bus.publish(event)

    def warn(self, message: str, *, deployment: int = 0, service: str = "") -> None:
        """Say it now, and again in the report."""
        clean = self.redactor.clean(message)
        self.warnings.append(clean)
        self.publish(WarningRaised(at=time.time(), deployment=deployment, service=service, message=clean))
