"""A small synchronous client of an engine's API, for what tests look up themselves: nothing of the product is in it."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


class ApiError(Exception):
    """The engine said no; the text is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@dataclass(frozen=True)
class EngineApi:
    """One connection per call. ``query`` values that are not text are sent as JSON, as the API wants filters."""

    socket: Path
    timeout: float = 60.0

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """What the engine answers: JSON as Python's values, other text as text, None for nothing. ApiError for a no."""
        with closing(_UnixConnection(self.socket, self.timeout)) as connection:
            response = self._send(connection, method, path, body, query)
            raw = response.read()
        return _decoded(raw)

    def lines(
        self, method: str, path: str, body: Any = None, *, login: Mapping[str, str] | None = None, **query: Any
    ) -> Iterator[dict[str, Any]]:
        """The JSON lines of an answer that goes on: events, pull, build. ``login`` is for the image registry."""
        with closing(_UnixConnection(self.socket, self.timeout)) as connection:
            for line in self._send(connection, method, path, body, query, login):
                if line.strip():
                    yield json.loads(line)

    def output(self, method: str, path: str, body: Any = None, **query: Any) -> str:
        """The text of logs or of a command inside: both streams as they came, without the frames' heads."""
        with closing(_UnixConnection(self.socket, self.timeout)) as connection:
            response = self._send(connection, method, path, body, query)
            parts = []
            while head := response.read(8):
                parts.append(response.read(int.from_bytes(head[4:], "big")))
        return b"".join(parts).decode(errors="replace")

    def answers(self) -> bool:
        """The engine is there and serves."""
        try:
            self("GET", "/_ping")
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True

    def load(self, archive: Iterable[bytes] | bytes) -> None:
        """Images, as ``docker save`` writes them."""
        self("POST", "/images/load", archive, quiet="1")

    @staticmethod
    def _send(
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, Any],
        login: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
        target = f"{path}?{urlencode(words)}" if words else path
        data, kind = (body, "application/x-tar") if _is_raw(body) else (json.dumps(body).encode(), "application/json")
        headers = {"Content-Type": kind} if body is not None else {}
        if login:
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
        connection.request(method, target, data if body is not None else None, headers)
        response = connection.getresponse()
        if response.status >= 400:
            raise ApiError(response.status, _message(response.read()))
        return response


def _is_raw(body: Any) -> bool:
    return isinstance(body, bytes) or hasattr(body, "read")


def _decoded(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def _message(raw: bytes) -> str:
    answer = _decoded(raw)
    return str(answer.get("message", answer)) if isinstance(answer, dict) else str(answer)
