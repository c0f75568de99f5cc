"""Images of a test's own name, through the orchestrator's image step, on a real engine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy_code.config.build_context import build_digest
from deploy_code.events import Event, ImageReady
from deploy_code.model import Build, Container, Content, Policy, Project, ServiceSpec
from deploy_code.orchestrator.images import Images
from deploy_code.plan.plan import Goal
from support.engine_api import ApiError
from support.engine_daemons import Engine
from support.images import Entry, Image, Layer, program
from support.images_small import WEB, base
from support.wait import wait_until


def image(text: str, **config: Any) -> Image:
    """A small image that differs by ``text``: it has no name before it is pushed or loaded."""
    return Image("", (base(), Layer({"/text": Entry(text)})), {"Cmd": ["sleep", "1000"], **config})


def own_web(text: str) -> Image:
    """A web server that answers ``text`` on 8080. Unlike ``dc-test/web`` it is a test's own: it may be removed."""
    pages = Layer({"/www/index.html": Entry(text), "/bin/web": program(WEB)})
    return Image("", (base(), pages), {"Cmd": ["/bin/web"], "ExposedPorts": {"8080/tcp": {}}})


class Book:
    """What is remembered of images, for a test."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}

    def images(self, ids: Any) -> dict[str, Any]:
        return {key: self.facts[key] for key in ids if key in self.facts}

    def put_images(self, facts: Any) -> None:
        self.facts.update(facts)


@dataclass
class ImageStep:
    """The image step of one project on ``engine``; ``events`` are those that it told."""

    engine: Engine
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"img-{uuid.uuid4().hex[:8]}")
    book: Book = field(default_factory=Book)
    events: list[Event] = field(default_factory=list)

    def service(self, name: str, image: str = "", build: Build | None = None, **policy: Any) -> ServiceSpec:
        if build is not None:
            build = replace(build, digest=build_digest(build))
        content = Content(
            service_type="container", image=image, container=Container(runtime=self.engine.kind, build=build)
        )
        return ServiceSpec(name=name, content=content, policy=Policy(stop_signal="", **policy))

    def _images(self, look_only: bool = False) -> Images:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.engine.env, **self.env}
        return Images(
            self.name,
            state=str(self.folder / "state"),
            environ=environ,
            known=self.book,
            publish=self.events.append,
            look_only=look_only,
        )

    async def settled(self, *specs: ServiceSpec, look_only: bool = False, only: list[str] | None = None) -> Project:
        project = Project(name=self.name, services={spec.name: spec for spec in specs})
        async with self._images(look_only) as images:
            return await images.settled(project, only)

    async def settle(self, spec: ServiceSpec) -> Container:
        """What became of one service."""
        return (await self.settled(spec)).services[spec.name].content.container

    async def present(self, *specs: ServiceSpec, look_only: bool = False) -> None:
        async with self._images(look_only) as images:
            await images.present(Goal(spec=spec, revision=7, replicas=1) for spec in specs)

    @property
    def made(self) -> list[tuple[str, str]]:
        """Images that were pulled or built, in their order."""
        return [(event.how, event.image) for event in self.events if isinstance(event, ImageReady)]

    def ids(self) -> set[str]:
        return {_full(each["Id"]) for each in self.engine.api("GET", "/images/json")}

    def remove(self, name: str) -> None:
        """An engine that is just busy with the image, as after a pull, is asked again; one that somebody uses stays."""
        with suppress(AssertionError):
            wait_until(lambda: self._removed(name), 2)

    def _removed(self, name: str) -> bool:
        try:
            self.engine.api("DELETE", f"/images/{name}", force="1")
        except ApiError as exc:
            return exc.status == 404 or "not known" in exc.message
        return True


def _full(image_id: str) -> str:
    return image_id if image_id.startswith("sha256:") else f"sha256:{image_id}"


@contextmanager
def image_step(engine: Engine, folder: Path, **env: str) -> Iterator[ImageStep]:
    """Afterwards the images that came are removed again."""
    step = ImageStep(engine, folder, env)
    before = step.ids()
    try:
        yield step
    finally:
        for key, facts in step.book.facts.items():
            assert facts is not None
            if key not in before:
                step.remove(key)
