"""The examples do what they say: a person copies the commands from their first lines, and it works."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.engine_daemons import Engine
from support.needs import must_be_complete, need
from support.ports import answers, free_ports
from support.project import ProjectFolder
from support.sessions import run_session, shown_in
from support.web import Answer, fetch

EXAMPLES = Path(__file__).parents[2] / "examples"
MINE = shutil.ignore_patterns("data", ".env", ".venv", "__pycache__")  # what trying an example leaves in its folder


def copy_of(example: str, folder: Path) -> Path:
    shutil.copytree(EXAMPLES / example, folder, ignore=MINE)
    return folder


def instances(project: ProjectFolder) -> dict[str, list[Any]]:
    """Service → uuids of its instances."""
    services = project.status("--detailed")["services"]
    return {name: [each["uuid"] for each in service["instances"]] for name, service in services.items()}


# --------------------------------------------------------------------------- quickstart


@pytest.fixture
def quickstart(make_project: Callable[..., ProjectFolder], tmp_path: Path) -> ProjectFolder:
    folder = copy_of("quickstart", tmp_path / "example")
    store, api, web = map(str, free_ports(3))
    env = {"DATA_DIR": str(folder / "data"), "PYTHON": sys.executable}
    return make_project("quickstart", folder, STORE_PORT=store, API_PORT=api, WEB_PORT=web, **env)


def front(project: ProjectFolder) -> str:
    return f"http://127.0.0.1:{project.env['WEB_PORT']}/"


def test_the_quickstart_comes_up_serves_and_stops(quickstart: ProjectFolder) -> None:
    quickstart.cli("deploy").ok()
    assert fetch(front(quickstart), "name=Ada").status == 200
    assert "<li>Ada</li>" in fetch(front(quickstart)).text
    status = quickstart.status()
    assert (status["running_services"], status["overall_health"]) == (3, "healthy")
    quickstart.cli("status", "--drift").ok()
    quickstart.cli("stop").ok()
    assert not any(answers(int(quickstart.env[port])) for port in ("STORE_PORT", "API_PORT", "WEB_PORT"))
    assert not quickstart.settle()


def test_the_guest_book_outlives_its_services(quickstart: ProjectFolder) -> None:
    quickstart.cli("deploy").ok()
    fetch(front(quickstart), "name=Ada")
    quickstart.cli("stop").ok()
    quickstart.cli("deploy").ok()
    assert "<li>Ada</li>" in fetch(front(quickstart)).text


def test_deploying_the_quickstart_again_touches_nothing(quickstart: ProjectFolder) -> None:
    quickstart.cli("deploy").ok()
    before = instances(quickstart)
    quickstart.cli("plan", "--detailed-exitcode").exits(0)
    quickstart.cli("deploy").ok()
    assert instances(quickstart) == before


def test_only_the_edited_program_of_the_quickstart_is_replaced(quickstart: ProjectFolder) -> None:
    quickstart.cli("deploy").ok()
    before = instances(quickstart)
    edit(quickstart.folder / "web/web.py", "<h1>Guest book</h1>", "<h1>Visitors</h1>")
    quickstart.cli("deploy").ok()
    assert "<h1>Visitors</h1>" in fetch(front(quickstart)).text
    after = instances(quickstart)
    assert after["web"] != before["web"]
    assert (after["store"], after["api"]) == (before["store"], before["api"])


def test_a_broken_program_is_told_and_the_old_code_serves_again(quickstart: ProjectFolder) -> None:
    quickstart.cli("deploy").ok()
    edit(quickstart.folder / "api/api.py", "import json", "raise SystemExit('no such luck')")
    failed = quickstart.cli("deploy").exits(1)
    assert "E005" in failed.output
    assert "no such luck" in failed.output
    assert "<h1>Guest book</h1>" in fetch(front(quickstart)).text


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# --------------------------------------------------------------------------- code-platform


@pytest.fixture
def platform(make_project: Callable[..., ProjectFolder], open_folder: Path, pg_bin: Path) -> ProjectFolder:
    """The platform, copied to where PostgreSQL's user may go, with a .env of its own and free ports."""
    need("redis-server")
    need_libraries("psycopg", "redis", "jwt")
    folder = copy_of("code-platform", open_folder / "example")
    subprocess.run([folder / "make-env"], check=True, capture_output=True)
    names = ("POSTGRES_PORT", "REDIS_PORT", "AUTH_PORT", "GATEWAY_PORT")
    ports = dict(zip(names, map(str, free_ports(4)), strict=True))
    env = {"DATA_DIR": str(folder / "data"), "PYTHON": sys.executable, "PG_BIN": str(pg_bin)}
    return make_project("code-platform", folder, **ports, **env)


def need_libraries(*names: str) -> None:
    """What the example's requirements.txt installs; the dependency group ``examples`` holds the same."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"{', '.join(missing)} not installed: pip install --group examples"
        pytest.fail(reason) if must_be_complete() else pytest.skip(reason)


def gateway(project: ProjectFolder, path: str, token: str = "", **body: str) -> Answer:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{project.env['GATEWAY_PORT']}{path}"
    return fetch(url, json.dumps(body) if body else None, headers)


def secrets_of(project: ProjectFolder) -> list[str]:
    lines = (project.folder / ".env").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return [value for name, value in pairs if name.endswith(("PASSWORD", "SECRET"))]


ADA = {"email": "ada@example.org", "password": "correct horse"}


def test_a_person_registers_and_logs_in_through_the_gateway(platform: ProjectFolder) -> None:
    deployed = platform.cli("deploy", timeout=120).ok()
    assert gateway(platform, "/register", **ADA).status == 201
    assert gateway(platform, "/register", **ADA).status == 409
    assert gateway(platform, "/login", **{**ADA, "password": "wrong"}).status == 401
    token = gateway(platform, "/login", **ADA).json()["token"]
    assert gateway(platform, "/me", token).json()["email"] == ADA["email"]
    assert gateway(platform, "/me").status == 401
    assert gateway(platform, "/logout", token, goodbye="yes").status == 200
    assert gateway(platform, "/me", token).status == 401

    shown = deployed.output + platform.cli("status", "--detailed").output + platform.cli("history").output
    assert not [secret for secret in secrets_of(platform) if secret in shown]
    platform.cli("status", "--drift").ok()  # nor do PostgreSQL and Redis, which write over what they were started with


def test_users_of_the_platform_outlive_a_stop(platform: ProjectFolder) -> None:
    platform.cli("deploy", timeout=120).ok()
    gateway(platform, "/register", **ADA)
    platform.cli("stop", timeout=120).ok()
    assert not platform.settle()
    again = platform.cli("deploy", timeout=120).ok()
    assert gateway(platform, "/login", **ADA).status == 200
    assert "initdb" not in again.stdout, "a one-shot runs once"


@pytest.mark.parametrize("example", ["code-platform", "containers"])
def test_make_env_answers_all_that_the_example_asks_for(example: str, tmp_path: Path) -> None:
    folder = copy_of(example, tmp_path / "example")
    subprocess.run([folder / "make-env"], check=True, capture_output=True)
    written = folder / ".env"
    assert names_in(written) == names_in(folder / ".env.example")
    assert "change-me" not in written.read_text()
    assert stat.S_IMODE(os.stat(written).st_mode) == 0o600
    assert subprocess.run([folder / "make-env"], check=False, capture_output=True).returncode == 1


def names_in(file: Path) -> list[str]:
    return [line.split("=")[0] for line in file.read_text().splitlines() if "=" in line and not line.startswith("#")]


# --------------------------------------------------------------------------- containers

README = EXAMPLES / "containers" / "README.md"
PORTS = {"8080": "GATEWAY_PORT", "8081": "AUTH_PORT"}  # as the page has them
WITHOUT_TIMES = ("curl", "deploy-code plan")  # commands that print the same each time


@pytest.fixture
def containers(make_project: Callable[..., ProjectFolder], tmp_path: Path, engine: Engine) -> ProjectFolder:
    """The example beside the programs that it borrows, on each engine in turn, with free ports."""
    need_libraries("psycopg", "redis", "jwt")
    need("curl")
    copy_of("code-platform", tmp_path / "code-platform")
    folder = copy_of("containers", tmp_path / "containers")
    with (folder / "gateway" / "gateway.py").open("a") as program:
        program.write(f"# {tmp_path}\n")  # an image that nobody has built before
    ports = dict(zip(PORTS.values(), map(str, free_ports(2)), strict=True))
    env = {"RUNTIME": engine.kind.capitalize(), "PYTHON": sys.executable, **engine.env, **ports}
    return make_project("containers", folder, **env)


def test_the_containers_do_what_their_readme_shows(containers: ProjectFolder) -> None:
    shown = [(own(each.command, containers), own(each.output, containers)) for each in shown_in(README)]
    ran, shell = run_session([command for command, _ in shown], cwd=containers.folder, env=containers.env, timeout=300)
    assert shell.returncode == 0, shell.stdout + shell.stderr
    for (command, output), each in zip(shown, ran, strict=True):
        if command.startswith(WITHOUT_TIMES):
            assert each.output.strip() == output.strip(), f"$ {command}"
    assert not containers.settle()
    secrets = secrets_of(containers)
    assert secrets
    assert not [secret for secret in secrets if secret in shell.stdout + shell.stderr]


def own(text: str, project: ProjectFolder) -> str:
    """What the page says, with the ports of this test."""
    for port, name in PORTS.items():
        text = text.replace(port, project.env[name])
    return text
