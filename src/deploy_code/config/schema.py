"""The file as frozen models: every key, its unit, its default, and the rules for one value at a time.

Rules between values are in ``check``; what a whole service means is worked out in ``resolve``. The models serve
files and code alike: ``config.services["web"] = ServiceConfig(command="python", args=["-m", "web"])``. Either way all
errors come at once as one ``ConfigError``; those of a file have a line and a column.

What may hold a secret (arguments, variables, options, addresses) is in no ``repr``.

Classes are built when first used (``defer_build``): a command that reads one file builds one validator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from deploy_code.config.fields import (
    Amount,
    AuthMethod,
    ContainerRuntime,
    Count,
    Data,
    Environment,
    Filled,
    Flag,
    Listed,
    Named,
    NetworkMode,
    Orchestrator,
    Paths,
    PortNumber,
    Positive,
    Protocol,
    PullPolicy,
    RestartPolicy,
    Seconds,
    SecondsOrZero,
    Section,
    Severity,
    StrategyText,
    Text,
    When,
    Words,
    mistake,
)
from deploy_code.model import Condition, StrategyName

if TYPE_CHECKING:
    from deploy_code.config.source import Source

# --------------------------------------------------------------------------- infrastructure


class PortRange(Section):
    """Ports that services with a dynamic port get theirs from; both ends included."""

    start: PortNumber = Field(default=30000, description="first port")
    end: PortNumber = Field(default=40000, description="last port, included")


class NetworkConfig(Section):
    """The network that containers share, and the range of dynamic ports."""

    mode: Named[NetworkMode] = Field(default=NetworkMode.BRIDGE, description="Bridge, Host or Overlay")
    cidr: Filled = Field(default="172.20.0.0/16", description="subnet of the project's network")
    dns_servers: Listed[Filled] = Field(default=("8.8.8.8", "1.1.1.1"), description="addresses of name servers")
    port_range: PortRange = Field(default_factory=PortRange, description="where dynamic ports come from")


class StorageConfig(Section):
    """Folders of deploy-code itself; each project gets one of its own name in each of them."""

    data_dir: Filled = Field(default="/var/lib/deploy-code", description="state, locks, releases")
    log_dir: Filled = Field(default="/var/log/deploy-code", description="logs of instances")
    temp_dir: Filled = Field(default="/tmp/deploy-code", description="temporary files")
    backup_dir: Filled = Field(default="/var/backups/deploy-code", description="backups")


Factor = Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)]


class OvercommitConfig(Section):
    """How much more than there is may be promised: 2.0 is twice as much. GPUs are never shared."""

    cpu: Factor = Field(default=1.0, description="factor on the machine's cores")
    memory: Factor = Field(default=1.0, description="factor on the machine's memory")
    storage: Factor = Field(default=1.0, description="factor on the free disk space")


class InfrastructureConfig(Section):
    """Where services run."""

    container_runtime: Named[ContainerRuntime] = Field(
        default=ContainerRuntime.DOCKER, description="Docker, Podman or Containerd"
    )
    orchestrator: Named[Orchestrator] = Field(
        default=Orchestrator.DOCKER_COMPOSE, description="DockerCompose (this machine), Kubernetes or Swarm"
    )
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    overcommit: OvercommitConfig = Field(default_factory=OvercommitConfig)


# --------------------------------------------------------------------------- security


class AuthConfig(Section):
    """Who may use the HTTP API."""

    enabled: Flag = Field(default=False, description="ask for credentials")
    method: Named[AuthMethod] = Field(default=AuthMethod.JWT, description="JWT, OAuth2 or Basic")
    token_expiry_seconds: Positive = Field(default=3600, description="how long a token is valid, seconds")


class RoleConfig(Section):
    """A named set of permissions."""

    name: Filled = Field(description="name of the role")
    permissions: Listed[Filled] = Field(default=(), description="commands that this role may give; * is all")


class RbacConfig(Section):
    """Roles and what they permit."""

    enabled: Flag = Field(default=False, description="check permissions")
    roles: Listed[RoleConfig] = Field(default=(), description="the roles")


class SecurityConfig(Section):
    """Encryption and access of the HTTP API."""

    tls_enabled: Flag = Field(default=False, description="serve HTTPS")
    cert_path: Filled = Field(default="/etc/deploy-code/certs/server.crt", description="certificate, PEM")
    key_path: Filled = Field(default="/etc/deploy-code/certs/server.key", description="private key, PEM")
    auth: AuthConfig = Field(default_factory=AuthConfig)
    rbac: RbacConfig = Field(default_factory=RbacConfig)


# --------------------------------------------------------------------------- deployment


class CircuitBreakerConfig(Section):
    """When calls to plugins, runtimes and other things of somebody else's are no longer tried for a while."""

    failures: Positive = Field(default=5, description="so many in a row, all within window_seconds, open the circuit")
    window_seconds: Seconds = Field(default=60.0, description="see failures, seconds")
    cooldown_seconds: Seconds = Field(default=30.0, description="wait before one more try, seconds")


class DeploymentSettings(Section):
    """How a deployment goes (section ``deployment:``)."""

    strategy: StrategyText = Field(
        default=StrategyName.SEQUENTIAL,
        description="Sequential, Parallel, RollingUpdate, BlueGreen, Canary or a registered name",
    )
    max_parallel: Positive = Field(default=10, description="services in work at once")
    health_check_interval: Seconds = Field(
        default=30.0, description="default of health_check.interval_seconds, seconds"
    )
    timeout_seconds: Seconds = Field(default=300.0, description="bound of one service's gate, seconds")
    total_timeout_seconds: Seconds | None = Field(
        default=None,
        description="bound of the whole deployment, seconds; default timeout_seconds x services in the run",
    )
    rollback_on_failure: Flag = Field(default=True, description="put everything back when something fails")
    strategy_options: Data = Field(
        default_factory=dict, repr=False, description="keyword arguments of a custom strategy"
    )
    retained_revisions: Positive = Field(
        default=10, description="revisions of each service that prune keeps, with their images"
    )
    circuit_breaker: CircuitBreakerConfig = Field(default_factory=CircuitBreakerConfig)


def _commands(value: Any) -> Any:
    if isinstance(value, str):
        raise mistake("must be a list, got text", 'write the command as a list: ["./hook.sh", "argument"]')
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return (tuple(value),)
    return value


Commands = Annotated[Listed[Annotated[Listed[Text], Field(min_length=1)]], BeforeValidator(_commands)]


class HooksConfig(Section):
    """Commands around a deployment, each an argv list or several. Run on this machine, in the file's folder."""

    pre_deploy: Commands = Field(
        default=(), repr=False, description="before anything changes; a failure stops the deployment"
    )
    post_deploy: Commands = Field(
        default=(), repr=False, description="after a successful deployment; a failure only warns"
    )
    on_failure: Commands = Field(default=(), repr=False, description="after a failed one; a failure only warns")
    timeout_seconds: Seconds = Field(default=60.0, description="bound of each command, seconds")


# --------------------------------------------------------------------------- monitoring


class PrometheusConfig(Section):
    """Where metrics are collected."""

    endpoint: Filled | None = Field(default=None, repr=False, description="URL of Prometheus")
    scrape_interval: Seconds = Field(default=15.0, description="seconds between two scrapes")
    retention_days: Positive = Field(default=30, description="how long Prometheus keeps samples, days")


class GrafanaConfig(Section):
    """Where dashboards are shown."""

    endpoint: Filled | None = Field(default=None, repr=False, description="URL of Grafana")
    dashboards: Listed[Filled] = Field(
        default=("code-platform-overview", "service-health"), description="dashboards to install"
    )


class AlertRule(Section):
    """One condition that is to be told about."""

    name: Filled = Field(description="name of the alert")
    condition: Filled = Field(description="metric, comparison, number: cpu_usage > 90")
    severity: Named[Severity] = Field(default=Severity.WARNING, description="Critical, Warning or Info")


class AlertingConfig(Section):
    """Who is told, and when."""

    enabled: Flag = Field(default=False, description="send alerts")
    webhook_url: Filled | None = Field(default=None, repr=False, description="where alerts are posted to")
    rules: Listed[AlertRule] = Field(default=(), description="the rules")


class MonitoringConfig(Section):
    """Metrics, dashboards, alerts."""

    enabled: Flag = Field(default=True, description="take part in monitoring")
    prometheus: PrometheusConfig = Field(default_factory=PrometheusConfig)
    grafana: GrafanaConfig = Field(default_factory=GrafanaConfig)
    alerting: AlertingConfig = Field(default_factory=AlertingConfig)


# --------------------------------------------------------------------------- services


class ResourceRequirements(Section):
    """What is set aside for one instance. What is not given is not set aside."""

    cpu_cores: Amount = Field(default=0.0, description="cores; fractions are fine")
    memory_mb: Count = Field(default=0, description="memory, MB")
    storage_gb: Count = Field(default=0, description="disk, GB")
    gpu_count: Count = Field(default=0, description="GPUs")
    pids: Count = Field(default=0, description="most processes and threads at once; 0 is no limit")


class HealthCheckConfig(Section):
    """How readiness is asked for. Both ``endpoint`` and ``command``: both must pass."""

    endpoint: Text = Field(
        default="", repr=False, description="http(s)://host:port/path, /path (on the first port) or tcp://host:port"
    )
    command: Words = Field(default=(), repr=False, description="argv list; exit code 0 is healthy")
    interval_seconds: Seconds = Field(default=30.0, description="seconds between two probes once ready")
    timeout_seconds: Seconds = Field(default=10.0, description="bound of one probe, seconds")
    retries: Positive = Field(default=3, description="failures in a row until unready")
    start_period_seconds: SecondsOrZero = Field(
        default=0.0, description="failures so long after the start do not count, seconds"
    )
    disabled: Flag = Field(default=False, description="ask nothing, not even what the image brings: alive is well")


class PortConfig(Section):
    """One port of a service."""

    container_port: PortNumber | None = Field(default=None, description="what the service itself binds")
    host_port: PortNumber | None = Field(default=None, description="what callers use")
    protocol: Named[Protocol] = Field(default=Protocol.TCP, description="tcp or udp")
    dynamic: Flag = Field(default=False, description="chosen at start from port_range and handed over as PORT")

    @model_validator(mode="after")
    def _some_port(self) -> PortConfig:
        if self.container_port is None and self.host_port is None and not self.dynamic:
            raise mistake("no port is given", "write container_port: 8080, or dynamic: true")
        return self


class VolumeConfig(Section):
    """A folder that a service keeps data in."""

    name: Filled = Field(description="name of the volume")
    mount_path: Filled = Field(description="where the service sees it; for a process a folder of this machine")
    read_only: Flag = Field(default=False, description="the service only reads (not enforced for processes)")
    shared: Flag = Field(default=False, description="two revisions may write at once")
    source: Filled | None = Field(
        default=None, description="folder or file of this machine that a container sees at mount_path"
    )
    tmpfs: Flag = Field(default=False, description="in memory, for containers; gone with the container")
    size_mb: Count = Field(default=0, description="size of a tmpfs, MB; 0 is the runtime's default")


def _env(value: Any) -> Any:
    if isinstance(value, list | tuple):
        raise mistake("must be a mapping, got a list", "write NAME: value, one a line")
    return value


Env = Annotated[dict[Annotated[str, Field(pattern=r"^[^=\x00]+$")], Text], BeforeValidator(_env)]


class BuildConfig(Section):
    """How an image is built. Text instead of a mapping is the context alone."""

    context: Filled = Field(description="folder that is sent to the runtime")
    dockerfile: Filled = Field(default="Dockerfile", description="relative to the context")
    args: Env = Field(default_factory=dict, repr=False, description="build arguments: NAME: value")
    target: Filled | None = Field(default=None, description="stage to build; default the last one")


class RestartConfig(Section):
    """When a dead instance comes back, and how slowly."""

    policy: Named[RestartPolicy] = Field(default=RestartPolicy.ALWAYS, description="always, on-failure or never")
    backoff_seconds: Seconds = Field(default=0.5, description="first wait; doubles each time, seconds")
    backoff_max_seconds: Seconds = Field(default=60.0, description="longest wait, seconds")
    reset_after_seconds: Seconds = Field(
        default=60.0, description="ready for so long: the next wait is the first again, seconds"
    )
    max_exits: Positive = Field(default=10, description="so many exits within window_seconds and it counts as failed")
    window_seconds: Seconds = Field(default=300.0, description="see max_exits, seconds")
    cooldown_seconds: Seconds = Field(default=300.0, description="wait before one more try after that, seconds")


class DependencyConfig(Section):
    """The long form of a dependency."""

    service: Filled = Field(description="name of the service that is needed")
    condition: When = Field(default=Condition.HEALTHY, description="healthy, started or completed (a one-shot)")


def _dependency_form(value: Any) -> str:
    return "name" if isinstance(value, str) else "long"


Dependency = Annotated[
    Annotated[Filled, Tag("name")] | Annotated[DependencyConfig, Tag("long")], Discriminator(_dependency_form)
]


def _executable(value: Any) -> Any:
    if isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value):
        from deploy_code.config.fields import flow

        raise mistake("must be one executable, got a list", f"write command: {value[0]} and args: {flow(value[1:])}")
    return value


def _restart(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


def _build(value: Any) -> Any:
    return {"context": value} if isinstance(value, str) else value


class ServiceConfig(Section):
    """One deployable unit."""

    spellings: ClassVar[Mapping[str, str]] = {"env": "environment", "image": "container_image"}

    enabled: Flag = Field(default=True, description="false: as if it were not in the file")
    service_type: Filled | None = Field(
        default=None,
        description="process, container or a registered name; default container with an image, else process",
    )
    command: Annotated[Filled, BeforeValidator(_executable)] | None = Field(
        default=None, description="one executable, never split; in a container it replaces the entrypoint"
    )
    args: Words = Field(default=(), repr=False, description="its arguments, one a list item")
    container_image: Filled | None = Field(
        default=None, serialization_alias="image", description="image of a container"
    )
    working_dir: Filled | None = Field(default=None, description="folder it runs in; default the file's folder")
    user: Filled | None = Field(default=None, description="user, or user:group; default who deploys")
    environment: Env = Field(
        default_factory=dict, serialization_alias="env", repr=False, description="variables: NAME: value"
    )
    env_file: Paths = Field(default=(), description="files with NAME=value lines; env wins over them")
    inherit_env: Flag = Field(default=False, description="start from the agent's whole environment, not the short one")
    replicas: Count = Field(default=1, description="instances wanted")
    dependencies: Listed[Dependency] = Field(default=(), description="services that must be ready before")
    health_check: HealthCheckConfig | None = Field(default=None, description="how readiness is asked for")
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    ports: Listed[PortConfig] = Field(default=(), description="ports; the first is PORT")
    volumes: Listed[VolumeConfig] = Field(default=(), description="folders with data")
    strategy: StrategyText | None = Field(default=None, description="overrides deployment.strategy for this service")
    restart: Annotated[RestartConfig, BeforeValidator(_restart)] = Field(
        default_factory=RestartConfig, description="always, on-failure, never; or a mapping"
    )
    stop_signal: Filled = Field(
        default="SIGTERM", description="signal that asks it to end; of a container by default what its image says"
    )
    stop_timeout_seconds: SecondsOrZero = Field(default=30.0, description="seconds until it is killed")
    min_ready_seconds: SecondsOrZero = Field(default=0.0, description="ready for so long before it counts, seconds")
    one_shot: Flag = Field(default=False, description="runs to its end once per content, for instance a migration")
    exclusive: Flag = Field(default=False, description="two revisions may not run at once")
    files: Paths = Field(default=(), description="globs of files whose change is a change of the service")
    release: Filled | None = Field(default=None, description="folder of code, copied away and run from the copy")
    options: Data = Field(default_factory=dict, repr=False, description="plain data for a custom service_type")
    pull: Named[PullPolicy] = Field(
        default=PullPolicy.MISSING, description="when the image is fetched: always, missing or never"
    )
    build: Annotated[BuildConfig, BeforeValidator(_build)] | None = Field(
        default=None, description="how the image is built: a folder, or a mapping"
    )
    extra_hosts: Env = Field(default_factory=dict, description="more names that the container knows: NAME: address")
    cap_add: Listed[Filled] = Field(default=(), description="capabilities that the container gets")
    cap_drop: Listed[Filled] = Field(default=(), description="capabilities that are taken from it; ALL is all")
    read_only: Flag = Field(default=False, description="the container's own files cannot be changed")
    privileged: Flag = Field(default=False, description="the container may do what root may on this machine")
    init: Flag = Field(default=False, description="a small init reaps the container's orphans")
    shm_size_mb: Count = Field(
        default=0, description="size of the container's /dev/shm, MB; 0 is the runtime's default"
    )
    labels: Env = Field(default_factory=dict, description="labels of the container: NAME: value")
    log_driver: Filled | None = Field(default=None, description="the runtime's log driver; default a local file")
    log_options: Env = Field(default_factory=dict, description="options of the log driver: NAME: value")

    @property
    def env(self) -> dict[str, str]:
        """Short for ``environment``."""
        return self.environment

    @property
    def image(self) -> str | None:
        """Short for ``container_image``."""
        return self.container_image


class DeploymentConfig(Section):
    """A whole file. ``services`` is a plain mapping that may be changed; everything else is frozen."""

    version: Annotated[str, Field(pattern=r"^1(\.[0-9x]+){0,2}$")] = Field(
        default="1.0.0", description="version of this schema"
    )
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] | None = Field(
        default=None, description="name of the project; default the folder's name"
    )
    environment: Named[Environment] = Field(
        default=Environment.PRODUCTION, description="development, staging or production"
    )
    dry_run: Flag = Field(default=False, description="same as --dry-run")
    infrastructure: InfrastructureConfig = Field(default_factory=InfrastructureConfig)
    security: SecurityConfig = Field(default_factory=SecurityConfig)
    deployment: DeploymentSettings = Field(default_factory=DeploymentSettings)
    monitoring: MonitoringConfig = Field(default_factory=MonitoringConfig)
    hooks: HooksConfig = Field(default_factory=HooksConfig)
    plugins: Paths = Field(
        default=(),
        description='plugins, service types and strategies: "package.module:Class" or "./file.py:Class"',
    )
    services: dict[str, ServiceConfig] = Field(default_factory=dict, description="the services by name")

    _source: Source | None = PrivateAttr(default=None)

    @classmethod
    async def load(cls, path: str | Path) -> DeploymentConfig:
        """Read one file, off the loop. Raises ConfigError (E001, E002) with all problems.

        Names of types and strategies are judged when the config is handed over: code may register some before.
        """
        import asyncio

        from deploy_code.config.loader import load_config

        return await asyncio.to_thread(load_config, [path], registered=None)

    def __eq__(self, other: object) -> bool:
        """Equal values, wherever they came from."""
        return isinstance(other, DeploymentConfig) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # its services may be changed

    def to_yaml(self) -> str:
        """What was given, as YAML, which reads as an equal config.

        A value that came from a variable is written as ``${VAR}``, so that no secret is written down.
        """
        from deploy_code.config.write import write_yaml

        return write_yaml(self)
