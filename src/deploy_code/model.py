"""The words of DESIGN §2 as plain frozen values: what a service is made of, and what one running copy of it is.

Everything here is resolved (no pydantic, no ``${VAR}`` except the placeholders an instance gets at its start) and can
be shown, hashed, sent and stored. The engine, the agent, the drivers and the state share these values; who may change
what is said there.

All durations are seconds, all sizes are named with their unit, all points in time are seconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from deploy_code.codec import to_data

# --------------------------------------------------------------------------- what a service is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One port. ``container_port`` is what the service itself binds, ``host_port`` what callers use."""

    container_port: int | None = None
    host_port: int | None = None
    protocol: str = "tcp"  # tcp | udp
    dynamic: bool = False  # the number is chosen at start and handed over as PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A directory the service keeps data in. ``mount_path`` is absolute.

    In a container, with neither ``source`` nor ``tmpfs``, it is the runtime's volume of that name, the project's own.
    """

    name: str
    mount_path: str
    read_only: bool = False
    shared: bool = False  # two revisions may write at once
    source: str = ""  # absolute folder or file of this machine that a container sees at mount_path
    tmpfs: bool = False  # in memory, gone with the container
    size_mb: int = 0  # of a tmpfs; 0: as the runtime does it


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What is set aside for one instance; 0 means nothing."""

    cpu_cores: float = 0.0
    memory_mb: int = 0
    storage_gb: int = 0
    gpu_count: int = 0
    pids: int = 0  # processes and threads at once; a limit, nothing is set aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What containers of a project share. An empty ``cidr``, no ``dns_servers``: the runtime's choice."""

    name: str = ""
    mode: str = "Bridge"  # Bridge | Host
    cidr: str = ""
    dns_servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How an image is made. ``context`` is an absolute folder, ``dockerfile`` relative to it."""

    context: str
    dockerfile: str = "Dockerfile"
    args: Mapping[str, str] = field(default_factory=dict, repr=False)
    target: str = ""
    digest: str = ""  # sha256 over the context, the Dockerfile, the arguments and the target
    exclude: tuple[str, ...] = ()  # relative to context: deploy-code's own folders, which change by themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What only containers have. ``runtime`` and ``engine`` say where it runs: the kind, and the address of its API."""

    runtime: str = ""  # docker | podman
    engine: str = ""  # unix:///run/docker.sock, tcp://host:2376
    engine_tls: str = ""  # folder of ca.pem, cert.pem and key.pem
    image_id: str = ""  # sha256:…, what it is made from; "" as long as nobody has looked
    image_digest: str = ""  # repository@sha256:…, by which the very image can be pulled again
    build: Build | None = None
    network: Network = Network()
    extra_hosts: Mapping[str, str] = field(default_factory=dict)  # name → address
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only: bool = False
    privileged: bool = False
    init: bool = False
    shm_size_mb: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    log_driver: str = ""
    log_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def shares_host(self) -> bool:
        """Does it use this machine's own network, as a process does?"""
        return self.network.mode == "Host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A tree of code that is copied away so that rollback can return to it."""

    source: str  # absolute folder the tree is copied from
    digest: str  # sha256 over names, modes and contents; also the folder's name under releases/
    exclude: tuple[str, ...] = ()  # relative to source: written at run time (volumes, deploy-code's own folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an instance is made of: exactly what the run hash covers. Placeholders (``${PORT}``) stay unresolved."""

    service_type: str = "process"  # process | container | a registered name
    command: str = ""  # one executable, never split
    args: tuple[str, ...] = field(default=(), repr=False)  # may hold secrets, as env does: never in a repr
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # env and env_file, merged and resolved
    working_dir: str = ""  # absolute; inside a release: relative to its copy when it starts with "release:"
    user: str = ""  # name or "name:group"; empty: the agent's own
    inherit_env: bool = False  # start from the agent's whole env instead of the short one
    image: str = ""
    ports: tuple[Port, ...] = ()
    volumes: tuple[Volume, ...] = ()
    resources: Resources = Resources()
    one_shot: bool = False
    files: Mapping[str, str] = field(default_factory=dict)  # path relative to the config's folder → sha256
    release: Release | None = None
    handler: str = ""  # a custom type: where it is defined, "package.module:Class" or "/path.py:Class"; "": in code
    options: Mapping[str, object] = field(default_factory=dict, repr=False)  # plain data for a custom type
    container: Container = Container()

    @property
    def is_container(self) -> bool:
        return self.service_type == "container"

    @property
    def has_own_network(self) -> bool:
        """Do its ports meet nobody else's, unless they are published?"""
        return self.is_container and not self.container.shares_host


class Condition(StrEnum):
    """What of a dependency must hold before a dependent starts."""

    HEALTHY = "healthy"
    STARTED = "started"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    service: str
    condition: Condition = Condition.HEALTHY


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How readiness is asked for. Both ``endpoint`` and ``command``: both must pass. Neither: TCP-connect or alive."""

    endpoint: str = field(default="", repr=False)  # http(s)://…, /path, tcp://host:port; may hold placeholders
    command: tuple[str, ...] = field(default=(), repr=False)
    interval_seconds: float = 30.0
    timeout_seconds: float = 10.0
    retries: int = 3
    start_period_seconds: float = 0.0
    disabled: bool = False  # nothing is asked, not even what the image brings: alive is well

    @property
    def is_silent(self) -> bool:
        """Does it say nothing about what to ask?"""
        return not (self.endpoint or self.command or self.disabled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """When a dead instance comes back, and how slowly (DESIGN §7)."""

    policy: str = "always"  # always | on-failure | never
    backoff_seconds: float = 0.5  # first wait; doubles
    backoff_max_seconds: float = 60.0
    reset_after_seconds: float = 60.0  # ready for so long: the next wait is the first again
    max_exits: int = 10  # so many exits within window_seconds open the circuit: state "failed"
    window_seconds: float = 300.0
    cooldown_seconds: float = 300.0  # then one try, half-open


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What surrounds an instance. A change here alone never restarts anything."""

    replicas: int = 1
    replicas_in_file: bool = True  # False: a scaled number stays
    health: HealthCheck = HealthCheck()
    restart: Restart = Restart()
    dependencies: tuple[Dependency, ...] = ()
    strategy: str = ""  # empty: that of the deployment
    stop_signal: str = "SIGTERM"  # "": a container's, until its image has been looked at
    pull: str = "missing"  # always | missing | never: when the image is fetched
    stop_timeout_seconds: float = 30.0
    min_ready_seconds: float = 0.0  # 0: default (1 where there is neither check nor port)
    exclusive: bool = False  # as written; see ``is_exclusive`` in the planner


@dataclass(frozen=True, kw_only=True)  # no slots: the hash is computed once and kept
class ServiceSpec:
    """One service, resolved: content plus policy. ``secrets`` are values that no output may show; not hashed."""

    name: str
    content: Content = Content()
    policy: Policy = Policy()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @cached_property
    def run_hash(self) -> str:
        """sha256 over the canonical content (64 hex digits)."""
        return run_hash(self.content)


def run_hash(content: Content) -> str:
    """The hash behind a revision: equal hash, nothing to do (DESIGN §2, §4).

    Where an image can be pulled from says nothing about what it is. A built one is known by what it was built from: the
    same build gives another image each time.
    """
    import hashlib
    import json

    container = content.container
    if container.image_digest or container.build is not None:
        image_id = container.image_id if container.build is None else ""
        content = replace(content, container=replace(container, image_digest="", image_id=image_id))
    text = json.dumps(to_data(content), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


# --------------------------------------------------------------------------- the project around the services


OWN_TYPES = ("process", "container")
"""The types of services that we run ourselves; all others are registered."""


class StrategyName(StrEnum):
    """Orders of rollouts, and how each is done. Names of custom strategies are plain strings."""

    SEQUENTIAL = "Sequential"
    PARALLEL = "Parallel"
    ROLLING_UPDATE = "RollingUpdate"
    BLUE_GREEN = "BlueGreen"
    CANARY = "Canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """argv lists run on this machine, in the config's folder, with the project's env."""

    pre_deploy: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    post_deploy: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    on_failure: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When calls to somebody else's things are no longer tried for a while (section ``deployment.circuit_breaker``)."""

    failures: int = 5  # so many in a row, all within window_seconds, open the circuit
    window_seconds: float = 60.0
    cooldown_seconds: float = 30.0  # then one try, half-open


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How deployments of this project go (section ``deployment:`` and what else steers the engine)."""

    strategy: str = StrategyName.SEQUENTIAL
    strategy_options: Mapping[str, object] = field(default_factory=dict, repr=False)  # arguments of a custom strategy
    max_parallel: int = 10
    timeout_seconds: float = 300.0  # of one gate
    total_timeout_seconds: float = 0.0  # of the whole run; 0: timeout_seconds × services in the run
    rollback_on_failure: bool = True
    port_range: tuple[int, int] = (30000, 40000)  # both ends included
    dry_run: bool = False
    monitoring_enabled: bool = True
    plugins: tuple[str, ...] = ()  # as in the file, paths made absolute: what commands without the file go by
    overcommit: Mapping[str, float] = field(default_factory=dict)  # cpu, memory, storage → factor on what there is
    retained_revisions: int = 10  # of each service: what `prune` keeps for a rollback
    breaker: Breaker = Breaker()


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """Where things of one project lie, all absolute, the project's own folder already included."""

    state: str  # state.db, locks, agent.sock, releases/
    logs: str
    temp: str = ""
    backup: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a command must know of a project before it can open its state. Needs no valid file."""

    name: str
    directories: Directories
    files: tuple[str, ...] = ()  # real paths of the config files; empty with --project
    environment: str = ""  # as written; "" where unknown
    warnings: tuple[str, ...] = ()  # e.g. "data_dir is not writable, using …"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A whole file, resolved: the input of the planner, and what the cache of resolved configs holds."""

    name: str
    environment: str = "development"
    root: str = ""  # folder of the first config file, absolute
    settings: Settings = Settings()
    hooks: Hooks = Hooks()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # what hooks get on top: .env
    services: Mapping[str, ServiceSpec] = field(default_factory=dict)  # enabled ones only
    disabled: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()  # import strings "package.module:Class"
    warnings: tuple[str, ...] = ()  # each led by its code or by "warning"
    secrets: tuple[str, ...] = field(default=(), repr=False)  # values no output may show


# --------------------------------------------------------------------------- what runs


class Phase(StrEnum):
    """Where one instance is in its life."""

    WAITING = "waiting"  # recorded, not spawned: waits for a dependency after a reboot
    STARTING = "starting"  # spawned, its gate has not opened
    READY = "ready"
    UNREADY = "unready"  # was ready; fails its check now
    BACKOFF = "backoff"  # died; comes back at ``next_start_at``
    EXITED = "exited"  # died before its gate opened, or is not to be restarted
    COMPLETED = "completed"  # a one-shot that ended with 0
    FAILED = "failed"  # its circuit is open (crash loop), or a one-shot that did not end with 0
    STOPPING = "stopping"
    UNKNOWN = "unknown"  # of a custom type whose handler cannot be asked: the process that registered it has ended
    GONE = "gone"  # nothing of it is left; only ever seen in the stream

    @property
    def is_alive(self) -> bool:
        return self in (Phase.STARTING, Phase.READY, Phase.UNREADY, Phase.STOPPING)


class Gate(StrEnum):
    """Whether an instance was ever proven ready."""

    WAITING = "waiting"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What one probe found. ``detail``: start of the body, stderr or the error, at most 2 KB, secrets redacted."""

    ok: bool
    kind: str  # http | tcp | command | alive | handler
    target: str  # what was asked: a URL, host:port, an argv as text
    at: float
    duration: float
    status: int | None = None  # HTTP status or exit code
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended. Both None: unknown (it was adopted, nobody could wait for it)."""

    at: float
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False  # the kernel killed it, because its memory limit was reached

    @property
    def ok(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.out_of_memory:
            return "killed: out of memory"
        if self.signal is not None:
            import signal

            try:
                return f"killed by {signal.Signals(self.signal).name}"
            except ValueError:
                return f"killed by signal {self.signal}"
        return "exit code unknown" if self.code is None else f"exit code {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running copy, as the agent knows it. The agent alone writes these."""

    uuid: str
    service: str
    revision: int
    index: int
    phase: Phase = Phase.STARTING
    gate: Gate = Gate.WAITING
    pid: int = 0
    start_time: int = 0  # field 22 of /proc/PID/stat: with boot_id it tells a pid from its reuse
    boot_id: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)  # container_port (or "port") as text → number bound
    address: str = ""  # where its ports answer; "": on this machine
    published: Mapping[str, int] = field(default_factory=dict)  # of a container: port → number on this machine
    restarts: int = 0
    exit: Exit | None = None  # the last one
    probe: ProbeResult | None = None  # the last one
    created_at: float = 0.0
    started_at: float = 0.0
    ready_at: float = 0.0  # since when ready without a break; 0: not ready
    next_start_at: float = 0.0
    log_path: str = ""
    log_offset: int = 0  # logical offset in its log where this start began
    note: str = ""  # why it is where it is, in words
    circuit: str = ""  # of its crash loop: "" closed, "open", "half-open"
    handler: Mapping[str, str] = field(default_factory=dict)  # what a driver must remember, plain text

    @property
    def held_ports(self) -> tuple[int, ...]:
        """The numbers that it holds on this machine."""
        return tuple((self.published if self.address else self.ports).values())

    @property
    def container(self) -> str:
        """The id of its container; "" for what is none."""
        return self.handler.get("container", "")

    def but(self, **changes: object) -> Instance:
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One entry of the wanted set: so many instances of this revision of this service."""

    service: str
    revision: int
    replicas: int
    content: Content = Content()
    policy: Policy = Policy()
    secrets: tuple[str, ...] = field(default=(), repr=False)


# --------------------------------------------------------------------------- what is not as it should be


DRIFT_KINDS = (
    "image", "env", "command", "limits", "user", "mounts", "network", "missing", "extra", "changed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference between what runs and what its revision says. ``text``: in words; of env the names, no values.

    ``missing``: it is wanted, and does not run. ``extra``: it runs, is this project's, and no instance. Without an
    ``instance`` it is about all of a revision, or about what is extra.
    """

    service: str
    kind: str  # one of DRIFT_KINDS
    text: str
    revision: int = 0  # 0: not known
    index: int | None = None  # None: all instances of the revision
    instance: str = ""  # uuid; of what is extra the one that it carries

    @classmethod
    def of(cls, instance: Instance, text: str) -> Drift:
        """Of one instance; the first word of ``text`` says what it is about."""
        return cls(
            service=instance.service,
            kind=drift_kind(text),
            text=text,
            revision=instance.revision,
            index=instance.index,
            instance=instance.uuid,
        )

    def __str__(self) -> str:
        revision = f" r{self.revision}" if self.revision else ""
        index = f" #{self.index}" if self.index is not None else ""
        return f"{self.service}{revision}{index}: {self.text}" if self.service else self.text


def drift_kind(text: str) -> str:
    """``"limits: memory …"`` → ``"limits"``; what is none of the words is ``changed``."""
    word = text.partition(" ")[0].rstrip(":,")
    return word if word in DRIFT_KINDS else "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifts:
    """All that was found. ``unseen``: what could not be compared, and why."""

    found: tuple[Drift, ...] = ()
    unseen: tuple[str, ...] = ()
