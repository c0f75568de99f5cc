"""Whatever the bytes are, a load ends in a config or in a ConfigError: 10,000 cases, never anything else."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy_code.config import check_files, find_identity, load_config
from deploy_code.config.resolve import resolve
from deploy_code.errors import ConfigError, DeployCodeError


def cases(count: int) -> settings:
    """Together they are 10,000: more of those that are quick to make."""
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=slow)


VALID = """\
version: "1.0.0"
name: fuzz
environment: production
infrastructure: {network: {cidr: 10.0.0.0/8, dns_servers: [1.1.1.1], port_range: {start: 3000, end: 4000}}}
security: {rbac: {enabled: true, roles: [{name: a, permissions: ["*"]}]}}
deployment: {strategy: Parallel, max_parallel: 3, timeout_seconds: 1.5}
monitoring: {alerting: {rules: [{name: r, condition: "up == 0", severity: Critical}]}}
hooks: {pre_deploy: [a, b]}
x-base: &base {command: python, args: [-m, app]}
services:
  db: {command: postgres, ports: [{container_port: 5432, host_port: 5432}], health_check: {endpoint: tcp://h:1}}
  api:
    <<: *base
    env: {A: "${A:-1}", B: "${services.db.port}", C: "$${X}"}
    dependencies: [db, {service: db, condition: started}]
    volumes: [{name: d, mount_path: /d}]
    restart: {policy: always, max_exits: 3}
    health_check: {command: [a], interval_seconds: 5}
"""
WORDS = [
    *"services api db command args env environment image ports host_port replicas dependencies health_check".split(),
    *"deployment strategy infrastructure network cidr name version hooks volumes restart resources files".split(),
    *[
        "${A}",
        "${",
        "${A:-${B}}",
        "$$",
        "${PORT}",
        "<<",
        "x-y",
        "",
        "~",
        "*",
        "&a",
        "[",
        "}",
        "null",
        "true",
        "0x",
        "1e9",
    ],
    *["- ", ": ", "\t", "\n  ", "'", '"', "|", "!!str ", "---\n", "#", "\0", "é", "\ud7ff", "🚀", "a b", "../..", "-1"],
]

LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=12)
TREE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=5)
    ),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deploy-code.yaml"


def outcome(file: Path, data: bytes) -> bool:
    """Load ``data`` in every way; True for a config. Anything but a ConfigError with problems fails the test."""
    file.write_bytes(data)
    problems, warnings = check_files([file], environ={"A": "a"})
    assert all(str(problem) and problem.coded() for problem in problems) and all(warnings)
    try:
        resolve(load_config([file], environ={"A": "a"}))
    except ConfigError as error:
        assert error.code == "E002" and error.problems == tuple(problems) and str(error).startswith("E002")
        valid = False
    else:
        assert problems == []
        valid = True
    try:
        assert find_identity([file], environ={"HOME": str(file.parent)}).name
    except DeployCodeError as error:
        assert error.code == "S005"
    return valid


@given(st.binary(max_size=400))
@cases(2500)
def test_random_bytes(file: Path, data: bytes) -> None:
    outcome(file, data)


@given(st.lists(st.sampled_from(WORDS), max_size=40))
@cases(2500)
def test_random_words_of_yaml_and_of_the_schema(file: Path, words: list[str]) -> None:
    outcome(file, "".join(words).encode("utf-8", "replace"))


@given(st.randoms(use_true_random=False), st.integers(1, 6))
@cases(3500)
def test_a_valid_file_with_bytes_changed(file: Path, chance: random.Random, changes: int) -> None:
    data = bytearray(VALID.encode())
    for _ in range(changes):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 12)]
            case 2:
                data[at:at] = chance.choice(WORDS).encode("utf-8", "replace")
            case _:
                end = at + chance.randrange(1, 40)
                data[at:at] = data[at:end]
    outcome(file, bytes(data))


@given(st.randoms(use_true_random=False), LEAF | TREE)
@cases(1000)
def test_a_valid_structure_with_one_value_replaced_by_anything(file: Path, chance: random.Random, value: Any) -> None:
    tree: Any = yaml.safe_load(VALID)
    spots = [
        (holder, key)
        for holder in containers(tree)
        for key in (holder if isinstance(holder, dict) else range(len(holder)))
    ]
    holder, key = chance.choice(spots)
    holder[key] = value
    outcome(file, dumped(tree))


@given(st.dictionaries(st.sampled_from(WORDS), TREE, max_size=5))
@cases(500)
def test_random_structures(file: Path, tree: dict[str, Any]) -> None:
    outcome(file, dumped(tree))


def test_the_file_that_is_mutated_is_valid(file: Path) -> None:
    assert outcome(file, VALID.encode())


def containers(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(found for item in inner for found in containers(item))]


def dumped(tree: Any) -> bytes:
    text: str = yaml.dump(
        tree, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True, sort_keys=False
    )
    return text.encode("utf-8", "replace")
