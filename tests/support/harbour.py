"""A project whose containers lie in a real engine, seen as a user sees them: by the command line and by the engine."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

from support.cli import Finished
from support.engine_api import ApiError
from support.engine_daemons import Engine
from support.project import ProjectFolder
from support.scenarios import FAST
from support.wait import wait_until
from support.web import fetch

BUSYBOX, CHECKED = "dc-test/busybox:1", "dc-test/checked:1"
SLEEP = "trap 'exit 0' TERM; sleep 1000 & wait"

# --------------------------------------------------------------------------- services, as the file has them


def page(version: int = 1, *dependencies: str, **options: Any) -> dict[str, Any]:
    """A container that answers ``v<version>`` on 8080, and its environment on /cgi-bin/env."""
    service: dict[str, Any] = {
        "image": f"dc-test/web:{version}",
        "health_check": {"endpoint": "/", **FAST},
        "stop_timeout_seconds": 5,
    }
    if dependencies:
        service["dependencies"] = list(dependencies)
    return service | options


def shell(script: str = SLEEP, *dependencies: str, **options: Any) -> dict[str, Any]:
    """A container that runs ``script``; alive for a moment is all that it takes."""
    service: dict[str, Any] = {
        "image": BUSYBOX,
        "command": "sh",
        "args": ["-c", script],
        "min_ready_seconds": 0.1,
        "stop_timeout_seconds": 2,
    }
    if dependencies:
        service["dependencies"] = list(dependencies)
    return service | options


def asked(*command: str) -> dict[str, Any]:
    """A health check that runs inside the container."""
    return {"command": list(command), **FAST}


# --------------------------------------------------------------------------- the project


def new_name() -> str:
    """Engines are shared: no other test may have a project of this name."""
    return f"t{uuid.uuid4().hex[:8]}"


@dataclass
class Harbour:
    """``run`` commands of the project; all else asks the engine itself, never deploy-code's own records."""

    project: ProjectFolder
    engine: Engine

    @property
    def name(self) -> str:
        return self.project.name

    def write(self, services: dict[str, Any], **sections: Any) -> None:
        """The file. Sections are merged with those that every test of containers wants."""
        infrastructure = {"container_runtime": self.engine.kind.title(), **sections.pop("infrastructure", {})}
        deployment = {"strategy": "Parallel", "timeout_seconds": 20, **sections.pop("deployment", {})}
        self.project.write(services, infrastructure=infrastructure, deployment=deployment, **sections)

    def run(self, *args: str, **options: Any) -> Finished:
        return self.project.cli(*args, **options)

    def deploy(self, services: dict[str, Any], *args: str, **sections: Any) -> Finished:
        """Write the file and deploy it."""
        self.write(services, **sections)
        return self.run("deploy", *args)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """As the engine lists them, ended ones too, by revision and number."""
        labels = [f"deploy-code.project={self.name}", *([f"deploy-code.service={service}"] if service else ())]
        found = self.engine.api("GET", "/containers/json", all="1", filters={"label": labels})
        return sorted(found, key=lambda each: self.name_of(each))

    def names(self) -> list[str]:
        """Every container whose name starts as ours do, whatever its labels are."""
        found = map(self.name_of, self.engine.api("GET", "/containers/json", all="1"))
        return sorted(name for name in found if name.startswith(f"{self.name}-"))

    @staticmethod
    def name_of(container: dict[str, Any]) -> str:
        return str(container["Names"][0]).lstrip("/")

    def running(self) -> dict[str, int]:
        """Service → how many of its containers run."""
        services = [each["Labels"]["deploy-code.service"] for each in self.containers() if each["State"] == "running"]
        return {name: services.count(name) for name in sorted(set(services))}

    def ids(self) -> dict[str, list[str]]:
        """Service → IDs of its containers."""
        found: dict[str, list[str]] = {}
        for each in self.containers():
            found.setdefault(each["Labels"]["deploy-code.service"], []).append(each["Id"])
        return found

    def id_of(self, service: str) -> str:
        [found] = self.containers(service)
        return str(found["Id"])

    def inspect(self, service: str) -> dict[str, Any]:
        """All that the engine knows of the one container of a service."""
        found: dict[str, Any] = self.engine.api("GET", f"/containers/{self.id_of(service)}/json")
        return found

    def image_of(self, service: str) -> str:
        """The ID, as ``sha256:...``."""
        return f"sha256:{str(self.inspect(service)['Image']).removeprefix('sha256:')}"

    def image_id(self, name: str) -> str:
        found = self.engine.api("GET", f"/images/{name}/json")["Id"]
        return f"sha256:{str(found).removeprefix('sha256:')}"

    def address(self, service: str) -> str:
        """The one container's own, as this machine reaches it."""
        [network] = self.inspect(service)["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def text(self, service: str, path: str = "/", port: int = 8080) -> str:
        """What the service answers at its container's own address; empty when it does not."""
        with suppress(ValueError, ApiError, URLError, OSError):
            return fetch(f"http://{self.address(service)}:{port}{path}").text.strip()
        return ""

    def inside(self, service: str, script: str) -> str:
        """What a shell inside the container prints."""
        return self.docker("exec", self.id_of(service), "sh", "-c", script).strip()

    def docker(self, *args: str) -> str:
        """Docker's own command line, which speaks to both engines."""
        env = {**os.environ, "DOCKER_HOST": self.engine.url}
        done = subprocess.run(["docker", *args], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"docker {' '.join(args)}: {done.stderr}"
        return done.stdout

    def volumes(self) -> list[str]:
        """Names of the project's volumes."""
        found = self.engine.api("GET", "/volumes", filters={"label": [f"deploy-code.project={self.name}"]})
        return sorted(each["Name"] for each in found["Volumes"] or ())

    def networks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.engine.api(
            "GET", "/networks", filters={"label": [f"deploy-code.project={self.name}"]}
        )
        return found

    def logs(self, *args: str) -> str:
        return self.run("logs", *args).ok().stdout

    def until_logged(self, text: str, *args: str, timeout: float = 15.0) -> None:
        wait_until(lambda: text in self.logs(*args), timeout, lambda: f"{text!r} in the logs:\n{self.logs(*args)}")

    def settled(self, what: str, condition: Callable[[], object], timeout: float = 20.0) -> None:
        wait_until(condition, timeout, lambda: f"{what}; there is {self.run('status', '--detailed').output}")

    def told(self, run: Finished, *facts: str) -> None:
        """A failed deployment: every fact is on stderr and in `history show`."""
        run.exits(1)
        shown = (
            self.run("history", "show", str(self.run("history", "--format", "json").json()[0]["number"])).ok().stdout
        )
        for fact in facts:
            assert fact in run.stderr, f"{fact!r} is not on stderr: {run}"
            assert fact in shown, f"{fact!r} is not in history show:\n{shown}"
