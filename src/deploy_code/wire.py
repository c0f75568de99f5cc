"""The messages between the two halves: JSON lines over the agent's unix socket (0600).

A request is ``{"id": n, "op": NAME, ...}``, its answer ``{"id": n, "ok": {...}}`` or ``{"id": n, "error": {...}}`` with
code, message, meaning and remedy. After ``watch`` the agent also sends, unasked, ``{"states": [Instance, ...]}``: first
all instances, then each change, many to a line where many changed at once; an instance that is no more comes once with
phase ``gone``. Only ``platforms``, the agent and hosts of custom services use this module.

Operations
    hello     {protocol, version, python, path, python_path} → Hello  to another version: it becomes that one
    want      Want                → {}  written before it is answered
    settle    {deployment}        → {}  it is over: the restart policy holds, and the state tells its end
    watch     {}                  → {}  then the stream
    inspect   {instance}          → Inspection
    probe     {services}          → {}  probe these now, not at the next interval
    drift     {}                  → Drifts  what runs against what its revisions say
    clear     {instances}         → {}  end what drift called extra; whatever is an instance by now is left alone
    info      {}                  → AgentInfo
    shutdown  {}                  → {}  the agent exits; instances stay
    offer     Offer               → {}  from here on the agent asks, and whoever connected answers

A host offers to run custom services. Then the agent sends ``{"ask": n, "do": NAME, ...}`` over the same connection, and
gets ``{"reply": n, "ok": {...}}`` or ``{"reply": n, "error": {...}}``. ``config`` is an ``InstanceConfig``.

Questions to a host
    ping      {}                          → {}
    start     {config, clean}             → Started  the same again joins the start that is under way
    resume    {config, memory}            → Started  the object made anew; nothing is started
    health    {uuid, timeout}             → {status}  {} for one that it does not hold
    stop      {uuid, timeout, last}       → {gently}  then the object is no more; {} for one that it does not hold
    forget    {uuid}                      → {}  nothing is called: the object is no more
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy_code.model import Wanted

PROTOCOL = 1
LIMIT = 64 * 1024 * 1024  # bytes of one line: a thousand services in one message stay far below

# Names in the project's state folder that both halves must agree on.
SOCKET = "agent.sock"
AGENT_ENV = (  # the variables an agent is started with, and keeps
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
    "NOTIFY_SOCKET", "PYTHONPATH", "DEPLOY_CODE_RECOVERY_DELAY", "DEPLOY_CODE_MACHINE_DIR",
)  # fmt: skip
AGENT_LOCK = "agent.lock"  # flock, held by the agent for life; its text is the agent's pid
AGENT_LOG = "agent.log"
HOSTS = "hosts"  # folder of KEY.lock: flock, held for life by the host of KEY; its text is its pid and start time
DEPLOY_LOCK = "deploy.lock"  # flock, held by whoever deploys
DATABASE = "state.db"


def socket_path(folder: int) -> str:
    """The agent's socket under an open directory descriptor.

    A socket address holds 107 bytes; a state folder may well be deeper than that.
    """
    return f"/proc/self/fd/{folder}/{SOCKET}"


def connect(state_dir: str) -> socket.socket:
    """A connected socket. Raises OSError where no agent listens."""
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(socket_path(folder))
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


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
    ``rerun``: one-shots that are to run even though they are recorded as done. ``forget``: what cannot be stopped is
    not kept any more. ``start_timeout``: seconds that the ``start`` of a custom service may take.
    """

    deployment: int
    wanted: tuple[Wanted, ...]
    stop_timeout: float | None = None
    rerun: tuple[str, ...] = ()
    port_range: tuple[int, int] = (30000, 40000)  # both ends included; where dynamic ports come from
    forget: bool = False
    start_timeout: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A host, and what it runs. ``protocol`` and ``version`` as in ``Hello``.

    ``key``: of a program that the agent started for one type; "": a process that registered ``types`` in code.
    ``holds``: uuids of the objects it has, each once started or being started. ``failed``: it cannot run anything, and
    why; it ends.
    """

    protocol: int
    version: str
    key: str = ""
    types: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a start left behind. ``checked``: the class overrides ``health_check``."""

    memory: Mapping[str, str] = field(default_factory=dict)
    checked: bool = False


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
