"""Networks: Compose has many, a project here has one, in which everybody knows everybody by the service's name."""

from __future__ import annotations

import ipaddress
from typing import Any

from deploy_code.config.compose.reader import Item, Reader

_ALONE = "no network: a container is in the project's network here"


class Networks:
    """What the services ask for, until ``section`` says what all of them get.

    ``declared``: the file's own ``networks:`` section.
    """

    def __init__(self, reader: Reader, declared: dict[str, Item]) -> None:
        self._reader = reader
        self._declared = declared
        self._modes: dict[str, str] = {}
        self._hosts: dict[str, Item] = {}
        self._used: set[str] = set()
        self._joined: dict[frozenset[str], Item] = {}
        self._dns: dict[tuple[str, ...], Item | None] = {}
        self._active = 0

    def add(self, name: str, service: dict[str, Item], item: Item, *, enabled: bool) -> None:
        """Take in one service."""
        reader = self._reader
        mode = self._mode(name, service)
        memberships = self._memberships(service)
        servers = tuple(reader.fixed(text) for text in reader.texts(service.get("dns"), single=True))
        self._used |= memberships
        if not enabled:
            return
        self._active += 1
        self._modes[name] = mode
        if mode == "bridge":
            self._joined.setdefault(memberships, service.get("networks", item))
        self._dns.setdefault(servers, service.get("dns"))

    def _mode(self, name: str, service: dict[str, Item]) -> str:
        item, reader = service.get("network_mode"), self._reader
        text = reader.text(item)
        value = "bridge" if text is None or item is None else reader.fixed(text)
        if item is None or text is None or value in ("bridge", "default"):
            return "bridge"
        if value == "host":
            self._hosts[name] = item
            return "host"
        if value == "none":
            reader.changed(_ALONE, text)
        elif value.startswith(("service:", "container:")):
            reader.changed(f"{value}: it has an address of its own here, and does not share that of another", text)
        else:
            reader.changed(f"'{value}' is not known here: the container is in the project's network", text)
        return "bridge"

    def _memberships(self, service: dict[str, Item]) -> frozenset[str]:
        """The networks that a service is in."""
        reader, item = self._reader, service.get("networks")
        if item is None or item.is_null:
            return frozenset({"default"})
        members = reader.members(item)
        for name, member in members.items():
            if name not in self._declared and name != "default":
                reader.problem(f"no network is called '{name}'", member, f"add {name}: below networks:")
            for key, detail in reader.entries(member).items():
                self._detail(key, detail)
        return frozenset(members)

    def _detail(self, key: str, item: Item) -> None:
        if key == "aliases":
            for text in self._reader.texts(item):
                name = self._reader.value(text)
                self._reader.dropped(f"others reach the service by its own name, not as '{name}'", text)
        else:
            why = "addresses are given out by the runtime" if "ip" in key else "cannot be said here"
            self._reader.dropped(why, item)

    # ----------------------------------------------------------------------- the section

    def section(self) -> dict[str, Any]:
        """``infrastructure.network`` of our file, as far as something is to be said."""
        found: dict[str, Any] = {}
        if self._hosts and len(self._hosts) == self._active:
            found["mode"] = "Host"
        else:
            for item in self._hosts.values():
                self._reader.changed("in the project's network, not the machine's: publish its ports", item)
        if len(self._joined) > 1:
            written = [item for item in self._joined.values() if item.name == "networks"]
            self._reader.changed("all services are in one network here, and can reach each other", written[-1])
        subnet = self._subnets()
        if subnet and "mode" not in found:
            found["cidr"] = subnet
        servers = self._servers()
        if servers and "mode" not in found:
            found["dns_servers"] = servers
        return found

    def _subnets(self) -> str:
        subnets = {name: found for name in self._declared if (found := self._declaration(name)) and name in self._used}
        for name in list(subnets)[1:]:
            self._reader.dropped("there is one network, with the subnet of the first", self._declared[name])
        return next(iter(subnets.values()), "")

    def _declaration(self, name: str) -> str:
        reader, item = self._reader, self._declared[name]
        keys = reader.entries(item)
        external = keys.get("external")
        if external is not None and (not external.is_scalar or reader.flag(external)):
            reader.changed("containers of other projects in this network are not reached by name", external)
        driver = reader.text(keys.get("driver"))
        if driver is not None and reader.value(driver) not in ("bridge", "default"):
            reader.dropped(f"driver {reader.value(driver)}: the network is a bridge of this machine", keys["driver"])
        if reader.flag(keys.get("internal")):
            reader.changed("not cut off from the outside", keys["internal"])
        for key in keys.keys() & {"driver_opts", "enable_ipv6", "labels", "attachable", "name"}:
            if key != "name" or external is None:
                reader.dropped("the network is deploy-code's own", keys[key])
        return self._subnet(keys.get("ipam"))

    def _subnet(self, item: Item | None) -> str:
        reader = self._reader
        found = ""
        for config in reader.items(reader.entries(item).get("config")):
            for key, each in reader.entries(config).items():
                text = reader.text(each) if key == "subnet" else None
                value = reader.fixed(text) if text else ""
                if value and not found and _is_subnet(value):
                    found = value
                elif text and not _is_subnet(value):
                    reader.problem(f"'{value}' is no subnet", text)
                else:
                    reader.dropped("a network has one subnet, and the runtime gives out its addresses", each)
        return found

    def _servers(self) -> list[str]:
        """All that any service asks for: one list for all."""
        if len(self._dns) > 1:
            for servers, item in self._dns.items():
                if servers and item is not None:
                    self._reader.changed("name servers are those of all services", item)
        return list(dict.fromkeys(server for servers in self._dns for server in servers))


def _is_subnet(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
