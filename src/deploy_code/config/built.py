"""Errors of a config that is built in code: the same words and codes as from a file, without a place in one.

A model on its own does not know where it will stand, but its class has one place in the file; the rules of that place
(codes, names, what may be shown) are applied, and the path shown starts at the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deploy_code.config.nodes import Entries, Items, Path, Place, canonical, dotted
from deploy_code.config.source import Source
from deploy_code.config.translate import Values, model_in, real_path, translate
from deploy_code.errors import ConfigError, Problem

_ANY_NAME = "*"
_NOWHERE = Place("", 0, 0)


def refused(error: ValidationError, model: type[BaseModel], data: Mapping[str, Any]) -> ConfigError:
    """The ConfigError for what pydantic says of ``model(**data)``."""
    home = _home(model)
    whole: Any = data
    for step in reversed(home):
        whole = [whole] if isinstance(step, int) else {step: whole}
    problems = [_problem(each, home, whole) for each in error.errors(include_url=False)]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return ConfigError(f"{count} in {model.__name__}:", problems)


def frozen(name: str, model: type[BaseModel]) -> ConfigError:
    """The ConfigError for an assignment to a model."""
    what = f"{name} of {model.__name__} cannot be changed" if name in model.model_fields else f"there is no {name} here"
    return ConfigError(what, remedy=f"Make a new {model.__name__} with the value it is to have")


def _problem(error: ErrorDetails, home: Path, whole: Any) -> Problem:
    """``whole``: the model's data in its place among empty sections."""
    from deploy_code.config.schema import DeploymentConfig

    source = Source.none()
    source.tree = _tree(whole)
    problem = translate(error, real_path((*home, *error["loc"]), _canonical(whole, ())), source, DeploymentConfig)
    problem.path = problem.path.removeprefix(dotted(home)).lstrip(".")
    return problem


def _tree(data: Any) -> Any:
    """The keys of ``data`` as a file would have them, so that paths are spelled as the caller did."""
    if isinstance(data, Mapping):
        entries = Entries(_NOWHERE)
        for key, value in data.items():
            entries.put(str(key), _tree(value), _NOWHERE)
        return entries
    items = Items(_NOWHERE)
    if isinstance(data, list | tuple):
        items.items = [_tree(item) for item in data]
    return items


def _canonical(data: Any, at: Path) -> Any:
    """``data`` with the spellings of the models, which pydantic's errors have."""
    if isinstance(data, Mapping):
        return {canonical((*at, key))[-1]: _canonical(value, (*at, key)) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_canonical(item, (*at, index)) for index, item in enumerate(data)]
    return data


def _home(model: type[BaseModel]) -> Path:
    """Where models of this class stand in a file: ``ServiceConfig`` → ``("services", "*")``."""
    from deploy_code.config.schema import DeploymentConfig

    todo: list[tuple[type[BaseModel], Path]] = [(DeploymentConfig, ())]
    for known, path in todo:
        if issubclass(model, known):
            return path
        for name, field in known.model_fields.items():
            inner = model_in(field.annotation)
            step: Path = (0,) if getattr(field.annotation, "__origin__", None) is tuple else ()
            if isinstance(inner, Values):
                inner, step = inner.model, (_ANY_NAME,)
            if inner is not None:
                todo.append((inner, (*path, name, *step)))
    return ()
