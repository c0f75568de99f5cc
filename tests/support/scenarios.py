"""Small services and the questions that acceptance tests ask of a project from outside.

Services are told apart by what the document promises of their env (``DEPLOY_CODE_SERVICE``), never by deploy-code's own
records, so that a record which is wrong is noticed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

from support.leftovers import AGENT, Leftover
from support.ports import answers
from support.project import ProjectFolder
from support.wait import wait_until
from support.web import fetch

FAST = {"interval_seconds": 1, "timeout_seconds": 1, "retries": 2}

# What a program does is its first argument; what follows is for that behaviour.
PROGRAM = '''\
"""One program, many bad habits. Serves HTTP on $PORT unless told otherwise; a line in its log says what it does."""
import os, signal, socket, subprocess, sys, time

VERSION = "v1"
habit, rest = (sys.argv[1] if len(sys.argv) > 1 else "serve"), sys.argv[2:]
status, body, port = "200 OK", VERSION, os.environ.get("PORT")
print(f"{os.environ['DEPLOY_CODE_SERVICE']} {VERSION} does {habit}", flush=True)

if habit == "exit":
    print("cannot open the vault", file=sys.stderr, flush=True)
    sys.exit(int(rest[0]))
elif habit == "slow":
    time.sleep(float(rest[0]))
elif habit == "refuse":
    status, body = "500 Internal Server Error", "the database is on fire"
elif habit == "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: print("I heard SIGTERM and stay", flush=True))
elif habit == "flaky":
    if not os.path.exists(rest[0]):
        open(rest[0], "w").close()
        sys.exit(9)
elif habit == "family":
    for _ in range(2):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
elif habit == "flood":
    for number in range(int(rest[0])):
        print(f"line {number:08d} " + "x" * 80)
    sys.stdout.flush()
elif habit == "env":
    body = "\\n".join(f"{name}={value}" for name, value in sorted(os.environ.items()))
elif habit == "daemon":
    if os.fork():
        os._exit(0)
    os.setsid()
elif habit == "deaf":
    while True:
        time.sleep(1000)
elif habit == "elsewhere":
    port = rest[0]
elif habit == "needs":
    with socket.create_connection(("127.0.0.1", int(rest[0])), timeout=5):
        pass

with socket.create_server(("127.0.0.1", int(port))) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(2)
            try:
                head = connection.recv(4096).decode(errors="replace")
                answer = body if status != "200 OK" or " /file" not in head else open(rest[0]).read()
                fields = f"Content-Length: {len(answer)}\\r\\nConnection: close"
                connection.sendall(f"HTTP/1.1 {status}\\r\\n{fields}\\r\\n\\r\\n{answer}".encode())
            except OSError:
                pass
'''


# --------------------------------------------------------------------------- services, as the file has them


def pages(project: ProjectFolder, *versions: str) -> None:
    """A folder of pages for each version, beside the config: what `web` serves."""
    for version in versions:
        folder = project.folder / "www" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text(version)


def web(port: int, *dependencies: str, version: str = "v1", **options: Any) -> dict[str, Any]:
    """busybox serving ``www/<version>``: starts in milliseconds, answers with its version."""
    service: dict[str, Any] = {
        "command": "busybox",
        "args": ["httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", f"www/{version}"],
        "ports": [{"container_port": port}],
        "health_check": {"endpoint": "/index.html", **FAST},
        "stop_timeout_seconds": 5,
    }
    if dependencies:
        service["dependencies"] = list(dependencies)
    return service | options


def program(port: int, habit: str = "serve", *rest: object, file: str = "app.py", **options: Any) -> dict[str, Any]:
    """``PROGRAM``, which ``write_program`` puts beside the config."""
    return {
        "command": sys.executable,
        "args": ["-u", file, habit, *map(str, rest)],
        "ports": [{"container_port": port}],
        "health_check": {"endpoint": "/", **FAST},
        "stop_timeout_seconds": 5,
    } | options


def sleeper(**options: Any) -> dict[str, Any]:
    """Neither port nor health check: alive for a moment is all that it takes."""
    return {"command": "sleep", "args": ["1000"], "min_ready_seconds": 0.1} | options


def one_shot(script: str, *dependencies: str, **options: Any) -> dict[str, Any]:
    """Python text that runs once."""
    return {
        "command": sys.executable,
        "args": ["-c", script],
        "one_shot": True,
        "dependencies": list(dependencies),
    } | options


def write_program(project: ProjectFolder, version: str = "v1", file: str = "app.py") -> Path:
    path = project.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM.replace('"v1"', f'"{version}"'))
    return path


# --------------------------------------------------------------------------- what is seen from outside


def text_at(port: int, path: str = "/") -> str:
    """What the service on ``port`` answers; empty when nobody does."""
    with suppress(URLError, OSError):
        return fetch(f"http://127.0.0.1:{port}{path}").text
    return ""


def agents(project: ProjectFolder) -> list[Leftover]:
    """The project's agent, as a list: one is normal."""
    return [each for each in project.leftovers() if AGENT in each.command]


def agent_pid(project: ProjectFolder) -> int:
    [agent] = agents(project)
    return agent.pid


def env_of(pid: int) -> dict[str, str]:
    with suppress(OSError):
        pairs = (item.partition("=") for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        return {name: value for name, _, value in pairs}
    return {}


def family(project: ProjectFolder, service: str) -> set[int]:
    """Every live process of a service: instances and whatever they forked."""
    own = [each for each in project.leftovers() if AGENT not in each.command]
    return {each.pid for each in own if env_of(each.pid).get("DEPLOY_CODE_SERVICE") == service}


def pids(project: ProjectFolder) -> dict[str, frozenset[int]]:
    """Service → pids of its instances: the processes that lead their own session, as each instance does."""
    found: dict[str, set[int]] = {}
    for each in project.leftovers():
        service = env_of(each.pid).get("DEPLOY_CODE_SERVICE")
        if AGENT not in each.command and service and _leads(each.pid):
            found.setdefault(service, set()).add(each.pid)
    return {name: frozenset(numbers) for name, numbers in found.items()}


def _leads(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False


def pid_of(project: ProjectFolder, service: str) -> int:
    """The pid of the one instance of a service."""
    [pid] = pids(project).get(service, frozenset())
    return pid


def instances(project: ProjectFolder, service: str) -> list[dict[str, Any]]:
    """What `status --detailed` says of a service's instances."""
    found: list[dict[str, Any]] = project.status("--detailed")["services"][service]["instances"]
    return found


def states(project: ProjectFolder) -> dict[str, str]:
    """Service → its status word."""
    return {name: each["status"] for name, each in project.status()["services"].items()}


def healthy(project: ProjectFolder) -> bool:
    return bool(project.status()["overall_health"] == "healthy")


def history(project: ProjectFolder) -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = project.cli("history", "--format", "json").ok().json()
    return found


def last(project: ProjectFolder) -> dict[str, Any]:
    return history(project)[0]


def kill_hard(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), what=f"{pid} to be gone")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], object], what: str, timeout: float = 15.0) -> None:
    wait_until(condition, timeout, what)


def until_gone(project: ProjectFolder, timeout: float = 10.0) -> None:
    """Nothing of the project runs any more, its agent included."""
    wait_until(lambda: not project.leftovers(), timeout, lambda: f"still running: {project.leftovers()}")


def until_served(port: int, text: str, timeout: float = 15.0) -> None:
    wait_until(lambda: text_at(port) == text, timeout, lambda: f"{text!r} on port {port}, not {text_at(port)!r}")


def all_silent(ports: Iterable[int]) -> bool:
    return not any(answers(port) for port in ports)
