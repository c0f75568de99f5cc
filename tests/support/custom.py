"""Custom service types that tests deploy, and what they find out about their hosts."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path

from deploy_code.model import Content, Instance, Port
from support.leftovers import HOST, leftovers
from support.wait import wait_until

HEAD = """
import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress

from deploy_code.services import Service, ServiceStatus


def said(config, *words):
    \"\"\"What the tests read: one line for each call.\"\"\"
    with open(config.log_path, "a") as log:
        print(*words, flush=True, file=log)


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""

WEB = '''
class Web(Service):
    """A web server, supervised here; what must be known of it is its pid."""

    def start(self):
        said(self.config, "start")
        server = subprocess.Popen(
            ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{self.config.port}"],
            env=dict(self.config.env),
            cwd=os.path.dirname(self.config.log_path),
            start_new_session=True,
        )
        return {"pid": str(server.pid)}

    def stop(self):
        said(self.config, "stop")
        if "pid" in self.memory:
            with suppress(ProcessLookupError):
                os.kill(int(self.memory["pid"]), signal.SIGTERM)
            while lives(self.memory["pid"]):
                time.sleep(0.01)

    def health_check(self):
        return ServiceStatus.RUNNING if lives(self.memory["pid"]) else ServiceStatus.FAILED
'''


def custom(folder: Path, text: str, name: str, **fields: object) -> Content:
    """A service of the type that ``text`` defines as class ``name``."""
    path = folder / f"{name.lower()}.py"
    path.write_text(HEAD + textwrap.dedent(text))
    return Content(service_type=name, handler=f"{path}:{name}", **fields)  # type: ignore[arg-type]


def web(folder: Path, port: int, **fields: object) -> Content:
    return custom(folder, WEB, "Web", ports=(Port(container_port=port),), **fields)


def calls(instance: Instance) -> list[str]:
    """What its object was called for, in order."""
    path = Path(instance.log_path)
    return path.read_text().splitlines() if path.exists() else []


def hosts(folder: Path) -> list[int]:
    """pids of the host programs of this project."""
    return [each.pid for each in leftovers(folder) if HOST in each.command]


def kill_hosts(folder: Path) -> None:
    """SIGKILL to all of them; returns once they are gone."""
    killed = hosts(folder)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(killed) & set(hosts(folder)))
