"""Starts Docker, Podman and an image registry for tests, with nothing but their programs: no systemd, no network.

``python -m support.engine_daemons start|stop|running|env``; people say ``scripts/test-engines``. All that the engines
have lies in one folder. They stay away from the machine's own engines, whose containers and images they do not see.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from support.engine_api import ApiError, EngineApi
from support.images import Image
from support.wait import wait_until

START_SECONDS = 30.0
STOP_SECONDS = 30.0


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

    def environment(self) -> Mapping[str, str]:
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
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )
        process.returncode = 0  # it outlives us, and nobody waits for it
        if record := Record.of(process.pid):
            (self.folder / "process").write_text(json.dumps(asdict(record)))

    def _trouble(self) -> str:
        tail = self.log.read_text(errors="replace").splitlines()[-5:]
        return f"{self.command()[0]} did not start; its log {self.log} ends with:\n" + "\n".join(tail)

    def stop(self) -> None:
        if record := self.record:
            record.end()
        (self.folder / "process").unlink(missing_ok=True)


class Engine(Daemon):
    """A daemon with the Engine API on a socket."""

    kind: str

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.kind}.sock"

    @cached_property
    def api(self) -> EngineApi:
        return EngineApi(self.socket)

    def ready(self) -> bool:
        return self.api.answers()

    def load(self, images: Iterable[Image]) -> None:
        """Give the engine those of ``images`` that it does not have yet."""
        missing = [image for image in images if not self._has(image)]
        if missing:
            with tempfile.TemporaryFile() as archive:
                Image.save(missing, archive)
                archive.seek(0)
                self.api.load(archive)

    def _has(self, image: Image) -> bool:
        try:
            return bool(self.api("GET", f"/images/{image.name}/json")["Id"].removeprefix("sha256:") == image.digest)
        except ApiError:
            return False

    def clear(self) -> None:
        """Remove containers, networks and volumes: their processes, devices and mounts go with them."""
        for container in self.api("GET", "/containers/json", all="1"):
            self.api("DELETE", f"/containers/{container['Id']}", force="1", v="1")
        self.api("POST", "/networks/prune")
        for volume in self.api("GET", "/volumes")["Volumes"] or ():
            self.api("DELETE", f"/volumes/{volume['Name']}", force="1")


class Docker(Engine):
    """``dockerd`` with a containerd of its own. Its data stays when it stops: the next one starts with the images."""

    kind = "docker"
    #: Networks of tests are many and small; Docker's own default is about thirty for the whole machine.
    options: tuple[str, ...] = ("--default-address-pool", "base=10.213.0.0/16,size=24")

    def command(self) -> Sequence[str | Path]:
        folders = ("--data-root", self.folder / "data", "--exec-root", self.folder / "exec")
        return ("dockerd", "-H", f"unix://{self.socket}", "-p", self.folder / "pid", *folders, *self.options)

    def stop(self) -> None:
        super().stop()
        self._end_children()
        unmount(self.folder)

    def _end_children(self) -> None:
        """A dockerd that was killed leaves its containerd and the containers' shims behind."""
        mark = f"{self.folder}/exec".encode()
        for entry in os.scandir("/proc"):
            with suppress(OSError, ValueError):
                if mark in Path(entry.path, "cmdline").read_bytes() and (record := Record.of(int(entry.name))):
                    record.end(signal.SIGKILL)


def unmount(folder: Path) -> None:
    """Whatever is still mounted below ``folder``, the innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in reversed([path for path in mounts if path.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)


CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]  # raising hard limits is refused on some test machines

[engine]
runtime = "runc"               # crun refuses the mixed cgroups of some test machines
cgroup_manager = "cgroupfs"    # no systemd is asked
events_logger = "file"
lock_type = "file"             # the default is shared memory, of which there is one for the whole machine
tmp_dir = "{folder}/tmp"

[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
default_subnet_pools = [{{"base" = "10.214.0.0/16", "size" = 24}}]
"""

#: Docker trusts a registry on loopback without TLS; Podman has to be told.
REGISTRIES_CONF = """\
unqualified-search-registries = ["docker.io"]
short-name-mode = "permissive"

[[registry]]
location = "127.0.0.1:{port}"
insecure = true
"""


class Podman(Engine):
    """``podman system service``. Containers live on without it; ``clear`` ends them."""

    kind = "podman"

    def __init__(self, folder: Path, registry_port: int) -> None:
        super().__init__(folder)
        self.registry_port = registry_port

    def command(self) -> Sequence[str | Path]:
        storage = ("--root", self.folder / "root", "--runroot", self.folder / "run", "--storage-driver", "overlay")
        return ("podman", *storage, "system", "service", "--time=0", f"unix://{self.socket}")

    def environment(self) -> Mapping[str, str]:
        containers, registries = self.folder / "containers.conf", self.folder / "registries.conf"
        return {"CONTAINERS_CONF": str(containers), "CONTAINERS_REGISTRIES_CONF": str(registries)}

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "containers.conf").write_text(CONTAINERS_CONF.format(folder=self.folder))
        (self.folder / "registries.conf").write_text(REGISTRIES_CONF.format(port=self.registry_port))
        super().start()

    def stop(self) -> None:
        super().stop()
        unmount(self.folder)
