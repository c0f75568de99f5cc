"""``DeployCode``: the façade of the API document. Plain mappings and booleans over ``DeploymentOrchestrator``."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from deploy_code.app import DEFAULT_FILE, App
from deploy_code.embed import looks
from deploy_code.embed.arguments import Seconds
from deploy_code.embed.orchestrator import DeploymentOrchestrator
from deploy_code.errors import ConfigError, DeployCodeError, DeploymentError
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.orchestrator.status import health_of
from deploy_code.plugins import Plugin

Callback = Callable[[dict[str, Any]], Awaitable[None] | None]


class _Default(int):
    """Shown in the signature as the number it stands for, and told from the same number given by a caller."""


OWN_TIMEOUT = _Default(30)


class DeployCode:
    """Deploys one project from Python, with the engine in this process.

    Raises E001 when the file is missing, and reads nothing else yet; an invalid file is ``is_valid: False`` from
    ``validate()`` and E002 from everything else. Binds no event loop and needs no close. Durations are seconds or
    timedelta. ``orchestrator`` is what it stands on, for programs that need more.
    """

    def __init__(
        self, config_path: str | os.PathLike[str] = DEFAULT_FILE, dry_run: bool = False, force: bool = False
    ) -> None:
        self.orchestrator = DeploymentOrchestrator(config_path, dry_run=dry_run, force=force)
        self.config_path = os.path.abspath(config_path)

    @property
    def dry_run(self) -> bool:
        """Change nothing, only plan. May be set."""
        return self.orchestrator.dry_run

    @dry_run.setter
    def dry_run(self, value: bool) -> None:
        self.orchestrator.dry_run = value

    @property
    def force(self) -> bool:
        """Go on when health checks fail. May be set."""
        return self.orchestrator.force

    @force.setter
    def force(self, value: bool) -> None:
        self.orchestrator.force = value

    # ------------------------------------------------------------------------------------------------------ extensions

    def add_plugin(self, plugin: Plugin) -> None:
        """From the next deployment on, call this plugin's hooks."""
        self.orchestrator.add_plugin(plugin)

    def register_type(self, name: str, factory: Callable[..., Any]) -> None:
        """Let ``factory(InstanceConfig) -> Service`` make the instances of services with this ``service_type``."""
        self.orchestrator.register_type(name, factory)

    def register_strategy(self, name: str, factory: Callable[..., Any]) -> None:
        """A ``DeploymentStrategy`` for ``deployment.strategy``, or a rollout function for a service's ``strategy``."""
        self.orchestrator.register_strategy(name, factory)

    # ------------------------------------------------------------------------------------------------------ deployments

    async def deploy(
        self, services: Sequence[str] | None = None, skip_phases: Sequence[str] | None = None
    ) -> DeploymentReport:
        """Deploy all services, or only ``services`` and what they need that is not healthy.

        What is found before the first step is raised; what fails afterwards is in the report, rollback included.
        """
        return await self.orchestrator.deploy(services, skip_phases)

    async def stop(self, timeout: Seconds | None = OWN_TIMEOUT) -> None:
        """Stop all services, dependents first. Works after any failure.

        A ``timeout`` that is given bounds each service, instead of its own ``stop_timeout_seconds`` (default 30).
        """
        if self.dry_run:
            return
        report = await self.orchestrator.stop(None if timeout is OWN_TIMEOUT else timeout)
        if not report.success:
            raise _failed(report)

    async def restart(self, services: Sequence[str] | None = None) -> DeploymentReport:
        """Recreate services at their revision, in dependency order, gated."""
        return await self.orchestrator.restart(services)

    # ------------------------------------------------------------------------------------------------------------ looks

    async def status(self, detailed: bool = False) -> dict[str, Any]:
        """How all services are doing; see the reference for the keys. ``detailed`` adds instances, probes and usage."""
        return await looks.look(self._app(), detailed=detailed)

    async def validate(self) -> dict[str, Any]:
        """``is_valid``, ``errors`` and ``warnings`` of the file alone; each error is led by its code."""
        from deploy_code.config import check_files

        problems, warnings = await asyncio.to_thread(
            check_files, [self.config_path], registered=self.orchestrator.extensions
        )
        return {
            "is_valid": not problems,
            "errors": [problem.coded() for problem in problems],
            "warnings": list(warnings),
        }

    async def health(self, format: str = "json") -> dict[str, Any] | str:
        """``status``, ``score`` (0-100), ``uptime_hours``, ``issues``: a mapping for "json", text for "yaml", "text".

        Raises ConfigError for any other format.
        """
        health = health_of(await self.status())
        if format == "json":
            return health
        if format not in ("yaml", "text"):
            raise ConfigError(f'there is no format "{format}" of health', remedy="Formats are json, yaml and text")
        from deploy_code.orchestrator.health_text import render

        return render(health, format)

    async def wait_for_healthy(self, timeout: Seconds = 300, check_interval: Seconds = 5) -> bool:
        """Wait until every service is healthy. False after ``timeout``, and as soon as recovery is impossible.

        ``check_interval`` only bounds how old an answer may be: a change is seen when it happens.
        """
        try:
            await self.orchestrator.wait_for_healthy(timeout, check_interval)
        except DeploymentError:
            return False
        return True

    async def monitor_deployment(self, callback: Callback | None = None) -> dict[str, Any]:
        """Call ``callback`` (plain or async) with the status at once and at each change, until no deployment runs.

        Gives back the last status. Works beside ``deploy()`` and from another process.
        """
        last: dict[str, Any] = {}
        seen_running = False
        async with aclosing(looks.statuses(self._app, 1.0)) as statuses:
            async for status in statuses:
                if callback is not None and _essence(status) != _essence(last):
                    result = callback(status)
                    if inspect.isawaitable(result):
                        await result
                last = status
                if status["deployment_complete"] and (seen_running or not looks.somebody_deploys(self._app())):
                    break
                seen_running = seen_running or not status["deployment_complete"]
        return last

    # ------------------------------------------------------------------------------------------ plain, in a loop or not

    def get_metrics(self) -> dict[str, Any]:
        """``cpu_percent``, ``memory_percent``, ``load_average``, ``disk_percent`` now; ``services`` by name.

        Takes a tenth of a second. The reference has the keys of a service.
        """
        from deploy_code.monitoring.collector import read_metrics

        return read_metrics(self._app().identity.directories.state)

    def get_service_logs(self, service: str, lines: int = 100) -> list[str]:
        """The last lines of a service's log, oldest first; empty when it never ran. Raises S001 for an unknown name."""
        return looks.log_lines(self._app(), service, lines)

    def _app(self) -> App:
        return self.orchestrator.app()


def _failed(report: DeploymentReport) -> DeployCodeError:
    code = report.errors[0][:4] if report.errors else "E008"
    return DeploymentError("not everything could be stopped: " + "; ".join(report.errors), code=code)


def _essence(status: Mapping[str, Any]) -> Any:
    """What counts as a change: everything but the passing of time."""
    services = status.get("services", {})
    ageless = {
        name: {key: value for key, value in each.items() if key != "uptime_seconds"} for name, each in services.items()
    }
    return {key: value for key, value in status.items() if key != "services"}, ageless
