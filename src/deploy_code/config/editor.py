"""The JSON Schema of the file, so that editors complete and check while it is written.

Made from the models, then widened by what the loader accepts beyond them: both spellings of keys, any spelling of names
from a fixed set, ``${VAR}`` where a number is expected, empty sections, ``x-`` keys, short forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy_code.config.schema import DeploymentConfig, ServiceConfig
from deploy_code.model import StrategyName

Schema = dict[str, Any]

_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{.+\}"}
_WORD: Schema = {"type": ["string", "number", "boolean"]}
_ARGV: Schema = {"type": "array", "items": _WORD, "minItems": 1}
_ONE_OR_MORE: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_HOOK: Schema = {"anyOf": [_ARGV, {"type": "array", "items": _ARGV}]}

_WIDER: dict[tuple[str, str], Schema] = {
    ("DeploymentConfig", "version"): {"type": ["string", "number"]},
    ("DeploymentConfig", "plugins"): _ONE_OR_MORE,
    ("HooksConfig", "pre_deploy"): _HOOK,
    ("HooksConfig", "post_deploy"): _HOOK,
    ("HooksConfig", "on_failure"): _HOOK,
    ("HealthCheckConfig", "command"): {"type": "array", "items": _WORD},
    ("ServiceConfig", "command"): _WORD,
    ("ServiceConfig", "user"): {"type": ["string", "integer"]},
    ("ServiceConfig", "stop_signal"): {"type": ["string", "integer"]},
    ("ServiceConfig", "args"): {"type": "array", "items": _WORD},
    ("ServiceConfig", "env_file"): _ONE_OR_MORE,
    ("ServiceConfig", "files"): _ONE_OR_MORE,
    ("ServiceConfig", "environment"): {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
}
"""Properties of which the file may say more than the model holds."""


def json_schema() -> Schema:
    """The schema as plain data, draft 2020-12."""
    made = DeploymentConfig.model_json_schema(mode="validation")
    definitions = {name: _definition(name, schema) for name, schema in made.pop("$defs").items()}
    root = _definition("DeploymentConfig", made)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "deploy-code.yaml"}
    return {**root, **head, "$defs": definitions}


def _definition(name: str, schema: Schema) -> Schema:
    if "enum" in schema:
        return _spelled(schema)
    if "properties" not in schema:
        return schema
    properties = {key: _property(name, key, value) for key, value in schema["properties"].items()}
    if name == "ServiceConfig":
        for second, first in ServiceConfig.spellings.items():
            properties[second] = properties[first]
    return {**schema, "properties": properties, "patternProperties": {"^x-": {}}}


def _property(name: str, key: str, schema: Schema) -> Schema:
    about: Schema = {part: schema[part] for part in ("description", "default", "title") if part in schema}
    rest = {part: value for part, value in schema.items() if part not in about}
    if key == "strategy":
        rest = _spelled({"enum": [known.value for known in StrategyName]}, others=True)
    elif (name, key) == ("ServiceConfig", "restart"):
        rest = {"anyOf": [rest, {"$ref": "#/$defs/RestartPolicy"}]}
    rest = _WIDER.get((name, key), rest)
    return {**about, "anyOf": [*_accepted(rest), {"type": "null"}]}


def _accepted(schema: Schema) -> Iterator[Schema]:
    """``schema``, and a variable where it wants a number or a boolean."""
    branches = schema.get("anyOf", [schema])
    for branch in branches:
        if branch.get("type") != "null":
            yield branch
    if any(branch.get("type") in ("integer", "number", "boolean") for branch in branches):
        yield _VARIABLE


def _spelled(schema: Schema, *, others: bool = False) -> Schema:
    """The names as they are, for completion, and in any other spelling; ``others``: any name at all."""
    anything: Schema = {"type": "string", "minLength": 1}
    spelled: Schema = {"type": "string", "pattern": "|".join(map(_any_spelling, schema["enum"])) + r"|\$\{.+\}"}
    return {"anyOf": [{"enum": schema["enum"]}, anything if others else spelled]}


def _any_spelling(name: str) -> str:
    letters = [character for character in name if character.isalnum()]
    classes = [f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in letters]
    return f"^{'[-_ ]*'.join(classes)}$"
