"""An unchanged file costs no models: the resolved project is kept, keyed by everything it was made from.

The key covers what can be known without parsing: the files' bytes, ``.env``, our version, the user. Which variables
and ``env_file``s the file uses is known only after parsing, so the entry itself says which, with a fingerprint of
their values; an entry whose fingerprint no longer fits is a miss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from deploy_code._version import __version__
from deploy_code.codec import from_data, to_data
from deploy_code.config.content import with_hashes
from deploy_code.config.files import Inputs, read_files
from deploy_code.model import Project


class ResolvedCache(Protocol):
    """Where resolved projects are kept. Entries hold secrets: 0600."""

    def get(self, digest: str) -> str | None: ...

    def put(self, digest: str, text: str) -> None: ...


def load_project(
    files: Sequence[str | Path], *, environ: Mapping[str, str] | None = None, cache: ResolvedCache | None = None
) -> Project:
    """Load, check and resolve ``files``, and hash the code they name; the first part comes from ``cache`` if it can.

    Raises ConfigError (E001, E002).
    """
    environ = os.environ if environ is None else environ
    inputs = read_files(files)
    key = _key(inputs)
    text = cache.get(key) if cache is not None else None
    project = _remembered(text, inputs, environ) if text else None
    if project is None:
        project, entry = _resolved(inputs, environ)
        if cache is not None:
            cache.put(key, json.dumps(entry, separators=(",", ":")))
    return with_hashes(project)


def _key(inputs: Inputs) -> str:
    digest = sha256(f"{__version__}\0{os.geteuid()}\0{inputs.folder}\0".encode("utf-8", "surrogateescape"))
    for name, data in (*inputs.texts, (".env", inputs.dotenv or b"")):
        digest.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
        digest.update(data)
    return digest.hexdigest()


def _resolved(inputs: Inputs, environ: Mapping[str, str]) -> tuple[Project, dict[str, Any]]:
    from deploy_code.config.loader import load_inputs
    from deploy_code.config.resolve import resolve
    from deploy_code.config.source import source_of

    config = load_inputs(inputs, environ)
    project = resolve(config)
    source = source_of(config)
    used: dict[str, Any] = {"variables": sorted(source.variables), "env_files": sorted(source.env_files)}
    used["fingerprint"] = _fingerprint(used["variables"], used["env_files"], environ)
    return project, {**used, "project": to_data(project)}


def _remembered(text: str, inputs: Inputs, environ: Mapping[str, str]) -> Project | None:
    """The project of an entry, None when what it was made from has changed."""
    entry = json.loads(text)
    if entry["fingerprint"] != _fingerprint(entry["variables"], entry["env_files"], environ):
        return None
    return from_data(Project, entry["project"])


def _fingerprint(variables: Iterable[str], files: Iterable[str], environ: Mapping[str, str]) -> str:
    values = [[name, environ.get(name)] for name in variables]
    contents = [[path, _digest(path)] for path in files]
    return sha256(json.dumps([values, contents]).encode()).hexdigest()


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return sha256(file.read()).hexdigest()
    except OSError:
        return "missing"  # then the load explains it
