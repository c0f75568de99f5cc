"""A config that has not changed costs no models, and one that has changed is never taken from the cache."""

import subprocess
import sys
from pathlib import Path

import pytest

from config_kit import MemoryCache, write
from deploy_code.config import load_project
from deploy_code.errors import ConfigError
from deploy_code.model import Project

TEXT = """
services:
  api: {command: python, args: [app.py], env_file: api.env, env: {KEY: "${KEY:-none}", D: "${D:-none}"}}
"""


def prepare(folder: Path) -> Path:
    write(folder, "A=1\n", "api.env")
    write(folder, "print(1)\n", "app.py")
    return write(folder, TEXT)


def test_the_second_load_is_a_hit_and_equal(tmp_path: Path) -> None:
    path, cache = prepare(tmp_path), MemoryCache()
    first = load_project([path], environ={"KEY": "k"}, cache=cache)
    assert load_project([path], environ={"KEY": "k", "UNRELATED": "x"}, cache=cache) == first
    assert cache.hits == 1 and len(cache.entries) == 1


@pytest.mark.parametrize(
    ("change", "environ"),
    [
        (lambda folder: None, {"KEY": "other"}),
        (lambda folder: None, {}),
        (lambda folder: write(folder, "A=2\n", "api.env"), {"KEY": "k"}),
        (lambda folder: write(folder, "D=from-dotenv\n", ".env"), {"KEY": "k"}),
        (lambda folder: write(folder, TEXT + "  web: {command: x}\n"), {"KEY": "k"}),
        (lambda folder: write(folder, "print(2)\n", "app.py"), {"KEY": "k"}),
    ],
)
def test_whatever_changes_is_seen(tmp_path: Path, change: object, environ: dict[str, str]) -> None:
    path, cache = prepare(tmp_path), MemoryCache()
    first = load_project([path], environ={"KEY": "k"}, cache=cache)
    change(tmp_path)  # type: ignore[operator]
    second = load_project([path], environ=environ, cache=cache)
    assert second != first
    assert second == load_project([path], environ=environ)


def test_an_env_file_that_is_gone_is_an_error_and_not_a_hit(tmp_path: Path) -> None:
    path, cache = prepare(tmp_path), MemoryCache()
    load_project([path], environ={}, cache=cache)
    (tmp_path / "api.env").unlink()
    with pytest.raises(ConfigError, match=r"'api.env' cannot be read"):
        load_project([path], environ={}, cache=cache)


def test_a_broken_file_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    cache = MemoryCache()
    with pytest.raises(ConfigError):
        load_project([write(tmp_path, "nope: 1")], environ={}, cache=cache)
    assert cache.entries == {}


PROGRAM = """
import sys
from deploy_code.config import load_project
class Cache:
    def get(self, digest):
        return open(sys.argv[2]).read()
    def put(self, digest, text):
        raise AssertionError("not a hit")
project = load_project([sys.argv[1]], environ={}, cache=Cache())
heavy = {"pydantic", "yaml", "asyncio", "rich", "importlib.metadata"} & set(sys.modules)
assert project.services["api"].content.files and not heavy, heavy
"""


def test_a_hit_imports_neither_models_nor_yaml_nor_asyncio(tmp_path: Path) -> None:
    path, cache = prepare(tmp_path), MemoryCache()
    assert isinstance(load_project([path], environ={}, cache=cache), Project)
    (entry,) = cache.entries.values()
    (tmp_path / "entry").write_text(entry)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "entry")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, deploy_code.config; assert not {'pydantic', 'yaml', 'asyncio'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
