"""The raw limit: a loop that spawns the commands and waits for their ports, and one that stops them."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass, field

from fleet import Fleet
from measure import seconds_of


@dataclass
class BareLoop:
    fleet: Fleet
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> float:
        """Seconds until all ports accept."""
        return seconds_of(self._start)

    def stop(self) -> float:
        """Seconds until all are reaped."""
        return seconds_of(self._stop)

    def _start(self) -> None:
        self.processes = [self._spawn(port) for port in self.fleet.ports]
        self.fleet.wait_until_up()

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.fleet.command(port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()
