"""A config as YAML again: what was given and no more, so that reading it gives the same config.

A value that came from a variable is written as the variable: no secret is written down. A ``$`` that is only text is
escaped, and text that would be read as something else is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from deploy_code.config.fields import canonical_strategy, fold
from deploy_code.config.interpolate import PLACEHOLDER
from deploy_code.config.nodes import Path, Scalar, canonical, node_at
from deploy_code.config.plain import takes_placeholders, typed
from deploy_code.config.source import Source, source_of

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig

_DOLLAR = re.compile(r"\$(?=[${])")
_ENDLESS = 2**31  # columns: a folded line is only harder to read


def write_yaml(config: DeploymentConfig) -> str:
    """``config`` as the text of a file."""
    return yaml.dump(
        written(config),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=_ENDLESS,
    )


def written(config: DeploymentConfig) -> Any:
    """``config`` as plain data: what was given, in the spelling of a file, variables as they stand there."""
    return _written(given(config), (), _variables(source_of(config)))


def given(value: Any) -> Any:
    """Models as mappings of what was given: set, or changed since (the mappings in them are mutable)."""
    if isinstance(value, BaseModel):
        return dict(_fields(value))
    if isinstance(value, Mapping):
        return {key: given(each) for key, each in value.items()}
    return [given(each) for each in value] if isinstance(value, list | tuple) else value


def _fields(model: BaseModel) -> Iterator[tuple[str, Any]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name in model.model_fields_set or value != field.get_default(call_default_factory=True):
            yield field.serialization_alias or name, given(value)


# --------------------------------------------------------------------------- variables, and dollars that are none


class AsWritten(str):
    """Text of a file that holds variables; ``plain``: it stood there without quotes."""

    plain: bool

    @classmethod
    def of(cls, text: str, plain: bool) -> AsWritten:
        made = cls(text)
        made.plain = plain
        return made


def _variables(source: Source) -> dict[Path, tuple[AsWritten, Any]]:
    """Where a value came from variables: what is written there, and what it was."""
    found: dict[Path, tuple[AsWritten, Any]] = {}
    for path, (text, value) in source.plain.raw.items():
        node = node_at(source.tree, path)
        written = AsWritten.of(text, isinstance(node, Scalar) and node.plain and not node.tag)
        for place in _places(canonical(path)):
            found.setdefault(place, (written, value))
    return found


def _places(path: Path) -> Iterator[Path]:
    """Where the models keep what is written at ``path``: one item may stand for a list, a policy for its section."""
    yield path
    if len(path) == 3 and path[0] == "services":
        if path[2] in ("env_file", "files"):
            yield (*path, 0)
        elif path[2] == "restart":
            yield (*path, "policy")
    elif len(path) == 3 and path[0] == "hooks":
        yield (*path[:2], 0, path[2])
    elif path == ("plugins",):
        yield (*path, 0)


def _written(value: Any, path: Path, variables: Mapping[Path, tuple[AsWritten, Any]]) -> Any:
    if isinstance(value, dict):
        return {key: _written(each, (*path, key), variables) for key, each in value.items()}
    if isinstance(value, list):
        return [_written(each, (*path, index), variables) for index, each in enumerate(value)]
    written, was = variables.get(canonical(path), (None, None))
    if written is not None and _is_the_same(value, was):
        return written
    plain = value.value if isinstance(value, Enum) else value
    return _escaped(plain, path) if isinstance(plain, str) else plain


def _is_the_same(value: Any, was: Any) -> bool:
    if isinstance(value, Enum):
        return isinstance(was, str) and fold(was) == fold(str(value.value))
    return bool(value == was or (isinstance(was, str) and canonical_strategy(was) == value))


def _escaped(text: str, path: Path) -> str:
    """``text`` so that reading it fills in nothing; placeholders, where they mean something, are left to be."""
    if "$" not in text or any(str(step).startswith("x-") for step in path):
        return text
    if not takes_placeholders(path):
        return _DOLLAR.sub("$$", text)
    parts: list[str] = []
    end = 0
    for match in PLACEHOLDER.finditer(text):
        parts += [_DOLLAR.sub("$$", text[end : match.start()] + "{")[:-1], match.group()]
        end = match.end()
    return "".join([*parts, _DOLLAR.sub("$$", text[end:])])


# --------------------------------------------------------------------------- YAML


class Dumper(yaml.SafeDumper):
    """Quotes what our reader, which goes by YAML 1.2, would not take for text; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    lines = text.split("\n")
    style = "|" if len(lines) > 1 else None
    if typed(text) != text or not all(line.isprintable() for line in lines):  # Unicode has line ends of its own
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _as_written(dumper: yaml.SafeDumper, text: AsWritten) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=None if text.plain else '"')


Dumper.add_representer(str, _text)
Dumper.add_representer(AsWritten, _as_written)
