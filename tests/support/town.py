"""The services that the API document speaks of, as small stand-ins, and a way to run its programs beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from support.cli import Finished
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import pages, program, web, write_program

SERVICES = ("postgresql", "redis", "auth_service", "api_gateway")


def build(project: ProjectFolder, bad: str = "serve", **sections: Any) -> ProjectFolder:
    """The file of the town; ``bad``: what ``auth_service`` does (see ``support.scenarios``)."""
    pages(project, "v1")
    write_program(project)
    postgresql, redis, auth, gateway = free_ports(4)
    services = {
        "postgresql": web(postgresql),
        "redis": web(redis),
        "auth_service": program(auth, *bad.split(), dependencies=["postgresql", "redis"]),
        "api_gateway": program(gateway, dependencies=["auth_service"]),
    }
    project.write(services, **{"deployment": {"timeout_seconds": 10}, **sections})
    return project


def run(project: ProjectFolder, text: str) -> Finished:
    """As a program of its own, in the project's folder; warnings are errors."""
    path = project.folder / "example.py"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=project.folder,
        env={**os.environ, **project.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Finished((str(path),), done.returncode, done.stdout, done.stderr)
