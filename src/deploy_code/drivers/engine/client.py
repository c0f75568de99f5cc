"""The Engine API as calls and streams. Knows Docker's REST, which Podman's socket speaks too; no business logic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.drivers.engine.errors import EngineError, EngineGoneError
from deploy_code.reliability.circuit import CircuitBreaker

__all__ = ["EngineClient", "EngineError", "EngineGoneError", "EngineInfo", "protects"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine is."""

    name: str  # "docker" | "podman"
    version: str
    api_version: str  # that we speak with it: "1.41"
    arch: str  # as images say it: "amd64"
    os: str
    rootless: bool
    root_dir: str


def protects(endpoint: Endpoint) -> str:
    """What a breaker before this endpoint is called: ``docker socket /run/docker.sock``."""
    raise NotImplementedError


class EngineClient:
    """One engine. Belongs to one event loop; ``close()`` it there.

    ``breaker`` stands before every ``call``: failed connections count, errors that the engine answers do not.
    """

    def __init__(self, endpoint: Endpoint, *, breaker: CircuitBreaker | None = None) -> None:
        self.endpoint = endpoint
        self.protects = protects(endpoint)

    async def info(self) -> EngineInfo:
        """What the engine is; asked once."""
        raise NotImplementedError

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Iterable[tuple[str, str]] = (),
        timeout: float = 60.0,
    ) -> Any:
        """JSON in, JSON out (None where the answer has no body). Mappings in ``query`` are sent as JSON.

        Raises EngineError, EngineGoneError (E014) and CircuitOpenError (E018).
        """
        raise NotImplementedError

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The body of the answer in parts, as they come. ``body``: bytes or an async iterator of bytes are sent as
        they are (a tar), anything else as JSON.
        """
        raise NotImplementedError

    def json_lines(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """As ``stream``, one JSON object at a time: events, pull, build."""
        raise NotImplementedError

    def frames(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[int, bytes]]]:
        """As ``stream``, logs or the output of an exec: (1 stdout | 2 stderr, payload)."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close all connections; streams that are open end with EngineGoneError."""
        raise NotImplementedError
