"""Free ports that no other test of this run is given, nor the kernel to an outgoing connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

FIRST = 20000
PER_WORKER = 1500  # 20000 + 8 × 1500 = 32000: below the ephemeral range of Linux
WORKERS = 8


def _mine() -> Iterator[int]:
    """Round and round through this xdist worker's numbers, starting anywhere: two runs may go on at once."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    position = os.getpid() * 37
    while True:
        position = (position + 1) % PER_WORKER
        yield FIRST + worker * PER_WORKER + position


_numbers = _mine()


def is_free(port: int) -> bool:
    """Nobody listens there, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    for _ in range(PER_WORKER):
        if is_free(port := next(_numbers)):
            return port
    raise AssertionError("all ports of this worker are taken")


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def free_range(count: int) -> tuple[int, int]:
    """First and last of ``count`` free ports in a row, for ``port_range``."""
    run: list[int] = []
    for _ in range(PER_WORKER):
        port = free_port()
        run = [*run, port] if run and port == run[-1] + 1 else [port]
        if len(run) == count:
            return run[0], run[-1]
    raise AssertionError(f"no {count} free ports in a row")


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
