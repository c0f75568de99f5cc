"""supervisord and honcho, which start the same commands and check no health. Installed under .bench."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from fleet import Fleet
from measure import say, stopwatch

VENV = Path(__file__).parents[1] / ".bench" / "venv"
PACKAGES = ("supervisor", "honcho")
STOP_SECONDS = 15


def install() -> None:
    """An environment of their own, so that they do not meet ours."""
    stamp = VENV / ".installed"
    if not stamp.exists():
        say(f"installing {' and '.join(PACKAGES)} into {VENV}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        # supervisor reads its version through pkg_resources, which setuptools has dropped since 81
        subprocess.run([VENV / "bin/pip", "install", "--quiet", *PACKAGES, "setuptools<81"], check=True)
        stamp.touch()


@dataclass
class Peer:
    """A supervisor that runs in the foreground and stops everything on SIGTERM."""

    fleet: Fleet

    def command(self) -> list[str | Path]:
        """Write what it reads, and say how it is started."""
        raise NotImplementedError

    def time_start(self) -> float:
        """Seconds from its start until all ports accept; it is stopped again afterwards."""
        command = self.command()
        with stopwatch() as seconds:
            process = self._spawn(command)
            try:
                self.fleet.wait_until_up()
            finally:
                took = seconds()
                _end(process)
        return took

    def _spawn(self, command: list[str | Path]) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=self.fleet.folder, stdin=quiet, stdout=quiet, stderr=quiet)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop it, and whatever it leaves behind: honcho forgets children that it is still starting."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([psutil.Process(process.pid), *family], timeout=STOP_SECONDS)
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    psutil.wait_procs(left, timeout=STOP_SECONDS)


class Supervisord(Peer):
    def command(self) -> list[str | Path]:
        config = self.fleet.folder / "supervisord.conf"
        head = f"[supervisord]\nnodaemon=true\nlogfile={self.fleet.folder}/supervisord.log\n"
        head += f"pidfile={self.fleet.folder}/supervisord.pid\n"
        programs = [f"[program:web{port}]\ncommand={' '.join(self.fleet.command(port))}\n" for port in self.fleet.ports]
        config.write_text("\n".join([head, *programs]))
        return [VENV / "bin/supervisord", "-c", config]


class Honcho(Peer):
    def command(self) -> list[str | Path]:
        lines = [f"web{port}: {' '.join(self.fleet.command(port))}" for port in self.fleet.ports]
        procfile = self.fleet.folder / "Procfile"
        procfile.write_text("\n".join(lines) + "\n")
        return [VENV / "bin/honcho", "-f", procfile, "start"]
