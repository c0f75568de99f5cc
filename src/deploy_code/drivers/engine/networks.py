"""The network that the containers of a project share: made when first needed, removed when nobody is on it.

It is made with its range written out, also where the engine chose the range: only on such a network does Docker give a
container the address that it had before.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy_code.drivers.engine.body import network_labels, network_name
from deploy_code.drivers.engine.client import EngineClient, EngineError
from deploy_code.drivers.engine.order import STATE, ContainerOrder
from deploy_code.errors import DriverError

_TRIES = 4  # a range that was free a moment ago may be somebody's by now
_PAUSE_SECONDS = 0.1
Found = Mapping[str, Any]  # as the engine lists it
_OVERLAPS = ("overlaps", "is already used on the host or by another config", "subnet is already used")


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """``gateway``: where its containers reach this machine; "" where that is not known."""

    subnet: str
    gateway: str


class Networks:
    """Of one project on one engine."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._known: dict[str, asyncio.Task[FoundNetwork]] = {}

    async def ensure(self, order: ContainerOrder) -> FoundNetwork:
        """Have it there. Raises DriverError: E010 it belongs to somebody else, or its range cannot be had."""
        name = network_name(order)
        task = self._known.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.get_running_loop().create_task(self._ensure(name, order), name=f"network {name}")
            self._known[name] = task
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Look anew when it is needed next: it may have been removed."""
        self._known = {name: task for name, task in self._known.items() if not task.done()}

    def close(self) -> None:
        for task in self._known.values():
            task.cancel()
        self._known.clear()

    async def tidy(self, state: str) -> None:
        """Remove those of ours that nobody is on; the engine knows best who is."""
        listed = await self._client.call(
            "GET", "/networks", query={"filters": {"label": [f"{STATE}={state}"]}}, timeout=30.0
        )
        self.forget()
        for each in listed:
            if (each.get("Labels") or {}).get(STATE) == state:
                await self._remove(each)

    async def _remove(self, network: Found) -> bool:
        """False where somebody is on it. Docker has several of one name at times, so the id it is; but Podman removes
        what is in use when it is named by its id."""
        key = "Name" if (await self._client.info()).name == "podman" else "Id"
        try:
            await self._client.call("DELETE", f"/networks/{network[key]}")
        except EngineError as exc:
            if exc.status not in (403, 404, 409, 500):
                raise
            return exc.status == 404
        return True

    async def _ensure(self, name: str, order: ContainerOrder) -> FoundNetwork:
        found = await self._named(name) or await self._make(name, order)
        labels = found[0].get("Labels") or {}
        ours = [each for each in found if (each.get("Labels") or {}).get(STATE) == order.state]
        if labels.get(STATE) != order.state:
            for each in ours:  # made at the same time as somebody else's, which was there first
                await self._remove(each)
            raise DriverError(
                f"the network {name} is there already, and it is not this project's",
                code="E010",
                meaning=_whose(labels),
                remedy="Remove it if nobody needs it, or give this project another `name`",
            )
        return _facts(await self._only(ours))

    async def _only(self, found: Sequence[Found]) -> Found:
        """One of several with one name, which are of no use to a container: those that nobody is on go."""
        left = list(found)
        for each in reversed(found):
            if len(left) > 1 and await self._remove(each):
                left.remove(each)
        return left[0]

    async def _named(self, name: str) -> list[Found]:
        """Those of this very name, the oldest first. Docker makes several where several ask at once."""
        listed = await self._client.call("GET", "/networks", query={"filters": {"name": [name]}})
        found = [each for each in listed if each.get("Name") == name]
        return sorted(found, key=lambda each: (str(each.get("Created", "")), str(each.get("Id", ""))))

    async def _make(self, name: str, order: ContainerOrder) -> list[Found]:
        cidr = order.container.network.cidr
        for last in range(_TRIES - 1, -1, -1):
            try:
                subnet = cidr or await self._free_range(name, order)
                await self._create(name, order, subnet)
                break
            except EngineError as exc:
                if await self._named(name):
                    break  # somebody was quicker
                if not last or not _may_pass(exc, cidr):
                    raise _not_made(name, cidr, exc) from exc
                await asyncio.sleep(_PAUSE_SECONDS)
        found = await self._named(name)
        if not found:
            raise DriverError(f"the network {name} was removed while it was made", code="E010", retryable=True)
        return found

    async def _free_range(self, name: str, order: ContainerOrder) -> str:
        """The range that the engine would take; it keeps nobody else off it in between."""
        made = await self._create(name, order, "")
        found = next((each for each in await self._named(name) if each["Id"] == made), None)
        if found is None:
            return ""
        await self._remove(found)
        return _facts(found).subnet

    async def _create(self, name: str, order: ContainerOrder, subnet: str) -> str:
        body: dict[str, Any] = {
            "Name": name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Labels": network_labels(order.project, order.state, name),
        }
        if subnet:
            gateway = str(next(ipaddress.ip_network(subnet, strict=False).hosts()))
            body["IPAM"] = {"Driver": "default", "Config": [{"Subnet": subnet, "Gateway": gateway}]}
        return str((await self._client.call("POST", "/networks/create", body=body))["Id"])


def _facts(found: Found) -> FoundNetwork:
    configs = (found.get("IPAM") or {}).get("Config") or []
    for config in configs:
        subnet = config.get("Subnet", "")
        if subnet and ":" not in subnet:
            gateway = config.get("Gateway", "").partition("/")[0]
            return FoundNetwork(subnet, gateway or str(next(ipaddress.ip_network(subnet, strict=False).hosts())))
    return FoundNetwork("", "")


def _may_pass(exc: EngineError, cidr: str) -> bool:
    """Is it worth another try? Podman fails now and then where other interfaces come and go at the same time."""
    return not cidr if _overlap(exc) else exc.status >= 500


def _overlap(exc: EngineError) -> bool:
    return any(text in exc.message for text in _OVERLAPS)


def _whose(labels: Mapping[str, str]) -> str:
    if state := labels.get(STATE):
        return f"It is that of the project whose state lies in {state}"
    return "It was not made by deploy-code, which leaves it alone"


def _not_made(name: str, cidr: str, exc: EngineError) -> DriverError:
    text = f"the network {name} cannot be made" + (f" with {cidr}" if cidr else "")
    return DriverError(
        f"{text}: {exc.message}",
        code="E010",
        remedy="Choose a range that no other network has with infrastructure.network.cidr" if _overlap(exc) else "",
    )
