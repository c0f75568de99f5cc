"""Fills in what is known only when an instance starts: its ports, its identity, where other services answer.

These are the only placeholders that reach the agent (CONTRACTS §1); all else was resolved when the file was loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from deploy_code.errors import DriverError
from deploy_code.model import HealthCheck

_PLACEHOLDER = re.compile(
    r"\$\{(?:(?P<own>PORT(?:_\d+)?|DEPLOY_CODE_\w+)|services\.(?P<service>[^{}]+)\.(?P<what>host|port))\}"
)


class Place(NamedTuple):
    """Where a service answers, for whoever asked. ``port`` None: it has none now."""

    host: str
    port: int | None


PlaceOf = Callable[[str], Place]


class Placeholders:
    """Resolves texts of one instance. ``own``: PORT, PORT_n and DEPLOY_CODE_*; ``place_of``: where a service answers.

    ``lenient``: what has no value stays as it is written.
    """

    def __init__(self, own: Mapping[str, str], place_of: PlaceOf, *, lenient: bool = False) -> None:
        self._own = own
        self._place_of = place_of
        self._lenient = lenient

    def fill(self, text: str) -> str:
        """``text`` with every placeholder replaced. Raises DriverError (E005, E007) for what has no value."""
        return _PLACEHOLDER.sub(self._value, text) if "${" in text else text

    def fill_all(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(self.fill, texts))

    def fill_env(self, env: Mapping[str, str]) -> dict[str, str]:
        return {name: self.fill(value) for name, value in env.items()}

    def fill_check(self, check: HealthCheck) -> HealthCheck:
        return replace(check, endpoint=self.fill(check.endpoint), command=self.fill_all(check.command))

    def _value(self, match: re.Match[str]) -> str:
        try:
            return self._known(match)
        except DriverError:
            if not self._lenient:
                raise
            return match[0]

    def _known(self, match: re.Match[str]) -> str:
        own, service, what = match["own"], match["service"], match["what"]
        if own:
            return self._own_value(own, match[0])
        return self._host(service) if what == "host" else str(self._port(service))

    def _own_value(self, name: str, text: str) -> str:
        value = self._own.get(name)
        if value is None:
            raise DriverError(
                f"{text} has no value for this service",
                remedy="Declare the port under ports:, or take the placeholder out",
            )
        return value

    def _host(self, service: str) -> str:
        host = self._place_of(service).host
        if not host:
            raise DriverError(
                f"${{services.{service}.host}}: no container of {service} has an address now",
                code="E007",
                remedy=f"List {service} under dependencies, so that it is there first",
                retryable=True,
            )
        return host

    def _port(self, service: str) -> int:
        port = self._place_of(service).port
        if port is None:
            raise DriverError(
                f"${{services.{service}.port}}: no instance of {service} has a port now",
                code="E007",
                remedy=f"Declare a port for {service}, and list it under dependencies",
                retryable=True,
            )
        return port


def own_values(*, service: str, uuid: str, revision: int, index: int, ports: Mapping[str, int]) -> dict[str, str]:
    """What every instance gets in its env: PORT, PORT_<container_port>, DEPLOY_CODE_*."""
    values = {
        "DEPLOY_CODE_SERVICE": service,
        "DEPLOY_CODE_INSTANCE": uuid,
        "DEPLOY_CODE_REVISION": str(revision),
        "DEPLOY_CODE_INDEX": str(index),
    }
    for key, number in ports.items():
        values.setdefault("PORT", str(number))
        if key != "port":
            values.setdefault(f"PORT_{key.partition('/')[0]}", str(number))
    return values
