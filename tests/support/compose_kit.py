"""Compose files for tests: samples in folders of their own, and what a file means, whoever reads it.

``meaning_of_compose`` asks the real docker-compose, ``meaning_of_ours`` our own loader; where both read the same thing,
the two are equal.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy_code.config import load_config
from deploy_code.config.compose import amounts
from deploy_code.config.compose.exporter import Exported, export_compose
from deploy_code.config.compose.importer import Imported, import_compose
from deploy_code.config.resolve import resolve
from deploy_code.model import Condition, Content, Policy, ServiceSpec
from support.needs import need

SAMPLES = Path(__file__).parent / "compose"
NAMES = sorted(path.stem for path in SAMPLES.glob("*.yml"))
VARIABLES = {"POSTGRES_PASSWORD": "a $ecret", "DB_USER": "gitea"}
BESIDE = ("backend", "frontend", "proxy", "vuejs", "db", "prometheus", "grafana", "pipeline", "library")
"""Folders that samples build from and mount."""

Meaning = dict[str, Any]


class ComposeFolder:
    """A folder with Compose files in it, and a home of its own. ``env``: the whole environment of everything."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], **env}
        (folder / "home").mkdir(exist_ok=True)

    def write(self, text: str, name: str = "docker-compose.yml") -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def sample(self, name: str) -> str:
        """The sample, with everything that it names lying beside it."""
        for folder in BESIDE:
            (self.folder / folder).mkdir(exist_ok=True)
        (self.folder / "db" / "password.txt").write_text("hidden")
        (self.folder / "home" / "minecraft_data").mkdir(exist_ok=True)
        shutil.copy(SAMPLES / "gitea.env", self.folder / "gitea.env")
        return self.write((SAMPLES / f"{name}.yml").read_text())

    def imported(self, *files: str, **more: Any) -> Imported:
        return import_compose(files, folder=str(self.folder), environ=self.env, **more)

    def ours(self, text: str) -> Path:
        path = self.folder / "deploy-code.yaml"
        path.write_text(text)
        return path

    def exported(self, text: str) -> Exported:
        config = load_config([self.ours(text)], environ=self.env, registered=None)
        return export_compose(config, folder=str(self.folder))

    def normalised(self, *files: str) -> dict[str, Any]:
        """What docker-compose makes of ``files``. It refuses what is no Compose file: AssertionError."""
        named = [word for file in files for word in ("-f", file)]
        done = subprocess.run(
            [need("docker-compose"), *named, "config"],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = yaml.safe_load(done.stdout)
        return found


# --------------------------------------------------------------------------- Compose's side


def meaning_of_compose(config: Mapping[str, Any]) -> dict[str, Meaning]:
    """Of the output of ``docker-compose config``, in which everything has one form."""
    secrets = {name: section.get("file", "") for name, section in config.get("secrets", {}).items()}
    return {name: _theirs(service, secrets) for name, service in config["services"].items()}


def _theirs(service: Mapping[str, Any], secrets: Mapping[str, str]) -> Meaning:
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    memory = limits.get("memory", service.get("mem_limit", 0))
    return {
        "image": "" if "build" in service else service["image"],
        "build": _plain_build(service.get("build")),
        "entrypoint": _words(service.get("entrypoint")),
        "command": _words(service.get("command")),
        "env": {name: _dollars(value) for name, value in service.get("environment", {}).items()},
        "ports": _host_ports(service.get("ports", ())),
        "volumes": {*_mounts(service.get("volumes", ())), *_handed(service.get("secrets", ()), secrets)},
        "tmpfs": sorted(service.get("tmpfs", ())),
        "dependencies": {
            name: needed["condition"].removeprefix("service_").removesuffix("_successfully")
            for name, needed in service.get("depends_on", {}).items()
        },
        "health": _asked(service.get("healthcheck", {})),
        "restart": _RESTARTS.get(service.get("restart", "no"), service.get("restart", "no")),
        "cores": float(limits.get("cpus", service.get("cpus", 0))),
        "memory": amounts.size(str(memory)),
        "pids": service.get("pids_limit", 0),
        "user": service.get("user", ""),
        "working_dir": service.get("working_dir", ""),
        "flags": {key for key in ("read_only", "privileged", "init") if service.get(key)},
        "capabilities": (service.get("cap_add", []), service.get("cap_drop", [])),
        "labels": {name: _dollars(value) for name, value in service.get("labels", {}).items()},
        "logging": service.get("logging", {}),
        "hosts": _pairs(service.get("extra_hosts", {})),
        "shm": amounts.size(str(service.get("shm_size", 0))),
        "signal": service.get("stop_signal", ""),
        "patience": amounts.seconds(service["stop_grace_period"]) if "stop_grace_period" in service else None,
        "replicas": service.get("scale", service.get("deploy", {}).get("replicas", 1)),
    }


_RESTARTS = {"unless-stopped": "always", "no": "never"}


def _pairs(value: Any) -> dict[str, str]:
    return value if isinstance(value, dict) else dict(each.split(":", 1) for each in value)


def _plain_build(build: Any) -> Meaning | None:
    if build is None:
        return None
    found = {"dockerfile": "Dockerfile", "args": {}, "target": "", **build}
    return {key: found[key] for key in ("context", "dockerfile", "args", "target")}


def _dollars(value: Any) -> str:
    return str("" if value is None else value).replace("$$", "$")


def _words(value: Any) -> list[str]:
    words = shlex.split(value) if isinstance(value, str) else list(value or ())
    return [_dollars(word) for word in words]


def _host_ports(ports: Iterable[Any]) -> set[tuple[int, int | None, str]]:
    found = set()
    for port in ports:
        if isinstance(port, str):  # with an address; each range is unfolded already
            numbers, _, protocol = port.partition("/")
            *_, host, container = numbers.split(":")
            found.add((int(container), int(host), protocol or "tcp"))
        else:
            found.add((port["target"], port.get("published"), port.get("protocol", "tcp")))
    return found


def _mounts(volumes: Iterable[Any]) -> set[tuple[str, str, bool]]:
    """(source, target, read-only); the source of a volume without a name is nothing."""
    found = set()
    for volume in volumes:
        if isinstance(volume, str):
            source, target, *mode = [*([""] if ":" not in volume else []), *volume.split(":")]
            found.add((source, target, mode == ["ro"]))
        else:
            found.add((volume.get("source", ""), volume["target"], volume.get("read_only", False)))
    return found


def _handed(wanted: Iterable[Mapping[str, str]], files: Mapping[str, str]) -> set[tuple[str, str, bool]]:
    return {
        (files[each["source"]], os.path.join("/run/secrets", each.get("target", each["source"])), True)
        for each in wanted
    }


def _asked(check: Mapping[str, Any]) -> Meaning:
    if not check:
        return {}
    test = check.get("test", ["NONE"])
    kind, *words = ["CMD-SHELL", test] if isinstance(test, str) else test
    return {
        "command": ["/bin/sh", "-c", *map(_dollars, words)] if kind == "CMD-SHELL" else _words(words),
        "interval": amounts.seconds(check.get("interval", "30s")),
        "timeout": amounts.seconds(check.get("timeout", "30s")),
        "start_period": amounts.seconds(check.get("start_period", "0s")),
        "retries": check.get("retries", 3),
    }


# --------------------------------------------------------------------------- our side


def meaning_of_ours(path: Path, env: Mapping[str, str]) -> dict[str, Meaning]:
    """Of a file of ours, resolved as for a plan."""
    config = load_config([path], environ=env)
    return {name: _ours(service) for name, service in resolve(config).services.items()}


def _ours(service: ServiceSpec) -> Meaning:
    content, policy = service.content, service.policy
    container = content.container
    return {
        "image": content.image,
        "build": container.build
        and {key: getattr(container.build, key) for key in ("context", "dockerfile", "args", "target")},
        "entrypoint": [content.command] if content.command else [],
        "command": list(content.args),
        "env": dict(content.env),
        "ports": {(port.container_port, port.host_port, port.protocol) for port in content.ports if _published(port)},
        "volumes": {_our_mount(volume) for volume in content.volumes if not volume.tmpfs},
        "tmpfs": sorted(
            volume.mount_path + (f":size={volume.size_mb}m" if volume.size_mb else "")
            for volume in content.volumes
            if volume.tmpfs
        ),
        "dependencies": {need.service: Condition(need.condition).value for need in policy.dependencies},
        "health": _our_check(policy),
        "restart": policy.restart.policy
        + (f":{policy.restart.max_exits - 1}" if policy.restart.policy == "on-failure" else ""),
        **_our_limits(content),
        "user": content.user,
        "working_dir": content.working_dir,
        "flags": {key for key in ("read_only", "privileged", "init") if getattr(container, key)},
        "capabilities": (list(container.cap_add), list(container.cap_drop)),
        "labels": dict(container.labels),
        "logging": {"driver": container.log_driver, "options": dict(container.log_options)}
        if container.log_driver
        else {},
        "hosts": dict(container.extra_hosts),
        "shm": container.shm_size_mb * amounts.MEGABYTE,
        "signal": policy.stop_signal,
        "patience": policy.stop_timeout_seconds if policy.stop_timeout_seconds != 30 else None,
        "replicas": policy.replicas,
    }


def _published(port: Any) -> bool:
    return bool(port.host_port or port.dynamic)


def _our_limits(content: Content) -> Meaning:
    limits = content.resources
    return {"cores": limits.cpu_cores, "memory": limits.memory_mb * amounts.MEGABYTE, "pids": limits.pids}


def _our_mount(volume: Any) -> tuple[str, str, bool]:
    anonymous = re.search("-" + re.escape(volume.mount_path.strip("/").replace("/", "-")) + "$", volume.name)
    return (volume.source or ("" if anonymous else volume.name), volume.mount_path, volume.read_only)


def _our_check(policy: Policy) -> Meaning:
    check = policy.health
    if not check.command:
        return {}
    return {
        "command": list(check.command),
        "interval": check.interval_seconds,
        "timeout": check.timeout_seconds,
        "start_period": check.start_period_seconds,
        "retries": check.retries,
    }
