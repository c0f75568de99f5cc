"""Words for how instances end and start, and the one thing their logs are read for: a port that was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy_code.logs.stream import LogStream
from deploy_code.model import Exit, Gate, Instance, Phase, ProbeResult, Wanted

from .ports import can_bind, chosen_freely, dynamic_keys

_READ = 64 * 1024
_PORT_WORDS = (b"address already in use", b"eaddrinuse", b"address in use", b"port is already allocated")


OUT_OF_MEMORY = "its memory limit of {limit} MB (resources.memory_mb) was reached"


def note(exit_: Exit, left: int, memory_mb: int = 0) -> str:
    """How an instance ended. ``left``: processes that it left behind, which were ended; ``memory_mb``: its limit."""
    if left and exit_.ok:
        return (
            f"the command went to the background: it ended with {exit_} and left {_processes(left)} behind, which "
            "nobody could supervise and which were ended. Make it stay in the foreground (an option such as "
            "--foreground, --nodaemon or -D; for nginx -g 'daemon off;')"
        )
    behind = f"; it left {_processes(left)} behind, ended too" if left else ""
    return f"{end(exit_, memory_mb)}{behind}"


def end(exit_: Exit, memory_mb: int) -> str:
    """The same in the words of ``Exit``, and which limit it was."""
    return f"{exit_}; {OUT_OF_MEMORY.format(limit=memory_mb)}" if exit_.out_of_memory else str(exit_)


def own_word(exit_: Exit) -> str:
    """How an instance ended whose handler said so."""
    return f"its health_check answered {'STOPPED' if exit_.ok else 'FAILED'}"


NOT_STOPPED = "could not be stopped"
WAITS_AFTER_REBOOT = "waits for its dependencies after a reboot"
UNKNOWN_RESULT = "interrupted, its result is unknown; only another deploy runs it again"


def outcome(exit_: Exit) -> str:
    """How a one-shot ended, as it is recorded: completed, failed or unknown."""
    if exit_.code is None and exit_.signal is None:
        return "unknown"
    return "completed" if exit_.ok else "failed"


def one_shot_end(exit_: Exit, memory_mb: int = 0) -> dict[str, Any]:
    """What changes in the row of a one-shot that ended so."""
    if exit_.ok:
        return {"phase": Phase.COMPLETED, "gate": Gate.OPEN, "exit": exit_, "note": ""}
    note = UNKNOWN_RESULT if outcome(exit_) == "unknown" else end(exit_, memory_mb)
    return {"phase": Phase.FAILED, "gate": Gate.FAILED, "exit": exit_, "note": note}


def probe_note(probe: ProbeResult | None) -> str:
    if probe is None:
        return "no probe has answered"
    return f"{probe.kind} {probe.target}: {probe.detail or probe.status}"


def on_ports(ports: Mapping[str, int], address: str = "") -> str:
    at = f" at {address}" if address else ""
    return f", port {', '.join(map(str, ports.values()))}{at}" if ports else ""


def died_of_port(wanted: Wanted, instance: Instance) -> bool:
    """Was it one of the ports we chose that somebody else holds?"""
    if wanted.content.has_own_network or not chosen_freely(wanted.content, wanted.policy):
        return False  # what is published is taken before a container begins
    ours = [instance.ports[key] for key in dynamic_keys(wanted.content, wanted.policy) if key in instance.ports]
    return any(not can_bind(port) for port in ours) or _log_says_so(instance)


def _log_says_so(instance: Instance) -> bool:
    """Does what this start said in its log speak of a port in use?"""
    try:
        _, data = LogStream(instance.log_path).read(instance.log_offset, _READ)
    except (OSError, ValueError):
        return False
    return any(word in data.lower() for word in _PORT_WORDS)


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"
