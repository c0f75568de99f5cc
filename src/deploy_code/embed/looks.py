"""What can be seen of a project without touching it: status, logs, and waiting for something to come true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from deploy_code.app import App
from deploy_code.embed.arguments import Seconds, seconds, whole
from deploy_code.errors import DeploymentError, ServiceError
from deploy_code.orchestrator.status import empty_status, read_status

SHORTEST_LOOK_SECONDS = 0.05  # an interval of 0 must not become a busy loop


def status_of(app: App, *, detailed: bool = False) -> dict[str, Any]:
    """How all services are doing, secrets redacted."""
    store = app.reader()
    if store is None:
        return empty_status(app.identity.name, app.identity.environment)
    with store:
        status = read_status(store, detailed=detailed, agent_alive=app.agent_is_alive())
    cleaned: dict[str, Any] = app.redactor().clean_data(status)
    return cleaned


async def look(app: App, *, detailed: bool = False) -> dict[str, Any]:
    """The same off the loop: the state and /proc are read, which takes long where there is much."""
    return await asyncio.to_thread(status_of, app, detailed=detailed)


async def statuses(make: Callable[[], App], interval: float) -> AsyncGenerator[dict[str, Any], None]:
    """The status now, then whenever the state was written to, and at least every ``interval`` seconds."""
    from deploy_code.state.watch import StateWatch

    with StateWatch(make().identity.directories.state) as watch:
        while True:
            yield await look(make())
            await watch.changed(max(interval, SHORTEST_LOOK_SECONDS))


async def until_healthy(make: Callable[[], App], timeout: Seconds | None, interval: Seconds) -> None:
    """Return once every service is healthy. Raises DeploymentError: E006 when that cannot come, E008 on time-out."""
    bound, pause = seconds(timeout), seconds(interval, "check_interval") or 0.0
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(bound), aclosing(statuses(make, pause)) as looks:
            async for last in looks:
                if last["overall_health"] == "healthy":
                    return
                if is_hopeless(last):
                    raise _hopeless(last)
    except TimeoutError as exc:
        raise _too_late(last, bound or 0.0) from exc


def is_hopeless(status: Mapping[str, Any]) -> bool:
    """Nothing is on its way and something failed or was stopped: waiting cannot help."""
    if not status["deployment_complete"]:
        return False
    words = [each["status"] for each in status["services"].values() if not each["one_shot"]]
    return not words or "failed" in words or all(word in ("stopped", "not_started") for word in words)


def _hopeless(status: Mapping[str, Any]) -> DeploymentError:
    failed = [name for name, each in status["services"].items() if each["status"] == "failed"]
    what = _described(status, failed) if failed else f"no service of {status['project']} is to run"
    return DeploymentError(
        what,
        service=failed[0] if failed else "",
        code="E006",
        meaning="Waiting cannot help",
        remedy="See their logs, correct what is wrong, and deploy again" if failed else "Deploy first",
    )


def _too_late(status: Mapping[str, Any], timeout: float) -> DeploymentError:
    late = [name for name, each in status.get("services", {}).items() if each["health"] in ("unhealthy", "starting")]
    what = _described(status, late) if late else "not all services are healthy"
    return DeploymentError(
        f"{what}, after {timeout:g} s",
        service=late[0] if late else "",
        code="E008",
        meaning="They may still become healthy",
        remedy="Wait for longer, or see their logs",
    )


def _described(status: Mapping[str, Any], names: list[str]) -> str:
    services = status["services"]
    return ", ".join(_one(name, services[name]) for name in names)


def _one(name: str, service: Mapping[str, Any]) -> str:
    word = service["status"] if service["status"] == "failed" else service["health"]
    return f"{name} is {word}" + (f" ({service['detail']})" if service["detail"] else "")


def log_lines(app: App, service: str, lines: int) -> list[str]:
    """The last lines of a service's log, oldest first; empty when it never ran. Raises S001 for an unknown name."""
    from deploy_code.logs.files import service_logs
    from deploy_code.logs.read import tail

    wanted = max(0, whole(lines, "lines") or 0)
    sources = service_logs(app.identity.directories.logs, service)
    if not sources and service not in app.load().services:
        raise ServiceError(f'there is no service "{service}" in this project', remedy="See its file for the names")
    clean = app.redactor().clean
    return [clean(line.text) for line in tail(sources, wanted)]


def somebody_deploys(app: App) -> bool:
    """Does anybody hold the lock? A deployment is recorded only when all is planned and checked."""
    from deploy_code.state.lock import holder

    return holder(app.identity.directories.state) is not None
