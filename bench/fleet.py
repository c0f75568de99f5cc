"""Many small web servers: the same commands for everyone who is to start them."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FIRST_PORT = 10000  # below the ephemeral ports, and below those that the tests take
LAST_PORT = 20000


@dataclass(frozen=True, slots=True)
class Fleet:
    """``folder`` holds the page that all of them serve, and whatever else a contender needs."""

    folder: Path
    ports: tuple[int, ...]

    def command(self, port: int) -> list[str]:
        return [BUSYBOX, "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(self.folder / "www")]

    def wait_until_up(self) -> None:
        """Until every port accepts a connection."""
        for port in self.ports:
            self.wait_for(port)

    def wait_for(self, port: int, timeout: float = 60.0) -> None:
        """Until this port accepts a connection; TimeoutError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not _accepts(port):
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing answers on port {port} after {timeout:g} s")
            time.sleep(0.001)


BUSYBOX = shutil.which("busybox") or "busybox"


@contextmanager
def fleet(size: int) -> Iterator[Fleet]:
    """A fleet to be started, in a folder that is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "www").mkdir()
        (folder / "www/index.html").write_text("ok\n")
        yield Fleet(folder, tuple(_free_ports(size)))


def _free_ports(size: int) -> list[int]:
    free = [port for port in range(FIRST_PORT, LAST_PORT) if not _accepts(port)]
    return free[:size]


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
