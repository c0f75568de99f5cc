"""A project in a folder of its own: config, state, logs and home, all under one path."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.cli import Finished, run_cli, start_cli
from support.engines import Left, left_in_engines
from support.leftovers import Leftover, kill, leftovers
from support.wait import wait_until


@dataclass
class ProjectFolder:
    """Write a config, run commands in it. ``env`` is added to the environment of every command."""

    folder: Path
    name: str = "shop"
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        own = {"HOME": home, "XDG_STATE_HOME": home / "state", "XDG_CACHE_HOME": home / "cache"}
        self.env = {**{name: str(path) for name, path in own.items()}, "NO_COLOR": "1", **self.env}

    @property
    def config(self) -> Path:
        return self.folder / "deploy-code.yaml"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log_dir(self) -> Path:
        return self.folder / "logs"

    @property
    def state(self) -> Path:
        """The project's own folder: state.db, locks, the agent's socket."""
        return self.data_dir / self.name

    @property
    def machine_dir(self) -> Path:
        """Where it is written down what of this machine is promised: the same for all projects of a test."""
        return Path(os.environ["DEPLOY_CODE_MACHINE_DIR"])

    def write(self, services: Mapping[str, Any] | None = None, **sections: Any) -> Path:
        """A whole file: ``services`` plus any other section; storage lies in this folder."""
        storage = {"data_dir": str(self.data_dir), "log_dir": str(self.log_dir)}
        infrastructure = {"storage": storage} | sections.pop("infrastructure", {})
        document = {
            "version": "1.0.0",
            "name": self.name,
            "environment": "development",
            "infrastructure": infrastructure,
            **sections,
            "services": dict(services or {}),
        }
        return self.write_text(yaml.safe_dump(document, sort_keys=False))

    def write_text(self, text: str) -> Path:
        self.config.write_text(text)
        return self.config

    def program(self, name: str, text: str) -> Path:
        """A file beside the config, executable."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def cli(self, *args: str | Path, timeout: float = 60.0, env: Mapping[str, str] | None = None) -> Finished:
        """Run a command to its end, in this folder."""
        return run_cli(*args, cwd=self.folder, env={**self.env, **(env or {})}, timeout=timeout)

    def start(self, *args: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command and go on."""
        return start_cli(*args, cwd=self.folder, env={**self.env, **(env or {})})

    def status(self, *args: str) -> dict[str, Any]:
        status: dict[str, Any] = self.cli("status", "--format", "json", *args).ok().json()
        return status

    def leftovers(self) -> list[Leftover]:
        return leftovers(self.folder)

    def in_engines(self) -> list[Left]:
        """What container engines have of this project: containers, networks, volumes, images."""
        return left_in_engines(self.folder, self.env)

    def close(self) -> list[Leftover | Left]:
        """Stop everything; kill, and return, what ``stop`` did not end. Volumes and images it is to leave: they go."""
        if self.leftovers() or any(each.kind == "container" for each in self.in_engines()):
            with suppress(AssertionError):  # a stop that hangs is told by what it leaves behind
                self.cli("stop", "--timeout", "5", timeout=60)
        left = self.settle()
        kill(left)
        return [*left, *self._clear_engines()]

    def _clear_engines(self) -> list[Left]:
        """Remove what is left in engines; returns what ``stop`` should have removed."""
        found = self.in_engines()
        for each in found:
            each.remove()
        return [each for each in found if each.kind in ("container", "network")]

    def settle(self, timeout: float = 5.0) -> list[Leftover]:
        """What is left once the agent had the time to go: it leaves right after the last of its instances."""
        with suppress(AssertionError):
            wait_until(lambda: not self.leftovers(), timeout)
        return self.leftovers()
