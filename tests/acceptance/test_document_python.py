"""The API document's Python examples, taken out of its text, run as they stand."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from support.api_document import blocks, section
from support.cli import Finished
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import pages, pids, program, states, text_at, web, write_program

SLEEP = "await asyncio.sleep(60)"
SERVICES = ("postgresql", "redis", "auth_service", "api_gateway")


def complete_example() -> str:
    [example] = blocks(_python_part("### Complete Example"), "python")
    return example


def _python_part(heading: str) -> str:
    return section("Python API").split(heading, 1)[1]


@pytest.fixture
def town(make_project: Callable[..., ProjectFolder]) -> Callable[..., ProjectFolder]:
    """A project with the services that the document speaks of."""

    def make(bad: str = "serve", **sections: Any) -> ProjectFolder:
        project = make_project("town")
        pages(project, "v1")
        write_program(project)
        postgresql, redis, auth, gateway = free_ports(4)
        services = {
            "postgresql": web(postgresql),
            "redis": web(redis),
            "auth_service": program(auth, *bad.split(), dependencies=["postgresql", "redis"]),
            "api_gateway": program(gateway, dependencies=["auth_service"]),
        }
        project.write(services, deployment={"timeout_seconds": 10}, **sections)
        return project

    return make


def run(project: ProjectFolder, text: str) -> Finished:
    """As a program of its own, in the project's folder."""
    import os

    path = project.folder / "example.py"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=project.folder,
        env={**os.environ, **project.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Finished((str(path),), done.returncode, done.stdout, done.stderr)


def test_the_complete_example_runs_unchanged(town: Callable[..., ProjectFolder]) -> None:
    example = complete_example()
    assert SLEEP in example, "only its sleep is shortened"
    project = town()
    done = run(project, example.replace(SLEEP, "await asyncio.sleep(0.1)")).ok()
    assert "Starting deployment..." in done.stdout
    assert "Successfully deployed 4 services" in done.stdout
    assert "Waiting for services to be healthy..." in done.stdout
    assert "Overall health: healthy" in done.stdout
    assert "CPU Usage: " in done.stdout and "%" in done.stdout
    assert states(project) == dict.fromkeys(SERVICES, "running")


def test_the_complete_example_shows_the_logs_of_a_deployment_that_failed(
    town: Callable[..., ProjectFolder],
) -> None:
    project = town(bad="exit 7")
    done = run(project, complete_example()).ok()
    assert "Deployment failed: [" in done.stdout and "E005" in done.stdout
    assert "--- auth_service logs ---" in done.stdout and "--- api_gateway logs ---" in done.stdout
    assert "cannot open the vault" in done.stdout.split("--- auth_service logs ---")[1]
    assert pids(project) == {}


def test_the_complete_example_stops_at_an_invalid_file(town: Callable[..., ProjectFolder]) -> None:
    project = town()
    project.write_text(project.config.read_text() + "\nservises: {}\n")
    assert run(project, complete_example()).ok().stdout == "Invalid configuration!\n"


def _python_examples() -> list[str]:
    """All Python blocks of the Python part, those of methods too."""
    return blocks(section("Python API").split("### Complete Example")[0], "python")


def test_every_python_block_of_the_python_part_runs_in_turn(town: Callable[..., ProjectFolder]) -> None:
    """One after the other, as a reader would try them; statements with `await` are put into a coroutine."""
    project = town()
    examples = _python_examples()
    assert len(examples) >= 9
    definitions = [each for each in examples if each.startswith("from deploy_code")]
    methods = [each for each in examples if each not in definitions]
    body = "\n".join(f"    {line}" if line else "" for each in methods for line in each.splitlines())
    text = "\n".join(definitions) + "\nasyncio.run(deploy())\n"
    text += f"async def methods():\n    global deployer\n{body}\nasyncio.run(methods())\n"
    ast.parse(text)
    done = run(project, text).ok()
    for said in ("Deployed 2 services", "Running services: ", "Configuration is valid", "Overall status: "):
        assert said in done.stdout, f"{said!r}: {done}"
    assert "Progress: " in done.stdout


def test_the_examples_of_extending_run(town: Callable[..., ProjectFolder]) -> None:
    """The plugin of the document, told of a real deployment."""
    project = town()
    [plugin] = blocks(section("Plugin System", 3), "python")
    text = plugin.replace("        pass", "        print(message)")
    assert text != plugin
    done = run(project, f"from deploy_code import DeployCode\n{text}\nasyncio.run(deployer.deploy())\n").ok()
    assert "Starting deployment of 4 services" in done.stdout
    assert "Deployment successful! Deployed 4 services" in done.stdout


def test_the_example_of_error_handling_tells_the_codes_apart(town: Callable[..., ProjectFolder]) -> None:
    [example] = blocks(section("Error Codes"), "python")
    project = town()
    project.config.unlink()
    body = "\n".join(f"    {line}" for line in example.splitlines())
    done = run(project, f"import asyncio\nasync def main():\n{body}\nasyncio.run(main())\n").ok()
    assert done.stdout == "Configuration file not found\n"


@pytest.mark.parametrize("number", range(8))
def test_the_yaml_of_the_document_is_valid(town: Callable[..., ProjectFolder], number: int) -> None:
    """Each block of the configuration part loads: what it leaves out has defaults, what it names is filled in."""
    examples = blocks(section("Configuration Schema"), "yaml")
    if number >= len(examples):
        assert number >= 6, "the document lost examples"
        return
    project = town()
    document = yaml.safe_load(examples[number])
    for name in ("database", "cache"):
        if "service_name" in (document.get("services") or {}):
            document["services"][name] = {"command": "x"}
    project.write_text(yaml.safe_dump(document))
    (project.folder / ".env").write_text("DATABASE_URL=x\nAPI_KEY=y\n")
    project.cli("validate").ok()


def test_the_custom_service_of_the_document_is_a_process(town: Callable[..., ProjectFolder]) -> None:
    [example] = blocks(section("Adding Custom Services", 3), "yaml")
    [port] = free_ports(1)
    project = town()
    program_path = project.program("my-service", f"#!{sys.executable}\n" + _serves_health())
    text = example.replace("/usr/local/bin/my-service", str(program_path)).replace("8090", str(port))
    document = yaml.safe_load(project.config.read_text()) | yaml.safe_load(text)
    project.write_text(yaml.safe_dump(document))
    project.cli("deploy").ok()
    assert "ok" in text_at(port, "/health")


def _serves_health() -> str:
    return (
        "import http.server, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'ok')\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[2])), Handler).serve_forever()\n"
    )
