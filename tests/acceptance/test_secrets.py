"""A secret reaches the service that needs it, and no output of ours: in no command, no format, no file for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy_code import DeployCode, DeploymentReport
from support.ports import free_ports
from support.project import ProjectFolder
from support.scenarios import family, last, program, text_at, write_program

FORMATS = ("text", "json", "yaml")
BY_KEY = "s3cr3t-by-its-key"
BY_DOTENV = "s3cr3t-from-dotenv"
BY_ENV_FILE = "s3cr3t-from-env-file"
BY_CALLER = "s3cr3t-from-the-caller"
IN_URL = "s3cr3t-inside-an-url"
SECRETS = (BY_KEY, BY_DOTENV, BY_ENV_FILE, BY_CALLER, IN_URL)


@pytest.fixture
def vault(project: ProjectFolder) -> ProjectFolder:
    """``app`` is given secrets by every way there is and prints none; ``bad`` is to fail, and echoes its own."""
    write_program(project)
    (project.folder / ".env").write_text(f"DB_PASSWORD={BY_DOTENV}\nPLAIN=harmless\n")
    (project.folder / "app.env").write_text(f"SIGNING_KEY={BY_ENV_FILE}\n")
    project.env["GITHUB_TOKEN"] = BY_CALLER
    write(project)
    return project


def write(project: ProjectFolder, colour: str = "red", bad: str = "") -> int:
    app, other = free_ports(2)
    env = {
        "API_KEY": BY_KEY,
        "DATABASE": "${DB_PASSWORD}",
        "TOKEN": "${GITHUB_TOKEN}",
        "DATABASE_URL": f"postgres://shop:{IN_URL}@localhost/shop",
        "COLOUR": colour,
    }
    services = {"app": program(app, "env", env=env, env_file="app.env")}
    if bad:
        failing = program(other, bad, env=env | {"PLAIN": "${PLAIN}"}, env_file="app.env", dependencies=["app"])
        services["bad"] = failing
    project.write(services, deployment={"timeout_seconds": 5})
    return app


def outputs(project: ProjectFolder, *commands: list[str]) -> Iterator[tuple[str, str]]:
    for command in commands:
        for form in FORMATS:
            run = project.cli(*command, "--format", form)
            yield " ".join(run.command), run.output


def assert_clean(said: Iterator[tuple[str, str]]) -> None:
    for command, text in said:
        for secret in SECRETS:
            assert secret not in text, f"{secret} in the output of {command}:\n{text}"


def test_secrets_reach_the_service(vault: ProjectFolder) -> None:
    port = write(vault)
    vault.cli("deploy").ok()
    env = text_at(port)
    for secret in SECRETS:
        assert secret in env


def test_secrets_are_in_no_output_of_a_deployment_that_succeeds(vault: ProjectFolder) -> None:
    looking = (["validate"], ["plan"], ["--dry-run", "deploy"])
    assert_clean(outputs(vault, *looking))
    assert_clean(outputs(vault, ["deploy"]))
    write(vault, colour="blue")
    assert_clean(outputs(vault, ["plan"]))
    debug = vault.cli("deploy", "--log-level", "trace")
    assert_clean(iter([("deploy --log-level trace", debug.ok().output)]))
    assert_clean(
        outputs(
            vault,
            ["status"], ["status", "--detailed"], ["health"], ["events"], ["history"],
            ["history", "show", "1"], ["history", "show", str(last(vault)["number"])], ["agent", "status"],
            ["restart"], ["rollback", "--to", "1"], ["events"], ["history"], ["stop"], ["schema"],
        )
    )  # fmt: skip


def test_secrets_are_in_no_output_of_a_deployment_that_fails(vault: ProjectFolder) -> None:
    vault.cli("deploy").ok()
    write(vault, bad="exit")
    assert_clean(outputs(vault, ["plan"], ["deploy"]))
    write(vault, bad="refuse")
    assert_clean(outputs(vault, ["deploy"]))
    number = str(last(vault)["number"])
    assert_clean(outputs(vault, ["history", "show", number], ["events"], ["status", "--detailed"], ["health"]))


def test_a_secret_that_a_failing_service_prints_is_redacted_in_the_report(vault: ProjectFolder) -> None:
    """Its log is its own and stays as it is; what we quote of it in report, history and events is ours."""
    vault.cli("deploy").ok()
    write(vault, bad="env")
    document = yaml.safe_load(vault.config.read_text())
    script = "import os, sys; print(*os.environ.values(), file=sys.stderr); sys.exit(5)"
    document["services"]["bad"]["args"] = ["-c", script]
    vault.config.write_text(yaml.safe_dump(document))
    failed = vault.cli("deploy").exits(1)
    assert "E005" in failed.stderr
    assert_clean(iter([("deploy", failed.output)]))
    assert_clean(outputs(vault, ["history", "show", str(last(vault)["number"])], ["events"], ["status", "--detailed"]))


def test_a_probe_that_answers_with_a_secret_is_redacted(vault: ProjectFolder) -> None:
    vault.cli("deploy").ok()
    write(vault, bad="refuse")
    leaky = vault.folder / "app.py"
    leaky.write_text(leaky.read_text().replace('"the database is on fire"', "os.environ['API_KEY']"))
    failed = vault.cli("deploy").exits(1)
    assert "500" in failed.stderr
    assert_clean(iter([("deploy", failed.output)]))
    assert_clean(outputs(vault, ["history", "show", str(last(vault)["number"])]))


def test_secrets_are_not_in_the_arguments_of_our_own_processes_nor_in_the_agents_env(vault: ProjectFolder) -> None:
    vault.cli("deploy").ok()
    ours = [each.pid for each in vault.leftovers() if each.pid not in family(vault, "app")]
    assert ours
    for pid in ours:
        seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in seen]


def test_files_that_hold_secrets_are_for_their_owner_only(vault: ProjectFolder) -> None:
    vault.cli("deploy").ok()
    vault.cli("stop").ok()
    holding = [
        path
        for path in vault.folder.rglob("*")
        if path.is_file() and path.name not in ("deploy-code.yaml", ".env", "app.env")
        if any(secret.encode() in path.read_bytes() for secret in SECRETS)
    ]
    for path in holding:
        assert path.stat().st_mode & 0o077 == 0, f"{path} holds secrets and others may read it"
        assert vault.state in path.parents, f"{path} holds secrets and is not the project's state"


def _failed_report(vault: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> tuple[DeploymentReport, str]:
    """By the Python API: the report, and what else it tells."""
    for name, value in vault.env.items():
        monkeypatch.setenv(name, value)
    write(vault, bad="exit")
    deployer = DeployCode(config_path=str(vault.config))
    report = asyncio.run(deployer.deploy())
    assert not report.success
    return report, str(asyncio.run(deployer.status(detailed=True)))


def test_secrets_are_in_no_answer_of_the_python_api(vault: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    report, status = _failed_report(vault, monkeypatch)
    said = f"{report.errors} {report.warnings} {report.plan} {report.to_dict()} {status}"
    assert_clean(iter([("the report", said)]))


def test_a_report_that_is_printed_as_it_is_shows_no_secret(
    vault: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _ = _failed_report(vault, monkeypatch)
    assert_clean(iter([("print(report)", f"{report!s} {report!r}")]))


def test_what_is_wrong_with_a_secret_value_is_told_without_the_value(project: ProjectFolder) -> None:
    project.write_text(
        f"name: shop\nservices:\n  a:\n    command: x\n    replicas: {BY_KEY}\n    env: {{API_KEY: [{BY_KEY}]}}\n"
    )
    said = project.cli("validate").exits(2).output
    assert "API_KEY" in said
    assert BY_KEY not in said.split("API_KEY", 1)[1]
