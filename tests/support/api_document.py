"""The API document: the promise to users, from which conformance tests take their examples word for word."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

VARIABLE = "DEPLOY_CODE_API_DOCUMENT"
DEFAULT = Path(__file__).parents[3] / "shared" / "spec" / "deploy-code-api.md"


def document() -> str:
    """Its text. Skips where the file is not there, which in CI is a failure."""
    path = Path(os.environ.get(VARIABLE, DEFAULT))
    if not path.exists():
        reason = f"the API document is not at {path} (set {VARIABLE})"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return path.read_text()


def section(title: str, level: int = 2) -> str:
    """What lies under a heading, up to the next one of its level or above. ``"Python API"`` or ``"#### stop"``."""
    marks = "#" * level
    pattern = rf"^{marks} {re.escape(title)}\n(.*?)(?=^#{{1,{level}}} |\Z)"
    fences_kept = _hide_comments(document())
    found = re.search(pattern, fences_kept, re.MULTILINE | re.DOTALL)
    assert found, f"the API document has no section {title!r}"
    return _show_comments(found.group(1))


def _hide_comments(text: str) -> str:
    """Comments in code blocks look like headings."""
    return re.sub(r"```.*?```", lambda block: block.group().replace("\n#", "\n\0"), text, flags=re.DOTALL)


def _show_comments(text: str) -> str:
    return text.replace("\n\0", "\n#")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def cli_lines() -> list[str]:
    """Every command line that the document prints, options of the synopsis aside."""
    lines = [line.strip() for block in blocks(document(), "bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith(("deploy-code ", "python -m deploy_code"))]
    return list(dict.fromkeys(line for line in commands if "<COMMAND>" not in line))
