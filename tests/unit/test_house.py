"""The house around the code keeps its own rules: reasons, strict scripts, imports that point down."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.needs import packages

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
VERSION = re.search(r'"(.+)"', (ROOT / "src/deploy_code/_version.py").read_text().splitlines()[-1])


def listed(group: str) -> list[str]:
    tables = tomllib.loads(PYPROJECT)
    return sorted(tables["dependency-groups"][group])


def test_every_dependency_says_why_it_is_there() -> None:
    tables = tomllib.loads(PYPROJECT)
    groups = [*tables["dependency-groups"].values(), *tables["project"]["optional-dependencies"].values()]
    names = [name for group in [tables["project"]["dependencies"], *groups] for name in group]
    lines = PYPROJECT.splitlines()
    silent = [name for name in names if not any(f'"{name}"' in line and "#" in line for line in lines)]
    assert not silent


def test_the_tests_install_what_the_platform_example_asks_its_users_to_install() -> None:
    lines = (ROOT / "examples/code-platform/requirements.txt").read_text().splitlines()
    assert sorted(line.partition("#")[0].strip() for line in lines) == listed("examples")


def test_the_changelog_knows_the_version() -> None:
    assert VERSION is not None
    assert f"## [{VERSION[1]}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_licence_is_mit() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License")
    assert "deploy-code contributors" in text


def test_ci_runs_what_a_person_runs() -> None:
    assert "exec make test" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_a_script_is_executable_parses_and_stops_at_the_first_error(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_make_without_a_target_lists_them_all() -> None:
    make = shutil.which("make") or pytest.skip("make is not on this machine")
    command = [make, "-C", ROOT, "--no-print-directory"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    targets = {"help", "demo", "test", "check", "bench", "setup", "install", "clean"}
    assert set(re.findall(r"make (\w+)", shown)) == targets


def test_every_package_that_tests_need_gives_its_reason() -> None:
    lines = (ROOT / "tests/system-packages.txt").read_text().splitlines()
    entries = [line.split(maxsplit=2) for line in lines if not line.startswith("#")]
    assert len(packages()) == len(entries)
    assert all(len(entry) == 3 for entry in entries)


# --------------------------------------------------------------------------- import rules

FORBIDDEN = {
    "the planner waits": ("plan/order.py", "import asyncio"),
    "the planner looks at a clock": ("plan/order.py", "import time"),
    "the planner reads state": ("plan/order.py", "import deploy_code.state"),
    "a driver knows the state": ("drivers/base.py", "import deploy_code.state"),
    "somebody imports the agent": ("app.py", "import deploy_code.agent"),
    "the engine speaks to the agent by itself": ("app.py", "import deploy_code.wire"),
    "the agent knows the models of the file": ("agent/__init__.py", "import pydantic"),
    "the agent knows the config": ("agent/__init__.py", "import deploy_code.config"),
    "a lower floor imports a higher one": ("errors.py", "import deploy_code.app"),
}


def lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    """Check the import rules of a whole tree: ``source`` is the folder that holds the package."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [
        sys.executable,
        "-c",
        program,
        "--no-logo",
        "--no-cache",
        "--config",
        str(ROOT / ".importlinter"),
    ]
    env = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_an_import_against_the_rules_is_caught(name: str, tmp_path: Path) -> None:
    module, statement = FORBIDDEN[name]
    shutil.copytree(ROOT / "src", tmp_path / "src")
    with (tmp_path / "src/deploy_code" / module).open("a") as file:
        file.write(f"\n{statement}\n")
    result = lint_imports(tmp_path / "src")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_the_package_keeps_the_rules() -> None:
    result = lint_imports(ROOT / "src")
    assert result.returncode == 0, result.stdout + result.stderr
