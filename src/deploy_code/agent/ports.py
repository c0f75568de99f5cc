"""Which numbers an instance binds: its own, or ones chosen for it (DESIGN §7 "Ports", CONTRACTS §2).

Chosen ports come first from the part of the range that the kernel never hands to outgoing connections: there nobody can
take one between our test and the service's own bind. What remains is met by trying again.
"""

from __future__ import annotations

import errno
import re
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from deploy_code.errors import DriverError
from deploy_code.model import Content, Policy, Port

_FIRST = "${PORT}"
_NAMED = re.compile(r"\$\{PORT_(\d+)\}")
_REFUSALS = (errno.EADDRINUSE, errno.EACCES)
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

# (candidates in order of preference, those in use) → all numbers that are ours from now on
Lease = Callable[[Sequence[int], Collection[int]], Collection[int]]


def key_of(port: Port) -> str:
    """The name of a port in ``Instance.ports``: the declared number as text, else ``"port"``."""
    return str(port.container_port or port.host_port or "port")


def _declared(content: Content) -> list[Port]:
    """As PORT counts them: ports declared dynamic come first (CONTRACTS §2)."""
    return sorted(content.ports, key=lambda port: not port.dynamic)


def dynamic_keys(content: Content, policy: Policy) -> frozenset[str]:
    """The ports of ``content`` whose numbers are chosen at start; with none declared, ``${PORT}`` makes one."""
    declared = _declared(content)
    if policy.replicas > 1:
        chosen = {key_of(port) for port in declared}
    else:
        chosen = {key_of(port) for port in declared if port.dynamic} | _asked_by_number(content)
    if _asks_for_first(content):
        chosen.add(key_of(declared[0]) if declared else "port")
    return frozenset(chosen)


def _texts(content: Content) -> Iterator[str]:
    yield content.command
    yield from content.args
    yield from content.env.values()


def _asks_for_first(content: Content) -> bool:
    return any(_FIRST in text for text in _texts(content))


def _asked_by_number(content: Content) -> set[str]:
    declared = {key_of(port) for port in content.ports}
    asked = {number for text in _texts(content) if "${PORT_" in text for number in _NAMED.findall(text)}
    return asked & declared


def ephemeral_range() -> tuple[int, int]:
    """The ports that the kernel uses for outgoing connections, both ends included."""
    try:
        low, high = _EPHEMERAL.read_text().split()
    except OSError:
        return 32768, 60999
    return int(low), int(high)


def can_bind(port: int) -> bool:
    """Nobody listens on ``port`` of any address of this machine."""
    try:
        _bind(socket.AF_INET6, "::", port)  # one socket for both, where there is IPv6
    except OSError as exc:
        if exc.errno in _REFUSALS:
            return False
        try:
            _bind(socket.AF_INET, "0.0.0.0", port)
        except OSError:
            return False
    return True


def _bind(family: int, address: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind((address, port))


class PortBook:
    """Chooses ports for instances, and knows who holds which, so that none is given twice.

    ``lease`` is asked for more ports that are this project's alone, when those it has are in use; by default all are.
    ``seed`` spreads the starting points of several projects over one range. The search goes on from where it last
    ended, so that a port just given back is the last to be used again.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.is_fixed: Callable[[int], bool] = lambda number: False  # services bind it by themselves: never chosen
        self.lease: Lease = lambda candidates, held: candidates
        self._seed = seed
        self._range = (0, -1)
        self._candidates: list[int] = []
        self._ours: list[int] = []  # of the candidates, in their order of use
        self._next = 0
        self._held: dict[str, tuple[int, ...]] = {}
        self._taken: Counter[int] = Counter()

    def use(self, port_range: tuple[int, int]) -> None:
        """Choose from ``port_range`` (both ends included) from now on."""
        if port_range == self._range:
            return
        self._range = port_range
        low, high = ephemeral_range()
        every = range(port_range[0], port_range[1] + 1)
        quiet = [port for port in every if not low <= port <= high]
        busy = [port for port in every if low <= port <= high]
        start = self._seed % len(quiet) if quiet else 0
        self._candidates = quiet[start:] + quiet[:start] + busy
        self._ours = []
        self._next = 0

    def hold(self, uuid: str, numbers: Iterable[int]) -> None:
        """``uuid`` holds these from now on, and no others."""
        self.release(uuid)
        self._held[uuid] = tuple(numbers)
        self._taken.update(self._held[uuid])

    def release(self, uuid: str) -> None:
        self._taken.subtract(self._held.pop(uuid, ()))

    def give_back(self) -> None:
        """None is ours any more: before the next choice they are leased anew."""
        self._ours = []
        self._next = 0

    def choose(self, besides: Collection[int] = ()) -> int:
        """A port that can be bound and that nobody of ours holds. Raises DriverError S004 when the range is used up."""
        port = self._search(besides)
        while port is None and self._lease_more():
            port = self._search(besides)
        if port is not None:
            return port
        low, high = self._range
        raise DriverError(
            f"no free port in port_range {low}-{high} that is not another project's",
            code="S004",
            remedy="Widen infrastructure.network.port_range",
            retryable=True,
        )

    def _search(self, besides: Collection[int]) -> int | None:
        count = len(self._ours)
        for step in range(count):
            place = (self._next + step) % count
            port = self._ours[place]
            if self._taken[port] <= 0 and port not in besides and not self.is_fixed(port) and can_bind(port):
                self._next = place + 1
                return port
        return None

    def _lease_more(self) -> bool:
        """Did we get any that we did not have?"""
        held = [port for port, count in self._taken.items() if count > 0]
        leased, known = set(self.lease(self._candidates, held)), set(self._ours)
        fresh = [port for port in self._candidates if port in leased and port not in known]
        self._next = len(self._ours) if fresh else self._next
        self._ours += fresh
        return bool(fresh)


def assign(uuid: str, content: Content, policy: Policy, book: PortBook, *, kept: Mapping[str, int]) -> dict[str, int]:
    """The port map of one instance, its first port first. Raises DriverError S004.

    ``kept``: what the instance had before; dynamic numbers in it stay, as the instance survives its restarts.
    """
    dynamic = dynamic_keys(content, policy)
    numbers: dict[str, int] = {}
    for port in _declared(content) or ([Port()] if dynamic else []):
        key = key_of(port)
        if key not in dynamic:
            number = port.container_port or port.host_port
        elif policy.replicas == 1 and port.host_port:
            number = port.host_port
        else:
            number = kept.get(key) or book.choose(numbers.values())
        if number:
            numbers[key] = number
    book.hold(uuid, numbers.values())
    return numbers


def fixed_ports(content: Content) -> Iterator[int]:
    """Numbers that instances of ``content`` bind by themselves, or would without ``${PORT}``, or are published at."""
    for port in content.ports:
        number = port.host_port if content.has_own_network else port.container_port or port.host_port
        if not port.dynamic and number:
            yield number


def chosen_freely(content: Content, policy: Policy) -> bool:
    """Whether another number could be tried: some port is dynamic and not simply the host_port."""
    if content.has_own_network:
        return any(port.dynamic and not (policy.replicas == 1 and port.host_port) for port in content.ports)
    dynamic = dynamic_keys(content, policy)
    declared = content.ports or (Port(),)
    return any(key_of(p) in dynamic and not (policy.replicas == 1 and p.host_port) for p in declared)
