"""HTTP/1.1 to an engine: a small pool of kept connections, bodies in both directions in parts, and nothing else.

Written here because the agent lives on 35 MB, and a general client takes a third of that. One connection carries one
exchange at a time. A connection whose exchange did not end well is never used again, so a cancelled call needs no
more than to be left.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import httptools

from deploy_code._version import __version__

if TYPE_CHECKING:
    import ssl

    from deploy_code.drivers.engine.endpoint import Endpoint

POOL_SIZE = 16  # calls at once; streams have connections of their own
IDLE_SECONDS = 15.0  # then a kept connection is given back
CONNECT_SECONDS = 10.0
_BUSY_PAUSE = 0.01  # a unix socket whose queue is full cannot be waited for
_HEAD_LIMIT = 64 * 1024
_HIGH_WATER = 256 * 1024  # bytes that lie unread before the engine is asked to pause
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@!$&'()*+,;=")


class LostError(Exception):
    """There is no connection, or it ended too early; ``str()`` says why. ``cause``: what the machine said.

    ``stale``: the engine had closed a kept connection before it saw the request.
    """

    def __init__(self, why: str, cause: BaseException | None = None, *, stale: bool = False) -> None:
        super().__init__(why)
        self.cause = cause
        self.stale = stale


class Request:
    """One request. ``body``: what to send at once, or in parts. Headers may hold credentials: they are not shown."""

    __slots__ = ("_headers", "body", "method", "target")

    def __init__(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> None:
        """``target``: path and query, quoted. Raises ValueError for a line break in a header or the target."""
        self.method = method
        self.target = target
        self.body = body
        self._headers = headers
        if any("\r" in text or "\n" in text for text in (method, target, *(part for pair in headers for part in pair))):
            raise ValueError("a header holds a line break")

    @property
    def may_be_repeated(self) -> bool:
        return self.method in _IDEMPOTENT and isinstance(self.body, bytes)

    def head(self, host: str) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {host}", f"User-Agent: deploy-code/{__version__}"]
        if not isinstance(self.body, bytes):
            lines.append("Transfer-Encoding: chunked")
        elif self.body or self.method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(self.body)}")
        lines += [f"{name}: {value}" for name, value in self._headers]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def __repr__(self) -> str:
        return f"<{self.method} {self.target.partition('?')[0]}>"


def quoted(text: str, *, also: bytes = b"") -> str:
    """Percent-encoded where it is not plain; ``also``: characters that are not plain here."""
    return "".join(chr(byte) if byte in _SAFE and byte not in also else f"%{byte:02X}" for byte in text.encode())


class Connections:
    """All connections to one engine. ``tls`` is needed for none but TLS endpoints."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None = None, *, size: int = POOL_SIZE) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._host = endpoint.authority
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._is_closed = False
        self._none_open = asyncio.Event()

    def slot(self) -> asyncio.Semaphore:
        """Hold it around an exchange that counts against the pool."""
        return self._slots

    @asynccontextmanager
    async def exchange(self, request: Request, *, kept: bool = True) -> AsyncIterator[Connection]:
        """Send ``request``; inside, the connection's status and headers are known, and its body can be read.

        ``kept``: may it use a kept connection, and be kept? Raises LostError.
        """
        connection = await self._begun(request, kept)
        upload = _upload(connection, request)
        try:
            await connection.head()
            yield connection
        finally:
            self._give_back(connection, kept)  # first: what comes next may be cancelled
            if upload is not None:
                await _ended(upload)

    async def _begun(self, request: Request, kept: bool) -> Connection:
        """A connection on which ``request`` was sent. One that the engine had closed meanwhile costs a second try."""
        head = request.head(self._host)
        connection = self._take() if kept else None
        if connection is not None:
            connection.send(request, head)
            if not request.may_be_repeated or await self._answers(connection):
                return connection
        connection = await self._connect()
        connection.send(request, head)
        return connection

    async def _answers(self, connection: Connection) -> bool:
        """Has an answer begun? False where the engine had closed the connection before it saw the request."""
        try:
            await connection.head()
        except LostError as error:
            self._give_back(connection, False)
            if error.stale:
                return False
            raise
        except BaseException:
            self._give_back(connection, False)
            raise
        return True

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            self._give_back(connection, False)
        return None

    def _give_back(self, connection: Connection, kept: bool) -> None:
        if kept and connection.rest() and not self._is_closed:
            self._idle.append(connection)
        else:
            connection.abort()

    async def _connect(self) -> Connection:
        """Raises LostError."""
        if self._closed():
            raise LostError("the client was closed")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._connect_once()
        except TimeoutError as error:
            raise LostError(f"no connection within {CONNECT_SECONDS:g} s", error) from error
        except OSError as error:
            raise LostError(in_words(error), error) from error
        if self._closed():  # meanwhile
            connection.abort()
        elif not connection.is_lost:
            self._open.add(connection)
        return connection

    async def _connect_once(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self._forget)
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {"ssl": self._tls, "server_hostname": self._endpoint.host}
        if self._endpoint.is_local:
            sock = await _unix_socket(self._endpoint.socket)
            try:
                await loop.create_connection(lambda: connection, sock=sock, **options)
            except BaseException:
                sock.close()
                raise
        else:
            await loop.create_connection(lambda: connection, self._endpoint.host, self._endpoint.port, **options)
            connection.watch_peer()
        return connection

    def _closed(self) -> bool:
        return self._is_closed

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()
        with suppress(ValueError):
            self._idle.remove(connection)

    async def close(self) -> None:
        """Close all of them, also those that are in use."""
        self._is_closed = True
        self._none_open.clear()
        for connection in tuple(self._open):
            connection.abort()
        if self._open:
            await self._none_open.wait()


async def _unix_socket(path: str) -> socket.socket:
    """Connected, without blocking. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_BUSY_PAUSE)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


def _upload(connection: Connection, request: Request) -> asyncio.Task[None] | None:
    """Parts are sent while the answer is read: an engine may refuse a build before it has read all of it."""
    if isinstance(request.body, bytes):
        return None
    return asyncio.create_task(connection.send_parts(request.body), name=f"upload {request!r}")


async def _ended(upload: asyncio.Task[None]) -> None:
    upload.cancel()
    await asyncio.wait({upload})
    if not upload.cancelled():
        upload.exception()  # told by the connection, to whom reads the answer


class Connection(asyncio.Protocol):
    """One connection, and the answer to the request that was sent on it last.

    Unread parts of a body wait here; when they are many, the engine is asked to pause.
    """

    def __init__(self, on_lost: Callable[[Connection], None]) -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._expiry: asyncio.TimerHandle | None = None
        self._exchanges = 0
        self._reset("")

    def _reset(self, method: str) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}  # names in lower case
        self._method = method
        self._error: BaseException | None = None
        self._head_bytes = 0
        self._parts: deque[bytes] = deque()
        self._unread = 0
        self._is_paused = False
        self._is_complete = False
        self._is_raw = False  # the engine took the connection over for bytes both ways
        self._is_sent = False
        self._stays = False  # will the engine keep it open

    # ------------------------------------------------------------------ for the pool

    @property
    def is_lost(self) -> bool:
        return self._transport is None

    def is_usable(self) -> bool:
        """Kept, and not closed by the engine in the meantime. An idle connection has nothing to say."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._transport is None or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def rest(self) -> bool:
        """Let it lie for the next exchange. False where its exchange did not end so that it could be used again."""
        if self._transport is None or self._transport.is_closing() or self._error is not None:
            return False
        if self._is_raw or self._is_paused or not (self._is_complete and self._is_sent and self._stays):
            return False
        self._expiry = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.abort)
        return True

    def abort(self) -> None:
        """End it at once; who reads from it learns that it is lost."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._transport is not None:
            self._transport.abort()
        self._fail(LostError("the connection was closed"))

    def watch_peer(self) -> None:
        """Let the kernel notice a machine that went away: a quiet stream would wait for it for ever."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    # ------------------------------------------------------------------ the request

    def send(self, request: Request, head: bytes) -> None:
        """Send the head, and the body where it is there already."""
        lost = self._error
        self._reset(request.method)
        self._exchanges += 1
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is None:
            self._error = lost or LostError("the connection was closed")
            return
        if isinstance(request.body, bytes):
            self._transport.write(head + request.body)
            self._is_sent = True
        else:
            self._transport.write(head)

    async def send_parts(self, parts: AsyncIterator[bytes]) -> None:
        """Send the body in chunks, no faster than the engine takes them. What ``parts`` raises ends the exchange."""
        try:
            async for part in parts:
                if part:
                    await self._write(b"%x\r\n%b\r\n" % (len(part), part))
            await self._write(b"0\r\n\r\n")
            self._is_sent = True
        except LostError:
            pass  # who reads the answer is told
        except Exception as error:
            self._fail(error)
            self.abort()
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()

    async def _write(self, data: bytes) -> None:
        await self._writable.wait()
        if self._transport is None or self._transport.is_closing():
            raise LostError("the connection was closed")
        self._transport.write(data)

    # ------------------------------------------------------------------ the answer

    async def head(self) -> None:
        """Wait for status and headers. Raises LostError, and what the source of the request's body raised."""
        while not self._is_past_head:
            await self._news()

    async def read(self) -> bytes:
        """The next part of the body; empty at its end. Raises as ``head``."""
        while not self._parts:
            if self._is_complete:
                return b""
            await self._news()
        part = self._parts.popleft()
        self._unread -= len(part)
        if self._is_paused and self._unread < _HIGH_WATER // 2 and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return part

    async def parts(self) -> AsyncIterator[bytes]:
        """The body, part by part. Raises as ``head``."""
        while part := await self.read():
            yield part

    async def _news(self) -> None:
        """Wait until something has come. Raises what ended the exchange."""
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self._error is None and not self._is_complete:
            self._error = error
        self._wake()

    @property
    def _is_past_head(self) -> bool:
        return self.status >= 200 or self._is_raw

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        if self._is_raw:
            self.on_body(data)
            return
        if self._parser is None or self._is_complete:
            self.abort()  # nobody asked
            return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        if not self._is_past_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._is_raw = True
            if rest := data[upgrade.args[0] :]:
                self.on_body(rest)
            self._wake()
        except httptools.HttpParserError as error:
            self._break(f"its answer is not HTTP: {error}", error)
        if not self._is_past_head and self._head_bytes > _HEAD_LIMIT:
            self._break(f"the headers of its answer are longer than {_HEAD_LIMIT // 1024} KB")

    def _break(self, why: str, cause: BaseException | None = None) -> None:
        self._fail(LostError(why, cause))
        self.abort()

    def eof_received(self) -> None:
        if self._is_raw or (self._is_past_head and self._ends_with_connection):
            self._is_complete = True
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        self._fail(self._lost(exc))
        self._on_lost(self)

    def _lost(self, exc: Exception | None) -> LostError:
        stale = self._exchanges > 1 and self._head_bytes == 0
        if isinstance(exc, OSError):
            return LostError(in_words(exc), exc, stale=stale)
        where = "in the middle of its answer" if self._head_bytes else "without an answer"
        return LostError(f"the connection was closed {where}", exc, stale=stale)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def _ends_with_connection(self) -> bool:
        return "content-length" not in self.headers and "transfer-encoding" not in self.headers

    # ------------------------------------------------------------------ httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._is_complete:
            return  # more than was asked for: it is not used again
        self.status = self._parser.get_status_code()
        if self.status < 200 and self.status != 101:
            self.headers = {}
            return
        self._stays = self._parser.should_keep_alive()
        if self._method == "HEAD":
            self._is_complete = True
        self._wake()

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)
        self._unread += len(part)
        if self._unread > _HIGH_WATER and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self._is_complete = True
        self._wake()


_WORDS = {
    errno.ENOENT: "no such socket",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "no answer to the connection attempt",
}


def in_words(error: OSError) -> str:
    """What went wrong on a connection, as a person would say it."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return f"name not found: {error.strerror or error}"
    return _WORDS.get(error.errno or 0) or (error.strerror or str(error) or type(error).__name__).lower()
