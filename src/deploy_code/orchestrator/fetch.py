"""Decides which images must be pulled or built, and does it: each once, however many services use it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from deploy_code.drivers.engine.order import image_name
from deploy_code.drivers.engine.reference import is_image_id, parse_reference
from deploy_code.errors import DeployCodeError, PreflightError, Problem
from deploy_code.events import Event
from deploy_code.model import Build, ServiceSpec
from deploy_code.orchestrator.builds import BuildOrder, build
from deploy_code.orchestrator.image_list import Image, ImageList
from deploy_code.orchestrator.image_news import News
from deploy_code.orchestrator.pulls import PullError, pull
from deploy_code.orchestrator.together import together

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient
    from deploy_code.plan.plan import Goal

AT_ONCE = 3  # pulls and builds together
Way = Literal["", "pull", "build", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one service needs. ``image``: what is here; ``way``: how it is to be had, "" where it is here.

    ``name``: the image as people call it; ``key``: equal for all services that are served by one pull or build.
    """

    spec: ServiceSpec
    name: str
    key: str
    image: Image | None
    way: Way

    @property
    def build(self) -> Build | None:
        return self.spec.content.container.build

    def announced(self) -> Iterator[str]:
        """What a look ahead says of it."""
        service = self.spec.name
        if self.way == "build":
            yield f"{service}: its image is not built yet: deploying builds it"
        elif self.way == "pull" and self.image is None:
            yield f"{service}: image {self.name} is not here yet: deploying pulls it, and asks it for ports and checks"
        elif self.way == "pull":
            yield f"{service}: image {self.name} is pulled again by each deploy: it may be another one then"

    def problem(self, error: DeployCodeError) -> Problem:
        key = "build" if self.way == "build" else "image"
        return Problem(error.message, code=error.code, path=f"services.{self.spec.name}.{key}", remedy=error.remedy)


@dataclass(slots=True)
class Fetched:
    """What came of it: images by service, and what cannot be had."""

    images: dict[str, Image] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Fetcher:
    """Pulls and builds for one project."""

    def __init__(
        self,
        project: str,
        *,
        state: str,
        environ: Mapping[str, str],
        publish: Callable[[Event], None],
        clean: Callable[[str], str] = str,
    ) -> None:
        self._project = project
        self._state = state
        self._environ = environ
        self._publish = publish
        self._clean = clean

    # ------------------------------------------------------------------------------------------------------ what is due

    def need(self, spec: ServiceSpec, there: ImageList) -> Need:
        content, policy = spec.content, spec.policy
        made = content.container.build
        if made is not None:
            image = there.built(made.digest)
            name = content.image or image_name(self._project, spec.name, made.digest)
            return Need(spec=spec, name=name, key=made.digest, image=image, way="" if image else "build")
        image = there.find(content.image)
        is_id = is_image_id(content.image)
        way: Way = ""
        if policy.pull == "never" or is_id:
            way = "" if image else "never"
        elif image is None or policy.pull == "always":
            way = "pull"
        key = content.image if is_id else str(parse_reference(content.image))
        return Need(spec=spec, name=content.image, key=key, image=image, way=way)

    # ------------------------------------------------------------------------------------------------------ doing it

    async def fetch(self, client: EngineClient, needs: Mapping[str, Need]) -> Fetched:
        """Pull and build what is to be. Raises DriverError where the engine is away."""
        jobs = defaultdict[str, list[Need]](list)
        for need in needs.values():
            if need.way in ("pull", "build"):
                jobs[need.key].append(need)
        calls = [partial(self._get, client, wanted) for wanted in jobs.values()]
        results = await together(calls, most=AT_ONCE, name="image")
        fetched = Fetched()
        for wanted, result in zip(jobs.values(), results, strict=True):
            if isinstance(result, Image):
                fetched.images.update({need.spec.name: result for need in wanted})
            elif _is_away(result):
                raise result
            elif wanted[0].image is not None and isinstance(result, PullError) and not result.refused:
                fetched.warnings.append(f"{_names(wanted)}: what is here of it is used: {result.message}")
            else:
                fetched.problems.extend(need.problem(result) for need in wanted)
        return fetched

    async def _get(self, client: EngineClient, needs: Sequence[Need]) -> Image:
        first = needs[0]
        runtime = first.spec.content.container.runtime
        news = News(first.name, self._publish)
        if first.build is None:
            return await pull(client, first.name, runtime=runtime, environ=self._environ, news=news)
        order = BuildOrder(
            build=first.build,
            tags=tuple(dict.fromkeys(tag for need in needs for tag in self._tags(need))),
            project=self._project,
            state=self._state,
            service=first.spec.name,
            fresh_base=any(need.spec.policy.pull == "always" for need in needs),
        )
        return await build(client, order, runtime=runtime, environ=self._environ, news=news, clean=self._clean)

    def _tags(self, need: Need) -> Iterator[str]:
        if need.build is not None:
            yield image_name(self._project, need.spec.name, need.build.digest)
        if need.spec.content.image:
            yield need.spec.content.image

    # ------------------------------------------------------------------------------------------------------ once more

    async def bring_back(self, client: EngineClient, goals: Sequence[Goal]) -> list[Problem]:
        """Pull the very images of recorded revisions again; what cannot be had. Raises DriverError where the engine
        is away.
        """
        jobs: defaultdict[str, list[Goal]] = defaultdict(list)
        problems = [problem for goal in goals if (problem := cannot_return(goal)) is not None]
        for goal in goals:
            if _can_return(goal):
                jobs[goal.spec.content.container.image_digest].append(goal)
        calls = [partial(self._again, client, digest, wanted[0]) for digest, wanted in jobs.items()]
        results = await together(calls, most=AT_ONCE, name="image")
        for wanted, result in zip(jobs.values(), results, strict=True):
            if isinstance(result, DeployCodeError) and _is_away(result):
                raise result
            problems += [problem for goal in wanted if (problem := _not_back(goal, result)) is not None]
        return problems

    async def _again(self, client: EngineClient, digest: str, goal: Goal) -> Image:
        news = News(goal.spec.content.image, self._publish)
        runtime = goal.spec.content.container.runtime
        return await pull(client, digest, runtime=runtime, environ=self._environ, news=news)


def not_had(problems: Sequence[Problem]) -> PreflightError:
    count = "an image" if len(problems) == 1 else f"{len(problems)} images"
    return PreflightError(f"{count} cannot be had; nothing was changed", problems)


def refused(needs: Mapping[str, Need]) -> Iterator[Problem]:
    """What nobody may pull, and is not here."""
    for need in needs.values():
        if need.way == "never":
            yield Problem(
                f"image {need.name} is not here, and may not be pulled",
                code="E003",
                path=f"services.{need.spec.name}.image",
                remedy="load or build it first, or write `pull: missing`"
                if need.spec.policy.pull == "never"
                else "an ID names what is here already: write a name and a digest instead",
            )


def _names(needs: Sequence[Need]) -> str:
    return ", ".join(need.spec.name for need in needs)


def _is_away(error: DeployCodeError) -> bool:
    return error.code in ("E014", "E018")


def _can_return(goal: Goal) -> bool:
    container = goal.spec.content.container
    return bool(container.image_digest) and container.build is None


def cannot_return(goal: Goal) -> Problem | None:
    """A revision whose image is gone for good: it was built here, or never was in a registry."""
    if _can_return(goal):
        return None
    built = goal.spec.content.container.build is not None
    return _gone(
        goal,
        "it was built here, and cannot be pulled" if built else "no registry is known that has it",
        "deploy what the file says now: that builds it again" if built else "load it again, or deploy another image",
    )


def _not_back(goal: Goal, result: Image | DeployCodeError) -> Problem | None:
    if isinstance(result, DeployCodeError):
        return _gone(goal, result.message, result.remedy, code=result.code)
    if result.id != goal.spec.content.container.image_id:
        digest = goal.spec.content.container.image_digest
        return _gone(goal, f"{digest} is another one now ({result.id[:19]})", "deploy what the file says now")
    return None


def _gone(goal: Goal, why: str, remedy: str, *, code: str = "E003") -> Problem:
    name, image_id = goal.spec.content.image, goal.spec.content.container.image_id[:19]
    called = f"{name} ({image_id})" if name else image_id
    return Problem(
        f"revision r{goal.revision} runs image {called}, which is gone from the engine: {why}",
        code=code,
        path=f"services.{goal.spec.name}.image",
        remedy=remedy,
    )
