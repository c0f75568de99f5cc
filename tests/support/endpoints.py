"""Real servers for tests of probes: each says just the bytes it is given, so that bad manners can be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Endpoint:
    """A listening server: its ``port``, and how many connections and requests it saw."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.open = 0
        self.requests: list[bytes] = []


@asynccontextmanager
async def serving(
    handler: Handler, *, host: str = "127.0.0.1", ssl: Any = None, path: str = ""
) -> AsyncIterator[Endpoint]:
    """A server in this loop that lets ``handler`` treat each connection."""
    endpoint = Endpoint()
    tasks: set[asyncio.Task[Any] | None] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.connections += 1
        endpoint.open += 1
        tasks.add(asyncio.current_task())
        try:
            await handler(_Recorder(reader, endpoint), writer)  # type: ignore[arg-type]
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the prober hangs up when it knows enough
        finally:
            endpoint.open -= 1
            tasks.discard(asyncio.current_task())
            await _close(writer)

    if path:
        server: asyncio.Server = await asyncio.start_unix_server(on_connection, path)
    else:
        server = await asyncio.start_server(on_connection, host, 0, ssl=ssl)
        endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
        while tasks:
            for task in tasks:
                task and task.cancel()
            await asyncio.sleep(0.001)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close without waiting for a client that does not read."""
    if writer.transport.get_write_buffer_size() > 0 and writer.is_closing():
        writer.transport.abort()
    writer.close()
    with suppress(ConnectionError, OSError):
        await writer.wait_closed()


class _Recorder:
    def __init__(self, reader: asyncio.StreamReader, endpoint: Endpoint) -> None:
        self._reader, self._endpoint = reader, endpoint

    async def readuntil(self, separator: bytes) -> bytes:
        data = await self._reader.readuntil(separator)
        self._endpoint.requests.append(data)
        return data

    async def read(self, n: int = -1) -> bytes:
        return await self._reader.read(n)


def saying(*parts: bytes, then_wait: bool = False) -> Handler:
    """Reads a request, writes ``parts`` one by one, closes (or waits until the other side does)."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if then_wait:
            await reader.read()

    return handle


def answer(status: int, body: bytes = b"", *, reason: str = "Whatever") -> bytes:
    """A plain HTTP answer."""
    return f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
