"""pydantic's errors in our words: where, what is wrong, what to write instead.

Works on the path, the kind and the value of each error; the messages are ours, so they do not change with the library.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from deploy_code.config.nodes import Path, as_written, code_of
from deploy_code.config.source import Source
from deploy_code.errors import Problem

_NEEDED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_SHOWN = 60  # characters of a wrong value that an error shows
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_PATTERNS = {
    "version": ("is no version of this schema", 'write version: "1.0.0"'),
    "name": ("is no name of a project", "use letters, digits, '.', '_' and '-', beginning with a letter or digit"),
}


def translate(error: ErrorDetails, path: Path, source: Source, root: type[BaseModel]) -> Problem:
    """One error of pydantic at ``path`` (see ``real_path``) as a problem."""
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, source, root)
    if error["type"] == "missing":
        message = f"'{path[-1]}' is missing"
        return source.problem(message, path[:-1], code=code_of(path), remedy=f"add {path[-1]}: ...")
    context = error.get("ctx", {})
    if error["type"] == "deploy_code":
        at = (*path, context["key"]) if context["key"] else path
        key = bool(context["key"])
        return source.problem(context["what"], at, code=code_of(path), remedy=context["remedy"], key=key)
    message, remedy = _explain(error, path, context, _shown(error["input"], path, source))
    return source.problem(message, path, code=code_of(path), remedy=remedy)


def real_path(loc: Iterable[str | int], data: Any) -> Path:
    """pydantic's ``loc`` without the names of union branches that it mixes in."""
    path: list[str | int] = []
    steps = list(loc)
    for index, step in enumerate(steps):
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list | tuple) and isinstance(step, int) and step < len(data):
            data = data[step]
        elif isinstance(data, dict) and index == len(steps) - 1 and step != "[key]":
            data = None
        else:
            continue
        path.append(step)
    return tuple(path)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that ``word`` is most likely a misspelling of."""
    folded = {choice.lower().replace("_", "-"): choice for choice in choices}
    wanted = word.lower().replace("_", "-")
    started = [choice for choice in folded if len(wanted) > 2 and choice.startswith(wanted)]
    found = started or difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def known_keys(root: type[BaseModel], path: Path) -> list[str]:
    """The keys that the schema has at ``path``, both spellings."""
    model: Any = root
    for step in path:
        model = _inside(model, step)
        if model is None:
            return []
    if not _is_model(model):
        return []
    return [*model.model_fields, *getattr(model, "spellings", ())]


def _inside(annotation: Any, step: str | int) -> Any:
    if _is_model(annotation):
        name = getattr(annotation, "spellings", {}).get(step, step)
        field = annotation.model_fields.get(name)
        return model_in(field.annotation) if field else None
    return annotation if isinstance(step, int) else model_in(annotation)


def model_in(annotation: Any) -> Any:
    """The model inside ``X | None`` or ``tuple[X, ...]``; inside ``dict[str, X]`` it stays one step away."""
    if _is_model(annotation):
        return annotation
    if getattr(annotation, "__origin__", None) is dict:
        return Values(model_in(get_args(annotation)[1]))
    if isinstance(annotation, Values):
        return annotation.model
    return next((model for arg in get_args(annotation) if (model := model_in(arg)) is not None), None)


class Values:
    """The values of a mapping with free keys."""

    def __init__(self, model: Any) -> None:
        self.model = model


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unknown_key(path: Path, source: Source, root: type[BaseModel]) -> Problem:
    keys = known_keys(root, path[:-1])
    guess = nearest(str(path[-1]), keys)
    remedy = f"did you mean '{guess}'?" if guess else f"known here: {', '.join(sorted(keys))}"
    return source.problem(f"unknown key '{path[-1]}'", path, code=code_of(path), remedy=remedy, key=True)


def _explain(error: ErrorDetails, path: Path, context: dict[str, Any], shown: str) -> tuple[str, str]:
    kind = error["type"]
    if kind in _NEEDED:
        return f"must be {_NEEDED[kind]}, got {shown}", _type_remedy(kind, error["input"], path)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}, got {shown}", ""
    if kind == "enum":
        return _not_a_member(error, str(context["expected"]), shown.removeprefix("text "))
    if kind == "string_too_short":
        return "must not be empty", ""
    if kind == "too_short":
        return "must not be an empty list", ""
    if kind == "finite_number":
        return "must be a finite number", ""
    if kind == "string_pattern_mismatch":
        if path[2:3] == ("environment",):
            return f"'{path[-1]}' is no name of a variable", "a name is not empty and has no '='"
        what, remedy = _PATTERNS.get(str(path[-1]), ("does not look right", f"it must match {context['pattern']}"))
        return f"{shown.removeprefix('text ')} {what}", remedy
    return error["msg"][:1].lower() + error["msg"][1:], ""


def _not_a_member(error: ErrorDetails, expected: str, shown: str) -> tuple[str, str]:
    choices = [part.strip("' ") for part in expected.replace(" or ", ", ").split(",")]
    guess = nearest(str(error["input"]), choices)
    listed = f"one of {', '.join(choices)}"
    return f"{shown} is none of the known names", f"did you mean '{guess}'? {listed}" if guess else listed


def _type_remedy(kind: str, value: Any, path: Path) -> str:
    if isinstance(value, str) and kind.startswith(("int", "float", "bool")):
        return "write it without quotes" if value.strip().replace(".", "", 1).isdigit() or value in _BOOLS else ""
    if kind == "string_type" and isinstance(value, int | float):
        return f'put it in quotes: "{value}"'
    if path[-2:-1] == ("ports",):
        return _port_remedy(value)
    return ""


_BOOLS = ("true", "false")


def _port_remedy(value: Any) -> str:
    host, _, container = str(value).rpartition(":")
    if container.isdigit() and (not host or host.isdigit()):
        tail = f", host_port: {host}" if host else ""
        return f"write {{container_port: {container}{tail}}}"
    return "write {container_port: 8080, host_port: 8080}"


def _shown(value: Any, path: Path, source: Source) -> str:
    """A value as an error may show it: never one that came from a variable or stands in ``env``."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if as_written(source.tree, path) in source.plain.raw or path[2:3] == ("environment",):
        return "another value"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value) if len(str(value)) < _SHOWN else str(value)[: _SHOWN - 3] + "..."
    return f"text '{text}'" if isinstance(value, str) else text
