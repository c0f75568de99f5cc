"""What the documentation shows, taken out of its pages: so that tests try the very code that people copy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def names_of(page: str) -> dict[str, Any]:
    """Everything that the first plain Python block of ``page`` (relative to docs) defines."""
    path = DOCS / page
    block = BLOCK.search(path.read_text(encoding="utf-8"))
    assert block is not None, f"{page} shows no Python"
    names: dict[str, Any] = {}
    exec(compile(block["text"], str(path), "exec"), names)
    return names
