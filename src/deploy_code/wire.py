"""The messages between the two halves: JSON lines over the agent's unix socket (0600).

A request is ``{"id": n, "op": NAME, ...}``, its answer ``{"id": n, "ok": {...}}`` or ``{"id": n, "error": {...}}`` with
code, message, meaning and remedy. After ``watch`` the agent also sends, unasked, ``{"states": [Instance, ...]}``: first
all instances, then each change, many to a line where many changed at once; an instance that is no more comes once with
phase ``gone``. Only ``platforms`` and the agent use this module.

Operations
    hello     {protocol, version, python, path} → Hello  another version: it replaces itself with ``python``
    want      Want                → {}  written before it is answered
    settle    {deployment}        → {}  it is over: the restart policy holds, and the state tells its end
    watch     {}                  → {}  then the stream
    inspect   {instance}          → Inspection
    probe     {services}          → {}  probe these now, not at the next interval
    info      {}                  → AgentInfo
    shutdown  {}                  → {}  the agent exits; instances stay
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy_code.model import Wanted

PROTOCOL = 1
LIMIT = 64 * 1024 * 1024  # bytes of one line: a thousand services in one message stay far below

# Names in the project's state folder that both halves must agree on.
SOCKET = "agent.sock"
AGENT_ENV = (  # the variables an agent is started with, and keeps
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
    "NOTIFY_SOCKET", "PYTHONPATH", "DEPLOY_CODE_RECOVERY_DELAY",
)  # fmt: skip
AGENT_LOCK = "agent.lock"  # flock, held by the agent for life; its text is the agent's pid
AGENT_LOG = "agent.log"
DEPLOY_LOCK = "deploy.lock"  # flock, held by whoever deploys
DATABASE = "state.db"


def socket_path(folder: int) -> str:
    """The agent's socket under an open directory descriptor.

    A socket address holds 107 bytes; a state folder may well be deeper than that.
    """
    return f"/proc/self/fd/{folder}/{SOCKET}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    protocol: int
    version: str
    pid: int
    project: str
    upgrading: bool = False  # the agent is about to replace itself: connect again


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Make the wanted set so for these (service, revision) pairs; ``replicas`` 0 removes the pair.

    Carries the number of the deployment it belongs to; any but the one recorded as running is refused (E012).
    Idempotent: the same message twice is the same as once. ``stop_timeout`` replaces each service's own.
    ``rerun``: one-shots that are to run even though they are recorded as done.
    """

    deployment: int
    wanted: tuple[Wanted, ...]
    stop_timeout: float | None = None
    rerun: tuple[str, ...] = ()
    port_range: tuple[int, int] = (30000, 40000)  # both ends included; where dynamic ports come from


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an instance looks like from outside, for the failure report."""

    pids: tuple[int, ...] = ()
    listening: tuple[str, ...] = ()  # "tcp 127.0.0.1:8080"
    cpu_percent: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    pid: int
    version: str
    started_at: float
    instances: int
    deployment: int  # the last one it took messages from
    probes_per_second: float = 0.0
    lag_seconds: float = 0.0  # mean lateness of probes over the last minute
    lag_max_seconds: float = 0.0
    memory_bytes: int = 0
    loop: str = "asyncio"
    details: Mapping[str, str] = field(default_factory=dict)
