"""The images of most tests: busybox, and what is easily made of it. They weigh 2 MB and load in no time."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from support.images import ARCHITECTURE, Entry, Image, Layer, copy, folder, link, program

SECOND = 1_000_000_000  # the API counts in nanoseconds

#: A shell as process 1, because httpd there would not hear of SIGTERM: the kernel keeps it from a process 1 that has
#: no handler for it.
WEB = """\
#!/bin/sh
trap 'kill $!; exit 0' TERM INT
httpd -f -p "${PORT:-8080}" -h /www &
wait
"""

#: What the web server tells of its surroundings: http://ADDRESS/cgi-bin/env
ENV_PAGE = """\
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
env
"""


@cache
def base() -> Layer:
    """A Linux of one program: busybox, and a link to it for each of its commands."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox is not on this machine"
    names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    commands = {f"/bin/{name}": link("/bin/busybox") for name in names if name != "busybox"}
    return Layer(
        commands
        | {
            "/bin/busybox": copy(Path(busybox)),
            "/etc/passwd": Entry("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n"),
            "/etc/group": Entry("root:x:0:\nweb:x:1000:\n"),
            "/root": folder(0o700),
            "/tmp": folder(0o1777),
            "/usr/bin": folder(),
            "/var/run": folder(),
        }
    )


def busybox() -> Image:
    return Image("dc-test/busybox:1", (base(),), {"Cmd": ["sh"]})


def web(version: int) -> Image:
    """Answers ``v<version>`` on 8080 (or $PORT), and its environment on /cgi-bin/env."""
    pages = Layer(
        {
            "/www/index.html": Entry(f"v{version}\n"),
            "/www/cgi-bin/env": program(ENV_PAGE),
            "/bin/web": program(WEB),
        }
    )
    return Image(f"dc-test/web:{version}", (base(), pages), {"Cmd": ["/bin/web"], "ExposedPorts": {"8080/tcp": {}}})


def checked() -> Image:
    """An image that says everything an image can say. It is healthy as long as there is /data/healthy."""
    script = "touch /data/healthy; trap 'echo got SIGUSR1; exit 0' USR1; httpd -f -p 8080 -h /www & wait"
    files = Layer({"/www/index.html": Entry("checked\n"), "/data": folder(0o755, uid=1000)})
    test = {"Test": ["CMD-SHELL", "test -e /data/healthy"], "Interval": SECOND, "Timeout": 2 * SECOND, "Retries": 3}
    config = {
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": [script],
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
        "ExposedPorts": {"8080/tcp": {}, "9090/udp": {}},
        "Healthcheck": test | {"StartPeriod": SECOND},
        "Labels": {"org.example.image": "checked"},
        "StopSignal": "SIGUSR1",
        "User": "web",
        "Volumes": {"/data": {}},
        "WorkingDir": "/data",
    }
    return Image("dc-test/checked:1", (base(), files), config)


def arm() -> Image:
    """Made for another processor: its shell is the head of an arm64 program, which this machine refuses to run."""
    foreign, machine = ("arm64", 183) if ARCHITECTURE != "arm64" else ("amd64", 62)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(44)
    layer = Layer({"/bin/sh": Entry(head, mode=0o755), "/tmp": folder(0o1777)})
    return Image("dc-test/arm:1", (layer,), {"Cmd": ["/bin/sh"]}, architecture=foreign)


def small_images() -> list[Image]:
    return [busybox(), web(1), web(2), checked(), arm()]
