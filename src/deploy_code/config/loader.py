"""Files to a ``DeploymentConfig``, with every problem found on the way.

Read, parse, merge overlays, fill in variables, validate, check. A problem in one step does not hide those of the next:
what is wrong is cut out, and the rest is judged. Whatever the bytes are, the outcome is a config or a ``ConfigError``.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from deploy_code.config.check import check
from deploy_code.config.dotenv import parse_dotenv
from deploy_code.config.files import Inputs, read_files
from deploy_code.config.nodes import TWINS, Entries, Node, Path, Scalar, canonical
from deploy_code.config.parse import parse
from deploy_code.config.plain import Missing, Plain
from deploy_code.config.schema import DeploymentConfig, ServiceConfig
from deploy_code.config.source import Source
from deploy_code.config.translate import real_path, translate
from deploy_code.errors import ConfigError, Problem

_ROUNDS = 5  # cutting one mistake out may uncover another behind it


def load_config(
    files: Sequence[str | FilePath],
    *,
    environ: Mapping[str, str] | None = None,
    registered: Collection[str] | None = (),
) -> DeploymentConfig:
    """Read, merge and check ``files``. Raises ConfigError: E001 for a missing file, else E002 with all ``problems``.

    ``registered``: types and strategies that this process registered; None where it may still register some.
    """
    return load_inputs(read_files(files), os.environ if environ is None else environ, registered)


def load_inputs(
    inputs: Inputs, environ: Mapping[str, str], registered: Collection[str] | None = ()
) -> DeploymentConfig:
    """``load_config`` for bytes that were read already."""
    config, problems = _load(inputs, environ, registered)
    if problems or config is None:
        raise invalid(problems, [file for file, _ in inputs.texts])
    return config


def check_files(
    files: Sequence[str | FilePath], *, environ: Mapping[str, str] | None = None, registered: Collection[str] = ()
) -> tuple[list[Problem], list[str]]:
    """Errors and warnings of ``files``, for ``validate``. Raises only E001. ``registered``: as for ``load_config``."""
    from deploy_code.config.advice import advice

    config, problems = _load(read_files(files), os.environ if environ is None else environ, registered)
    return problems, advice(config) if config else []


def invalid(problems: Sequence[Problem], files: Sequence[str]) -> ConfigError:
    """The one E002 that encloses all problems."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    where = f" in {', '.join(files)}" if files else ""
    return ConfigError(f"{count}{where}:", problems)


def _load(
    inputs: Inputs, environ: Mapping[str, str], registered: Collection[str] | None = ()
) -> tuple[DeploymentConfig | None, list[Problem]]:
    with _without_gc():
        source, problems = _read(inputs, environ)
        if source is None:
            return None, problems
        source.registered = None if registered is None else frozenset(registered)
        data = source.plain.walk(source.tree)
        problems += source.plain.problems + _missing(source.plain.missing)
        source.pruned |= {canonical(path) for path in source.plain.blanks}
        config, found = validated(data, source)
        problems += found
        if config is not None:
            config._source = source
            problems += check(config)
    order = {file: index for index, file in enumerate(source.files)}
    return config, sorted(problems, key=lambda p: (order.get(p.file, len(order)), p.line, p.column))


def _read(inputs: Inputs, environ: Mapping[str, str]) -> tuple[Source | None, list[Problem]]:
    trees, problems = [], []
    for file, data in inputs.texts:
        tree, found = parse(data, file)
        problems += found
        if tree is not None:
            trees.append(tree)
        elif not trees and not found:
            problems.append(
                Problem("the file is empty", file=file, line=1, column=1, remedy="write at least 'services:'")
            )
    files = tuple(file for file, _ in inputs.texts)
    source = Source(
        folder=inputs.folder, files=files, paths=tuple(os.path.realpath(file) for file in files), environ=environ
    )
    if inputs.dotenv is not None:
        source.dotenv, found = parse_dotenv(inputs.dotenv, inputs.dotenv_path, environ, used=source.variables)
        problems += found
    if not trees:
        return None, problems
    source.tree = trees[0]
    for overlay in trees[1:]:
        source.tree = _merged(source.tree, overlay, ())
    source.plain = Plain(source.lookup)
    return source, problems


def _merged(base: Entries, overlay: Entries, path: Path) -> Entries:
    """``overlay`` over ``base``: mappings deep, all else replaced. An empty section says nothing."""
    merged = Entries(base.place)
    for key, node in base.nodes.items():
        merged.put(key, node, base.keys[key])
    for key, node in overlay.nodes.items():
        name = _same_key(merged, key, path)
        merged.put(name, _over(merged.nodes.get(name), node, (*path, name)), overlay.keys[key])
    return merged


def _over(base: Node | None, node: Node, path: Path) -> Node:
    if isinstance(base, Entries):
        if isinstance(node, Entries):
            return _merged(base, node, path)
        if isinstance(node, Scalar) and node.is_null:
            return base
    return node


def _same_key(merged: Entries, key: str, path: Path) -> str:
    """In a service ``env`` in one file and ``environment`` in another are the same key."""
    if len(path) == 2 and path[0] == "services" and key not in merged.nodes:
        twin = TWINS.get(key, key)
        return twin if twin in merged.nodes else key
    return key


def _missing(uses: Sequence[Missing]) -> list[Problem]:
    """One problem for all variables that are not set, with every place that uses them."""
    if not uses:
        return []
    by_name: dict[str, list[Missing]] = {}
    for use in uses:
        by_name.setdefault(use.name, []).append(use)
    head = "1 variable is not set: " if len(by_name) == 1 else f"{len(by_name)} variables are not set: "
    message = head + ", ".join(f"{name} ({_used(found)})" for name, found in by_name.items())
    file, line, column = uses[0].place
    remedy = f"set them in the environment or in .env, or give a default: ${{{uses[0].name}:-...}}"
    return [Problem(message, remedy=remedy, file=file, line=line, column=column)]


def _used(uses: Sequence[Missing]) -> str:
    """``text of :?; used at FILE:1:2, 3:4``: each place once, the file only where it changes."""
    texts = dict.fromkeys(use.message for use in uses if use.message)
    places: list[str] = []
    file = ""
    for place in dict.fromkeys(use.place for use in uses):
        places.append(f"{place.line}:{place.column}" if place.file == file else ":".join(map(str, place)))
        file = place.file
    return "; ".join([*texts, f"used at {', '.join(places)}"])


def validated(data: dict[str, Any], source: Source) -> tuple[DeploymentConfig | None, list[Problem]]:
    """Validate; on errors cut them out and validate the rest, so that cross-field rules still see it."""
    problems: list[Problem] = []
    _one_spelling(data)
    for _ in range(_ROUNDS):
        try:
            return DeploymentConfig.model_validate(data), problems
        except ValidationError as exc:
            errors = exc.errors(include_url=False)
        paths = [real_path(error["loc"], data) for error in errors]
        for error, path in zip(errors, paths, strict=True):
            if not source.is_pruned(path):  # else it follows from a mistake that is told already
                problems.append(translate(error, path, source, DeploymentConfig))
        for error, path in zip(errors, paths, strict=True):
            source.pruned.add(_cut(data, _guilty(error, path)))
    return None, problems


def _one_spelling(data: dict[str, Any]) -> None:
    """Paths of errors and of the data must agree: ``env`` becomes ``environment`` unless both are there."""
    services = data.get("services")
    for service in services.values() if isinstance(services, dict) else ():
        for short, key in ServiceConfig.spellings.items():
            if isinstance(service, dict) and short in service and key not in service:
                service[key] = service.pop(short)


def _guilty(error: ErrorDetails, path: Path) -> Path:
    """The path that has to go for the rest to be valid."""
    if error["type"] == "missing":
        return path[:-1]
    key = error.get("ctx", {}).get("key") if error["type"] == "deploy_code" else None
    return (*path, key) if key else path


def _cut(data: dict[str, Any], path: Path) -> Path:
    """Remove the innermost mapping entry on ``path``; lists keep their length, so that places stay right.

    Where nothing is left of ``path`` (an earlier cut took it along) nothing more is removed.
    """
    holder: dict[Any, Any] = data
    cut, depth = path[0] if path else "", 0
    here: Any = data
    for index, step in enumerate(path):
        if isinstance(here, dict):
            if step not in here:
                return path
            holder, cut, depth = here, step, index
            here = here[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
    holder.pop(cut, None)
    return path[: depth + 1]


@contextmanager
def _without_gc() -> Iterator[None]:
    """A load builds a hundred thousand objects and frees none: collecting meanwhile only costs time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
