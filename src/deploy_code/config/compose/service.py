"""One service of a Compose file as a service of ours: everything that needs no other service to be understood."""

from __future__ import annotations

import os
import re
from typing import Any

from deploy_code.config.check import signal_name
from deploy_code.config.compose.health import health_of
from deploy_code.config.compose.paths import absolute, host_path
from deploy_code.config.compose.ports import ports_of
from deploy_code.config.compose.reader import Item, Reader, Text
from deploy_code.config.compose.resources import replicas_of, resources_of, restart_of
from deploy_code.config.compose.template import Variable, joined
from deploy_code.config.compose.unsaid import BUILD, REASONS
from deploy_code.config.compose.volumes import Volumes
from deploy_code.config.compose.words import words_of

_TEXTS = {"user": "user", "working_dir": "working_dir"}
_FLAGS = ("read_only", "init", "privileged")
_PULLS = {"always": "always", "missing": "missing", "if_not_present": "missing", "never": "never"}
_ELSEWHERE = frozenset(
    {
        "image", "build", "pull_policy", "command", "entrypoint", "environment", "env_file", "ports", "expose",
        "volumes", "tmpfs", "secrets", "configs", "healthcheck", "deploy", "scale", "restart", "labels", "logging",
        "extra_hosts", "cap_add", "cap_drop", "shm_size", "stop_signal", "stop_grace_period", "mem_limit",
        "mem_reservation", "cpus", "cpu_quota", "cpu_period", "pids_limit", "gpus", "depends_on", "network_mode",
        "networks", "dns", "profiles", *_TEXTS, *_FLAGS,
    }
)  # fmt: skip
_REPOSITORY = re.compile(r"^(https?://|git://|ssh://|git@|github\.com/)|\.git(#|$)")
ORDER = (
    "enabled", "image", "build", "pull", "command", "args", "user", "working_dir", "env", "env_file", "replicas",
    "one_shot", "dependencies", "health_check", "resources", "ports", "volumes", "restart", "stop_signal",
    "stop_timeout_seconds",
)  # fmt: skip
"""How a service is laid out; keys that are not named here come after these."""


def service_of(reader: Reader, item: Item, volumes: Volumes) -> dict[str, Any]:
    """Our keys for the service ``item``; its place in the graph and in networks is worked out elsewhere."""
    keys = reader.entries(item)
    found: dict[str, Any] = {
        **_image(reader, keys, item),
        **_command(reader, keys),
        "env": _environment(reader, keys.get("environment")),
        "env_file": _env_files(reader, keys.get("env_file")),
        "replicas": replicas_of(reader, keys),
        "health_check": health_of(reader, keys.get("healthcheck")),
        "resources": resources_of(reader, keys),
        "ports": ports_of(reader, keys),
        "volumes": volumes.of(item.name, keys),
        "restart": restart_of(reader, keys),
        "stop_signal": _signal(reader, keys.get("stop_signal")),
        **_details(reader, keys),
    }
    _unsaid(reader, keys)
    if any(key in found["resources"] for key in ("cpu_cores", "memory_mb")):
        _said_once(reader, item)
    return {key: value for key, value in found.items() if value not in (None, [], {}, "", False)} | _zeros(found)


def _zeros(found: dict[str, Any]) -> dict[str, Any]:
    """Nought is not nothing where it is counted."""
    return {key: found[key] for key in ("replicas", "stop_timeout_seconds") if type(found.get(key)) is int}


def _said_once(reader: Reader, item: Item) -> None:
    message = "limits are also set aside: together they must fit on this machine (E004)"
    if not any(line.message == message for line in reader.findings.lines):
        reader.changed(message, item)


def _unsaid(reader: Reader, keys: dict[str, Item]) -> None:
    for key, item in keys.items():
        if key not in _ELSEWHERE:
            reader.dropped(REASONS.get(key, "deploy-code knows no such key"), item)


# --------------------------------------------------------------------------- what runs


def _image(reader: Reader, keys: dict[str, Item], item: Item) -> dict[str, Any]:
    image, build = reader.text(keys.get("image")), _build(reader, keys.get("build"))
    if image is None and build is None:
        reader.problem("neither image nor build: nothing to run", item, "add image: name:tag, or build: folder")
        return {}
    found: dict[str, Any] = {"pull": _pull(reader, keys.get("pull_policy"))}
    if build is None and image is not None:
        return {"image": reader.written(image), **found}
    if image is not None:
        reader.dropped("a built image gets a name of deploy-code's", keys["image"])
    return {"build": build, **found}


def _pull(reader: Reader, item: Item | None) -> str | None:
    text = reader.text(item)
    if text is None:
        return None
    value = reader.fixed(text)
    if value not in _PULLS:
        reader.dropped(f"'{value}': an image is fetched always, when it is missing, or never", text)
    return _PULLS.get(value)


def _build(reader: Reader, item: Item | None) -> Any:
    if item is None or item.is_null:
        return None
    keys = {"context": item} if item.is_scalar else reader.entries(item)
    context = reader.text(keys.get("context")) or Text((".",), item.place, item.path)
    if _REPOSITORY.search(reader.value(context)):
        reader.problem("a build needs a folder, not a repository", context, "clone it first, and name the folder")
        return None
    found: dict[str, Any] = {"context": host_path(reader, context)}
    for key in ("dockerfile", "target"):
        text = reader.text(keys.get(key))
        if text is not None:
            found[key] = reader.written(text)
    arguments = _environment(reader, keys.get("args"))
    if arguments:
        found["args"] = arguments
    _unsaid_of_build(reader, keys)
    return found["context"] if len(found) == 1 else found


def _unsaid_of_build(reader: Reader, keys: dict[str, Item]) -> None:
    for key, item in keys.items():
        if key == "dockerfile_inline":
            reader.problem("a Dockerfile has to be a file", item, "write it to a file, and name that in dockerfile")
        elif key not in ("context", "dockerfile", "target", "args"):
            reader.dropped(BUILD.get(key, "deploy-code knows no such key"), item)


def _command(reader: Reader, keys: dict[str, Item]) -> dict[str, Any]:
    """Compose's entrypoint is our command; its command are arguments, to it or to the image's own entrypoint."""
    entrypoint, command = words_of(reader, keys.get("entrypoint")), words_of(reader, keys.get("command"))
    words = [reader.written(word) for word in command or ()]
    if command == []:
        reader.dropped("the image's own command cannot be left out, only replaced", keys["command"])
    if entrypoint is None:
        return {"args": words}
    program = [reader.written(word) for word in entrypoint]
    if not program and not words:
        reader.dropped("the image's own entrypoint cannot be left out without a command", keys["entrypoint"])
    all_words = [*program, *words]
    return {"command": all_words[0], "args": all_words[1:]} if all_words else {}


def _environment(reader: Reader, item: Item | None) -> dict[str, Any]:
    """A name without a value takes it from whoever deploys."""
    found: dict[str, Any] = {}
    for name, (text, at) in reader.pairs(item).items():
        if not name or "$" in name:
            reader.problem(f"'{name}' is no name of a variable", at)
            continue
        found[name] = reader.written(text or _of_whoever_deploys(reader, name, at))
    return found


def _of_whoever_deploys(reader: Reader, name: str, at: Item) -> Text:
    text = Text(joined(Variable(name)), at.place, at.path)
    if reader.lookup(name) is None and name not in reader.told:
        reader.told.add(name)
        reader.changed(f"variable {name} is not set: Compose leaves it out of the container, here it is empty", text)
    return text


def _env_files(reader: Reader, item: Item | None) -> list[Any]:
    found: list[Any] = []
    for each in reader.items(item, single=True):
        keys = {"path": each} if each.is_scalar else reader.entries(each)
        text = reader.text(keys.get("path"))
        if text is None:
            reader.problem("an env_file needs its path", each)
        elif _is_there(reader, text, needed=reader.flag(keys.get("required")) or "required" not in keys):
            found.append(host_path(reader, text))
            if "format" in keys:
                reader.changed("read as deploy-code reads such files: ${NAME} is filled in", keys["format"])
    return found


def _is_there(reader: Reader, text: Text, *, needed: bool) -> bool:
    if os.path.isfile(absolute(reader, text)):
        if not needed:
            reader.changed("must be there from now on", text)
        return True
    if needed:
        reader.problem(f"{reader.value(text)} is not there", text, "Compose refuses too: make it, or remove it here")
    else:
        reader.dropped(f"{reader.value(text)} is not there", text)
    return False


# --------------------------------------------------------------------------- details


def _details(reader: Reader, keys: dict[str, Item]) -> dict[str, Any]:
    found: dict[str, Any] = {"stop_timeout_seconds": reader.seconds(keys.get("stop_grace_period"))}
    for key, ours in _TEXTS.items():
        text = reader.text(keys.get(key))
        found[ours] = None if text is None else reader.written(text)
    for key in _FLAGS:
        found[key] = reader.flag(keys.get(key))
    for key in ("cap_add", "cap_drop"):
        found[key] = [reader.written(text) for text in reader.texts(keys.get(key))]
    found["extra_hosts"] = _named(reader, keys.get("extra_hosts"), "=:")
    found["labels"] = _named(reader, keys.get("labels"))
    found["shm_size_mb"] = reader.megabytes(keys.get("shm_size"))
    return found | _logging(reader, keys.get("logging"))


def _named(reader: Reader, item: Item | None, separators: str = "=") -> dict[str, Any]:
    pairs = reader.pairs(item, separators)
    return {name: "" if text is None else reader.written(text) for name, (text, _) in pairs.items()}


def _logging(reader: Reader, item: Item | None) -> dict[str, Any]:
    keys = reader.entries(item)
    driver = reader.text(keys.get("driver"))
    options = _named(reader, keys.get("options"))
    return {"log_driver": None if driver is None else reader.written(driver), "log_options": options}


def _signal(reader: Reader, item: Item | None) -> str | None:
    text = reader.text(item)
    if text is None:
        return None
    value = reader.fixed(text)
    if signal_name(value):
        return value
    reader.dropped(f"'{value}' is no signal that deploy-code knows", text)
    return None
