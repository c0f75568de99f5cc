"""One HTTP/1.1 exchange on one fresh connection: the client behind probes (and webhooks, and engine sockets).

Written here because probing is the trade of this package: a general client is several times slower and takes
longer to import than the agent to start (DESIGN §11). Redirects are not followed, nothing is pooled,
everything is bounded.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httptools

from deploy_code._version import __version__
from deploy_code.health.dial import Address, Resolver, connect, in_words
from deploy_code.health.target import Target

if TYPE_CHECKING:
    import ssl

HEAD_LIMIT = 64 * 1024  # bytes of status line and headers, interim answers included
BODY_LIMIT = 64 * 1024  # default; what comes after is not waited for
_SHOWN = 60  # bytes of something that is no HTTP, in the error


class ExchangeError(Exception):
    """There was no usable answer; ``str()`` says why in plain words ("connection refused")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer. ``truncated``: the body went on after the limit and was not waited for."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes
    truncated: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, any case."""
        return next((value for known, value in self.headers if known == name.lower()), None)


def encode_request(
    target: Target, *, method: str = "GET", headers: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """The bytes of a request. ``headers`` add to Host, User-Agent, Accept and Connection: close.

    Raises ValueError for a line break in a header.
    """
    lines = [
        f"{method} {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        f"User-Agent: deploy-code/{__version__}",
        "Accept: */*",
        "Connection: close",
    ]
    if target.authorization:
        lines.append(f"Authorization: {target.authorization}")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header holds a line break")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class HttpClient:
    """Asks one target again and again, each time on a connection of its own.

    ``tls`` is an ``ssl.SSLContext`` (default: one that verifies against the system's authorities); ``unix``
    the path of a unix socket to use instead of host and port; ``lookup_seconds`` how long a looked-up address
    may be used.
    """

    def __init__(
        self,
        target: Target,
        *,
        tls: ssl.SSLContext | None = None,
        unix: str = "",
        lookup_seconds: float = 30.0,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self.target = target
        self._tls = tls or (_default_tls() if target.scheme == "https" else None)
        self._fixed: tuple[Address, ...] = ((socket.AF_UNIX, unix),) if unix else ()
        self._resolver = Resolver(target.dial or target.host, target.port, max_age=lookup_seconds)
        self._body_limit = body_limit

    async def exchange(self, request: bytes, *, timeout: float, without_body: bool = False) -> Response:
        """Send ``request`` (see ``encode_request``) and read the answer, all within ``timeout`` seconds.

        ``without_body``: the answer to a HEAD. Raises ExchangeError; ProbeNotMadeError where this machine is
        at fault.
        """
        answer = _Answer(request, self._body_limit, without_body)
        try:
            async with asyncio.timeout(timeout):
                await self._run(answer)
        except TimeoutError:
            if not answer.is_known:
                raise ExchangeError(answer.what_is_missing(timeout)) from None
        except OSError as error:
            raise ExchangeError(_tls_words(error) or in_words(error)) from error
        finally:
            answer.abort()
        return answer.response()

    async def _run(self, answer: _Answer) -> None:
        sock = await connect(self._fixed or await self._resolver.addresses())
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: answer,
                sock=sock,
                ssl=self._tls,
                server_hostname=self.target.host if self._tls else None,
            )
        except BaseException:
            sock.close()
            raise
        await answer.finished


class _Answer(asyncio.Protocol):
    """Writes the request, collects the answer; ``finished`` ends with it or with an ExchangeError."""

    def __init__(self, request: bytes, body_limit: int, without_body: bool) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._body_limit = body_limit
        self._without_body = without_body
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._begin()
        self._head_bytes = 0
        self._truncated = False

    def _begin(self) -> None:
        self._status = 0
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0

    # ------------------------------------------------------------------ for the client

    @property
    def is_known(self) -> bool:
        """The answer was complete although the time ran out in the same moment."""
        return self.finished.done() and not self.finished.cancelled()

    def what_is_missing(self, timeout: float) -> str:
        """Why the time ran out: how far it got."""
        limit = f"within {timeout:g} s"
        if self._transport is None:
            return f"no connection {limit}"
        if self._status:
            return f"the answer (HTTP {self._status}) did not end {limit}"
        return f"no answer {limit}"

    def response(self) -> Response:
        """The answer. Raises ExchangeError where it was none."""
        self.finished.result()
        return Response(
            status=self._status,
            reason=self._reason.decode("latin-1"),
            headers=tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in self._headers),
            body=b"".join(self._body)[: self._body_limit],
            truncated=self._truncated,
        )

    def abort(self) -> None:
        """Give the connection back at once; what has not come yet is not waited for."""
        self._parser = None
        self.finished.cancel()
        if not self.finished.cancelled():
            self.finished.exception()  # looked at, also where a time-out or a cancellation came first
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.finished.done():
            self.abort()
            return
        self._parser = _parser(self)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self.finished.done():
            return
        if not self._is_past_head:
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end()
        except httptools.HttpParserError as error:
            self._fail(_not_http(data, self._status, error))
        if not self._is_past_head and self._head_bytes > HEAD_LIMIT:
            self._fail(f"the answer's headers are longer than {HEAD_LIMIT // 1024} KB")

    def eof_received(self) -> None:
        if self._is_past_head and self._ends_with_connection():
            self._end()
        else:
            self._fail("connection closed in the middle of the answer" if self._head_bytes else "connection closed")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(in_words(exc) if isinstance(exc, OSError) else "connection closed without an answer")

    # ------------------------------------------------------------------ httptools

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._without_body and self._is_past_head:
            self._end()

    def on_body(self, part: bytes) -> None:
        self._body.append(part)
        self._body_bytes += len(part)
        if self._body_bytes > self._body_limit:
            self._truncated = True
            self._end()

    def on_message_complete(self) -> None:
        if self._is_past_head:
            self._end()
        else:
            self._begin()  # an interim answer (100 Continue, 103 Early Hints): the real one follows

    # ------------------------------------------------------------------ ends

    @property
    def _is_past_head(self) -> bool:
        return self._status >= 200

    def _ends_with_connection(self) -> bool:
        return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _end(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(ExchangeError(why))


def _parser(answer: _Answer) -> Any:
    """Forgiving where nothing hangs on it: a health endpoint may be three lines of shell, ended by LF."""
    parser = httptools.HttpResponseParser(answer)
    parser.set_dangerous_leniencies(
        lenient_data_after_close=True, lenient_optional_cr_before_lf=True, lenient_optional_lf_after_cr=True
    )
    return parser


def _not_http(data: bytes, status: int, error: Exception) -> str:
    if data[:1] == b"\x15":
        return "not an HTTP answer but TLS: the endpoint should begin with https://"
    if status:
        return f"the answer (HTTP {status}) is broken: {error}"
    return f"not an HTTP answer: {data[:_SHOWN]!r}"


def _tls_words(error: OSError) -> str:
    """Words for a failed handshake; empty where it was none."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return ""


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """One for all: reading the system's authorities takes some 20 ms."""
    import ssl

    return ssl.create_default_context()
