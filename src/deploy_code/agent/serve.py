"""The agent's ear: JSON lines over a unix socket that only this user and root may open (see ``wire``).

Each request runs as a task of its own, so that many that arrive together share one commit. What changed is sent to a
watcher as fast as it reads: while it does not, only the last state of each instance is kept for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, cast

from deploy_code.codec import from_data, to_data
from deploy_code.errors import AgentError, DeployCodeError
from deploy_code.model import Instance
from deploy_code.wire import LIMIT, Want

from .links import HostLostError, answered

log = logging.getLogger("deploy_code.agent")

_CREDENTIALS = struct.Struct("3i")
Operation = Callable[["Connection", dict[str, Any]], Awaitable[Any]]
OFFER = "offer"  # what makes a connection that of a host


class Server:
    """All connections. ``operations``: name → coroutine function that answers a request with data or a dataclass."""

    def __init__(self, operations: dict[str, Operation], on_close: Callable[[Connection], None]) -> None:
        self.operations = operations
        self.connections: set[Connection] = set()
        self.admitted = asyncio.Event()  # before this, only hosts are answered: all others wait
        self._on_close = on_close
        self._server: asyncio.AbstractServer | None = None

    async def open(self, listener: socket.socket) -> None:
        """Answer on a socket that listens already."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Connection(self), sock=listener)

    def tell(self, instance: Instance) -> None:
        """``instance`` changed: tell all who watch."""
        for connection in self.connections:
            connection.tell(instance)

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._on_close(connection)

    async def close(self) -> None:
        """Close all connections but those of hosts once what was written to them is sent, and take no others.

        A host that is lost means something to whoever asks it; so they go last (``close_hosts``).
        """
        tasks = {task for connection in self.connections for task in connection.tasks}
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for connection in tuple(self.connections):
            if not connection.is_host:
                connection.close()
        if self._server is not None:
            self._server.close()

    def close_hosts(self) -> None:
        """Nobody asks them anything any more."""
        for connection in tuple(self.connections):
            connection.close()


class Connection(asyncio.Protocol):
    """One client, or one host of custom services. ``peer``: pid of the process at the other end."""

    def __init__(self, server: Server) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_host = False
        self.peer = 0
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._watching = False
        self._news: dict[str, Instance] = {}
        self._flushing = False
        self._clogged = False

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.opened(self)
        self.peer, uid = _peer(self._transport)
        if uid not in (os.geteuid(), 0):
            log.warning("refused a connection of uid %d", uid)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(HostLostError())
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        start = len(self._buffer)
        self._buffer += data
        if self._buffer.find(b"\n", start) >= 0:
            *lines, rest = bytes(self._buffer).split(b"\n")
            self._buffer = bytearray(rest)
            for line in lines:
                self._take_reply(line) if self.is_host else self._take(line)
        elif len(self._buffer) > LIMIT:
            log.warning("a message of more than %d bytes was refused", LIMIT)
            self.close()

    # -- questions to a host

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer of the host at the other end. Raises DriverError as it answered, HostLostError."""
        if not self.is_open:
            await asyncio.sleep(0)  # its end is about to be noticed: whoever asks again must let that happen
            raise HostLostError
        self._number += 1
        number = self._number
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._send({"ask": number, "do": do, **arguments})
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    def _take_reply(self, line: bytes) -> None:
        try:
            message = _request(line)
        except AgentError as exc:
            log.warning("a host sent what is no answer: %s", exc.message)
            return
        if "reply" not in message:
            self._take(line)
            return
        answer = self._asked.get(message["reply"])
        if answer is None or answer.done():
            return  # whoever asked has given up
        if "error" in message:
            answer.set_exception(answered(message["error"]))
        else:
            answer.set_result(message["ok"])

    # -- requests

    def _take(self, line: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(line), name="request")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, line: bytes) -> None:
        number: Any = None
        try:
            request = _request(line)
            number = request.get("id")
            answer = to_data(await self._operate(request))
            self._flush()  # what the operation changed is seen by its caller before its answer
            self._send({"id": number, "ok": answer})
        except DeployCodeError as exc:
            self._send({"id": number, "error": _error(exc)})
        except Exception as exc:  # a request that breaks the agent's code must not break the agent
            log.exception("a request failed")
            self._send({"id": number, "error": _error(AgentError(f"the agent failed on a request: {exc!r}"))})

    async def _operate(self, request: dict[str, Any]) -> Any:
        operation = self._server.operations.get(request.get("op", ""))
        self.is_host = self.is_host or request.get("op") == OFFER
        if not self.is_host:
            await self._server.admitted.wait()
        if operation is None:
            raise AgentError(f"the agent knows no operation {request.get('op')!r}", remedy="Restart the agent")
        return await operation(self, request)

    # -- the stream

    def watch(self, instances: list[Instance]) -> None:
        """From now on send every change; first ``instances``, which are all there are."""
        self._watching = True
        self._send({"states": [to_data(instance) for instance in instances]})

    def tell(self, instance: Instance) -> None:
        if self._watching:
            self._news[instance.uuid] = instance
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._news and not self._flushing and not self._clogged:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        news, self._news = self._news, {}
        if news:
            self._send({"states": [to_data(instance) for instance in news.values()]})

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it without sending what was written: nobody reads it."""
        if self._transport is not None:
            self._transport.abort()


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError as exc:
        raise AgentError(f"a message is not JSON: {exc}") from exc
    if not isinstance(request, dict):
        raise AgentError("a message is not a JSON object")
    return request


def want_of(request: dict[str, Any]) -> Want:
    """Raises AgentError for what is no ``Want``."""
    try:
        return from_data(Want, request.get("want"))
    except (TypeError, ValueError) as exc:
        raise AgentError(f"the agent does not understand the message: {exc}", remedy="Restart the agent") from exc


def _peer(transport: asyncio.Transport) -> tuple[int, int]:
    """pid and uid of the process at the other end."""
    sock = transport.get_extra_info("socket")
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid), int(uid)


def _error(exc: DeployCodeError) -> dict[str, str]:
    return {"code": exc.code, "message": exc.message, "meaning": exc.meaning, "remedy": exc.remedy}
