"""The YAML examples of the API document load as they stand there.

Fragments that name other services get those beside them; nothing else is added.
"""

import os
import re
from pathlib import Path

import pytest

from deploy_code.config import check_files, load_config
from deploy_code.config.resolve import resolve

DOCUMENT = Path(
    os.environ.get("DEPLOY_CODE_API_DOCUMENT")
    or Path(__file__).resolve().parents[3] / "shared" / "spec" / "deploy-code-api.md"
)
SECTIONS = ("## Configuration Schema", "### Adding Custom Services")
ENVIRON = {"DATABASE_URL": "postgres://u:pw@localhost/db", "API_KEY": "k"}
OTHERS = "services:\n  database: {command: database}\n  cache: {command: cache}\n"


def examples() -> list[tuple[str, str]]:
    """(heading, text) of every YAML block under the two sections."""
    if not DOCUMENT.exists():
        return []
    found, heading, inside = [], "", False
    for block in re.split(r"^(?=#{2,4} )", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE):
        title = block.splitlines()[0]
        if title.startswith(("## ", "### ")):
            starts = title in SECTIONS
            inside = starts or (inside and title.startswith("### ") and heading == SECTIONS[0])
            heading = title if starts or title.startswith("## ") else heading
        if inside:
            found += [(title.strip("# "), text) for text in re.findall(r"```yaml\n(.*?)```", block, re.DOTALL)]
    return found


def test_the_document_is_there_and_has_all_its_examples() -> None:
    if not DOCUMENT.exists():
        reason = f"the API document is not at {DOCUMENT}; set DEPLOY_CODE_API_DOCUMENT"
        assert os.environ.get("CI") != "true", reason
        pytest.skip(reason)
    assert [title for title, _ in examples()] == [
        "Root Configuration",
        "Infrastructure Configuration",
        "Security Configuration",
        "Deployment Configuration",
        "Service Definition",
        "Monitoring Configuration",
        "1. Define Service Configuration",
    ]


@pytest.mark.parametrize(("title", "text"), examples())
def test_every_example_of_the_document_loads(tmp_path: Path, title: str, text: str) -> None:
    example, others = tmp_path / "deploy-code.yaml", tmp_path / "others.yaml"
    example.write_text(text, encoding="utf-8")
    others.write_text(OTHERS, encoding="utf-8")
    files = [example, others] if '"database"' in text else [example]
    problems, _ = check_files(files, environ=ENVIRON)
    assert problems == []
    project = resolve(load_config(files, environ=ENVIRON))
    assert project.environment == "production"


def test_the_service_definition_arrives_whole(tmp_path: Path) -> None:
    texts = dict(examples())
    if not texts:
        pytest.skip(f"the API document is not at {DOCUMENT}")
    files = [tmp_path / "deploy-code.yaml", tmp_path / "others.yaml"]
    files[0].write_text(texts["Service Definition"], encoding="utf-8")
    files[1].write_text(OTHERS, encoding="utf-8")
    spec = resolve(load_config(files, environ=ENVIRON)).services["service_name"]
    assert (spec.content.command, spec.content.args, spec.policy.replicas) == ("python", ("-m", "myapp"), 2)
    assert spec.content.env == ENVIRON
    assert spec.content.resources.memory_mb == 4096 and spec.content.ports[0].host_port == 8080
    assert spec.policy.health.start_period_seconds == 60
    assert spec.policy.health.command == ("curl", "-f", "http://localhost:8080/health")
    assert {"pw", "k"}.isdisjoint(spec.secrets) or spec.secrets
