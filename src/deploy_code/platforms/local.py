"""This machine as a platform: speaks to the project's agent, and starts it when there is none.

If the agent dies in the middle, it is started again, the stream is taken up anew, and every message that was not
answered is sent once more; all of them may be repeated (``wire``).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from deploy_code import wire
from deploy_code._version import __version__
from deploy_code.codec import from_data, to_data
from deploy_code.errors import AgentError
from deploy_code.events import Bus, InstanceChanged
from deploy_code.model import Drifts, Identity, Instance, Phase, Settings, Wanted

from .channel import Channel, ChannelLostError, Message
from .spawn import (
    START_SECONDS,
    Starting,
    agent_is_alive,
    can_start,
    package_folder,
    search_path,
    spawn_agent,
    start_failed,
)

ANSWER_SECONDS = 60.0
CONNECT_TRIES = 5  # agents that end before they answer: more would be a fork bomb
_RETRY_SECONDS = 0.02


class LocalPlatform:
    """``platforms.base.Platform`` over the agent of one project.

    ``bus``, where given, gets an ``InstanceChanged`` for every new phase of an instance. ``types``: service types that
    this process registered in code, name → what makes an object of it; they are served until the process ends. To be
    used from one event loop at a time.
    """

    def __init__(
        self, identity: Identity, *, bus: Bus | None = None, types: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self._state = identity.directories.state
        self._types = dict(types or {})
        self._bus = bus
        self._starting: Starting | None = None
        self._channel: Channel | None = None
        self._connecting: asyncio.Task[Channel] | None = None
        self._closed = False
        self._mirror = _Mirror(self._announce)
        self._outbox: dict[_Envelope, _Batch] = {}
        self._batches: set[_Batch] = set()  # sent, and those in the outbox
        self._deployment = 0

    # -- the connection

    def prestart(self) -> None:
        """Spawn the agent now if none serves, and return at once; ``open`` finds it.

        Without a state it is only warmed up; once there is one, the next call, or ``open``, lets it go.
        """
        if self._starting is None and not agent_is_alive(self._state):
            self._starting = spawn_agent(self._state, hold=not can_start(self._state))
        elif self._starting is not None and can_start(self._state):
            self._starting.release()

    async def open(self) -> None:
        """Make sure that the agent serves and its stream flows. Idempotent. Raises AgentError (E013)."""
        self._closed = False
        await self._connected()
        if self._types:
            await self._serve_types()

    async def _serve_types(self) -> None:
        """The agent may ask this process for objects of its types from now on."""
        from deploy_code.services.code_host import serve_types

        try:
            await asyncio.to_thread(serve_types, self._state, self._types)
        except TimeoutError as exc:
            raise AgentError(
                "the agent did not take the service types that are registered in code",
                remedy=f"See {os.path.join(self._state, wire.AGENT_LOG)}",
            ) from exc

    async def close(self) -> None:
        """Let go of the connection; agent and instances stay. Messages under way are given up on."""
        self._closed = True
        going = {batch.task for batch in self._batches} | ({self._connecting} if self._connecting else set())
        for task in going:  # one that lost its answer now would connect again, for nobody
            task.cancel()
        if going:
            await asyncio.wait(going)
        self._connecting = None
        self._outbox.clear()
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()
        if self._starting is not None:
            await asyncio.to_thread(self._starting.close)
            self._starting = None

    async def _connected(self) -> Channel:
        """The channel; connects, if need be, once for all who wait."""
        if self._channel is not None:
            return self._channel
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(), name="connect to the agent")
            self._connecting.add_done_callback(self._connect_ended)
        return await asyncio.shield(self._connecting)

    def _connect_ended(self, task: asyncio.Task[Channel]) -> None:
        self._connecting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._mirror.fail(error)

    async def _connect(self) -> Channel:
        try:
            async with asyncio.timeout(START_SECONDS):
                for _ in range(CONNECT_TRIES):
                    with suppress(ChannelLostError):  # it ended in between: the next one
                        return await self._greeted(await self._channel_to_agent())
                raise start_failed(self._state, f"it ended {CONNECT_TRIES} times before it answered")
        except TimeoutError as exc:
            raise start_failed(self._state, f"it does not answer within {START_SECONDS:g} s") from exc

    async def _channel_to_agent(self) -> Channel:
        while True:
            try:
                return await Channel.open(wire.connect(self._state), self._mirror.take, self._lost)
            except (FileNotFoundError, ConnectionError):
                await self._start()
            except OSError as exc:
                raise AgentError(
                    f"the agent of {self._state} cannot be reached: {exc.strerror}",
                    remedy="Run as the user who deployed this project",
                ) from exc

    async def _start(self) -> None:
        """See to it that an agent listens soon: ours, or one that somebody else is starting."""
        if self._starting is None and agent_is_alive(self._state):
            await asyncio.sleep(_RETRY_SECONDS)
            return
        if self._starting is None:
            self._starting = spawn_agent(self._state)
        starting, self._starting = self._starting, None
        starting.release()
        await _until_readable(starting.fd)
        starting.finish()

    async def _greeted(self, channel: Channel) -> Channel:
        try:
            await self._greet(channel)
        except BaseException:
            channel.drop()
            raise
        self._channel = channel
        return channel

    async def _greet(self, channel: Channel) -> None:
        """Say who we are, and have the stream begin; the agent of another version replaces itself first."""
        hello = from_data(wire.Hello, await channel.ask("hello", **_greeting()))
        if hello.upgrading:
            await channel.ended()
            raise ChannelLostError
        if hello.protocol != wire.PROTOCOL:
            raise AgentError(
                f"the agent speaks version {hello.protocol} of the protocol, this program version {wire.PROTOCOL}",
                meaning="They belong to different versions of deploy-code",
                remedy="Run `deploy-code agent stop`, then this command again",
            )
        self._mirror.expect_all()
        await channel.ask("watch")  # all instances come before the answer

    def _lost(self) -> None:
        """The agent is gone. While we are open, states must flow: connect again."""
        was_ours, self._channel = self._channel is not None, None
        if was_ours and not self._closed:
            self._reconnect()

    def _reconnect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(), name="reconnect")
            self._connecting.add_done_callback(self._connect_ended)

    async def _ask(self, operation: str, **arguments: Any) -> Message:
        """An answer, from this agent or the next."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    with suppress(ChannelLostError):
                        return await (await self._connected()).ask(operation, **arguments)
        except TimeoutError as exc:
            raise AgentError(
                f"the agent does not answer within {ANSWER_SECONDS:g} s",
                remedy=f"See {os.path.join(self._state, wire.AGENT_LOG)}",
            ) from exc

    # -- Platform

    async def observe(self) -> tuple[Instance, ...]:
        """All instances of this project, now."""
        await self._connected()
        return self._mirror.all()

    async def want(
        self,
        deployment: int,
        wanted: Sequence[Wanted],
        *,
        stop_timeout: float | None = None,
        rerun: Sequence[str] = (),
        port_range: tuple[int, int] = Settings().port_range,
        forget: bool = False,
        start_timeout: float = Settings().timeout_seconds,
    ) -> None:
        """Change the wanted set. Calls made in the same tick of the loop travel, and are committed, as one."""
        self._deployment = deployment
        envelope = _Envelope(deployment, stop_timeout, port_range, forget, start_timeout)
        batch = self._outbox.get(envelope)
        if batch is None:
            batch = self._outbox[envelope] = _Batch(self._send(envelope))
            self._batches.add(batch)
            batch.task.add_done_callback(partial(self._batch_ended, batch))
        batch.add(wanted, rerun)
        await batch.sent()

    def _batch_ended(self, batch: _Batch, task: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if not task.cancelled():
            task.exception()  # whoever still waits for it has it too

    async def _send(self, envelope: _Envelope) -> None:
        await asyncio.sleep(0)  # let everyone who is ready add to it
        batch = self._outbox.pop(envelope)
        want = wire.Want(**envelope._asdict(), wanted=tuple(batch.wanted.values()), rerun=tuple(batch.rerun))
        await self._ask("want", want=to_data(want))

    async def settle(self, deployment: int) -> None:
        """From here on the restart policy holds for all that is wanted."""
        await self._ask("settle", deployment=deployment)

    def instances(self, service: str) -> tuple[Instance, ...]:
        return self._mirror.of(service)

    async def changed(self, service: str) -> None:
        """Wait until the stream says something new of ``service``. Raises AgentError when it cannot flow any more."""
        await self._mirror.changed(service)

    async def inspect(self, instance: Instance) -> dict[str, Any]:
        """``pids``, ``listening``, ``cpu_percent``, ``memory_bytes``."""
        answer = await self._ask("inspect", instance=instance.uuid)
        found = from_data(wire.Inspection, answer)
        return {name: getattr(found, name) for name in wire.Inspection.__dataclass_fields__}

    async def drift(self) -> Drifts:
        """What runs, compared with what its revisions say; one-shots aside."""
        return from_data(Drifts, await self._ask("drift"))

    async def clear(self, instances: Sequence[str]) -> None:
        """End what ``drift`` called extra."""
        await self._ask("clear", instances=list(instances))

    async def probe(self, services: Iterable[str]) -> None:
        """Have these probed now, not at their next interval."""
        await self._ask("probe", services=list(services))

    async def info(self) -> wire.AgentInfo:
        return from_data(wire.AgentInfo, await self._ask("info"))

    def _announce(self, before: Instance | None, now: Instance) -> None:
        if self._bus is None or (before is not None and before.phase is now.phase):
            return
        name = f"{now.service} r{now.revision} #{now.index}"
        event = InstanceChanged(
            deployment=self._deployment, service=now.service, instance=name, phase=now.phase, detail=now.note
        )
        self._bus.publish(event)


class _Envelope(NamedTuple):
    """What wishes that travel together have in common."""

    deployment: int
    stop_timeout: float | None
    port_range: tuple[int, int]
    forget: bool
    start_timeout: float


class _Batch:
    """Wishes that travel together; of two about the same pair the later one counts."""

    def __init__(self, send: Coroutine[Any, Any, None]) -> None:
        self.wanted: dict[tuple[str, int], Wanted] = {}
        self.rerun: dict[str, None] = {}
        self.task = asyncio.get_running_loop().create_task(send, name="want")

    def add(self, wanted: Sequence[Wanted], rerun: Sequence[str]) -> None:
        for item in wanted:
            self.wanted.pop((item.service, item.revision), None)
            self.wanted[item.service, item.revision] = item
        self.rerun.update(dict.fromkeys(rerun))

    async def sent(self) -> None:
        """Wait for the answer; one caller that gives up does not take the others' message back."""
        await asyncio.shield(self.task)


class _Mirror:
    """What the stream last said, by service, and who waits for more."""

    def __init__(self, announce: Any) -> None:
        self._announce = announce
        self._services: dict[str, dict[str, Instance]] = {}
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._all_next = False

    def all(self) -> tuple[Instance, ...]:
        return tuple(instance for group in self._services.values() for instance in group.values())

    def of(self, service: str) -> tuple[Instance, ...]:
        return tuple(self._services.get(service, {}).values())

    async def changed(self, service: str) -> None:
        waiter = self._waiters.get(service)
        if waiter is None or waiter.done():
            waiter = self._waiters[service] = asyncio.get_running_loop().create_future()
        await asyncio.shield(waiter)

    def expect_all(self) -> None:
        """The next message is about all instances: what is not in it is no more."""
        self._all_next = True

    def take(self, states: list[Message]) -> None:
        instances = [from_data(Instance, state) for state in states]
        services = {instance.service for instance in instances}
        if self._all_next:
            self._all_next = False
            services |= set(self._services)
            self._forget_all_but({instance.uuid for instance in instances})
        for instance in instances:
            self._put(instance)
        for service in services:
            self._wake(service)

    def fail(self, error: BaseException) -> None:
        """The stream is broken for good: nobody must wait for it."""
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()

    def _put(self, instance: Instance) -> None:
        group = self._services.setdefault(instance.service, {})
        before = group.get(instance.uuid)
        if instance.phase is Phase.GONE:
            group.pop(instance.uuid, None)
        else:
            group[instance.uuid] = instance
        self._announce(before, instance)

    def _forget_all_but(self, uuids: set[str]) -> None:
        for group in self._services.values():
            for uuid in group.keys() - uuids:
                self._announce(group[uuid], group[uuid].but(phase=Phase.GONE))
                del group[uuid]

    def _wake(self, service: str) -> None:
        waiter = self._waiters.pop(service, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _greeting() -> Message:
    return {
        "protocol": wire.PROTOCOL,
        "version": __version__,
        "python": sys.executable,
        "path": package_folder(),
        "python_path": search_path(),
    }


async def _until_readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, lambda: None if readable.done() else readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(fd)
