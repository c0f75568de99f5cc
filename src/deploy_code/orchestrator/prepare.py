"""What has to be known of container images before a plan is made, and to be there before it is walked.

Projects without containers pay nothing for it, not even an import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from deploy_code.orchestrator.brake import interrupted_before

if TYPE_CHECKING:
    from deploy_code.events import Event
    from deploy_code.model import Project
    from deploy_code.orchestrator.images import ImageBook, Images
    from deploy_code.orchestrator.parts import Host
    from deploy_code.plan.plan import Goal

T = TypeVar("T")


class Preparation:
    """Work before a deployment is recorded that may take minutes, and that an interruption ends at once.

    ``book`` remembers what images say of themselves; ``publish`` hears of pulls and builds.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._task: asyncio.Task[Any] | None = None

    async def settled(
        self,
        project: Project,
        *,
        only: Collection[str] | None,
        book: ImageBook | None,
        publish: Callable[[Event], None] = lambda _: None,
        look_only: bool = False,
    ) -> Project:
        """``project`` with all that its images say. Pulls and builds what is missing, unless ``look_only``.

        Raises PreflightError (E014, E003, E004), and E017 when it was interrupted.
        """
        if not any(spec.content.is_container for spec in project.services.values()):
            return project

        async def work() -> Project:
            clean = self._host.redactor(project).clean  # builds write what they like
            async with self._images(book, publish, look_only=look_only, clean=clean) as images:
                return await images.settled(project, only)

        return await self._run(work())

    async def present(self, goals: Iterable[Goal], *, book: ImageBook | None, publish: Callable[[Event], None]) -> None:
        """See to it that the images of recorded revisions are there. Raises as ``settled``."""
        containers = [goal for goal in goals if goal.spec.content.is_container]
        if not containers:
            return

        async def work() -> None:
            async with self._images(book, publish) as images:
                await images.present(containers)

        await self._run(work())

    def interrupt(self) -> None:
        """From any thread: what is under way is given up."""
        task = self._task
        if task is not None:
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _images(
        self,
        book: ImageBook | None,
        publish: Callable[[Event], None],
        *,
        look_only: bool = False,
        clean: Callable[[str], str] = str,
    ) -> Images:
        from deploy_code.orchestrator.images import Images

        return Images(
            self._host.identity.name,
            state=self._host.identity.directories.state,
            environ=self._host.environ,
            known=book,
            publish=publish,
            look_only=look_only,
            clean=clean,
        )

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
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
            raise interrupted_before()
        return task.result()
