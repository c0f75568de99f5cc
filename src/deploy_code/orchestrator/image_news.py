"""Tells how a pull or a build goes, a few times a second however fast the engine talks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from deploy_code.events import Event, ImageProgress, ImageReady

INTERVAL_SECONDS = 0.2


class News:
    """One image on its way."""

    def __init__(
        self, image: str, publish: Callable[[Event], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.image = image
        self._publish = publish
        self._clock = clock
        self._began = clock()
        self._told_at = float("-inf")
        self._output: list[str] = []

    def progress(self, doing: str, done: int = 0, total: int = 0, *, output: str = "") -> None:
        """Told at once or with what comes later. ``output``: a line that a build wrote; none is lost."""
        if output:
            self._output.append(output)
        now = self._clock()
        if now - self._told_at >= INTERVAL_SECONDS:
            self._told_at = now
            self._tell(doing, done, total)

    def ready(self, how: str) -> None:
        if self._output:
            self._tell(how)
        self._publish(ImageReady(image=self.image, how=how, duration=self._clock() - self._began))

    def _tell(self, doing: str, done: int = 0, total: int = 0) -> None:
        lines, self._output = tuple(self._output), []
        self._publish(ImageProgress(image=self.image, doing=doing, done=done, total=total, output=lines))


class Layers:
    """How much of a pull is here, summed up from what the engine tells of each layer."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}

    def see(self, line: Mapping[str, Any]) -> None:
        layer, detail = str(line.get("id", "")), line.get("progressDetail") or {}
        status = str(line.get("status", ""))
        if status == "Downloading" and detail.get("total"):
            self._done[layer], self._total[layer] = int(detail.get("current") or 0), int(detail["total"])
        elif status in ("Download complete", "Pull complete") and layer in self._total:
            self._done[layer] = self._total[layer]

    @property
    def done(self) -> int:
        return sum(self._done.values())

    @property
    def total(self) -> int:
        return sum(self._total.values())
