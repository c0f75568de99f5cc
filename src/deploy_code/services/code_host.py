"""Serves the types that this process registered in code, from a thread of its own, for as long as the process lives.

``DeployCode`` binds no event loop and is never closed; so its types are served by a daemon thread with a loop of its
own. When the process ends, the kernel closes the connection, and the agent knows.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress

from deploy_code.errors import DriverError
from deploy_code.services.held import Factory
from deploy_code.services.host import Host, keep_serving

OFFER_SECONDS = 10.0  # until an agent that listens has answered an offer


class CodeHost:
    """The types of this process for the agent of one project.

    ``types``: name → what makes an object of it. Nothing runs before the first ``attach``.
    """

    def __init__(self, types: Mapping[str, Factory]) -> None:
        self._types = dict(types)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._host: Host | None = None
        self._wake: asyncio.Event | None = None
        self._ready: Future[None] = Future()
        self._closed = False

    def add(self, types: Mapping[str, Factory]) -> None:
        """Serve these too, from the next ``attach`` on."""
        self._types.update(types)

    def attach(self, state_dir: str, timeout: float = OFFER_SECONDS) -> None:
        """Offer the types to the agent of this state folder; returns once it has taken them. Call it from any thread.

        From then on agents that replace this one are found by themselves. Raises TimeoutError.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(state_dir,), name="types registered in code", daemon=True
            )
            self._thread.start()
        self._ready.result(timeout)
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._offered(), self._loop).result(timeout)

    def close(self) -> None:
        """Serve no longer: what runs goes on, and nobody can be asked about it."""
        self._closed = True
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(_cancel_all)
            self._thread.join(timeout=5.0)

    def drop_inherited(self) -> None:
        """In a forked child, where the thread does not run."""
        if self._host is not None:
            self._host.drop_inherited()

    async def _offered(self) -> None:
        host, wake = self._host, self._wake
        assert host is not None and wake is not None
        if set(self._types) - set(host.types):
            host.types = tuple(self._types)
            host.offer()
        wake.set()
        await host.accepted.wait()

    def _run(self, state_dir: str) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._serve(state_dir))

    async def _serve(self, state_dir: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        where = f"registered in code by process {os.getpid()}"
        self._host = Host(self._factory_of, where=where, types=tuple(self._types))
        self._ready.set_result(None)
        await keep_serving(self._host, state_dir, until=lambda: self._closed, wake=self._wake)

    def _factory_of(self, name: str) -> Factory:
        factory = self._types.get(name)
        if factory is None:
            raise DriverError(f'service_type "{name}" is not registered in process {os.getpid()}', code="E014")
        return factory


def _cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


# --------------------------------------------------------------------------- one for each project of this process

_HOSTS: dict[str, CodeHost] = {}  # by state folder; of the process, as the promise is: types live as long as it does
_LOCK = threading.Lock()


def serve_types(state_dir: str, types: Mapping[str, Factory]) -> None:
    """Serve ``types`` for this project until this process ends; blocks until the agent knows. Raises TimeoutError."""
    with _LOCK:
        host = _HOSTS.get(state_dir)
        if host is None:
            host = _HOSTS[state_dir] = CodeHost(types)
        host.add(types)
    host.attach(state_dir)


def _close_all() -> None:
    for host in tuple(_HOSTS.values()):
        host.close()


def _forget_in_child() -> None:
    """A forked child has no such thread, and must not keep the connection open when its parent ends."""
    global _LOCK
    _LOCK = threading.Lock()
    for host in _HOSTS.values():
        host.drop_inherited()
    _HOSTS.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_in_child)
