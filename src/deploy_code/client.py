"""``DeployCode``: the façade of the API document over the engine."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from deploy_code.app import DEFAULT_FILE, App
from deploy_code.errors import ConfigError, DeployCodeError, Problem, ServiceError
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.orchestrator.status import empty_status, health_of, read_status
from deploy_code.plugins import Plugin

Seconds = float | timedelta
SHORTEST_LOOK_SECONDS = 0.05  # a check_interval of 0 must not become a busy loop
Callback = Callable[[dict[str, Any]], Awaitable[None] | None]


class _Default(int):
    """Shown in the signature as the number it stands for, and told from the same number given by a caller."""


OWN_TIMEOUT = _Default(30)


class DeployCode:
    """Deploys one project from Python, with the engine in this process.

    Raises E001 when the file is missing, and reads nothing else yet; an invalid file is ``is_valid: False`` from
    ``validate()`` and E002 from everything else. Binds no event loop and needs no close. Durations are seconds or
    timedelta.
    """

    def __init__(
        self, config_path: str | os.PathLike[str] = DEFAULT_FILE, dry_run: bool = False, force: bool = False
    ) -> None:
        if not os.path.exists(config_path):
            raise ConfigError(
                f"no configuration file {os.fspath(config_path)} in {os.getcwd()}",
                code="E001",
                remedy="Give its path as config_path, or make one with `deploy-code init`",
            )
        self.config_path = os.path.abspath(config_path)
        self.dry_run = dry_run
        self.force = force
        self._plugins: list[Plugin] = []

    def _app(self) -> App:
        return App((self.config_path,), dry_run=self.dry_run, force=self.force)

    def add_plugin(self, plugin: Plugin) -> None:
        """From the next deployment on, call this plugin's hooks."""
        self._plugins.append(plugin)

    # ------------------------------------------------------------------------------------------------------ deployments

    async def deploy(
        self, services: Sequence[str] | None = None, skip_phases: Sequence[str] | None = None
    ) -> DeploymentReport:
        """Deploy all services, or only ``services`` and what they need that is not healthy.

        What is found before the first step is raised; what fails afterwards is in the report, rollback included.
        """
        return await self._app().orchestrator(self._plugins).deploy(services, skip_phases)

    async def stop(self, timeout: Seconds | None = OWN_TIMEOUT) -> None:
        """Stop all services, dependents first. Works after any failure.

        A ``timeout`` that is given bounds each service, instead of its own ``stop_timeout_seconds`` (default 30).
        """
        if self.dry_run:
            return
        report = (
            await self._app().orchestrator(self._plugins).stop(None if timeout is OWN_TIMEOUT else _seconds(timeout))
        )
        if report is not None and not report.success:
            raise _failed(report)

    async def restart(self, services: Sequence[str] | None = None) -> DeploymentReport:
        """Recreate services at their revision, in dependency order, gated."""
        return await self._app().orchestrator(self._plugins).restart(services)

    # ------------------------------------------------------------------------------------------------------------ looks

    async def status(self, detailed: bool = False) -> dict[str, Any]:
        """How all services are doing; see the reference for the keys. ``detailed`` adds instances, probes and usage."""
        app = self._app()
        store = app.reader()
        if store is None:
            return _never_deployed(app)
        with store:
            status = read_status(store, detailed=detailed, agent_alive=app.agent_is_alive())
        cleaned: dict[str, Any] = app.redactor().clean_data(status)
        return cleaned

    async def validate(self) -> dict[str, Any]:
        """``is_valid``, ``errors`` and ``warnings`` of the file alone; each error is led by its code."""
        from deploy_code.config import check_files

        problems, warnings = check_files([self.config_path])
        return {
            "is_valid": not problems,
            "errors": [_coded(each) for each in problems],
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
            async with asyncio.timeout(_seconds(timeout)), aclosing(self._statuses(check_interval)) as statuses:
                async for status in statuses:
                    if status["overall_health"] == "healthy":
                        return True
                    if _is_hopeless(status):
                        return False
        except TimeoutError:
            return False
        return False

    async def monitor_deployment(self, callback: Callback | None = None) -> dict[str, Any]:
        """Call ``callback`` (plain or async) with the status at once and at each change, until no deployment runs.

        Gives back the last status. Works beside ``deploy()`` and from another process.
        """
        last: dict[str, Any] = {}
        seen_running = False
        async with aclosing(self._statuses(1.0)) as statuses:
            async for status in statuses:
                if callback is not None and _essence(status) != _essence(last):
                    result = callback(status)
                    if inspect.isawaitable(result):
                        await result
                last = status
                if status["deployment_complete"] and (seen_running or not self._somebody_deploys()):
                    break
                seen_running = seen_running or not status["deployment_complete"]
        return last

    def _somebody_deploys(self) -> bool:
        """Does anybody hold the lock? A deployment is recorded only when all is planned and checked."""
        from deploy_code.state.lock import holder

        return holder(self._app().identity.directories.state) is not None

    async def _statuses(self, interval: Seconds) -> AsyncGenerator[dict[str, Any], None]:
        """The status now, then whenever the state was written to, and at least every ``interval`` seconds."""
        from deploy_code.state.watch import StateWatch

        with StateWatch(self._app().identity.directories.state) as watch:
            while True:
                yield await self.status()
                await watch.changed(max(_seconds(interval) or 0.0, SHORTEST_LOOK_SECONDS))

    # ------------------------------------------------------------------------------------------ plain, in a loop or not

    def get_metrics(self) -> dict[str, Any]:
        """``cpu_percent``, ``memory_percent``, ``load_average``, ``disk_percent`` of this machine, now."""
        import psutil

        return {
            "cpu_percent": psutil.cpu_percent(interval=0.1),
            "memory_percent": psutil.virtual_memory().percent,
            "load_average": list(psutil.getloadavg()),
            "disk_percent": psutil.disk_usage("/").percent,
        }

    def get_service_logs(self, service: str, lines: int = 100) -> list[str]:
        """The last lines of a service's log, oldest first; empty when it never ran. Raises S001 for an unknown name."""
        from deploy_code.logs.files import service_logs
        from deploy_code.logs.read import tail

        app = self._app()
        sources = service_logs(app.identity.directories.logs, service)
        if not sources and service not in app.load().services:
            raise ServiceError(f'there is no service "{service}" in this project', remedy="See its file for the names")
        clean = app.redactor().clean
        return [clean(line.text) for line in tail(sources, lines)]


def _seconds(value: Seconds | None) -> float | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _coded(problem: Problem) -> str:
    return problem.coded()


def _failed(report: DeploymentReport) -> DeployCodeError:
    from deploy_code.errors import DeploymentError

    code = report.errors[0][:4] if report.errors else "E008"
    return DeploymentError("not everything could be stopped: " + "; ".join(report.errors), code=code)


def _never_deployed(app: App) -> dict[str, Any]:
    return empty_status(app.identity.name, app.identity.environment)


def _is_hopeless(status: Mapping[str, Any]) -> bool:
    """Nothing is on its way and something failed or was stopped: waiting cannot help."""
    if not status["deployment_complete"]:
        return False
    words = [each["status"] for each in status["services"].values() if not each["one_shot"]]
    return not words or "failed" in words or all(word in ("stopped", "not_started") for word in words)


def _essence(status: Mapping[str, Any]) -> Any:
    """What counts as a change: everything but the passing of time."""
    services = status.get("services", {})
    ageless = {
        name: {key: value for key, value in each.items() if key != "uptime_seconds"} for name, each in services.items()
    }
    return {key: value for key, value in status.items() if key != "services"}, ageless
