"""What has to be known of container images before a plan is made, and to be there before it is walked.

Projects without containers pay nothing for it, not even an import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from deploy_code.orchestrator.brake import interrupted

if TYPE_CHECKING:
    from deploy_code.events import Event
    from deploy_code.model import Project
    from deploy_code.orchestrator.images import ImageBook, Images
    from deploy_code.orchestrator.parts import Host
    from deploy_code.plan.plan import Goal

T = TypeVar("T")


async def settled(
    host: Host,
    project: Project,
    *,
    only: Collection[str] | None,
    book: ImageBook | None,
    publish: Callable[[Event], None] = lambda _: None,
    look_only: bool = False,
) -> Project:
    """``project`` with all that its images say. Pulls and builds what is missing, unless ``look_only``.

    Raises PreflightError: E014, E003, E004.
    """
    if not any(spec.content.is_container for spec in project.services.values()):
        return project
    async with _images(host, book=book, publish=publish, look_only=look_only) as images:
        return await images.settled(project, only)


async def present(
    host: Host, goals: Iterable[Goal], *, book: ImageBook | None, publish: Callable[[Event], None]
) -> None:
    """See to it that the images of recorded revisions are there. Raises PreflightError: E014, E003."""
    containers = [goal for goal in goals if goal.spec.content.is_container]
    if containers:
        async with _images(host, book=book, publish=publish) as images:
            await images.present(containers)


def _images(host: Host, *, book: ImageBook | None, publish: Callable[[Event], None], look_only: bool = False) -> Images:
    from deploy_code.orchestrator.images import Images

    return Images(
        host.identity.name,
        state=host.identity.directories.state,
        environ=host.environ,
        known=book,
        publish=publish,
        look_only=look_only,
    )


class Preparation:
    """Work before a deployment is recorded that may take minutes, and that an interruption ends at once."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises DeploymentError E017 when it was interrupted."""
        task = asyncio.get_running_loop().create_task(work, name="prepare images")
        self._task = task
        try:
            await asyncio.wait([task])
        except BaseException:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            self._task = None
        if task.cancelled():
            raise interrupted()
        return task.result()

    def interrupt(self) -> None:
        """From any thread: what is under way is given up."""
        task = self._task
        if task is not None:
            task.get_loop().call_soon_threadsafe(task.cancel)
