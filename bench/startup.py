"""How long the program takes to start: what people feel at each command, and at each TAB."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from measure import Figure, median, say, seconds_of, take_turns
from product import PROGRAM, Product

TITLE = "Start-up"
COMMAND = "python bench/run.py startup"
ROUNDS = 21


def measure() -> list[Figure]:
    say(f"start-up, {ROUNDS} rounds")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        product = Product(Path(folder))
        product.write({f"service{number}": _service(number) for number in range(20)})
        commands = {
            "--version": ([*PROGRAM, "--version"], 0.1),
            "--help": ([*PROGRAM, "--help"], 0.1),
            "validate": ([*PROGRAM, "-c", str(product.config), "validate"], 0.35),
        }
        contenders = {name: partial(_time, command) for name, (command, _) in commands.items()}
        times = take_turns({"bare": partial(_time, [sys.executable, "-c", "pass"]), **contenders}, ROUNDS)
        bare = median(times["bare"])
        figures = [_figure(name, times[name], limit, bare, command) for name, (command, limit) in commands.items()]
    return [Figure(name="a bare interpreter: `python -c pass`", value=_milliseconds(times["bare"])), *figures]


def _service(number: int) -> dict[str, object]:
    """About as much as a real one says."""
    port = 20000 + number
    return {
        "command": "python3",
        "args": ["-m", "http.server", str(port)],
        "env": {"LOG_LEVEL": "info", "REGION": "eu", "UPSTREAM": "http://127.0.0.1:9000"},
        "ports": [{"container_port": port, "host_port": port}],
        "resources": {"cpu_cores": 0.5, "memory_mb": 128},
        "health_check": {"endpoint": f"http://127.0.0.1:{port}/", "interval_seconds": 10, "retries": 3},
        "dependencies": [f"service{number - 1}"] if number else [],
    }


def _time(command: list[str]) -> float:
    return seconds_of(lambda: subprocess.run(command, check=True, capture_output=True))


def _figure(name: str, times: list[float], limit: float, bare: float, command: list[str]) -> Figure:
    seconds = median(times)
    modules, import_ms = _imports(command)
    return Figure(
        name=f"`deploy-code {name}`" + (", 20 services" if name == "validate" else ""),
        value=f"{_milliseconds(times)} = {seconds / bare:.1f} × bare",
        target=f"< {limit * 1000:.0f} ms",
        met=seconds < limit,
        note=f"{modules} modules, {import_ms:.0f} ms of imports by `-X importtime`",
        command=COMMAND,
    )


def _imports(command: list[str]) -> tuple[int, float]:
    """How many modules one run imports, and how long that takes in milliseconds, under ``-X importtime``."""
    traced = [command[0], "-X", "importtime", *command[1:]]
    lines = subprocess.run(traced, check=True, capture_output=True, text=True).stderr.splitlines()
    own_times = [int(line.split(":")[1].split("|")[0]) for line in lines if _is_timing(line)]
    return len(own_times), sum(own_times) / 1000


def _is_timing(line: str) -> bool:
    return line.startswith("import time:") and "self [us]" not in line


def _milliseconds(times: list[float]) -> str:
    return f"{median(times) * 1000:.0f} ms ({min(times) * 1000:.0f}–{max(times) * 1000:.0f})"
