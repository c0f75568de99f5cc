"""Runs the objects of custom services and answers the agent about them.

Two things are such hosts, and both use what is here: a program that the agent starts for a type from ``plugins:`` or an
entry point (``python -m deploy_code.services.host STATE_DIR KEY SOURCE``), one for each source, so that a bad type
harms no other; and a process that registered types in code (``code_host``). A host survives the agent: it goes back to
the next one and says what it holds.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from deploy_code._version import __version__
from deploy_code.codec import from_data, to_data
from deploy_code.errors import DeployCodeError, DriverError
from deploy_code.services.handler import InstanceConfig
from deploy_code.services.held import Factory, Held
from deploy_code.wire import HOSTS, LIMIT, PROTOCOL, Offer, Started, connect

log = logging.getLogger("deploy_code.services")

RETRY_SECONDS = 0.05  # between two looks for the next agent; grows
RETRY_MAX_SECONDS = 1.0

Message = dict[str, Any]
FactoryOf = Callable[[str], Factory]


class Host:
    """All objects of one host. ``factory_of`` makes those of a type; ``where``: who registered the types, for people.

    To be used in one event loop.
    """

    def __init__(self, factory_of: FactoryOf, *, where: str, key: str = "", types: Sequence[str] = ()) -> None:
        self.types = tuple(types)
        self._factory_of = factory_of
        self._where = where
        self._key = key
        self._held: dict[str, Held] = {}
        self._late: list[Held] = []  # let go while their start() goes on in a thread
        self._answering: set[asyncio.Task[None]] = set()
        self._sock: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.accepted = asyncio.Event()  # the agent that it is connected to has taken the offer

    @property
    def is_idle(self) -> bool:
        """Does it hold nothing, and need not clean up after any start that was broken off?"""
        self._late = [each for each in self._late if each.is_late]
        return not self._held and not self._late

    def leave_late(self) -> None:
        """There is no agent any more, so nothing is wanted: no program stays for what may yet come of a start."""
        self._late.clear()

    async def serve(self, state_dir: str) -> None:
        """Answer one agent, until it goes. Raises OSError when none listens."""
        self._sock = connect(state_dir)
        reader, writer = await asyncio.open_unix_connection(sock=self._sock, limit=LIMIT)
        self._writer = writer
        try:
            self.offer()
            async for line in reader:
                self._take(json.loads(line))
        except ConnectionError:
            return
        finally:
            self._sock = self._writer = None
            self.accepted.clear()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def offer(self, failed: str = "") -> None:
        """Tell the agent what there is, again whenever the types have become more."""
        self.accepted.clear()
        offer = Offer(
            protocol=PROTOCOL,
            version=__version__,
            key=self._key,
            types=self.types,
            holds=tuple(self._held),
            failed=failed,
        )
        if self._writer is not None:
            _write(self._writer, {"id": 0, "op": "offer", "offer": to_data(offer)})

    def drop_inherited(self) -> None:
        """In a forked child: let go of the connection, whose end is to tell that the parent has ended."""
        if self._sock is not None:
            os.close(self._sock.detach())

    def _take(self, message: Message) -> None:
        if "ask" not in message:
            if "error" in message:
                log.warning("the agent refused the offer: %s", message["error"].get("message"))
            self.accepted.set()
            return
        task = asyncio.get_running_loop().create_task(self._answer(message), name=f"answer {message.get('do')}")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Message) -> None:
        asker = self._writer
        try:
            answer = {"ok": to_data(await self._do(message))}
        except DeployCodeError as exc:
            answer = {"error": _as_data(exc)}
        except Exception as exc:  # a bug of ours must not leave the agent without an answer
            log.exception("a question of the agent failed")
            answer = {"error": _as_data(DriverError(f"the host failed on a question: {exc!r}"))}
        if asker is not None and asker is self._writer:  # the next agent did not ask this
            _write(asker, {"reply": message["ask"], **answer})

    async def _do(self, message: Message) -> Any:
        do: Callable[[Message], Awaitable[Any]] | None = getattr(self, f"_do_{message['do']}", None)
        if do is None:
            raise DriverError(f"this host, of version {__version__}, does not know {message['do']!r}")
        return await do(message)

    # -- what the agent asks for

    async def _do_ping(self, _: Message) -> Message:
        return {}

    async def _do_start(self, message: Message) -> Started:
        held = self._hold(message)
        return await self._begun(held, held.start(clean=bool(message.get("clean"))))

    async def _do_resume(self, message: Message) -> Started:
        held = self._hold(message)
        return await self._begun(held, held.resume(dict(message.get("memory", {}))))

    def _hold(self, message: Message) -> Held:
        config = from_data(InstanceConfig, message["config"])
        held = self._held.get(config.uuid)
        if held is None:
            held = self._held[config.uuid] = Held(config, self._factory_of(config.service_type), self._where)
        return held

    async def _begun(self, held: Held, work: Awaitable[dict[str, str]]) -> Started:
        """The answer to a start; what could not be started is not held."""
        try:
            memory = await work
        except DriverError:
            self._let_go(held)
            raise
        return Started(memory=memory, checked=held.is_checked)

    async def _do_health(self, message: Message) -> Message:
        held = self._held.get(str(message["uuid"]))
        return {"status": str(await held.health(float(message["timeout"])))} if held is not None else {}

    async def _do_stop(self, message: Message) -> Message:
        """``last``: nobody comes back to it, so it is let go even if that fails. So is one that could not be made."""
        held = self._held.get(str(message["uuid"]))
        if held is None:
            return {}
        try:
            gently = await held.stop(float(message["timeout"]))
        except DriverError:
            if message.get("last") or not held.is_made:
                self._let_go(held)
            raise
        self._let_go(held)
        return {"gently": gently}

    async def _do_forget(self, message: Message) -> Message:
        if held := self._held.get(str(message["uuid"])):
            self._let_go(held)
        return {}

    def _let_go(self, held: Held) -> None:
        if self._held.get(held.config.uuid) is held:
            del self._held[held.config.uuid]
            self._late += [held] if held.is_late else []


def _write(writer: asyncio.StreamWriter, message: Message) -> None:
    writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")


def _as_data(exc: DeployCodeError) -> dict[str, str]:
    return {"code": exc.code, "message": exc.message, "meaning": exc.meaning, "remedy": exc.remedy}


async def keep_serving(host: Host, state_dir: str, *, until: Callable[[], bool], wake: asyncio.Event) -> None:
    """Serve one agent after the other, until ``until`` says so when there is none. ``wake``: look for one at once."""
    wait = RETRY_SECONDS
    while True:
        wake.clear()
        try:
            await host.serve(state_dir)
            wait = RETRY_SECONDS
        except OSError:
            host.leave_late()
            wait = min(2 * wait, RETRY_MAX_SECONDS)
        if until():
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), wait)


# --------------------------------------------------------------------------- the program


def take_lock(state_dir: str, key: str) -> int | None:
    """The descriptor of this host's lock, held for life; None when another one holds it.

    Its text is who we are: pid and start time.
    """
    folder = os.path.join(state_dir, HOSTS)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(folder, f"{key}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {_start_time()}\n".encode(), 0)
    return fd


def _start_time() -> str:
    with open("/proc/self/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def _load(source: str) -> tuple[Factory | None, str]:
    """The class that ``source`` names, or why it cannot be had."""
    from deploy_code.plugins import load_extension

    try:
        extension = load_extension(source, "")
    except DeployCodeError as exc:
        log.warning("%s", exc, exc_info=exc)
        return None, exc.message
    if extension.kind != "service type":
        return None, f"{source} is a {extension.kind}, and not a service type"
    factory: Factory = extension.value
    return factory, ""


async def _tell_failure(state_dir: str, key: str, why: str) -> None:
    """The agent waits for an offer: this is one of nothing. Raises OSError when there is no agent."""
    reader, writer = await asyncio.open_unix_connection(sock=connect(state_dir), limit=LIMIT)
    offer = Offer(protocol=PROTOCOL, version=__version__, key=key, failed=why)
    _write(writer, {"id": 0, "op": "offer", "offer": to_data(offer)})
    await reader.readline()
    writer.close()
    await writer.wait_closed()


def main(arguments: Sequence[str]) -> int:
    """``STATE_DIR KEY SOURCE``: serve the type until the agent has gone and nothing is left to run."""
    state_dir, key, source = arguments
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    lock = take_lock(state_dir, key)
    if lock is None:
        return 0
    factory, why = _load(source)
    if factory is None:
        with suppress(OSError):  # no agent: nobody to tell
            asyncio.run(_tell_failure(state_dir, key, why))
        return 1
    asyncio.run(_serve(state_dir, key, source, factory, lock))
    return 0


async def _serve(state_dir: str, key: str, source: str, factory: Factory, lock: int) -> None:
    host = Host(lambda _: factory, where=source, key=key)
    os.register_at_fork(after_in_child=lambda: _be_nobody(host, lock))
    await keep_serving(host, state_dir, until=lambda: host.is_idle, wake=asyncio.Event())


def _be_nobody(host: Host, lock: int) -> None:
    """In a child that a type forked: what says that the host lives must end with the host."""
    host.drop_inherited()
    with suppress(OSError):  # whoever forked has closed it already, as daemons do
        os.close(lock)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that a handler left behind must not keep the host, whose lock others wait for
