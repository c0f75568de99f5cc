"""Builds images through the engine: the context goes there as a stream, what it writes comes back as news."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_code.config.build_context import dockerfile_name, dockerfile_path
from deploy_code.drivers.engine.credentials import registry_config
from deploy_code.drivers.engine.errors import EngineError
from deploy_code.drivers.engine.order import BUILD, PROJECT, SERVICE, STATE
from deploy_code.errors import DriverError
from deploy_code.model import Build
from deploy_code.orchestrator.context_tar import context_tar
from deploy_code.orchestrator.image_list import Image, image_of
from deploy_code.orchestrator.image_news import News

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient

LINES_KEPT = 20  # of what a failed build wrote
_NOISE = ("--->", "-->", "Removing intermediate container")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STEP = re.compile(r"step (?P<number>\d+)/(?P<total>\d+) ?: (?P<what>.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """One image to build. ``tags``: every name that it gets, at least one."""

    build: Build
    tags: tuple[str, ...]
    project: str
    state: str
    service: str
    fresh_base: bool = False  # ask the registry for a newer base image

    def query(self) -> dict[str, object]:
        """The parameters of ``POST /build``."""
        return {
            "t": list(self.tags),
            "dockerfile": dockerfile_name(self.build),
            "buildargs": dict(self.build.args),
            "target": self.build.target or None,
            "labels": {
                PROJECT: self.project,
                STATE: self.state,
                SERVICE: self.service,
                BUILD: self.build.digest,
            },
            "rm": True,
            "forcerm": True,
            "pull": True if self.fresh_base else None,
        }


async def build(
    client: EngineClient,
    order: BuildOrder,
    *,
    runtime: str,
    environ: Mapping[str, str],
    news: News,
    clean: Callable[[str], str] = str,
) -> Image:
    """Build it, however long that takes.

    Raises DriverError E003 with the step that failed and the last lines, E004 where the disk is full, StalePlanError
    E012 where the context changes meanwhile, EngineGoneError where the engine is away.
    """
    story = _Story(news, clean)
    config = await asyncio.to_thread(registry_config, environ, runtime=runtime)
    headers = [("Content-Type", "application/x-tar"), *([("X-Registry-Config", config)] if config else [])]
    news.progress("sending the context")
    try:
        async with (
            aclosing(context_tar(order.build)) as tar,
            client.json_lines("POST", "/build", query=order.query(), body=tar, headers=headers) as lines,
        ):
            async for line in lines:
                story.see(line)
        inspected = await client.call("GET", f"/images/{order.tags[0]}/json")
    except EngineError as error:
        raise story.failed(order, clean(error.message.strip())) from error
    except OSError as error:
        raise DriverError(
            f"{error.filename} cannot be sent to be built: {error.strerror}", code="S005", remedy="make it readable"
        ) from error
    news.ready("built")
    return image_of(inspected)


class _Story:
    """What a build has told so far."""

    def __init__(self, news: News, clean: Callable[[str], str]) -> None:
        self._news = news
        self._clean = clean
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._step, self._done, self._total = "", 0, 0

    def see(self, line: Mapping[str, Any]) -> None:
        """Raises EngineError for the line that says that it failed."""
        if line.get("error"):
            raise EngineError(str(line["error"]), status=200)
        for text in str(line.get("stream") or "").splitlines():
            self._hear(self._clean(_COLOURS.sub("", text).rstrip()))
        if line.get("status"):  # of the base image
            self._news.progress(f"pulling the base: {line['status']}", self._done, self._total)

    def _hear(self, text: str) -> None:
        if not text or text.lstrip().startswith(_NOISE):
            return
        self._lines.append(text)
        if found := _STEP.match(text):
            self._step = f"step {found['number']}/{found['total']}: {found['what']}"
            self._done, self._total = int(found["number"]) - 1, int(found["total"])
        self._news.progress(self._step or text, self._done, self._total, output=text)

    def failed(self, order: BuildOrder, message: str) -> DriverError:
        full = "no space left on device" in message.lower()
        at = f" at {self._step}" if self._step else ""
        told = "; the last lines:" + "".join(f"\n    {line}" for line in self._lines) if self._lines else ""
        return DriverError(
            f"the image of {order.service} was not built, {dockerfile_path(order.build)} failed{at}: {message}{told}",
            code="E004" if full else "E003",
            remedy="free space where the engine keeps its images" if full else "",
        )
