"""What container runtimes already have, as far as it can be in the way of a plan: names, published ports, subnets.

Asked once for each runtime that the plan starts something in, before anything is changed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deploy_code.drivers.engine import order as names
from deploy_code.drivers.engine.reference import is_image_id
from deploy_code.errors import Problem
from deploy_code.model import Content, Network
from deploy_code.plan.plan import Goal


class Holder(NamedTuple):
    """A container that has a name or a port. ``service``: of ours; "" for a stranger's. ``project``: another one's."""

    name: str
    image: str
    service: str
    project: str = ""

    @property
    def kind(self) -> str:
        """What is to be said of it, beside its name."""
        return f"of another project, {self.project}" if self.project else self.service or f"image {self.image}"

    def __str__(self) -> str:
        return f"container {self.name} ({self.kind})"


class Subnet(NamedTuple):
    network: str
    cidr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """All runtimes together: they share this machine's ports and addresses."""

    project: str = ""
    named: Mapping[str, Holder] = field(default_factory=dict)
    publishers: Mapping[tuple[int, str], Holder] = field(default_factory=dict)
    subnets: Sequence[Subnet] = ()
    foreign_networks: Collection[str] = ()  # names of those that are not this project's

    def publisher(self, number: int, protocol: str) -> str:
        """Which container holds this port; "" where none does."""
        return str(self.publishers.get((number, protocol), ""))


def is_here(engine: str) -> bool:
    """Does this runtime run on this machine?"""
    return engine.startswith("unix://")


async def engine_facts(goals: Iterable[Goal], *, project: str, state: str) -> EngineFacts:
    """What the runtimes of ``goals`` have. Raises DriverError E014 for one that does not answer."""
    engines = {
        (content.container.engine, content.container.engine_tls)
        for content in (goal.spec.content for goal in goals)
        if content.is_container and content.container.engine
    }
    if not engines:
        return EngineFacts(project=project)
    from deploy_code.drivers.engine.client import EngineClient
    from deploy_code.drivers.engine.endpoint import Endpoint

    named: dict[str, Holder] = {}
    publishers: dict[tuple[int, str], Holder] = {}
    subnets: list[Subnet] = []
    foreign: set[str] = set()
    for url, tls in sorted(engines):
        client = EngineClient(Endpoint(url=url, tls=tls))
        try:
            for found in await client.call("GET", "/containers/json", query={"all": True}):
                holder = _holder(found, state)
                named |= {str(name).lstrip("/"): holder for name in found.get("Names") or ()}
                publishers |= dict.fromkeys(_published(found), holder)
            for network in await client.call("GET", "/networks"):
                subnets += _subnets(network)
                if (network.get("Labels") or {}).get(names.STATE) != state:
                    foreign.add(str(network.get("Name", "")))
        finally:
            await client.close()
    return EngineFacts(project=project, named=named, publishers=publishers, subnets=subnets, foreign_networks=foreign)


def _holder(container: Mapping[str, Any], state: str) -> Holder:
    labels = container.get("Labels") or {}
    ours = labels.get(names.STATE) == state
    name = str((container.get("Names") or [container.get("Id", "")[:12]])[0]).lstrip("/")
    image = str(container.get("Image", ""))
    if is_image_id(image):  # made by an ID, as ours are: as short as engines show it
        image = image.removeprefix("sha256:")[:12]
    service, project = (names.SERVICE, "") if ours else ("", names.PROJECT)
    return Holder(name, image, labels.get(service, ""), labels.get(project, ""))


def _published(container: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for port in container.get("Ports") or ():
        if port.get("PublicPort"):
            yield int(port["PublicPort"]), str(port.get("Type", "tcp"))


def _subnets(network: Mapping[str, Any]) -> Iterator[Subnet]:
    for config in (network.get("IPAM") or {}).get("Config") or ():
        if config.get("Subnet"):
            yield Subnet(str(network.get("Name", "")), str(config["Subnet"]))


# ------------------------------------------------------------------------------------------------------------- checks

Finding = tuple[str, str, str, str]  # message, code, key, remedy


def container_problems(goal: Goal, facts: EngineFacts) -> Iterator[Finding]:
    """What stands in the way of the containers of one service."""
    content = goal.spec.content
    yield from _name_taken(goal, facts)
    yield from _missing_sources(content)


def network_problems(goals: Iterable[Goal], facts: EngineFacts) -> Iterator[Problem]:
    """What stands in the way of the networks that these services share; each is told once."""
    contents = (goal.spec.content for goal in goals)
    for network in dict.fromkeys(each.container.network for each in contents if each.is_container):
        for message, key, remedy in (
            *_no_cluster(network),
            *_overlap(network, facts.subnets),
            *_theirs(network, facts),
        ):
            yield Problem(message, code="E010", path=f"infrastructure.network.{key}", remedy=remedy)


def _no_cluster(network: Network) -> Iterator[tuple[str, str, str]]:
    if network.mode == "Overlay":
        what = "an overlay network needs a cluster, and this project runs on one machine"
        yield what, "mode", "set it to Bridge or Host"


def _theirs(network: Network, facts: EngineFacts) -> Iterator[tuple[str, str, str]]:
    if network.name in facts.foreign_networks:
        what = f"the network {network.name} is there already, and it is not this project's; it is not touched"
        yield what, "mode", "give this project another `name`, or remove that network"


def _name_taken(goal: Goal, facts: EngineFacts) -> Iterator[Finding]:
    for index in range(goal.replicas):
        name = names.container_name(facts.project, goal.spec.name, goal.revision, index)
        holder = facts.named.get(name)
        if holder is not None and not holder.service:
            remedy = f"rename it or remove it, for instance with `docker rename {name} other`, or rename this service"
            if holder.project:
                remedy = "give this project another `name`"
            yield (
                f"the name {name} is taken by a container that is not ours ({holder.kind}); it is not touched",
                "S002",
                "image",
                remedy,
            )


def _missing_sources(content: Content) -> Iterator[Finding]:
    if not is_here(content.container.engine):
        return
    for number, volume in enumerate(content.volumes):
        if volume.source and not os.path.exists(volume.source):
            yield (
                f"{volume.source} is not there, and is to be seen as {volume.mount_path}",
                "S005",
                f"volumes[{number}].source",
                "create it, correct the path, or take `source` out to have a volume of the runtime",
            )


def _overlap(network: Network, subnets: Collection[Subnet]) -> Iterator[tuple[str, str, str]]:
    """Two networks with the same addresses: neither the runtime nor the kernel could tell them apart."""
    if not network.cidr:
        return
    for other in subnets:
        if other.network != network.name and _meet(network.cidr, other.cidr):
            yield (
                f"the subnet {network.cidr} overlaps {other.cidr} of the network {other.network}",
                "cidr",
                "choose another, or leave it out: the runtime then finds a free one",
            )


def _meet(one: str, other: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_network(one).overlaps(ipaddress.ip_network(other, strict=False))
    except (ValueError, TypeError):  # of another family, or in a form of the runtime's own
        return False
