"""Extensions that acceptance tests put beside a config and name under ``plugins:``, and what they leave to be read."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from support.project import ProjectFolder

HEAD = '''\
import asyncio, json, os, signal, subprocess, sys, time
from contextlib import suppress

from deploy_code.orchestrator import DeploymentReport, DeploymentStrategy
from deploy_code.plugins import AbortDeployment, Plugin
from deploy_code.services import Service, ServiceStatus

HERE = os.path.dirname(os.path.abspath(__file__))


def note(*words):
    """One line in ``notes.txt`` beside the config: what tests read."""
    with open(os.path.join(HERE, "notes.txt"), "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")


'''

# Remembers its server in `memory` only, as the engine may make the object anew at any time.
PAGE = '''
class Page(Service):
    """Serves the folder of its options, and says in its log what it was called for."""

    def start(self):
        self.say("starts", self.config.options.get("folder"))
        folder = os.path.join(self.config.working_dir or HERE, self.config.options["folder"])
        server = subprocess.Popen(
            ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{self.config.port}", "-h", folder],
            env=dict(self.config.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return {"pid": str(server.pid)}

    async def stop(self):
        self.say("stops")
        if "pid" in self.memory:
            with suppress(ProcessLookupError):
                os.kill(int(self.memory["pid"]), signal.SIGKILL)

    def health_check(self):
        hold = self.config.options.get("hold")
        if hold and not os.path.exists(os.path.join(HERE, hold)):
            return ServiceStatus.STARTING
        return ServiceStatus.RUNNING if self.lives() else ServiceStatus.FAILED

    def lives(self):
        try:
            with open(f"/proc/{self.memory['pid']}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] not in "ZX"
        except (KeyError, FileNotFoundError, ProcessLookupError):
            return False

    def say(self, *words):
        with open(self.config.log_path, "a") as log:
            print(self.config.service, *words, file=log)
'''


def extension(project: ProjectFolder, text: str, file: str = "ours.py") -> Path:
    """A module beside the config: ``HEAD``, which brings all public names, and ``text``."""
    return project.program(file, HEAD + textwrap.dedent(text))


def notes(project: ProjectFolder) -> list[str]:
    """What the extensions wrote down, in order."""
    path = project.folder / "notes.txt"
    return path.read_text().splitlines() if path.exists() else []


def page(port: int, folder: str = "v1", *dependencies: str, **options: Any) -> dict[str, Any]:
    """A service of the type ``Page``; ``hold``: not ready before that file is there."""
    own = {"folder": f"www/{folder}"} | ({"hold": options.pop("hold")} if "hold" in options else {})
    service = {
        "service_type": "Page",
        "options": own,
        "ports": [{"container_port": port}],
        "dependencies": list(dependencies),
        "health_check": {"interval_seconds": 0.2, "timeout_seconds": 2},
        "restart": {"backoff_seconds": 0.05},
        "stop_timeout_seconds": 5,
    }
    return service | options
