"""The API document's Python examples, taken out of its text, run as they stand."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable

import pytest
import yaml

from support.api_document import blocks, document, section
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import pids, states, text_at
from support.town import SERVICES, build, run

SLEEP = "await asyncio.sleep(60)"


def complete_example() -> str:
    [example] = blocks(_python_part("### Complete Example"), "python")
    return example


def _python_part(heading: str) -> str:
    return section("Python API").split(heading, 1)[1]


@pytest.fixture
def town(make_project: Callable[..., ProjectFolder]) -> Callable[..., ProjectFolder]:
    """A project with the services that the document speaks of."""
    return lambda bad="serve", **sections: build(make_project("town"), bad, **sections)


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


def plugin_example() -> str:
    [example] = blocks(section("Plugin System", 3), "python")
    return example


def test_the_plugin_of_the_document_is_told_of_a_real_deployment(town: Callable[..., ProjectFolder]) -> None:
    project = town()
    plugin = plugin_example()
    text = plugin.replace("        pass", "        print(message)")
    assert text != plugin
    done = run(project, f"from deploy_code import DeployCode\n{text}\nasyncio.run(deployer.deploy())\n").ok()
    assert "Starting deployment of 4 services" in done.stdout
    assert "Deployment successful! Deployed 4 services" in done.stdout


def monitoring_example() -> str:
    [example] = blocks(section("Adding Custom Monitoring", 3), "python")
    return example


def test_the_monitored_class_of_the_document_counts_and_times_deployments(town: Callable[..., ProjectFolder]) -> None:
    text = monitoring_example() + (
        "import asyncio\n"
        "deployer = MonitoredDeployCode(config_path='deploy-code.yaml')\n"
        "asyncio.run(deployer.deploy())\n"
        "asyncio.run(deployer.deploy())\n"
        "value = prometheus_client.REGISTRY.get_sample_value\n"
        "print(value('deployments_total'), value('deployment_duration_seconds_count'))\n"
    )
    assert run(town(), text).ok().stdout == "2.0 2.0\n"


def error_example() -> str:
    [example] = blocks(section("Error Codes"), "python")
    return example


def in_a_coroutine(text: str) -> str:
    """`await` stands at the margin of many examples."""
    body = "\n".join(f"    {line}" for line in text.splitlines())
    return f"import asyncio\nasync def main():\n{body}\nasyncio.run(main())\n"


def test_the_example_of_error_handling_tells_the_codes_apart(town: Callable[..., ProjectFolder]) -> None:
    project = town()
    project.write({"glutton": {"command": "sleep", "args": ["1000"], "resources": {"memory_mb": 1_000_000_000}}})
    assert run(project, in_a_coroutine(error_example())).ok().stdout == "Insufficient resources for deployment\n"
    project.write_text("services: []")
    assert run(project, in_a_coroutine(error_example())).ok().stdout.startswith("Deployment error: E002")
    project.config.unlink()
    assert run(project, in_a_coroutine(error_example())).ok().stdout == "Configuration file not found\n"


def best_practices() -> list[str]:
    return blocks(section("Best Practices"), "python")


PRACTICE = """
from deploy_code import DeployCode, DeployCodeError

deployer = DeployCode()


def progress_handler(status):
    print(f"{status['running_services']} run")


"""


def test_the_best_practices_run_in_turn(town: Callable[..., ProjectFolder]) -> None:
    project = town()
    practices = best_practices()
    assert len(practices) == 4
    done = run(project, PRACTICE + in_a_coroutine("\n".join(practices))).ok()
    assert done.stdout == "0 run\nDeployment successful and healthy\n"
    assert states(project) == dict.fromkeys(SERVICES, "running")


def test_the_best_practices_stop_at_what_is_wrong(town: Callable[..., ProjectFolder]) -> None:
    project = town()
    validate, _, handle, _ = best_practices()
    project.cli("deploy").ok()
    project.write_text(project.config.read_text() + "\nservises: {}\n")
    refused = run(project, PRACTICE + in_a_coroutine(validate))
    assert refused.code == 1 and "Exception: Invalid configuration" in refused.stderr
    run(project, PRACTICE + in_a_coroutine(handle)).ok()
    assert pids(project) == {}, "an error of ours, and then a stop that needs no valid file"


def test_no_python_block_of_the_document_was_forgotten() -> None:
    """Each is taken by one of the functions that the tests above run."""
    taken = [complete_example(), *_python_examples(), plugin_example(), monitoring_example(), error_example()]
    assert sorted([*taken, *best_practices()]) == sorted(blocks(document(), "python"))


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
