"""deploy-code itself, through its command line, as its users meet it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fleet import Fleet
from measure import seconds_of

PROGRAM = [sys.executable, "-m", "deploy_code"]


@dataclass
class Product:
    """One project in ``folder``. Commands return their wall time in seconds, start of Python included."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "deploy-code.yaml"

    def write(self, services: Mapping[str, Any], *, plugins: Sequence[str] = (), **deployment: Any) -> None:
        """The config, in the block style that people write."""
        storage = {"data_dir": str(self.folder / "data"), "log_dir": str(self.folder / "logs")}
        document = {
            "version": "1.0.0",
            "name": "bench",
            "environment": "development",
            "infrastructure": {"storage": storage},
            "deployment": {"strategy": "Parallel", "max_parallel": 50, "timeout_seconds": 60, **deployment},
            **({"plugins": list(plugins)} if plugins else {}),
            "services": dict(services),
        }
        self.config.write_text(yaml.safe_dump(document, sort_keys=False))

    def deploy(self) -> float:
        return self.run("deploy")

    def stop(self) -> float:
        return self.run("stop")

    def status(self) -> float:
        return self.run("status")

    def run(self, *args: str) -> float:
        return seconds_of(lambda: self.output(*args))

    def output(self, *args: str) -> str:
        command = [*PROGRAM, "-c", str(self.config), *args]
        result = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def forget(self) -> None:
        """Back to a machine that has never seen this project: no agent, no state."""
        while self.agent_pid() is not None:
            time.sleep(0.01)
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        shutil.rmtree(self.folder / "logs", ignore_errors=True)

    def agent_pid(self) -> int | None:
        """The agent of this project, if it runs: known by its module's name and by a path of the project."""
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and self._is_agent(Path(entry.path)):
                return int(entry.name)
        return None

    def _is_agent(self, proc: Path) -> bool:
        try:
            if b"deploy_code.agent" not in (proc / "cmdline").read_bytes():
                return False
            return any(str(self.folder) in os.readlink(fd.path) for fd in os.scandir(proc / "fd"))
        except OSError:  # gone while we looked
            return False


def web_services(fleet: Fleet, *, interval: float = 30) -> dict[str, Any]:
    """The fleet as services, each with an http health check."""
    return {f"web{number}": _web_service(fleet, port, interval) for number, port in enumerate(fleet.ports)}


def _web_service(fleet: Fleet, port: int, interval: float) -> dict[str, Any]:
    command, *args = fleet.command(port)
    return {
        "command": command,
        "args": args,
        "ports": [{"container_port": port}],
        "health_check": {"endpoint": f"http://127.0.0.1:{port}/", "interval_seconds": interval},
    }
