"""The annotated reference and the JSON Schema cover the whole schema and accept what the loader accepts."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_code.config import check_files, json_schema
from deploy_code.config.schema import DeploymentConfig
from deploy_code.config.translate import Values, model_in

REFERENCE = Path(str(files("deploy_code.config").joinpath("reference.yaml")))


def paths(model: Any, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted; ``*`` for names of services, list items like what holds them."""
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        below = f"{prefix}{name}"
        yield below
        if isinstance(inner, Values) and inner.model:
            yield from paths(inner.model, f"{below}.*.")
        elif inner is not None and not isinstance(inner, Values):
            yield from paths(inner, f"{below}.")


def written(data: Any, prefix: str = "") -> Iterator[str]:
    for key, value in data.items() if isinstance(data, dict) else ():
        name = {"env": "environment", "image": "container_image"}.get(key, key)
        below = f"{prefix}*" if prefix == "services." else f"{prefix}{name}"
        yield below
        for item in value if isinstance(value, list) else [value]:
            yield from written(item, f"{below}.")


def test_the_reference_loads_without_a_problem() -> None:
    problems, warnings = check_files([REFERENCE], environ={})
    assert problems == []
    assert all("not acted on" in warning or "read_only" in warning for warning in warnings)


def test_every_key_of_the_schema_is_in_the_reference() -> None:
    known = set(written(yaml.safe_load(REFERENCE.read_text(encoding="utf-8"))))
    assert set(paths(DeploymentConfig)) - known == set()


def test_every_option_of_the_reference_says_its_default_or_why_it_is_there() -> None:
    keys = re.compile(r"^\s*(?:- )?[a-z_]+: [^#{\[|]*$")
    silent = [line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if keys.match(line)]
    assert len(silent) < 12, silent


def test_the_json_schema_is_plain_json_and_its_references_resolve() -> None:
    schema = json.loads(json.dumps(json_schema()))
    text = json.dumps(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    for name in re.findall(r'"#/\$defs/(\w+)"', text):
        assert name in schema["$defs"]


# A validator for the few keywords that the schema uses: enough to hold it against real files.


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for word in ("anyOf", "oneOf"):
        if word in schema and not any(fits(value, branch, root) for branch in schema[word]):
            return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema and not any(is_a(value, kind) for kind in many(schema["type"])):
        return False
    if isinstance(value, str):
        return bool(re.search(schema.get("pattern", ""), value)) and len(value) >= schema.get("minLength", 0)
    if isinstance(value, dict):
        return all(fits_key(key, item, schema, root) for key, item in value.items()) and all(
            key in value for key in schema.get("required", ())
        )
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {}), root) for item in value)
    return value is None or isinstance(value, bool) or in_bounds(value, schema)


def in_bounds(value: float, schema: dict[str, Any]) -> bool:
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    return bool(low <= value <= high and value > schema.get("exclusiveMinimum", value - 1))


def fits_key(key: str, item: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if key in schema.get("properties", {}):
        return fits(item, schema["properties"][key], root)
    if any(re.search(pattern, key) for pattern in schema.get("patternProperties", {})):
        return True
    extra = schema.get("additionalProperties", True)
    return fits(item, extra, root) if isinstance(extra, dict) else bool(extra)


def many(kind: Any) -> list[str]:
    return kind if isinstance(kind, list) else [kind]


def is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    types: dict[str, Any] = {"integer": int, "number": (int, float), "string": str, "object": dict, "array": list}
    return value is None if kind == "null" else isinstance(value, types[kind])


def accepts(text: str) -> bool:
    schema = json_schema()
    return fits(yaml.safe_load(text), schema, schema)


@pytest.mark.parametrize(
    "text",
    [
        REFERENCE.read_text(encoding="utf-8"),
        "services:\ninfrastructure:\n",
        "services: {a: {command: x, replicas: '${N:-2}', enabled: '${E}', env: {A: 1, B: true, C: }}}",
        "services: {a: {image: x, environment: {A: b}}, b: {container_image: y, env: {}}}",
        "deployment: {strategy: rolling-update}",
        "deployment: {strategy: MyOwn}",
        "environment: STAGING",
        "environment: ${STAGE}",
        "services: {a: {command: x, restart: on_failure, env_file: a.env, dependencies: [b, {service: c}]}}",
        "services: {a: {command: x, restart: {policy: never}, args: [-p, 80], x-mine: 5}}",
        "hooks: {pre_deploy: [a, b], post_deploy: [[a], [b, 1]]}",
        "version: 1.0",
    ],
)
def test_the_json_schema_accepts_what_the_loader_accepts(text: str) -> None:
    assert accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "enviroment: production",
        "environment: prod",
        "services: {a: {comand: x}}",
        "services: {a: {replicas: two}}",
        "services: {a: {replicas: -1}}",
        "services: {a: {ports: [8080]}}",
        "services: {a: {ports: [{host_port: 70000}]}}",
        "services: {a: {volumes: [{name: x}]}}",
        "services: {a: {restart: sometimes}}",
        "services: [a]",
    ],
)
def test_the_json_schema_refuses_what_the_loader_refuses(text: str) -> None:
    assert not accepts(text)
