"""One start of a container: everything it needs, then create, start, and one look at what came of it.

A start that is cancelled while the engine is at it is finished all the same: only then is it known what is there to be
removed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy_code.drivers.base import Running
from deploy_code.drivers.engine import refusals, volumes
from deploy_code.drivers.engine.body import create_body, inner_port, network_name
from deploy_code.drivers.engine.client import EngineError, EngineGoneError
from deploy_code.drivers.engine.networks import FoundNetwork
from deploy_code.drivers.engine.order import (
    CONTAINER,
    ENGINE,
    ENGINE_TLS,
    INSTANCE,
    LOG,
    STATE,
    ContainerOrder,
    port_key,
)
from deploy_code.drivers.engine.place import Place
from deploy_code.drivers.engine.processes import first_process
from deploy_code.drivers.proctree import boot_id
from deploy_code.errors import CircuitOpenError, DriverError

_CALL_SECONDS = 120.0  # an engine that starts many at once takes its time over each
_PAUSE_SECONDS = 0.2  # grows; after a call that was lost though the engine seems to be there
_NAME_TRIES = 20  # while what had the name is being removed
_NAME_SECONDS = 0.1
_TRIES, _ADDRESS_TRIES, _ADDRESS_SECONDS = 10, 3, 0.2
_NEVER = "0001-01-01"  # how the API tells a time that has not come

Inspected = Mapping[str, Any]


@dataclass(slots=True)
class _Made:
    """What the engine has made of a start so far."""

    chooses: bool = False  # address and MAC are chosen here
    container: str = ""
    broken_off: bool = False  # nobody waits for it any more
    task: asyncio.Task[Running] | None = None


class Starts:
    """Those under way on one engine. ``log``: the ``LogConfig`` of an order."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._under_way: dict[str, _Made] = {}
        self._last_address: dict[str, int] = {}  # by subnet: how many addresses from its first one

    async def start(self, order: ContainerOrder, log: Mapping[str, object], *, fixes_mac: bool = False) -> Running:
        """Start it; an engine that is away is waited for. Raises DriverError.

        ``fixes_mac``: an IP always has the same MAC, whoever has it, so that who knows it need not learn anew.
        """
        made = self._under_way.setdefault(order.uuid, _Made())
        made.container, made.chooses = "", fixes_mac
        deadline, pause = time.monotonic() + order.patience, _PAUSE_SECONDS
        while True:
            try:
                await self._place.watch.available(deadline - time.monotonic())
                running = await self._attempt(order, log, made)
            except (EngineGoneError, CircuitOpenError) as exc:
                if time.monotonic() + pause >= deadline or not getattr(exc, "retryable", True):
                    raise _gone(exc) from exc  # what has come of it, if anything, is to be seen by ``broken_off``
                await asyncio.sleep(pause)
                pause *= 2
            except EngineError as exc:
                self._under_way.pop(order.uuid, None)
                raise refusals.in_our_words(exc, order) from exc
            except DriverError:
                self._under_way.pop(order.uuid, None)
                raise
            else:
                self._under_way.pop(order.uuid, None)
                return running

    async def broken_off(self, uuid: str) -> bool:
        """Nobody waits for this start any more: returns once the engine is no longer at it.

        False where nothing can have come of it: the engine was away all the time.
        """
        made = self._under_way.pop(uuid, None)
        if made is None:
            return True
        if made.task is not None:
            made.broken_off = True
            await asyncio.wait([made.task])
            if not made.task.cancelled():
                made.task.exception()  # whatever it was: what there is of it is looked for now
        return made.task is not None

    def close(self) -> None:
        for made in self._under_way.values():
            if made.task is not None:
                made.task.cancel()

    # ----------------------------------------------------------------------- one attempt

    async def _attempt(self, order: ContainerOrder, log: Mapping[str, object], made: _Made) -> Running:
        """All that a start is. Once more where the network was removed, or the address is somebody else's now."""
        place, address = self._place, order.address
        if made.container and (found := await place.inspect(made.container)) and _has_run(found):
            return await self._seen(found, order)  # it was the answer that was lost
        refused = 0
        for _ in range(_TRIES):
            async with place.turn:
                needs = await self._needs(order)
                asked = _within(address, needs.network) or (self._next_address(needs.network) if made.chooses else "")
                made.task = asyncio.get_running_loop().create_task(
                    self._make(order, log, made, needs, asked), name=f"start {order.name}"
                )
                try:
                    return await asyncio.shield(made.task)
                except EngineError as exc:
                    if refusals.is_network_gone(exc):
                        place.networks.forget()
                    elif refusals.is_address_refused(exc) and address:
                        refused += 1
                        address = address if refused < _ADDRESS_TRIES else ""
                        await asyncio.sleep(_ADDRESS_SECONDS)  # Podman gives it free a moment after the container
                    elif not (refusals.is_address_refused(exc) and asked):
                        raise
        raise DriverError(
            f"container {order.name} cannot be started: its network goes away again and again", code="E010"
        )

    def _next_address(self, network: FoundNetwork) -> str:
        """One after the other, so that one that has just become free is the last to be used again."""
        if not network.subnet:
            return ""
        subnet = ipaddress.ip_network(network.subnet, strict=False)
        count = subnet.num_addresses - 3  # without those of the network, of this machine, and of all
        if count < 1:
            return ""
        place = self._last_address.get(network.subnet, zlib.crc32(os.urandom(4))) + 1
        self._last_address[network.subnet] = place
        return str(subnet.network_address + 2 + place % count)

    async def _needs(self, order: ContainerOrder) -> _Needs:
        """Have there what the container is made with. Raises DriverError and EngineError."""
        place = self._place
        if place.endpoint.is_local:
            _check_sources(order)
        network = FoundNetwork("", "")
        if not order.container.shares_host:
            network = await place.networks.ensure(order)
        await volumes.ensure_named(place.client, order)
        kept = await place.kept_paths(order.container.image_id or order.image)
        return _Needs(network, kept, publish_all=not await place.is_direct())

    async def _make(
        self, order: ContainerOrder, log: Mapping[str, object], made: _Made, needs: _Needs, address: str
    ) -> Running:
        place = self._place
        anonymous = await volumes.make_anonymous(place.client, order, needs.kept)
        body = create_body(
            order,
            log=log,
            gateway=needs.network.gateway,
            address=address,
            mac=mac_of(address) if made.chooses and address else "",
            publish_all=needs.publish_all,
            anonymous=anonymous,
        )
        made.container = ""
        try:
            container, runs = await self._create(order, body)
            made.container = container
            if not runs:
                await self._begin(container, made)
            else:
                await volumes.discard(place.client, anonymous.values())
        except EngineError:
            if made.container:
                await place.remove(made.container, drain=False)
            await volumes.discard(place.client, anonymous.values())
            raise
        place.watch.started(container)
        place.followers.begin(container, order.log_path)
        found = await place.inspect(container)
        if found is None:
            raise DriverError(f"container {order.name} was removed by somebody while it started", retryable=True)
        return await self._seen(found, order)

    async def _begin(self, container: str, made: _Made) -> None:
        if made.broken_off:
            raise EngineError("broken off", status=0)
        await self._place.client.call("POST", f"/containers/{container}/start", timeout=_CALL_SECONDS)

    async def _create(self, order: ContainerOrder, body: Mapping[str, object]) -> tuple[str, bool]:
        """Its id, and whether it was started already: by an earlier start of this instance that nobody could record."""
        last: EngineError | None = None
        for _ in range(_NAME_TRIES):
            try:
                found = await self._place.client.call(
                    "POST", "/containers/create", query={"name": order.name}, body=body, timeout=_CALL_SECONDS
                )
                return str(found["Id"]), False
            except EngineError as exc:
                if not refusals.is_name_taken(exc):
                    raise
                last = exc
            if taken := await self._make_way(order):
                return taken, True
        raise refusals.in_our_words(last, order) if last is not None else AssertionError

    async def _make_way(self, order: ContainerOrder) -> str:
        """What has the name goes if it is ours; its id where it is this very instance, and runs.

        A one-shot that has run must not run again: how it ended is all that is left to be known.
        """
        found = await self._place.inspect(order.name)
        if found is None or found["State"]["Status"] == "removing":
            await asyncio.sleep(_NAME_SECONDS)
            return ""
        labels = found["Config"].get("Labels") or {}
        if labels.get(STATE) != order.state:
            raise DriverError(
                f"there is a container {order.name} already, and it is not this project's",
                code="S002",
                meaning=_whose(labels),
                remedy=f"Remove or rename it (`{order.container.runtime or 'docker'} rename`), or rename the project",
            )
        container = str(found["Id"])
        if labels.get(INSTANCE) == order.uuid and (found["State"]["Running"] or self._is_done(order, found)):
            return container
        await self._place.remove(container)
        return ""

    def _is_done(self, order: ContainerOrder, found: Inspected) -> bool:
        return order.one_shot and _has_run(found) and not self._place.is_leftover(str(found["Id"]))

    # ----------------------------------------------------------------------- what came of it

    async def _seen(self, found: Inspected, order: ContainerOrder) -> Running:
        """It was started: from here on it is watched, and its log read."""
        place, container = self._place, str(found["Id"])
        place.watch.started(container)
        place.followers.begin(container, order.log_path)
        if not found["State"]["Running"]:
            place.watch.not_running(container)
        return await self._running(found, order)

    async def _running(self, found: Inspected, order: ContainerOrder) -> Running:
        place = self._place
        direct = await place.is_direct()
        published = _published(found, order)
        address, ports = "", {}
        if not order.container.shares_host and direct:
            address = _ip(found, network_name(order))
            ports = {port_key(port): inner for port in order.ports if (inner := port.container_port or port.host_port)}
        elif not order.container.shares_host:
            address, ports = place.endpoint.host, {key: published[key] for key in published if "/" not in key}
        return running_of(place, found, order.uuid, order.log_path, address=address, ports=ports, published=published)


@dataclass(frozen=True, slots=True)
class _Needs:
    network: FoundNetwork
    kept: tuple[str, ...]  # paths that the image wants kept
    publish_all: bool


def running_of(
    place: Place,
    found: Inspected,
    uuid: str,
    log_path: str = "",
    *,
    address: str = "",
    ports: Mapping[str, int] | None = None,
    published: Mapping[str, int] | None = None,
) -> Running:
    """What is to be remembered of a container that was inspected."""
    proc = first_process(found["State"].get("Pid") or 0, found["Id"]) if place.endpoint.is_local else None
    return Running(
        uuid=uuid,
        pid=proc.pid if proc is not None else 0,
        start_time=proc.start_time if proc is not None else 0,
        boot_id=boot_id(),
        handler={
            CONTAINER: found["Id"],
            ENGINE: place.endpoint.url,
            ENGINE_TLS: place.endpoint.tls,
            LOG: log_path,
        },
        address=address,
        ports=ports or {},
        published=published or {},
    )


def mac_of(address: str) -> str:
    """The MAC of whoever has this IP, as Docker derives it: locally administered, for one machine."""
    return ":".join(("02", "42", *(f"{byte:02x}" for byte in ipaddress.ip_address(address).packed[-4:])))


def _has_run(found: Inspected) -> bool:
    return not str(found["State"].get("StartedAt") or _NEVER).startswith(_NEVER)


def _ip(found: Inspected, network: str) -> str:
    networks = found["NetworkSettings"].get("Networks") or {}
    return str((networks.get(network) or {}).get("IPAddress") or "")


def _published(found: Inspected, order: ContainerOrder) -> dict[str, int]:
    """Numbers on the engine's machine, by the keys of the order's ports."""
    bound = found["NetworkSettings"].get("Ports") or {}
    numbers = {
        port_key(port): next(
            (int(each["HostPort"]) for each in bound.get(inner_port(port)) or () if each["HostPort"]), 0
        )
        for port in order.ports
    }
    return {key: number for key, number in numbers.items() if number}


def _within(address: str, network: FoundNetwork) -> str:
    """The address, if it is one of this network's."""
    if not address or not network.subnet:
        return ""
    inside = ipaddress.ip_address(address) in ipaddress.ip_network(network.subnet, strict=False)
    return address if inside and address != network.gateway else ""


def _check_sources(order: ContainerOrder) -> None:
    """Podman, and Docker in some cases, would make an empty folder of what is missing."""
    for volume in order.volumes:
        if volume.source:
            try:
                os.stat(volume.source)
            except (FileNotFoundError, NotADirectoryError) as exc:
                raise refusals.missing_source(volume.source) from exc
            except OSError:
                continue  # not ours to look at; the engine's user may


def _whose(labels: Mapping[str, str]) -> str:
    if state := labels.get(STATE):
        return f"It belongs to the project whose state lies in {state}"
    return "It was not made by deploy-code, which leaves it alone"


def _gone(exc: EngineGoneError | CircuitOpenError) -> EngineGoneError:
    if isinstance(exc, EngineGoneError):
        return EngineGoneError(exc.message, meaning=exc.meaning, remedy=exc.remedy, retryable=exc.retryable)
    return EngineGoneError(exc.message, meaning=exc.meaning)
