"""A server that says exactly what a test wrote down: what real engines do only when ill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Answer = Callable[["Served"], Awaitable[None]]


class Served:
    """One request, and how to answer it."""

    def __init__(
        self,
        line: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.method, self.target, _ = line.split(" ")
        self.headers, self.body, self.reader, self.writer = headers, body, reader, writer

    async def say_nothing(self) -> None:
        """Until the client hangs up."""
        while await self.reader.read(65536):
            pass
        raise ConnectionError

    async def say(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def json(self, value: Any, status: int = 200, extra: str = "") -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        await self.say(head.encode() + body)


class Server:
    """An engine that answers its ping, and else what ``answer`` says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Answer = lambda served: served.json({})
        self.ping = "Api-Version: 1.41\r\n"
        self.requests: list[str] = []
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        try:
            while True:
                served = await self._read(reader, writer)
                self.requests.append(f"{served.method} {served.target}")
                if served.target == "/_ping":
                    await served.say(f"HTTP/1.1 200 OK\r\n{self.ping}Content-Length: 2\r\n\r\nOK".encode())
                else:
                    await self.answer(served)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Served:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
        body = b""
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        return Served(line, headers, body, reader, writer)

    def hang_up(self) -> None:
        """As an engine does that ends."""
        for writer in self.writers:
            writer.close()


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Server]:
    server = Server(path)
    listener = await asyncio.start_unix_server(server.handle, path)
    try:
        yield server
    finally:
        listener.close()
        server.hang_up()
        await listener.wait_closed()
        while server.writers:
            await asyncio.sleep(0)
