"""Makes sure that the image of every container is known before a plan is made, and here before it is walked.

What the file calls ``redis:7`` is, for a revision, one image ID: tags move, and a rollback must not move with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from deploy_code.events import Event
    from deploy_code.model import Project
    from deploy_code.plan.plan import Goal
    from deploy_code.reliability.registry import Breakers


class ImageBook(Protocol):
    """Where it is remembered what images say of themselves (``state.store.Store``)."""

    def images(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]: ...

    def put_images(self, facts: Mapping[str, Mapping[str, Any]]) -> None: ...


class Images:
    """The images of one project. Use it with ``async with``: it holds connections to engines.

    ``project`` and ``state`` (absolute folder) go on what is built. ``known``: None where nothing was ever deployed.
    ``publish`` hears of pulls and builds (ImageProgress, ImageReady). ``look_only``: nothing is pulled, built or
    remembered.
    """

    def __init__(
        self,
        project: str,
        *,
        state: str,
        environ: Mapping[str, str],
        known: ImageBook | None = None,
        publish: Callable[[Event], None] = lambda _: None,
        breakers: Breakers | None = None,
        look_only: bool = False,
    ) -> None:
        self._project = project

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def settled(self, project: Project, only: Collection[str] | None = None) -> Project:
        """``project`` with every container complete, and what there is to say of its images in ``warnings``.

        ``only``: services that are to be deployed (None: all); of others nothing is pulled or built. Raises
        PreflightError with all that is wrong: E014 for engines that cannot be reached, E003 for images that cannot be
        had, E004 where the disk is full.
        """
        raise NotImplementedError

    async def present(self, goals: Iterable[Goal]) -> None:
        """Recorded revisions need their very image: pull what is gone by its digest.

        Raises PreflightError E003 that names the revisions whose image cannot be had any more, E014 as ``settled``.
        """
        raise NotImplementedError
