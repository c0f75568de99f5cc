"""Several calls at once whose failures are answers: none of them ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from deploy_code.errors import DeployCodeError

T = TypeVar("T")


async def together(calls: Sequence[Callable[[], Awaitable[T]]], *, most: int, name: str) -> list[T | DeployCodeError]:
    """What each gave or the DeployCodeError that it raised, in their order; at most ``most`` run at a time."""
    gate = asyncio.Semaphore(most)

    async def one(call: Callable[[], Awaitable[T]]) -> T | DeployCodeError:
        try:
            async with gate:
                return await call()
        except DeployCodeError as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call), name=name) for call in calls]
    return [task.result() for task in tasks]


def all_good(results: Sequence[T | DeployCodeError]) -> list[T]:
    """Raises the first error among them."""
    good = []
    for result in results:
        if isinstance(result, DeployCodeError):
            raise result
        good.append(result)
    return good
