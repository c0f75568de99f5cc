"""Runs the measurements: all, and docs/benchmarks.md is written; or those named, and they are printed."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback

import report
from measure import Figure, say

PARTS = ("services", "graph", "startup", "planner", "probing", "strategies", "containers")
FAILED = "failed"


def main(names: list[str]) -> int:
    unknown = set(names) - set(PARTS)
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="deploy-code-bench-machine-") as machine:
        os.environ["DEPLOY_CODE_MACHINE_DIR"] = machine  # what is measured takes nothing from what runs here
        sections = [measured(name) for name in names or PARTS]
    for title, figures in sections:
        print(report.section(title, figures))
    if not names:
        say(f"wrote {report.write(sections)}")
    return 1 if any(figure.value == FAILED for _, figures in sections for figure in figures) else 0


def measured(name: str) -> tuple[str, list[Figure]]:
    """One part. One that breaks down is a line of the report, and the others are measured all the same."""
    part = importlib.import_module(name)
    try:
        return part.TITLE, part.measure()
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        return part.TITLE, [Figure(name=name, value=FAILED, met=False, note=why)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
