"""An unchanged file costs no models: the resolved project is kept, keyed by everything it was made from.

The key covers what can be known without parsing: the files' bytes, ``.env``, our version, the user. Which variables,
``env_file``s and custom types the file uses is known only after parsing, so the entry itself says which, with a
fingerprint of their values and where the types were found; an entry for which that no longer holds is a miss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deploy_code._version import __version__
from deploy_code.codec import from_data, to_data
from deploy_code.config.content import with_hashes
from deploy_code.config.files import Inputs, read_files
from deploy_code.model import Project

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig


_FORM = 2  # of an entry


class ResolvedCache(Protocol):
    """Where resolved projects are kept. Entries hold secrets: 0600."""

    def get(self, digest: str) -> str | None: ...

    def put(self, digest: str, text: str) -> None: ...


def load_project(
    files: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    cache: ResolvedCache | None = None,
    code_types: Collection[str] = (),
    code_strategies: Collection[str] = (),
) -> Project:
    """Load, check and resolve ``files``, and hash the code they name; the first part comes from ``cache`` if it can.

    ``code_types``, ``code_strategies``: what this process registered by calls. Raises ConfigError (E001, E002).
    """
    environ = os.environ if environ is None else environ
    inputs = read_files(files)
    key = _key(inputs)
    text = cache.get(key) if cache is not None else None
    project = _remembered(text, inputs, environ, code_types) if text else None
    if project is None:
        project, entry = _resolved(inputs, environ, code_types, code_strategies)
        if cache is not None and not _of_this_process(entry, code_types):
            cache.put(key, json.dumps(entry, separators=(",", ":")))
    return with_hashes(project)


def project_of(config: DeploymentConfig, *, code_types: Collection[str] = ()) -> Project:
    """A config that was built in code, checked, resolved and hashed. Raises ConfigError (E002)."""
    from deploy_code.config.resolve import resolve

    return with_hashes(resolve(config, code_types=code_types))


def _key(inputs: Inputs) -> str:
    digest = sha256(f"{_FORM}\0{__version__}\0{os.geteuid()}\0{inputs.folder}\0".encode("utf-8", "surrogateescape"))
    for name, data in (*inputs.texts, (".env", inputs.dotenv or b"")):
        digest.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
        digest.update(data)
    return digest.hexdigest()


def _resolved(
    inputs: Inputs, environ: Mapping[str, str], code_types: Collection[str], code_strategies: Collection[str]
) -> tuple[Project, dict[str, Any]]:
    from deploy_code.config.loader import load_inputs
    from deploy_code.config.resolve import resolve, types_asked
    from deploy_code.config.source import source_of

    config = load_inputs(inputs, environ, {*code_types, *code_strategies})
    project = resolve(config, code_types=code_types)
    source = source_of(config)
    used: dict[str, Any] = {"variables": sorted(source.variables), "env_files": sorted(source.env_files)}
    used["fingerprint"] = _fingerprint(used["variables"], used["env_files"], environ)
    used["types"] = {name: _handler(project, name) for name in sorted(types_asked(config))}
    return project, {**used, "project": to_data(project)}


def _handler(project: Project, name: str) -> str:
    """Where a custom type was found, "" where nobody registered it."""
    found = (spec.content.handler for spec in project.services.values() if spec.content.service_type == name)
    return next(found, "")


def _of_this_process(entry: Mapping[str, Any], code_types: Collection[str]) -> bool:
    """Does it say what holds only here? What this process registered by a call is unknown to the next command."""
    return not set(code_types).isdisjoint(entry["types"])


def _remembered(text: str, inputs: Inputs, environ: Mapping[str, str], code_types: Collection[str]) -> Project | None:
    """The project of an entry, None when what it was made from has changed."""
    entry = json.loads(text)
    if entry["fingerprint"] != _fingerprint(entry["variables"], entry["env_files"], environ):
        return None
    project = from_data(Project, entry["project"])
    return project if _same_types(entry["types"], project, inputs, code_types) else None


def _same_types(types: Mapping[str, str], project: Project, inputs: Inputs, code_types: Collection[str]) -> bool:
    """Are the custom types of an entry still found where they were? Only a file that uses any pays for the look."""
    if not types:
        return True
    if not set(code_types).isdisjoint(types):
        return False
    from deploy_code.plugins import load_extensions

    found = load_extensions(project.plugins, root="", file=os.path.basename(inputs.texts[0][0])).types
    return all((found[name].source if name in found else "") == source for name, source in types.items())


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
