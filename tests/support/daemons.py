"""Programs that tests start in the background, and that outlive the test run if they are to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from support.wait import wait_until

START_SECONDS = 30.0
STOP_SECONDS = 30.0

#: They say which engine a client talks to; Podman's service would become a client itself.
POINTERS = ("DOCKER_HOST", "CONTAINER_HOST")


class Unavailable(Exception):
    """This machine cannot have the engines; the text says why."""


@dataclass(frozen=True)
class Record:
    """A process that we started: its number and, as numbers are given again, when it started."""

    pid: int
    start_time: str

    @classmethod
    def of(cls, pid: int) -> Record | None:
        """The process as it is now; None if it is none, or has ended."""
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # a child of ours that ended must not look alive to others
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                return cls(pid, fields[19])
        return None

    def alive(self) -> bool:
        return Record.of(self.pid) == self

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = STOP_SECONDS) -> None:
        """Send a signal and wait for the end; SIGKILL if it does not come."""
        with suppress(ProcessLookupError, AssertionError):
            if self.alive():
                os.kill(self.pid, number)
                wait_until(lambda: not self.alive(), timeout)
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: not self.alive(), timeout)


class Daemon:
    """A program in the background that outlives us. What we know of it lies in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def record(self) -> Record | None:
        """The process while it runs."""
        with suppress(FileNotFoundError, ValueError):
            found = Record(**json.loads((self.folder / "process").read_text()))
            return found if found.alive() else None
        return None

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, if it does not run yet, and wait until it answers."""
        if self.record is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._spawn()
        wait_until(lambda: self.record is None or self.ready(), START_SECONDS, self._trouble)
        if self.record is None:
            raise Unavailable(self._trouble())

    def _spawn(self) -> None:
        command = [str(word) for word in self.command()]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name not in POINTERS} | self.environment(),
                cwd=self.folder,
                start_new_session=True,
            )
        process.returncode = 0  # it outlives us, and nobody waits for it
        if record := Record.of(process.pid):
            (self.folder / "process").write_text(json.dumps(asdict(record)))

    def _trouble(self) -> str:
        tail = self.log.read_text(errors="replace").splitlines()[-5:]
        return f"{self.command()[0]} did not start; its log {self.log} ends with:\n" + "\n".join(tail)

    def kill(self) -> None:
        """SIGKILL, as if it had crashed: whatever it looked after is left to itself."""
        if record := self.record:
            record.end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it in good order. It may be started again."""
        if record := self.record:
            record.end()
        (self.folder / "process").unlink(missing_ok=True)
