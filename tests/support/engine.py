"""The engine in this process, over a real agent: for tests that call, interrupt and crash it from Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from deploy_code.app import App
from deploy_code.errors import DeployCodeError
from deploy_code.orchestrator import operations
from deploy_code.orchestrator.engine import Engine
from deploy_code.plan.plan import Step
from deploy_code.plugins import Plugin
from deploy_code.state.rows import DeploymentRow, MapEntry
from deploy_code.state.store import Store
from support.project import ProjectFolder
from support.scenarios import pids


def engine(project: ProjectFolder, plugins: Iterable[Plugin] = (), **options: Any) -> Engine:
    """An engine of its own over the project's file, as each command has."""
    return App((str(project.config),), environ=project.env, **options).orchestrator(plugins)


def row(project: ProjectFolder, number: int = 0) -> DeploymentRow:
    """A recorded deployment; 0: the last one."""
    with Store.open(project.state, read_only=True) as store:
        found = store.deployment(number) if number else store.last_deployment()
    assert found is not None
    return found


def wanted(project: ProjectFolder) -> dict[str, MapEntry]:
    """The recorded map that holds now."""
    with Store.open(project.state, read_only=True) as store:
        return store.current_map()


def revisions(project: ProjectFolder) -> dict[str, int]:
    return {name: entry.revision for name, entry in wanted(project).items()}


async def until(condition: Callable[[], object], timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


async def until_runs(project: ProjectFolder, *services: str) -> None:
    await until(lambda: pids(project).keys() >= set(services))


async def give_up(run: Engine, task: asyncio.Task[Any]) -> None:
    """Ctrl-C twice: the deployment is left as it is, recorded as running."""
    run.interrupt()
    run.interrupt()
    with suppress(DeployCodeError):
        await task


@asynccontextmanager
async def held_at(match: Callable[[Step], bool]) -> AsyncIterator[asyncio.Event]:
    """While this holds, a step that matches is not carried out; the event says that it was reached."""
    reached, perform = asyncio.Event(), operations.perform

    async def hold(context: operations.Context, step: Step) -> None:
        if match(step):
            reached.set()
            await asyncio.sleep(1000)
        await perform(context, step)

    operations.perform = hold
    try:
        yield reached
    finally:
        operations.perform = perform
