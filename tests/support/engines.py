"""Real engines as tests see them: fixtures of ``conftest``, and what a project has left in them.

``docker`` and ``podman`` are shared by all tests that run: name what you make after the test, and never stop them.
``private_docker`` and ``private_podman`` belong to one test, which may kill and restart them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.daemons import Unavailable
from support.engine_api import ApiError, EngineApi
from support.engine_daemons import Engine, PrivateDocker, PrivatePodman
from support.engine_house import EngineHouse
from support.images_small import small_images
from support.needs import missing

STATE = "deploy-code.state"

#: The engines that tests of this process have talked to: where things may be left.
_in_use: list[Engine] = []


@contextmanager
def shared_engines() -> Iterator[EngineHouse]:
    """The engines of this machine, started if need be. Missing, they skip the test, and fail it in CI."""
    house = EngineHouse()
    with ExitStack() as stack:
        try:
            stack.enter_context(house.used())
        except Unavailable as exc:
            missing(str(exc))
        stack.enter_context(_watched(*house.engines))
        yield house


@contextmanager
def private_dockers() -> Iterator[Callable[..., PrivateDocker]]:
    """Gives a function that starts a dockerd with more ``options``, with the small images in it; ends them all."""
    with ExitStack() as stack:

        def start(*options: str) -> PrivateDocker:
            folder = Path(tempfile.mkdtemp(prefix="dc-docker-"))
            stack.callback(shutil.rmtree, folder)
            docker = PrivateDocker(folder, *options)
            stack.callback(docker.close)
            stack.enter_context(_watched(docker))
            docker.start()
            docker.load(small_images())
            return docker

        yield start


@contextmanager
def private_podman(house: EngineHouse) -> Iterator[PrivatePodman]:
    """A service of one test's own on the shared containers and images."""
    folder = Path(tempfile.mkdtemp(prefix="dc-podman-"))
    podman = PrivatePodman(folder, house.podman)
    podman.start()
    try:
        yield podman
    finally:
        podman.close()
        shutil.rmtree(folder)


@contextmanager
def _watched(*engines: Engine) -> Iterator[None]:
    _in_use.extend(engines)
    yield
    for engine in engines:
        _in_use.remove(engine)


@dataclass(frozen=True)
class Left:
    """Something in an engine that carries the label of a project's state folder."""

    engine: Engine
    kind: str
    name: str
    more: str = ""

    @property
    def path(self) -> str:
        return f"/{self.kind}s/{self.name}"

    def remove(self) -> None:
        try:
            self.engine.api("DELETE", self.path, force="1", **({"v": "1"} if self.kind == "container" else {}))
        except ApiError as exc:
            if exc.status != 404 and "not known" not in exc.message:  # Podman says so of an image, with a 500
                raise

    def __str__(self) -> str:
        return f"{self.engine.kind}: {self.kind} {self.name} {self.more}".rstrip()


def left_in_engines(folder: Path, env: Mapping[str, str] | None = None) -> list[Left]:
    """Containers, networks, volumes and built images of the projects whose state lies under ``folder``.

    ``env``: that of such a project; only the engines that it names are asked, which takes its time.
    """
    asked = [each for each in _in_use if env is None or each.env.items() <= env.items()]
    return [left for engine in asked if engine.record for left in _left_in(engine, folder)]


def _left_in(engine: Engine, folder: Path) -> Iterator[Left]:
    api, ours = engine.api, {"filters": {"label": [STATE]}}
    for each in api("GET", "/containers/json", all="1", **ours):
        if _is_under(each["Labels"], folder):
            yield Left(engine, "container", each["Names"][0].lstrip("/"), each["Status"])
    for each in api("GET", "/networks", **ours):
        if _is_under(each["Labels"], folder):
            yield Left(engine, "network", each["Name"])
    for each in api("GET", "/volumes", **ours)["Volumes"] or ():
        if _is_under(each["Labels"], folder):
            yield Left(engine, "volume", each["Name"])
    for each in _images(api, ours):
        if _is_under(each["Labels"], folder):
            yield Left(engine, "image", each["Id"])


def _images(api: EngineApi, filters: dict[str, Any]) -> list[dict[str, Any]]:
    """Podman gives up when somebody removes an image while it makes the list."""
    for _ in range(10):
        try:
            return list(api("GET", "/images/json", all="0", **filters))
        except ApiError as exc:
            if "image not known" not in exc.message:
                raise
    raise AssertionError("images come and go too fast to be listed")


def _is_under(labels: dict[str, str] | None, folder: Path) -> bool:
    state = (labels or {}).get(STATE, "")
    return bool(state) and Path(state).resolve().is_relative_to(folder.resolve())
