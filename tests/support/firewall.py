"""Puts the machine's packet filter back to what it was before the engines of the tests came."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from pathlib import Path

#: What the engines add: chains of their own, rules that lead there, and rules for their networks' devices.
ENGINES = re.compile(r"\b(DOCKER|NETAVARK)|(-[io] )(dc-test0|br-[0-9a-f]{12}|podman\d+)\b|10\.21[234]\.")

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGES = ("podman0",)


def remember(file: Path) -> None:
    """Note how things are, once: a second start does not take the engines' own doing for the machine's."""
    if not file.exists():
        there = [name for name in BRIDGES if _is_there(name)]
        forward = re.search(r"^:FORWARD (\w+)", _saved(), re.M)
        policy = forward[1] if forward and not any("DOCKER" in line for line in _saved().splitlines()) else ""
        said = {"clean": not ENGINES.search(_saved()), "policy": policy, "forwarding": FORWARDING.read_text().strip()}
        file.write_text(json.dumps(said | {"bridges": there}))


def restore(file: Path) -> None:
    """Remove what the engines added. Where other engines had their rules before, nothing is touched."""
    with suppress(FileNotFoundError):
        before = json.loads(file.read_text())
        if before["clean"]:
            kept = "\n".join(line for line in _saved().splitlines() if not ENGINES.search(line))
            if before["policy"]:
                kept = re.sub(r"^:FORWARD \w+", f":FORWARD {before['policy']}", kept, flags=re.M)
            subprocess.run(["iptables-restore"], input=kept + "\n", text=True, check=True)
            FORWARDING.write_text(before["forwarding"])
        for name in set(BRIDGES) - set(before["bridges"]):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
        file.unlink()


def _is_there(device: str) -> bool:
    return subprocess.run(["ip", "link", "show", device], check=False, capture_output=True).returncode == 0


def _saved() -> str:
    return subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
