"""Does the prober keep up? So many real HTTP endpoints, each probed every second, on one core.

The endpoints are served by another process on the other core; the prober has one core to itself. In the same run a bare
loop of connect + GET over the same endpoints gives the raw limit of that core. Prints a table, or JSON with ``--json``.

    python bench/probes.py [--endpoints 2000] [--seconds 20] [--loops asyncio,uvloop] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

HOST = "127.0.0.1"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"
ANSWER += b'{"status":"ok"}'
REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
INTERVAL = 1.0
WARM_UP = 3.0  # seconds that are not counted: first probes of all at once


def main() -> None:
    args = _arguments()
    if args.role:
        _ROLES[args.role](args)
        return
    result = measure(args)
    print(json.dumps(result, indent=2) if args.json else table(result))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Start the server, then one prober per loop, then the bare loop."""
    cores = sorted(os.sched_getaffinity(0))
    server = _spawn("serve", args, core=cores[-1], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        ports = server.stdout.readline().strip()
        runs = [_ask("prober", args, cores[0], ports, loop=name) for name in args.loops.split(",")]
        bare = _ask("bare", args, cores[0], ports)
    finally:
        server.terminate()
        server.communicate()
    for run in runs:
        run["cpu_ratio_to_bare"] = round(run["cpu_us_per_probe"] / bare["cpu_us_per_get"], 2)
    return {"endpoints": args.endpoints, "interval_seconds": INTERVAL, "runs": runs, "bare": bare}


def table(result: dict[str, Any]) -> str:
    every = f"{result['interval_seconds']:g} s"
    titles = ("done/due", "lag mean", "lag p99", "lag max", "core used", "CPU/probe", "x bare")
    lines = [f"{result['endpoints']} endpoints, each probed every {every}, prober on one core", ""]
    lines.append(f"{'loop':10}" + "".join(f"{title:>13}" for title in titles))
    for run in result["runs"]:
        cells = (
            f"{run['done']}/{run['due']}",
            *(f"{run[key]:.1f} ms" for key in ("lag_mean_ms", "lag_p99_ms", "lag_max_ms")),
            f"{run['core_percent']:.1f} %",
            f"{run['cpu_us_per_probe']:.0f} us",
            f"{run['cpu_ratio_to_bare']:.2f}",
        )
        lines.append(f"{run['loop']:10}" + "".join(f"{cell:>13}" for cell in cells))
    bare = result["bare"]
    lines.append(f"{'bare loop':10}{bare['gets_per_second']:>9.0f} GET/s, {bare['cpu_us_per_get']:.0f} us CPU each")
    return "\n".join(lines)


# --------------------------------------------------------------------------- the endpoints


def serve(args: argparse.Namespace) -> None:
    """Answers on many ports, by epoll: cheap, so that the other core is not the limit."""
    listeners = [socket.create_server((HOST, 0), backlog=64) for _ in range(args.endpoints)]
    print(",".join(str(listener.getsockname()[1]) for listener in listeners), flush=True)
    epoll = select.epoll()
    by_fd = {listener.fileno(): listener for listener in listeners}
    clients: dict[int, socket.socket] = {}
    for listener in listeners:
        listener.setblocking(False)
        epoll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in epoll.poll():
            if fd in by_fd:
                _accept(by_fd[fd], clients, epoll)
            else:
                _respond(clients.pop(fd), epoll)


def _accept(listener: socket.socket, clients: dict[int, socket.socket], epoll: select.epoll) -> None:
    client, _ = listener.accept()
    clients[client.fileno()] = client
    epoll.register(client, select.EPOLLIN)


def _respond(client: socket.socket, epoll: select.epoll) -> None:
    with client:
        epoll.unregister(client)
        if client.recv(4096):
            client.send(ANSWER)


# --------------------------------------------------------------------------- the prober


def prober(args: argparse.Namespace) -> None:
    from deploy_code.agent.prober import raise_open_files_limit

    raise_open_files_limit()
    ports = [int(port) for port in sys.stdin.readline().split(",")]
    with asyncio.Runner(loop_factory=_loop_factory(args.loop)) as runner:
        print(json.dumps(runner.run(_probe(ports, args))))


async def _probe(ports: list[int], args: argparse.Namespace) -> dict[str, Any]:
    from deploy_code.agent.prober import Prober
    from deploy_code.health.build import build_probe
    from deploy_code.model import Content, HealthCheck

    failures: list[object] = []
    lags: list[float] = []
    asked = Prober(lambda uuid, judgement: failures.append(judgement) if not judgement.result.ok else None)
    add = asked._meter.add
    asked._meter.add = lambda now, lag: (lags.append(lag), add(now, lag))[1]  # every lag, for the percentile
    for port in ports:
        check = HealthCheck(endpoint=f"http://{HOST}:{port}/health", interval_seconds=INTERVAL, timeout_seconds=5)
        probe = build_probe(check, Content(), ports={}, env={}, alive=lambda: True)
        asked.watch(str(port), probe, check, born_at=time.time())
    await asyncio.sleep(WARM_UP)
    lags.clear()
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(args.seconds)
    cpu, span = time.process_time() - cpu, time.monotonic() - began
    counted = sorted(lags)
    watched = asked.stats().watched
    await asked.close()
    return {
        "loop": args.loop,
        "done": len(counted),
        "due": round(watched * span / INTERVAL),
        "failed": len(failures),
        "lag_mean_ms": 1000 * sum(counted) / len(counted),
        "lag_p99_ms": 1000 * counted[len(counted) * 99 // 100],
        "lag_max_ms": 1000 * counted[-1],
        "cpu_seconds": round(cpu, 3),
        "core_percent": 100 * cpu / span,
        "cpu_us_per_probe": 1e6 * cpu / len(counted),
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _loop_factory(name: str) -> Any:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


# --------------------------------------------------------------------------- the raw limit


def bare(args: argparse.Namespace) -> None:
    """The least that a probe from Python can cost: connect, send, read to the end, close; one after the other."""
    ports = [int(port) for port in sys.stdin.readline().split(",")]
    began, cpu, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < min(5, args.seconds):
        for port in ports[:200]:
            with socket.create_connection((HOST, port)) as sock:
                sock.sendall(REQUEST)
                while sock.recv(4096):
                    pass
            count += 1
    cpu, span = time.process_time() - cpu, time.monotonic() - began
    print(json.dumps({"gets_per_second": count / span, "cpu_us_per_get": 1e6 * cpu / count}))


_ROLES = {"serve": serve, "prober": prober, "bare": bare}


def _spawn(role: str, args: argparse.Namespace, *, core: int, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", role, "--endpoints", str(args.endpoints)]
    command += ["--seconds", str(args.seconds), "--loop", more.pop("loop", "asyncio")]
    process = subprocess.Popen(command, text=True, **more)
    os.sched_setaffinity(process.pid, {core})
    return process


def _ask(role: str, args: argparse.Namespace, core: int, ports: str, **more: Any) -> dict[str, Any]:
    process = _spawn(role, args, core=core, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more)
    out, _ = process.communicate(ports + "\n")
    if process.returncode:
        raise SystemExit(f"{role} failed with {process.returncode}")
    answer: dict[str, Any] = json.loads(out)
    return answer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--loops", default="asyncio,uvloop")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("serve", "prober", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--loop", default="asyncio", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
