"""A browser for tests: one request, one answer, refusals included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


def fetch(url: str, data: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """GET, or POST where there is ``data``. URLError when nobody answers."""
    request = Request(url, data.encode() if data is not None else None, dict(headers or {}))
    try:
        with urlopen(request, timeout=10) as answer:
            return Answer(answer.status, answer.read().decode())
    except HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.read().decode())
