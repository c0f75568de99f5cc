"""The engines that all tests of this machine share: Docker, Podman and a registry, in one folder, with images in them.

``scripts/test-engines start`` leaves them running for whoever comes. Tests that find none start them, and the last
process that uses those stops them.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from support import firewall, images_servers
from support.daemons import Unavailable
from support.engine_api import EngineApi
from support.engine_daemons import Docker, Engine, Podman
from support.image_registry import Registry
from support.images_small import small_images
from support.needs import find, packages

PROGRAMS = ("dockerd", "iptables", "podman", "runc", "docker-registry", "busybox", "postgres", "redis-server")
MACHINES_DOCKER = Path("/var/run/docker.sock")


def default_folder() -> Path:
    """Short, as a socket's path has at most 107 bytes."""
    return Path(tempfile.gettempdir()) / f"deploy-code-engines-{os.getuid()}"


class EngineHouse:
    """Starts and stops everything, for any number of callers at once."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self.registry = Registry(self.folder / "registry")
        self.docker = Docker(self.folder / "docker")
        self.podman = Podman(self.folder / "podman", self.registry)

    @property
    def engines(self) -> tuple[Engine, Engine]:
        return self.docker, self.podman

    def running(self) -> bool:
        return all(daemon.record for daemon in (*self.engines, self.registry))

    def start(self) -> None:
        """Start what does not run yet; it stays until ``stop``. Unavailable if this machine cannot."""
        with self._alone():
            self._start()
            self._on_demand.unlink(missing_ok=True)

    def stop(self) -> None:
        """End all of it, and remove what is of no use to the next start: containers, networks, volumes, mounts."""
        if self.folder.exists():
            with self._alone():
                self._stop()

    @contextmanager
    def used(self) -> Iterator[None]:
        """They run for the length of the block. The last of those that use what one of them started stops it."""
        with ExitStack() as stack:
            with self._alone():
                ran = self.running()
                self._start()
                if not ran:
                    self._on_demand.touch()
                users = stack.enter_context((self.folder / "users").open("w"))
                fcntl.flock(users, fcntl.LOCK_SH)
            stack.callback(self._leave, users)
            yield

    def _leave(self, users: IO[str]) -> None:
        with self._alone():
            fcntl.flock(users, fcntl.LOCK_UN)
            if self._on_demand.exists() and _nobody_has(users):
                self._stop()

    @property
    def _on_demand(self) -> Path:
        return self.folder / "on-demand"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(exist_ok=True, mode=0o700)
        if self.folder.stat().st_uid != os.getuid():
            raise Unavailable(f"{self.folder} belongs to somebody else")
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        _check_machine()
        ran_before = any(daemon.record for daemon in (*self.engines, self.registry))
        try:
            self._start_each()
        except BaseException:
            if not ran_before:  # all or nothing
                self._stop()
            raise

    def _start_each(self) -> None:
        firewall.remember(self.folder / "firewall")
        self.registry.start()
        for engine in self.engines:
            engine.start()
            engine.load(small_images())
            self._load_servers(engine)

    def _load_servers(self, engine: Engine) -> None:
        done = engine.folder / "recipe"
        if not (done.exists() and done.read_text() == images_servers.recipe() and engine.has(*images_servers.NAMES)):
            engine.load(images_servers.server_images())
            done.write_text(images_servers.recipe())

    def _stop(self) -> None:
        for engine in self.engines:
            engine.close()
        self.registry.stop()
        firewall.restore(self.folder / "firewall")
        self._on_demand.unlink(missing_ok=True)


def _nobody_has(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_machine() -> None:
    """Raise Unavailable with the reason why real engines cannot be started here."""
    if os.geteuid() != 0:
        raise Unavailable("only root can start container engines for tests")
    missing = [program for program in PROGRAMS if find(program) is None]
    if missing:
        names = " ".join(dict.fromkeys(packages()[program] for program in missing))
        raise Unavailable(f"{', '.join(missing)} not on this machine (Debian: apt-get install {names})")
    if MACHINES_DOCKER.exists() and EngineApi(MACHINES_DOCKER, timeout=2).answers():
        raise Unavailable("this machine's own Docker runs: a second one would take its firewall rules away")


def main(command: str) -> int:
    house = EngineHouse()
    if command == "start":
        try:
            house.start()
        except Unavailable as exc:
            print(f"no container engines for tests: {exc}", file=sys.stderr)
            return 1
    elif command == "stop":
        house.stop()
    elif command == "running":
        return 0 if house.running() else 1
    elif command == "env":
        for engine in house.engines:
            print(*(f"export {name}={value}" for name, value in engine.env.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
