"""Fifty containers: deploy, deploy again and stop, against the engine's bare API and docker-compose."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from measure import Figure, median, say, seconds_of, spread, take_turns
from product import Product

TITLE = "Fifty containers"
COMMAND = "python bench/run.py containers"
IMAGE = "dc-test/web:1"
COUNT = 50
ROUNDS = 3
CALLERS = (5, 10, 20)  # numbers of concurrent calls that the bare API is tried with
HOW = "a busybox web server each, http health check, Parallel, `max_parallel: 50`, no agent running"
ENGINES = Path(__file__).parents[1] / "scripts" / "test-engines"


def measure() -> list[Figure]:
    with docker() as url, tempfile.TemporaryDirectory(prefix="deploy-code-bench-") as folder:
        bare = min((_tried(url, callers) for callers in CALLERS), key=lambda each: each[0])[1]
        product, compose = Product(Path(folder)), Compose(Path(folder), url)
        product.write({f"web{number}": _service() for number in range(COUNT)})
        again: list[float] = []
        stops: list[float] = []
        bare_stops: list[float] = []
        compose_again: list[float] = []

        def ours() -> float:
            product.forget()
            seconds = product.deploy()
            again.append(product.deploy())
            stops.append(product.stop())
            return seconds

        def raw() -> float:
            seconds = seconds_of(bare.start)
            bare_stops.append(seconds_of(bare.stop))
            return seconds

        def peer() -> float:
            seconds = seconds_of(compose.up)
            compose_again.append(seconds_of(compose.up))
            compose.down()
            return seconds

        say(f"{COUNT} containers, {ROUNDS} rounds; the bare API with {bare.callers} calls at once")
        times = take_turns({"bare API": raw, "deploy-code": ours, "docker-compose": peer}, ROUNDS)
        product.forget()
        return _figures(bare.callers, times, again, compose_again, stops, bare_stops)


def _service() -> dict[str, Any]:
    return {
        "image": IMAGE,
        "ports": [{"container_port": 8080}],
        "health_check": {"endpoint": "http://localhost:8080/"},
    }


def _tried(url: str, callers: int) -> tuple[float, Bare]:
    bare = Bare(url, callers)
    seconds = seconds_of(bare.start)
    bare.stop()
    say(f"the bare API, {callers} calls at once: {seconds:.2f} s")
    return seconds, bare


def _figures(
    callers: int,
    times: dict[str, list[float]],
    again: Sequence[float],
    compose_again: Sequence[float],
    stops: Sequence[float],
    bare_stops: Sequence[float],
) -> list[Figure]:
    bare, ours = median(times["bare API"]), median(times["deploy-code"])
    stop_ratio = median(stops) / median(bare_stops)
    return [
        Figure(
            name=f"bare API, {COUNT} containers created and started",
            value=spread(times["bare API"]),
            note=f"{callers} calls at once, the best of {', '.join(map(str, CALLERS))}; nothing is waited for",
        ),
        Figure(
            name=f"`deploy`, {COUNT} containers healthy",
            value=f"{spread(times['deploy-code'])} = {ours / bare:.2f} × bare",
            target="≤ 1.3 × bare",
            met=ours <= 1.3 * bare,
            note=HOW,
            command=COMMAND,
        ),
        Figure(
            name="docker-compose 1.29 `up -d`, the same",
            value=f"{spread(times['docker-compose'])} = {median(times['docker-compose']) / ours:.1f} × deploy-code",
            note="checks no health",
        ),
        Figure(
            name="second `deploy`, nothing changed",
            value=spread(again),
            target="< 0.5 s",
            met=median(again) < 0.5,
            command=COMMAND,
        ),
        Figure(name="docker-compose `up -d` again", value=spread(compose_again)),
        Figure(
            name=f"`stop` of {COUNT}",
            value=f"{spread(stops)} = {stop_ratio:.2f} × bare ({median(bare_stops):.2f} s)",
            target="≤ 1.3 × bare",
            met=stop_ratio <= 1.3,
            note="bare: stop and remove, as many calls at once",
            command=COMMAND,
        ),
    ]


# --------------------------------------------------------------------------- the engine and its bare API


@contextmanager
def docker() -> Iterator[str]:
    """The tests' own Docker, started if it does not run; its address, which the product is told too."""
    was_running = subprocess.run([ENGINES, "running"], stdout=subprocess.DEVNULL, check=False).returncode == 0
    subprocess.run([ENGINES, "start"], stdout=sys.stderr, check=True)
    env = subprocess.run([ENGINES, "env"], capture_output=True, text=True, check=True).stdout
    url = next(line.partition("DOCKER_HOST=")[2].strip("'\"") for line in env.splitlines() if "DOCKER_HOST=" in line)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = url
    try:
        yield url
    finally:
        os.environ.pop("DOCKER_HOST")
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        if not was_running:
            subprocess.run([ENGINES, "stop"], stdout=sys.stderr, check=True)


class Bare:
    """The least that anybody can do: create and start, so many calls at once, on a network of their own."""

    def __init__(self, url: str, callers: int) -> None:
        self.callers = callers
        self._socket = url.removeprefix("unix://")
        self._ids: list[str] = []

    def start(self) -> None:
        self._call("POST", "/networks/create", {"Name": "bench-bare"})
        self._ids = self._at_once(self._start, range(COUNT))

    def stop(self) -> None:
        self._at_once(self._stop, self._ids)
        self._call("DELETE", "/networks/bench-bare")

    def _at_once(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        with ThreadPoolExecutor(self.callers) as pool:
            return list(pool.map(work, items))

    def _start(self, number: int) -> str:
        body = {"Image": IMAGE, "HostConfig": {"NetworkMode": "bench-bare"}}
        made = self._call("POST", f"/containers/create?name=bench-bare-{number}", body)
        self._call("POST", f"/containers/{made['Id']}/start")
        return str(made["Id"])

    def _stop(self, container: str) -> None:
        self._call("POST", f"/containers/{container}/stop?t=10")
        self._call("DELETE", f"/containers/{container}")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = _UnixConnection(self._socket)
        text = json.dumps(body) if body is not None else None
        connection.request(method, f"/v1.41{path}", text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode()}")
        return json.loads(data) if data else None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class Compose:
    """docker-compose 1.29, which checks no health."""

    def __init__(self, folder: Path, url: str) -> None:
        self._file = folder / "compose.yml"
        self._env = {**os.environ, "DOCKER_HOST": url, "COMPOSE_PARALLEL_LIMIT": "50"}
        services = {f"web{number}": {"image": IMAGE} for number in range(COUNT)}
        self._file.write_text(yaml.safe_dump({"version": "3", "services": services}))

    def up(self) -> None:
        self._run("up", "-d")

    def down(self) -> None:
        self._run("down", "-t", "1")

    def _run(self, *args: str) -> None:
        command = ["docker-compose", "-p", "bench-compose", "-f", str(self._file), *args]
        result = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {result.stderr}")
