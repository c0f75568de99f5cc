"""The client's end of the agent's socket: requests with answers, and the stream of states."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any, cast

from deploy_code.errors import AgentError, DeployCodeError, StalePlanError, StateError

from .spawn import remote_error

Message = dict[str, Any]


class ChannelLostError(Exception):
    """The agent went away before it answered: whoever asked may ask the next one the same."""


class Channel(asyncio.Protocol):
    """One connection. ``on_states`` gets each list of instances as data, ``on_lost`` hears once that it is over."""

    def __init__(self, on_states: Callable[[list[Message]], None], on_lost: Callable[[], None]) -> None:
        self._on_states = on_states
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._number = 0
        self._parts: list[bytes] = []
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls, sock: socket.socket, on_states: Callable[[list[Message]], None], on_lost: Callable[[], None]
    ) -> Channel:
        """Take over a connected socket."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(on_states, on_lost), sock=sock)
        return channel

    async def ask(self, operation: str, **arguments: Any) -> Message:
        """Send a request and wait for its answer. Raises what the agent answers, ChannelLostError."""
        if self._transport is None or self._transport.is_closing():
            await asyncio.sleep(0)  # its end is about to be noticed: whoever asks again must let that happen
            raise ChannelLostError
        self._number += 1
        number = self._number
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        request = {"id": number, "op": operation, **arguments}
        self._transport.write(json.dumps(request, separators=(",", ":")).encode() + b"\n")
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Returns once the agent can see that we are gone."""
        if self._transport is not None:
            self._transport.close()
            await self.ended()

    def drop(self) -> None:
        """Break it off."""
        if self._transport is not None:
            self._transport.abort()

    async def ended(self) -> None:
        """Wait until the connection is over."""
        await asyncio.shield(self._closed)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = b"".join([*self._parts, complete[0]])
            self._parts.clear()
        if rest:
            self._parts.append(rest)
        for line in complete:
            self._take(json.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        asyncio.get_running_loop().call_soon(self._closed.set_result, None)  # the socket itself closes after this
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ChannelLostError())
        self._on_lost()

    def _take(self, message: Message) -> None:
        if "states" in message:
            self._on_states(message["states"])
            return
        answer = self._waiting.get(message["id"])
        if answer is None or answer.done():
            return  # whoever asked has given up
        if "error" in message:
            answer.set_exception(_raised(message["error"]))
        else:
            answer.set_result(message["ok"])


def _raised(error: Message) -> DeployCodeError:
    """The class that goes with the code, so that callers need not compare codes."""
    kinds: dict[str, type[DeployCodeError]] = {"E012": StalePlanError, "E004": StateError, "S005": StateError}
    kind = kinds.get(error["code"], AgentError)
    if kind is AgentError:
        return remote_error(error)
    return kind(error["message"], code=error["code"], meaning=error["meaning"], remedy=error["remedy"])
