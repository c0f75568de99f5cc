"""Every command line that the API document prints works as printed, on a project with those services."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.api_document import cli_lines, section
from support.cli import Finished
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import history, pages, pids, web

SERVICES = {"postgresql", "redis", "auth_service", "api_gateway"}


@pytest.fixture
def town(make_project: Callable[..., ProjectFolder]) -> ProjectFolder:
    project = make_project("town")
    pages(project, "v1")
    postgresql, redis, auth, gateway = free_ports(4)
    project.write(
        {
            "postgresql": web(postgresql),
            "redis": web(redis),
            "auth_service": web(auth, "postgresql", "redis"),
            "api_gateway": web(gateway, "auth_service"),
        }
    )
    (project.folder / "production.yaml").write_text(project.config.read_text())
    return project


def script_folder(project: ProjectFolder) -> Path:
    """``deploy-code`` and ``python`` as an installation puts them on the PATH."""
    folder = project.folder / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "deploy-code").write_text(
        f"#!{sys.executable}\nimport sys\nfrom deploy_code.__main__ import main\nsys.exit(main())\n"
    )
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


def run_line(project: ProjectFolder, line: str) -> Finished:
    """As typed into a shell."""
    import subprocess

    path = f"{script_folder(project)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=project.folder,
        env={**os.environ, **project.env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Finished(tuple(shlex.split(line)), done.returncode, done.stdout, done.stderr)


def test_all_lines_in_the_order_of_the_document_work(town: ProjectFolder) -> None:
    lines = cli_lines()
    assert len(lines) >= 15
    other_file = [line for line in lines if "production.yaml" in line]
    for line in lines:
        if line in other_file:
            continue
        done = run_line(town, line)
        expected = (0, 4) if " health" in line else (0,)  # after `stop`, health says so
        assert done.code in expected, done
    assert len(other_file) == 1
    run_line(town, "deploy-code stop").ok()
    refused = run_line(town, other_file[0])
    assert "--adopt" in refused.output, "another file of the same project, which the document does not have"


def test_with_a_custom_config(make_project: Callable[..., ProjectFolder], town: ProjectFolder) -> None:
    [line] = [each for each in cli_lines() if "production.yaml" in each]
    run_line(town, line).ok()
    assert set(pids(town)) == SERVICES
    run_line(town, "deploy-code -c production.yaml stop").ok()


def test_deploy_names_services(town: ProjectFolder) -> None:
    run_line(town, "deploy-code deploy --services postgresql,redis,auth_service").ok()
    assert set(pids(town)) == {"postgresql", "redis", "auth_service"}


def test_dry_run_deploys_nothing(town: ProjectFolder) -> None:
    done = run_line(town, "deploy-code --dry-run deploy").ok()
    assert all(f"start {name}" in done.stdout for name in SERVICES)
    assert not town.data_dir.exists()


def test_restart_names_services(town: ProjectFolder) -> None:
    run_line(town, "deploy-code deploy").ok()
    before = pids(town)
    run_line(town, "deploy-code restart --services auth_service,api_gateway").ok()
    changed = {name for name, numbers in pids(town).items() if numbers != before[name]}
    assert changed == {"auth_service", "api_gateway"}


def test_health_prints_text_unless_told_otherwise(town: ProjectFolder) -> None:
    run_line(town, "deploy-code deploy").ok()
    text = run_line(town, "deploy-code health").ok().stdout
    assert "healthy" in text and not text.startswith("{")
    assert run_line(town, "deploy-code health --format json").ok().json()["status"] == "healthy"
    assert "status: healthy" in run_line(town, "deploy-code health --format yaml").ok().stdout


def global_options() -> list[str]:
    """The long options of the synopsis."""
    words = section("Global Options", 3).replace(",", " ").split()
    return [word for word in words if word.startswith("--")]


@pytest.mark.parametrize("place", ["before", "after"])
def test_global_options_are_taken_before_and_after_the_command(town: ProjectFolder, place: str) -> None:
    assert global_options() == ["--config", "--log-level", "--dry-run", "--force"]
    options = "--config deploy-code.yaml --log-level debug --dry-run --force"
    line = f"deploy-code {options} deploy" if place == "before" else f"deploy-code deploy {options}"
    assert "start redis" in run_line(town, line).ok().stdout
    short = "-c deploy-code.yaml -l error"
    line = f"deploy-code {short} validate" if place == "before" else f"deploy-code validate {short}"
    run_line(town, line).ok()
    assert not town.data_dir.exists()


@pytest.mark.parametrize("level", ["trace", "debug", "info", "warn", "error"])
def test_every_log_level_of_the_document_is_one(town: ProjectFolder, level: str) -> None:
    run_line(town, f"deploy-code --log-level {level} validate").ok()


def test_python_m_is_the_same_program(town: ProjectFolder) -> None:
    for arguments in ("--help", "--version", "deploy --help", "validate", "plan"):
        script = run_line(town, f"deploy-code {arguments}")
        module = run_line(town, f"python -m deploy_code {arguments}")
        assert (script.code, script.stdout, script.stderr) == (module.code, module.stdout, module.stderr)


def test_what_was_done_is_in_the_history_with_its_command(town: ProjectFolder) -> None:
    run_line(town, "deploy-code deploy --services postgresql").ok()
    assert history(town)[0]["command"] == "deploy-code deploy --services postgresql"
