"""A deep graph: how close the wall time comes to the critical path, which no scheduler can beat."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from fleet import BUSYBOX, Fleet, fleet
from measure import Figure, median, say, seconds_of, spread, take_turns
from product import Product

TITLE = "A deep graph"
COMMAND = "python bench/run.py graph"
SERVICES = 50
DEPTH = 10
READY_AFTER = 0.2
ROUNDS = 5


def measure() -> list[Figure]:
    with fleet(SERVICES) as web:
        product = Product(web.folder)
        product.write(_services(web))

        inside: list[float] = []

        def ours() -> float:
            product.forget()
            reports: list[str] = []
            seconds = seconds_of(lambda: reports.append(product.output("deploy", "--format", "json")))
            inside.append(json.loads(reports[0])["duration"])
            product.stop()
            return seconds

        say(f"{SERVICES} services, depth {DEPTH}, {ROUNDS} rounds")
        times = take_turns({"path": lambda: _critical_path(web), "deploy": ours}, ROUNDS)
        product.forget()
    ratio = median(times["deploy"]) / median(times["path"])
    return [
        Figure(
            name=f"critical path: {DEPTH} services, one after the other, by a bare loop",
            value=spread(times["path"]),
        ),
        Figure(
            name=f"`deploy` of {SERVICES} services, depth {DEPTH}",
            value=f"{spread(times['deploy'])} = {ratio:.2f} × the path",
            target="≤ 1.10 ×",
            met=ratio <= 1.10,
            note=f"each ready after {READY_AFTER:g} s; whole command, start of the agent included",
            command=COMMAND,
        ),
        Figure(
            name="the same, from its first change to its last word",
            value=f"{spread(inside)} = {median(inside) / median(times['path']):.2f} × the path",
            note="what the report calls its duration: without the start of Python, reading the file and the agent",
            command=COMMAND,
        ),
    ]


def _slow(web: Fleet, port: int) -> list[str]:
    """A server that needs a while before it answers."""
    return [BUSYBOX, "sh", "-c", f"{BUSYBOX} sleep {READY_AFTER}; exec {' '.join(web.command(port))}"]


def _services(web: Fleet) -> dict[str, Any]:
    """Layers of equal width; each service needs two of the layer before it."""
    width = SERVICES // DEPTH
    return {f"s{number}": _service(web, number, width) for number in range(SERVICES)}


def _service(web: Fleet, number: int, width: int) -> dict[str, Any]:
    layer, place = divmod(number, width)
    port = web.ports[number]
    command, *args = _slow(web, port)
    before = {(layer - 1) * width + (place + step) % width for step in (0, 1)} if layer else set()
    return {
        "command": command,
        "args": args,
        "ports": [{"container_port": port}],
        "health_check": {"endpoint": f"http://127.0.0.1:{port}/"},
        "dependencies": [f"s{each}" for each in sorted(before)],
    }


def _critical_path(web: Fleet) -> float:
    """As many of the same servers as the graph is deep, each started when the one before answers."""
    processes: list[subprocess.Popen[bytes]] = []
    seconds = seconds_of(lambda: _one_after_the_other(web, processes))
    for process in processes:
        process.kill()
        process.wait()
    return seconds


def _one_after_the_other(web: Fleet, processes: list[subprocess.Popen[bytes]]) -> None:
    for port in web.ports[:DEPTH]:
        processes.append(subprocess.Popen(_slow(web, port), stdin=subprocess.DEVNULL))
        web.wait_for(port)
