"""Makes sure that the image of every container is known before a plan is made, and here before it is walked.

What the file calls ``redis:7`` is, for a revision, one image ID: tags move, and a rollback must not move with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from deploy_code.codec import from_data, to_data
from deploy_code.drivers.engine.reference import is_image_id, parse_reference
from deploy_code.errors import CircuitOpenError, DriverError, PreflightError, Problem
from deploy_code.events import Event
from deploy_code.model import Container, Project, ServiceSpec
from deploy_code.orchestrator import image_checks
from deploy_code.orchestrator.engines import Engines, unreachable
from deploy_code.orchestrator.fetch import Fetched, Fetcher, cannot_return, not_had, refused
from deploy_code.orchestrator.image_facts import ImageFacts, completed, facts_of, without_image
from deploy_code.orchestrator.image_list import Image, ImageList, list_images
from deploy_code.orchestrator.together import all_good, together

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient
    from deploy_code.plan.plan import Goal
    from deploy_code.reliability.registry import Breakers


_AWAY = ("E014", "E018")
_INSPECTED_AT_ONCE = 8


class ImageBook(Protocol):
    """Where it is remembered what images say of themselves (``state.store.Store``)."""

    def images(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]: ...

    def put_images(self, facts: Mapping[str, Mapping[str, Any]]) -> None: ...


class Images:
    """The images of one project. Use it with ``async with``: it holds connections to engines.

    ``project`` and ``state`` (absolute folder) go on what is built. ``known``: None where nothing was ever deployed.
    ``publish`` hears of pulls and builds (ImageProgress, ImageReady); ``clean`` takes secrets out of what builds write.
    ``look_only``: nothing is pulled, built or remembered.
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
        clean: Callable[[str], str] = str,
    ) -> None:
        self._known = known
        self._look_only = look_only
        self._engines = Engines(environ, breakers)
        self._fetcher = Fetcher(project, state=state, environ=environ, publish=publish, clean=clean)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engines.close()

    # -------------------------------------------------------------------------------------------------- from the file

    async def settled(self, project: Project, only: Collection[str] | None = None) -> Project:
        """``project`` with every container complete, and what there is to say of its images in ``warnings``.

        ``only``: services that are to be deployed (None: all); for others nothing is pulled or built. Raises
        PreflightError with all that is wrong: E014 for engines that cannot be reached, E003 for images that cannot be
        had, E004 where the disk is full.
        """
        specs = {name: spec for name, spec in project.services.items() if spec.content.is_container}
        if not specs:
            return project
        chosen = specs.keys() if only is None else specs.keys() & with_dependencies(project.services, only)
        done, warnings = dict(project.services), list[str]()
        for runtime in sorted({spec.content.container.runtime for spec in specs.values()}):
            own = {name: spec for name, spec in specs.items() if spec.content.container.runtime == runtime}
            if own.keys().isdisjoint(chosen):
                continue  # none of them is touched, so it does not matter whether their engine is there
            found, told = await self._on_engine(runtime, own, chosen)
            done.update(found)
            warnings += told
        return replace(project, services=done, warnings=(*project.warnings, *warnings))

    async def _on_engine(
        self, runtime: str, specs: Mapping[str, ServiceSpec], chosen: Collection[str]
    ) -> tuple[dict[str, ServiceSpec], list[str]]:
        try:
            endpoint = self._engines.endpoint(runtime)
            client = self._engines.client(endpoint)
            there = await list_images(client)
            specs = {name: _on(spec, endpoint.url, endpoint.tls) for name, spec in specs.items()}
            fetched = await self._fetched(client, there, specs, chosen)
            found = fetched.images
            facts = await self._facts(client, {image.id for image in found.values()})
            arch = await image_checks.architecture(client)
        except (DriverError, CircuitOpenError) as error:
            if error.code not in _AWAY:
                raise
            raise unreachable(error, sorted(specs)) from error
        complete = {name: _complete(spec, found.get(name), facts) for name, spec in specs.items()}
        looked_at = {name: facts[found[name].id] for name in complete if name in found and name in chosen}
        problems = [*fetched.problems, *image_checks.strangers(complete, looked_at, arch, local=endpoint.is_local)]
        if problems:
            raise not_had(problems)
        return complete, [*fetched.warnings, *image_checks.warnings(complete, looked_at, arch)]

    async def _fetched(
        self, client: EngineClient, there: ImageList, specs: Mapping[str, ServiceSpec], chosen: Collection[str]
    ) -> Fetched:
        """The image of each service that has one, pulled and built where that is asked for."""
        needs = {name: self._fetcher.need(spec, there) for name, spec in specs.items()}
        found = {name: need.image for name, need in needs.items() if need.image is not None}
        asked = {name: need for name, need in needs.items() if name in chosen}
        if self._look_only:
            fetched = Fetched(warnings=[warning for need in asked.values() for warning in need.announced()])
        else:
            fetched = await self._fetcher.fetch(client, asked)
        fetched.problems.extend(refused(asked))
        fetched.images = {**found, **fetched.images}
        return fetched

    async def _facts(self, client: EngineClient, ids: Collection[str]) -> dict[str, ImageFacts]:
        """What these images say: remembered, else asked once for ever."""
        known = self._known.images(ids) if self._known is not None else {}
        facts = {key: from_data(ImageFacts, data) for key, data in known.items()}
        new = await self._asked(client, [key for key in sorted(ids) if key not in facts])
        if new and self._known is not None and not self._look_only:
            self._known.put_images({key: to_data(each) for key, each in new.items()})
        return facts | new

    async def _asked(self, client: EngineClient, ids: Sequence[str]) -> dict[str, ImageFacts]:
        """Podman tells of health checks only in its own words."""
        if not ids:
            return {}
        folder = "/libpod/images" if (await client.info()).name == "podman" else "/images"
        calls = [partial(client.call, "GET", f"{folder}/{key}/json") for key in ids]
        answers = all_good(await together(calls, most=_INSPECTED_AT_ONCE, name="image inspect"))
        return {key: facts_of(data) for key, data in zip(ids, answers, strict=True)}

    # ------------------------------------------------------------------------------------------------ from the record

    async def present(self, goals: Iterable[Goal]) -> None:
        """Recorded revisions need their very image: pull what is gone by its digest.

        Raises PreflightError E003 that names the revisions whose image cannot be had any more, E014 as ``settled``.
        """
        by_engine: dict[EngineClient, list[Goal]] = defaultdict(list)
        for goal in goals:
            if goal.spec.content.is_container and goal.spec.content.container.image_id:
                by_engine[self._engines.of(goal.spec.content.container)].append(goal)
        problems: list[Problem] = []
        for client, needed in by_engine.items():
            problems += await self._present_on(client, needed)
        if problems:
            raise PreflightError("images of earlier revisions are gone; nothing was changed", problems)

    async def _present_on(self, client: EngineClient, goals: Sequence[Goal]) -> list[Problem]:
        try:
            there = await list_images(client)
            missing = [goal for goal in goals if there.with_id(goal.spec.content.container.image_id) is None]
            if self._look_only:
                return [problem for goal in missing if (problem := cannot_return(goal)) is not None]
            return await self._fetcher.bring_back(client, missing)
        except (DriverError, CircuitOpenError) as error:
            if error.code not in _AWAY:
                raise
            raise unreachable(error, sorted({goal.spec.name for goal in goals})) from error


def with_dependencies(services: Mapping[str, ServiceSpec], names: Iterable[str]) -> frozenset[str]:
    """These, and all that they need."""
    seen, todo = set[str](), list(names)
    while todo:
        name = todo.pop()
        if name in services and name not in seen:
            seen.add(name)
            todo += [needed.service for needed in services[name].policy.dependencies]
    return frozenset(seen)


def _on(spec: ServiceSpec, engine: str, tls: str) -> ServiceSpec:
    return _with(spec, replace(spec.content.container, engine=engine, engine_tls=tls))


def _with(spec: ServiceSpec, container: Container) -> ServiceSpec:
    return replace(spec, content=replace(spec.content, container=container))


def _complete(spec: ServiceSpec, image: Image | None, facts: Mapping[str, ImageFacts]) -> ServiceSpec:
    if image is None:
        return without_image(spec)
    container = replace(spec.content.container, image_id=image.id, image_digest=_digest(spec, image))
    return completed(_with(spec, container), facts[image.id])


def _digest(spec: ServiceSpec, image: Image) -> str:
    """By what the very image can be pulled again; "" for one that was built here or is named by its ID."""
    name = spec.content.image
    if spec.content.container.build is not None or is_image_id(name):
        return ""
    return image.digest_in(parse_reference(name))
