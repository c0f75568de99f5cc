"""Container engines that tests start: only their programs are needed, no systemd and no network.

All that an engine has lies in its folder. It stays away from the machine's own, whose containers it does not see.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import count
from pathlib import Path

from support.daemons import Daemon, Record, Unavailable
from support.engine_api import ApiError, EngineApi
from support.image_registry import Registry
from support.images import Image
from support.wait import wait_until

#: How the names of the images start that every engine has.
OURS = ("dc-test/", "postgres:", "redis:", "python:")


class Engine(Daemon):
    """A daemon with the Engine API on a socket."""

    kind: str

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.kind}.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def env(self) -> dict[str, str]:
        """What points the product, and the engine's own client, at this engine."""
        return {{"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}[self.kind]: self.url}

    @cached_property
    def api(self) -> EngineApi:
        return EngineApi(self.socket)

    def ready(self) -> bool:
        return self.api.answers()

    def load(self, images: Iterable[Image]) -> None:
        """Give the engine those of ``images`` that it does not have yet."""
        missing = [image for image in images if self._id(image.name) != image.digest]
        if missing:
            with tempfile.TemporaryFile() as archive:
                Image.save(missing, archive)
                archive.seek(0)
                self.api.load(archive)

    def has(self, *names: str) -> bool:
        """All images of these names are there."""
        return all(self._id(name) for name in names)

    def _id(self, name: str) -> str:
        try:
            return str(self.api("GET", f"/images/{name}/json")["Id"]).removeprefix("sha256:")
        except ApiError:
            return ""

    def close(self) -> None:
        """Remove all that was made in the engine, and end it; images stay for the next start."""
        if self.record is None and self._left_behind():
            with suppress(Unavailable):
                self.start()  # it died: only a living one can remove what it left
        if self.record:
            self.clear()
        self.stop()

    def _left_behind(self) -> list[Record]:
        """Processes that have the engine's folder in their command line: containerd, shims, conmon."""
        mark, found = f"{self.folder}/".encode(), []
        for entry in os.scandir("/proc"):
            with suppress(OSError, ValueError):
                if mark in Path(entry.path, "cmdline").read_bytes() and (record := Record.of(int(entry.name))):
                    found.append(record)
        return found

    def stop(self) -> None:
        super().stop()
        self._sweep()

    def _sweep(self) -> None:
        """What a stopped engine should not leave, and one that was killed does."""
        for record in self._left_behind():
            record.end(signal.SIGKILL)
        unmount(self.folder)

    def clear(self) -> None:
        """Remove containers, networks, volumes and strange images: processes, devices and mounts go with them."""
        for container in self.api("GET", "/containers/json", all="1"):
            self.api("DELETE", f"/containers/{container['Id']}", force="1", v="1")
        self.api("POST", "/networks/prune")
        for volume in self.api("GET", "/volumes")["Volumes"] or ():
            self.api("DELETE", f"/volumes/{volume['Name']}", force="1")
        self._forget_images()

    def _forget_images(self) -> None:
        """Those that tests pulled, built or tagged: the next run is to find none of them."""
        for image in self.api("GET", "/images/json"):
            strange = [tag for tag in image["RepoTags"] or () if not tag.removeprefix("localhost/").startswith(OURS)]
            for name in strange or ([] if image["RepoTags"] else [image["Id"]]):
                with suppress(ApiError):  # one that others build on
                    self.api("DELETE", f"/images/{name}", force="1")


class Docker(Engine):
    """``dockerd`` with a containerd of its own. Its data stays when it stops: the next one starts with the images.

    Its default bridge has a name of its own: a dockerd without one would take ``docker0`` from any other.
    """

    kind = "docker"
    bridge, address = "dc-test0", "10.212.0.1/16"
    #: Networks of tests are many and small; Docker's own default is about thirty for the whole machine.
    pool = "10.213.0.0/16"
    options: tuple[str, ...] = ()

    def command(self) -> Sequence[str | Path]:
        folders = ("--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "-p", self.folder / "pid")
        networks = ("--bridge", self.bridge, "--default-address-pool", f"base={self.pool},size=24")
        return ("dockerd", "-H", self.url, *folders, *networks, *self.options)

    def start(self) -> None:
        if not _ip("link", "show", self.bridge):
            _ip("link", "add", self.bridge, "type", "bridge")
            _ip("address", "add", self.address, "dev", self.bridge)
        self._forget_the_dead()
        super().start()

    def _forget_the_dead(self) -> None:
        """After a kill: dockerd takes a process that nobody has waited for yet for one that lives, and gives up."""
        if self.record is None:
            for file in (self.folder / "pid", self.folder / "exec/containerd/containerd.pid"):
                with suppress(FileNotFoundError, ValueError):
                    number = int(file.read_text())
                    wait_until(partial(_is_dead, number))
                    file.unlink()

    def close(self) -> None:
        super().close()
        _ip("link", "delete", self.bridge)


class PrivateDocker(Docker):
    """A dockerd of one test's own, which may be killed. It leaves the machine's packet filter to the others.

    Published ports answer, and this machine reaches the containers; containers may not reach each other.
    """

    _made = count()

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
        number = next(self._made) % 100
        self.bridge = f"dc-test-{os.getpid()}-{number}"[-15:]
        self.address, self.pool = f"10.211.{worker * 20 + number % 20}.1/24", f"10.{215 + worker}.0.0/16"
        self.options = ("--iptables=false", *options)


def _is_dead(pid: int) -> bool:
    return Record.of(pid) is None


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode == 0


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
location = "{address}"
insecure = true
"""


class Podman(Engine):
    """``podman system service``. Containers live on without it; ``close`` ends them."""

    kind = "podman"

    def __init__(self, folder: Path, registry: Registry) -> None:
        super().__init__(folder)
        self.home = folder
        self.registry = registry

    def command(self) -> Sequence[str | Path]:
        storage = ("--root", self.home / "root", "--runroot", self.home / "run", "--storage-driver", "overlay")
        return ("podman", *storage, "system", "service", "--time=0", f"unix://{self.socket}")

    def environment(self) -> dict[str, str]:
        containers, registries = self.home / "containers.conf", self.home / "registries.conf"
        return {"CONTAINERS_CONF": str(containers), "CONTAINERS_REGISTRIES_CONF": str(registries)}

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.home / "containers.conf").write_text(CONTAINERS_CONF.format(folder=self.home))
        (self.home / "registries.conf").write_text(REGISTRIES_CONF.format(address=self.registry.address))
        super().start()

    def close(self) -> None:
        super().close()
        super()._sweep()

    def _sweep(self) -> None:
        """Containers need no service: one that is stopped and started again finds them running."""


class PrivatePodman(Podman):
    """A second service on the same containers and images, which may be killed: no other test talks to it."""

    def __init__(self, folder: Path, shared: Podman) -> None:
        super().__init__(folder, shared.registry)
        self.home = shared.home

    def close(self) -> None:
        self.stop()
