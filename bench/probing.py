"""Health checks in bulk: runs bench/probes.py in a process of its own, pinned to one core, and reads its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import Figure, say

TITLE = "Health checks"
COMMAND = "python bench/run.py probing"
SCRIPT = Path(__file__).with_name("probes.py")


def measure() -> list[Figure]:
    say("2,000 endpoints, one probe a second each, on one core")
    core = min(os.sched_getaffinity(0))
    command = ["taskset", "--cpu-list", str(core), sys.executable, str(SCRIPT), "--json"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return _figures(json.loads(result.stdout))


def _figures(data: dict[str, Any]) -> list[Figure]:
    return [
        Figure(name=name.replace("_", " "), value=str(value), command=COMMAND) for name, value in data.items()
    ]
