"""Health checks in bulk: runs bench/probes.py and reads its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import Figure, say

TITLE = "Health checks"
COMMAND = "python bench/probes.py"
SCRIPT = Path(__file__).with_name("probes.py")
KEEPS_UP = 0.99  # the share of due probes that were done: those of the last moment are still under way


def measure() -> list[Figure]:
    say("2,000 endpoints, each probed every second, on one core")
    result = subprocess.run([sys.executable, str(SCRIPT), "--json"], check=True, stdout=subprocess.PIPE, text=True)
    data = json.loads(result.stdout)
    bare = data["bare"]
    raw = f"{bare['gets_per_second']:,.0f} GETs/s, {bare['cpu_us_per_get']:.0f} µs of processor each"
    return [Figure(name="bare loop of GETs, one core", value=raw), *(_figure(data, run) for run in data["runs"])]


def _figure(data: dict[str, Any], run: dict[str, Any]) -> Figure:
    lag = f"lag {run['lag_mean_ms']:.1f} ms, p99 {run['lag_p99_ms']:.1f} ms, at most {run['lag_max_ms']:.1f} ms"
    cost = f"{run['core_percent']:.0f} % of the core, {run['cpu_ratio_to_bare']:.1f} × bare per probe"
    return Figure(
        name=f"{data['endpoints']:,} endpoints, every {data['interval_seconds']:g} s, one core, {run['loop']}",
        value=f"{run['done']:,} of {run['due']:,} probes; {lag}",
        target="does not fall behind",
        met=run["done"] >= KEEPS_UP * run["due"],
        note=cost,
        command=COMMAND,
    )
