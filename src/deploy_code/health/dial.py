"""Connecting without waiting where nothing has to be waited for.

On loopback the kernel knows the answer to a connect at once. Asking for it directly makes a refused probe
cost microseconds, so that hundreds of starting services can be asked often, and tells two answers apart that
a plain connect mixes up: a listener, and a socket that connected to itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from typing import Any

Address = tuple[int, Any]  # family, and what that family's connect() takes

LOOKUP_RETRY_SECONDS = 1.0  # a name that was not found is not asked for more often than this
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "no answer to the connection attempt",
    errno.ENOENT: "no such socket",
    errno.EACCES: "permission denied",
}


class ProbeNotMadeError(Exception):
    """Nobody could be asked: this machine lacks what a probe needs (open files, memory), or the runtime of a container
    is away. It says nothing about the service."""


class SelfConnectedError(ConnectionError):
    """Both ends are one socket: nobody listens, and the kernel gave the asker the port that is asked."""

    def __str__(self) -> str:
        return "nobody listens: the connection met itself"


def in_words(error: OSError) -> str:
    """What went wrong on a connection, as a person would say it."""
    if isinstance(error, SelfConnectedError):
        return str(error)
    if isinstance(error, socket.gaierror):
        return f"name not found: {error.strerror or error}"
    return _WORDS.get(error.errno or 0) or (error.strerror or str(error) or type(error).__name__).lower()


def refuse_if_ours(error: OSError, *further: int) -> None:
    """Raise ProbeNotMadeError where an error is about this machine; ``further`` numbers count as such."""
    if error.errno in _OURS or error.errno in further:
        raise ProbeNotMadeError(f"this machine is out of something: {os.strerror(error.errno)}") from error


def fixed_addresses(host: str, port: int) -> tuple[Address, ...]:
    """Addresses that need no look-up: numbers, and ``localhost`` (127.0.0.1, then ::1). Else empty."""
    if host.lower() == "localhost":
        return ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port)))
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return ((family, (host, port)),)
    return ()


class Resolver:
    """The addresses of one host and port, looked up at most once in ``max_age`` seconds."""

    def __init__(self, host: str, port: int, *, max_age: float) -> None:
        self.host, self.port = host, port
        self._max_age = max_age
        self._addresses = fixed_addresses(host, port)
        self._fresh_until = float("inf") if self._addresses else 0.0
        self._error: OSError | None = None

    async def addresses(self) -> tuple[Address, ...]:
        """Never empty. Raises socket.gaierror where the name is not known (again, until it is asked for
        anew).
        """
        if time.monotonic() >= self._fresh_until:
            await self._look_up()
        if self._error is not None:
            raise self._error
        return self._addresses

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            self._error = error
            self._fresh_until = time.monotonic() + min(self._max_age, LOOKUP_RETRY_SECONDS)
            return
        self._error = None
        self._addresses = tuple((family, address) for family, _, _, _, address in found)
        self._fresh_until = time.monotonic() + self._max_age


async def connect(addresses: tuple[Address, ...]) -> socket.socket:
    """A connected, non-blocking socket to the first address that takes one.

    Does not suspend where the kernel answers at once. Raises OSError (that of the first address) and
    ProbeNotMadeError.
    """
    error: OSError | None = None
    for family, address in addresses:
        try:
            return await _connect_one(family, address)
        except OSError as failed:
            refuse_if_ours(failed)
            error = error or failed
    raise error or ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")


async def _connect_one(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        peer = _connect_now(sock, address)
        if peer is None:
            await asyncio.get_running_loop().sock_connect(sock, address)
            peer = sock.getpeername()
        if peer and peer == sock.getsockname():
            raise SelfConnectedError
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_now(sock: socket.socket, address: Any) -> Any:
    """The peer, once connected; None where the answer is still on its way. Raises OSError."""
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        # the kernel handles loopback packets before connect() returns: by now the outcome is often known
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    try:
        return sock.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return None
