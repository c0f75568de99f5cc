"""The Engine API as calls and streams. Knows Docker's REST, which Podman's socket speaks too; no business logic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.drivers.engine.errors import EngineError, EngineGoneError
from deploy_code.drivers.engine.gone import gone
from deploy_code.drivers.engine.http import Connection, Connections, LostError, Request, quoted
from deploy_code.drivers.engine.parts import as_frames, as_json_lines, read_all
from deploy_code.errors import DriverError
from deploy_code.reliability.circuit import Call, CircuitBreaker

__all__ = ["EngineClient", "EngineError", "EngineGoneError", "EngineInfo", "protects"]

KNOWN_API = (1, 41)  # what this package was written for: Docker 20.10, Podman 4
ANSWER_LIMIT = 32 * 1024 * 1024  # bytes of one JSON answer
_ERROR_LIMIT = 64 * 1024  # bytes of an error's body
_NOT_IN_QUERY = b"&+=;"  # characters that mean something there
_HELLO_SECONDS = 10.0  # for the version and what else the engine says of itself

_ARCHITECTURES = {  # the kernel's names, which Docker gives, as images have them
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
}

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class _Version:
    """How an engine is spoken with."""

    api: str
    libpod: str  # the version of Podman's own API; "" elsewhere

    def prefix(self, path: str) -> str:
        """What goes before ``path``."""
        return f"/v{self.libpod if path.startswith('/libpod/') else self.api}"


def protects(endpoint: Endpoint) -> str:
    """What a breaker before this endpoint is called: ``docker socket /run/docker.sock``."""
    if not endpoint.is_local:
        return f"container engine tcp://{endpoint.authority}"
    return f"{'podman' if 'podman' in endpoint.url else 'docker'} socket {endpoint.socket}"


class EngineClient:
    """One engine. Belongs to one event loop; ``close()`` it there.

    ``breaker`` stands before every ``call``: lost connections and time-outs count, errors that the engine answers do
    not. Streams do not pass it; one that gets through ends its cool-down. Paths are those of the API's reference
    without the version: ``/containers/json``, for Podman's own ``/libpod/info``. At most 16 calls are under way at
    once, others wait for them; streams are not limited.

    ``unanswered`` is called when a call got no answer in time: whoever reads a stream may want to begin anew.
    """

    def __init__(self, endpoint: Endpoint, *, breaker: CircuitBreaker | None = None) -> None:
        self.endpoint = endpoint
        self.protects = protects(endpoint)
        self._breaker = breaker
        self._kept_connections: Connections | None = None
        self._version: _Version | None = None
        self._info: EngineInfo | None = None
        self._hello = asyncio.Lock()
        self.unanswered: Callable[[], None] = lambda: None

    async def info(self) -> EngineInfo:
        """What the engine is; asked once, and again after it was away. Raises as ``call``."""
        known = self._info
        if known is None:
            said = await self.call("GET", "/info", timeout=_HELLO_SECONDS)
            version = await self._speak()
            known = self._info = _info(said, version)
        return known

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
        """JSON in, JSON out: None where the answer has no body, text where it is no JSON.

        ``query``: mappings are sent as JSON, True and False as the API has them, None is left out, a list is repeated.
        ``timeout``: seconds, from when the call may be made. Raises EngineError, EngineGoneError (E014) and
        CircuitOpenError (E018). A cancelled call closes its connection: whether the engine did it is not known.
        """

        async def run() -> Any:
            version = await self._speak()
            return await self._asked(_request(method, version.prefix(path) + path, query, body, headers))

        return await self._guarded(run, f"{method} {path}", timeout)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of the answer in parts, as they come; entered when the engine has begun to answer (to bound that,
        put a time-out around the entering).

        ``body``: bytes or an async iterator of bytes are sent as they are (a tar, unless ``headers`` say what), all
        else as JSON. No time-out of its own. Raises EngineError for a status of 400 and more, EngineGoneError where
        the engine is away or the stream breaks off, and what the iterator raises.
        """
        try:
            version = await self._speak()
            request = _request(method, version.prefix(path) + path, query, body, headers)
            async with self._connections().exchange(request, kept=False) as connection:
                if self._breaker is not None:
                    self._breaker.try_now()
                if connection.status >= 400:
                    raise await _refusal(connection, self.protects)
                async with aclosing(self._told(connection)) as parts:
                    yield parts
        except LostError as error:
            raise self._gone(error) from (error.cause or error)

    @asynccontextmanager
    async def json_lines(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """As ``stream``, one JSON object at a time: events, pull, build. Errors inside the stream are objects too."""
        stream = self.stream(method, path, query=query, body=body, headers=headers)
        async with stream as parts, aclosing(as_json_lines(parts)) as lines:
            yield lines

    @asynccontextmanager
    async def frames(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> AsyncIterator[AsyncIterator[tuple[int, bytes]]]:
        """As ``stream``, logs or the output of an exec without a terminal: (1 stdout | 2 stderr, payload).

        A failure that the engine tells inside the stream is raised as EngineError.
        """
        stream = self.stream(method, path, query=query, body=body, headers=headers)
        async with stream as parts, aclosing(as_frames(parts)) as frames:
            yield frames

    async def close(self) -> None:
        """Close all connections: calls and streams under way end with EngineGoneError."""
        if self._kept_connections is not None:
            await self._kept_connections.close()

    # ------------------------------------------------------------------ inside

    def _connections(self) -> Connections:
        """Made when first needed: an endpoint whose certificates cannot be read is told by the call, as E014."""
        if self._kept_connections is None:
            tls = None
            if self.endpoint.tls:
                from deploy_code.drivers.engine.tls import tls_context

                tls = tls_context(self.endpoint.tls, verify=self.endpoint.verify)
            self._kept_connections = Connections(self.endpoint, tls)
        return self._kept_connections

    async def _speak(self) -> _Version:
        """How this engine is spoken with. Raises LostError, EngineError."""
        if self._version is None:
            async with self._hello:
                if self._version is None:
                    self._version = await self._ask_version()
        return self._version

    async def _ask_version(self) -> _Version:
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                return await self._negotiated()
        except TimeoutError as error:
            raise LostError(f"no answer to its first request within {_HELLO_SECONDS:g} s", error) from error

    async def _negotiated(self) -> _Version:
        """The newest version that both know. Asked by ping: Podman runs half a dozen programs for its `/version`."""
        async with self._connections().exchange(Request("GET", "/_ping")) as connection:
            if connection.status >= 400:
                raise await _refusal(connection, self.protects)
            await read_all(connection, _ERROR_LIMIT)
            said = dict(connection.headers)
        offered = _numbers(said.get("api-version", ""))
        speak = min(offered, KNOWN_API)
        if offered > KNOWN_API:  # a newer engine may no longer know what we speak
            version = await self._asked(Request("GET", "/version"))
            speak = max(speak, _numbers(version.get("MinAPIVersion") or "1.0"))
        return _Version(f"{speak[0]}.{speak[1]}", said.get("libpod-api-version", ""))

    async def _guarded(self, run: Callable[[], Awaitable[T]], what: str, timeout: float) -> T:
        """Run it when the pool and the breaker let it through. The wait for the pool is no fault of the engine."""
        async with self._connections().slot():
            admitted = self._breaker.admit() if self._breaker is not None else None
            try:
                result = await self._timed(run, what, timeout)
            except BaseException as error:
                if admitted is not None:
                    _report(admitted, error)
                raise
            if admitted is not None:
                admitted.succeeded()
            return result

    async def _timed(self, run: Callable[[], Awaitable[T]], what: str, timeout: float) -> T:
        try:
            async with asyncio.timeout(timeout):
                return await run()
        except LostError as error:
            raise self._gone(error) from (error.cause or error)
        except TimeoutError as error:
            self.unanswered()
            raise self._gone(LostError(f"no answer to {what} within {timeout:g} s", error)) from error

    def _gone(self, error: LostError) -> EngineGoneError:
        """What comes back may be another engine: it is asked anew."""
        self._version = self._info = None
        return gone(self.endpoint, self.protects, error)

    async def _asked(self, request: Request) -> Any:
        async with self._connections().exchange(request) as connection:
            if connection.status >= 400:
                raise await _refusal(connection, self.protects)
            return _decoded(connection, await read_all(connection, ANSWER_LIMIT))

    async def _told(self, connection: Connection) -> AsyncGenerator[bytes, None]:
        try:
            while part := await connection.read():
                yield part
        except LostError as error:
            raise self._gone(error) from (error.cause or error)


def _report(call: Call, error: BaseException) -> None:
    """A lost connection is a failure, an error that was answered is none, and a cancellation says nothing."""
    if isinstance(error, EngineGoneError):
        call.failed(error.message)
    elif isinstance(error, EngineError):
        call.succeeded()
    else:
        call.abandoned()


def _request(
    method: str,
    path: str,
    query: Mapping[str, object] | None,
    body: object,
    headers: Iterable[tuple[str, str]],
) -> Request:
    target = quoted(path) + _query(query or {})
    known = list(headers)
    if body is None:
        return Request(method, target, headers=known)
    if isinstance(body, bytes | AsyncIterator):
        content, kind = body, "application/x-tar"
    else:
        content, kind = json.dumps(body, separators=(",", ":")).encode(), "application/json"
    if not any(name.lower() == "content-type" for name, _ in known):
        known.append(("Content-Type", kind))
    return Request(method, target, headers=known, body=content)


def _query(query: Mapping[str, object]) -> str:
    pairs = [
        f"{quoted(name, also=_NOT_IN_QUERY)}={quoted(_query_text(each), also=_NOT_IN_QUERY)}"
        for name, value in query.items()
        if value is not None
        for each in (value if isinstance(value, list | tuple) else (value,))
    ]
    return "?" + "&".join(pairs) if pairs else ""


def _query_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, separators=(",", ":")) if isinstance(value, Mapping) else str(value)


def _info(said: Mapping[str, Any], version: _Version) -> EngineInfo:
    arch = str(said.get("Architecture", ""))
    return EngineInfo(
        name="podman" if version.libpod else "docker",
        version=str(said.get("ServerVersion", "")),
        api_version=version.api,
        arch=_ARCHITECTURES.get(arch, arch),
        os=str(said.get("OSType", "")),
        rootless=any("rootless" in str(option) for option in said.get("SecurityOptions") or ()),
        root_dir=str(said.get("DockerRootDir", "")),
    )


def _numbers(version: str) -> tuple[int, int]:
    """Raises EngineError where what answers is no engine."""
    major, _, minor = version.partition(".")
    try:
        return int(major), int(minor)
    except ValueError as error:
        raise EngineError(
            f"what answers there is no container engine: its version is {version!r}", status=200
        ) from error


async def _refusal(connection: Connection, protects: str) -> DriverError:
    """The error that an answer of 400 and more stands for."""
    body = await read_all(connection, _ERROR_LIMIT, cut=True)
    message = _message(body) or f"HTTP {connection.status}"
    if connection.status == 400 and "HTTP request to an HTTPS server" in message:
        return EngineGoneError(
            f"{protects} wants TLS",
            remedy="Set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem",
            retryable=False,
        )
    return EngineError(message, status=connection.status)


def _message(body: bytes) -> str:
    """The engine's own words: both say `message`, Podman a `cause` too, which its message ends with."""
    try:
        said = json.loads(body)
    except ValueError:
        said = body.decode(errors="replace")
    if isinstance(said, dict):
        said = said.get("message") or said.get("cause") or ""
    return str(said).strip()


def _decoded(connection: Connection, body: bytes) -> Any:
    if not body:
        return None
    if "json" not in connection.headers.get("content-type", ""):
        return body.decode(errors="replace")
    try:
        return json.loads(body)
    except ValueError as error:
        raise EngineError(f"the engine's answer is no JSON: {error}", status=connection.status) from error
