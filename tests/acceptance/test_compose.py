"""`import compose` and `export compose` as commands: what they print, write, refuse and exit with."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import Finished, run_cli
from support.compose_kit import VARIABLES, ComposeFolder

SMALL = """\
services:
  web:
    image: nginx:1.25
    container_name: front
    ports: ["8080:80"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> ComposeFolder:
    return ComposeFolder(tmp_path, NO_COLOR="1", **VARIABLES)


def run(folder: ComposeFolder, *args: str) -> Finished:
    return run_cli(*args, cwd=folder.folder, env=folder.env)


def test_an_imported_file_is_printed_and_what_it_lost_is_told_beside_it(folder: ComposeFolder) -> None:
    folder.write(SMALL)
    done = run(folder, "import", "compose", "docker-compose.yml").ok()
    assert "    image: nginx:1.25\n" in done.stdout
    assert "dropped: docker-compose.yml:4:5: services.web.container_name: containers are called" in done.stderr
    assert len(done.stderr.splitlines()) == 3


def test_it_is_written_where_asked_and_passes_validate(folder: ComposeFolder) -> None:
    folder.sample("nginx-flask-mysql")
    done = run(folder, "import", "compose", "docker-compose.yml", "-o", "deploy-code.yaml").ok()
    assert done.stdout == ""
    assert "Wrote deploy-code.yaml. Next: deploy-code validate, then deploy-code plan." in done.stderr
    assert "deploy-code.yaml is valid." in run(folder, "validate").ok().stdout


def test_a_file_that_is_there_is_left_alone_unless_forced(folder: ComposeFolder) -> None:
    folder.write(SMALL)
    ours = folder.ours("mine")
    done = run(folder, "import", "compose", "docker-compose.yml", "-o", "deploy-code.yaml").exits(2)
    assert "deploy-code.yaml is there already and was left alone" in done.stderr
    assert ours.read_text() == "mine"
    run(folder, "import", "compose", "docker-compose.yml", "-o", "deploy-code.yaml", "--force").ok()
    assert "nginx" in ours.read_text()


def test_a_dry_run_writes_nothing(folder: ComposeFolder) -> None:
    folder.write(SMALL)
    done = run(folder, "import", "compose", "docker-compose.yml", "-o", "new.yaml", "--dry-run").ok()
    assert "nginx" in done.stdout
    assert not (folder.folder / "new.yaml").exists()


def test_a_broken_file_is_refused_with_line_and_column(folder: ComposeFolder) -> None:
    folder.write("services:\n  web:\n    image: a:1\n    ports: [x]\n")
    done = run(folder, "import", "compose", "docker-compose.yml", "-o", "new.yaml").exits(2)
    assert "E002" in done.stderr
    assert "docker-compose.yml:4:13: services.web.ports[0]: must be a number, not 'x'" in done.stderr
    assert not (folder.folder / "new.yaml").exists()


def test_a_file_that_is_missing_has_its_own_code(folder: ComposeFolder) -> None:
    assert "E001" in run(folder, "import", "compose", "gone.yml").exits(2).stderr


def test_profiles_env_files_and_overlays_are_taken(folder: ComposeFolder) -> None:
    folder.write(SMALL)
    folder.write("services: {web: {profiles: [a]}, more: {image: 'b:1', profiles: [b]}}", "over.yml")
    folder.write("TAG=2\n", "prod.env")
    args = ("docker-compose.yml", "over.yml", "--profile", "a", "--env-file", "prod.env")
    done = run(folder, "import", "compose", *args).ok()
    assert "  web:\n    image" in done.stdout
    assert "  more:\n    enabled: false" in done.stdout


def test_an_exported_file_is_one_that_docker_compose_takes(folder: ComposeFolder) -> None:
    folder.ours("services:\n  web: {image: 'nginx:1.25'}\n  job: {command: /bin/true}\n")
    done = run(folder, "export", "compose", "-o", "compose.yml").ok()
    assert "dropped: deploy-code.yaml:3:3: services.job: a process: Compose runs containers only" in done.stderr
    assert folder.normalised("compose.yml")["services"] == {"web": {"image": "nginx:1.25", "restart": "always"}}


def test_what_is_exported_names_no_secret(folder: ComposeFolder) -> None:
    folder.ours("services: {web: {image: 'a:1', env: {KEY: \"${POSTGRES_PASSWORD}\"}}}")
    done = run(folder, "export", "compose").ok()
    assert "KEY: ${POSTGRES_PASSWORD}" in done.stdout
    assert VARIABLES["POSTGRES_PASSWORD"] not in done.output
