"""A checked config as the plain data that planner, agent and state work on.

Here defaults that depend on other values are worked out: the type of a service, variables of ``env_file`` under those
of ``env``, absolute paths, signal names, what is secret. Pure but for reading ``env_file``; contents of code are hashed
later, by ``content``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from deploy_code.config.advice import advice
from deploy_code.config.check import check, needs, signal_name, type_of
from deploy_code.config.fields import NetworkMode
from deploy_code.config.identity import project_name
from deploy_code.config.schema import (
    BuildConfig,
    DeploymentConfig,
    HealthCheckConfig,
    HooksConfig,
    PortConfig,
    RestartConfig,
    ServiceConfig,
    VolumeConfig,
)
from deploy_code.config.source import Source, source_of
from deploy_code.errors import ConfigError
from deploy_code.model import (
    OWN_TYPES,
    Breaker,
    Build,
    Condition,
    Container,
    Content,
    Dependency,
    HealthCheck,
    Hooks,
    Network,
    Policy,
    Port,
    Project,
    Release,
    Resources,
    Restart,
    ServiceSpec,
    Settings,
    Volume,
)
from deploy_code.plugins import absolute, load_extensions
from deploy_code.security.redact import is_secret_name, secret_values, url_passwords


def resolve(config: DeploymentConfig, *, code_types: Collection[str] = ()) -> Project:
    """``config`` as a Project; disabled services are left out. ``code_types``: types that this process registered.

    Globs of ``files`` stand in ``Content.files`` with an empty hash, and a release has an empty digest, until
    ``content.with_hashes`` has looked at the disk. Raises ConfigError when cross-field rules are broken, and when a
    service is of no type of ours and an extension, which may be the one that it needs, cannot be loaded.
    """
    source = source_of(config)
    problems = check(config)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{count}:", problems)
    plugins = tuple(absolute(each, source.folder) for each in config.plugins)
    types = handlers(plugins, types_asked(config), code_types, file=os.path.basename((*source.files, "")[0]))
    services = {
        name: _service(name, service, config, source, types)
        for name, service in config.services.items()
        if service.enabled
    }
    return Project(
        name=project_name(config.name, source.folder),
        environment=str(config.environment),
        root=source.folder,
        settings=_settings(config, plugins),
        hooks=_hooks(config.hooks),
        env=dict(source.dotenv),
        services=services,
        disabled=tuple(name for name, service in config.services.items() if not service.enabled),
        plugins=plugins,
        warnings=tuple(advice(config, planned=True)),
        secrets=_project_secrets(services, source),
    )


# --------------------------------------------------------------------------- types of services


def types_asked(config: DeploymentConfig) -> frozenset[str]:
    """The types that services name and that are none of ours."""
    kinds = (type_of(service) for service in config.services.values() if service.enabled)
    return frozenset(kinds).difference(OWN_TYPES)


def handlers(
    plugins: Iterable[str], asked: Collection[str], code_types: Collection[str], *, file: str = ""
) -> dict[str, str]:
    """For each type of ``asked`` that is registered, where its class is defined ("" for one registered in code).

    Extensions are loaded only when somebody asks. Raises ConfigError (E002).
    """
    if not asked:
        return {}
    found = {} if set(asked) <= set(code_types) else load_extensions(plugins, root="", file=file).types
    for name in code_types:
        if name in found:
            raise ConfigError(
                f'two things are called service type "{name}": {found[name].source} ({found[name].where}) '
                "and what register_type() was given in code",
                remedy="Register one of them under another name",
            )
    sources = {name: extension.source for name, extension in found.items()} | dict.fromkeys(code_types, "")
    return {name: source for name, source in sources.items() if name in asked}


def _settings(config: DeploymentConfig, plugins: tuple[str, ...]) -> Settings:
    deployment = config.deployment
    ports = config.infrastructure.network.port_range
    return Settings(
        strategy=str(deployment.strategy),
        strategy_options=dict(deployment.strategy_options),
        max_parallel=deployment.max_parallel,
        timeout_seconds=deployment.timeout_seconds,
        total_timeout_seconds=deployment.total_timeout_seconds or 0.0,
        rollback_on_failure=deployment.rollback_on_failure,
        port_range=(ports.start, ports.end),
        dry_run=config.dry_run,
        monitoring_enabled=config.monitoring.enabled,
        plugins=plugins,
        retained_revisions=deployment.retained_revisions,
        overcommit=config.infrastructure.overcommit.model_dump(),
        breaker=Breaker(**deployment.circuit_breaker.model_dump()),
    )


def _hooks(hooks: HooksConfig) -> Hooks:
    return Hooks(
        pre_deploy=tuple(map(tuple, hooks.pre_deploy)),
        post_deploy=tuple(map(tuple, hooks.post_deploy)),
        on_failure=tuple(map(tuple, hooks.on_failure)),
        timeout_seconds=hooks.timeout_seconds,
    )


def _service(
    name: str, service: ServiceConfig, config: DeploymentConfig, source: Source, types: Mapping[str, str]
) -> ServiceSpec:
    content = _content(name, service, config, source, types)
    return ServiceSpec(
        name=name, content=content, policy=_policy(service, config), secrets=_secrets(name, content, service, source)
    )


# --------------------------------------------------------------------------- content


def _content(
    name: str, service: ServiceConfig, config: DeploymentConfig, source: Source, types: Mapping[str, str]
) -> Content:
    kind = _kind(service, types)
    release = _release(service, config, source) if service.release else None
    working_dir = _working_dir(service, kind, release, source)
    return Content(
        service_type=kind,
        command=_command(service.command or "", working_dir, release, source)
        if kind != "container"
        else service.command or "",
        args=tuple(service.args),
        env=_env(service, source),
        working_dir=working_dir,
        user=service.user or "",
        inherit_env=service.inherit_env,
        image=service.image or "",
        ports=tuple(_port(port) for port in service.ports),
        volumes=tuple(_volume(volume, kind, source) for volume in service.volumes),
        resources=Resources(**service.resources.model_dump()),
        one_shot=service.one_shot,
        files=dict.fromkeys(service.files, ""),
        release=release,
        handler=types.get(kind, ""),
        options=dict(service.options),
        container=_container(service, config, source) if kind == "container" else Container(),
    )


def _container(service: ServiceConfig, config: DeploymentConfig, source: Source) -> Container:
    """What the file says; where its engine is and what its image is made of is found out before a plan is made."""
    return Container(
        runtime=config.infrastructure.container_runtime.lower(),
        build=_build(service.build, config, source) if service.build else None,
        network=_network(config, source),
        extra_hosts=dict(service.extra_hosts),
        cap_add=tuple(map(str.upper, service.cap_add)),
        cap_drop=tuple(map(str.upper, service.cap_drop)),
        read_only=service.read_only,
        privileged=service.privileged,
        init=service.init,
        shm_size_mb=service.shm_size_mb,
        labels=dict(service.labels),
        log_driver=service.log_driver or "",
        log_options=dict(service.log_options),
    )


def _build(build: BuildConfig, config: DeploymentConfig, source: Source) -> Build:
    context = source.absolute(build.context)
    return Build(
        context=context,
        dockerfile=build.dockerfile,
        args=dict(build.args),
        target=build.target or "",
        exclude=_own_folders(context, config, source),
    )


def _network(config: DeploymentConfig, source: Source) -> Network:
    """Only what is written counts: the printed defaults would meet other networks, and ask strangers for names."""
    network, project = config.infrastructure.network, project_name(config.name, source.folder)
    if network.mode is NetworkMode.HOST:
        return Network(mode=str(network.mode))
    cidr = network.cidr if "cidr" in network.model_fields_set else ""
    servers = network.dns_servers if "dns_servers" in network.model_fields_set else ()
    return Network(name=network_name(project, cidr), mode=str(network.mode), cidr=cidr, dns_servers=tuple(servers))


def network_name(project: str, cidr: str) -> str:
    """Another subnet is another network: one cannot change while containers are in it."""
    from hashlib import sha256

    return f"{project}-{sha256(cidr.encode()).hexdigest()[:6]}" if cidr else project


def _kind(service: ServiceConfig, types: Mapping[str, str]) -> str:
    """``custom`` without a handler is what the document's example shows: an ordinary process."""
    kind = type_of(service)
    if kind == "custom" and kind not in types:
        return "container" if service.image or service.build else "process"
    return kind


def _working_dir(service: ServiceConfig, kind: str, release: Release | None, source: Source) -> str:
    written = service.working_dir
    if kind == "container":
        return written or ""
    folder = source.absolute(written) if written else (release.source if release else source.folder)
    inside = _inside(folder, release.source) if release else None
    return folder if inside is None else f"release:{inside}"


def _command(command: str, working_dir: str, release: Release | None, source: Source) -> str:
    """A relative path is relative to the file's folder; inside a release to the copy's working directory."""
    if "/" not in command or os.path.isabs(command) or "${" in command:
        return command
    path = source.absolute(command)
    inside = _inside(path, release.source) if release else None
    if inside is None or not working_dir.startswith("release:"):
        return path
    return os.path.join(".", os.path.relpath(inside, working_dir.removeprefix("release:") or "."))


def _release(service: ServiceConfig, config: DeploymentConfig, source: Source) -> Release:
    """What a release leaves out: deploy-code's own folders and what the service writes, if they lie inside it."""
    tree = source.absolute(service.release or ".")
    written = (_inside(source.absolute(volume.mount_path), tree) for volume in service.volumes)
    left_out = {*_own_folders(tree, config, source), *(path for path in written if path)}
    return Release(source=tree, digest="", exclude=tuple(sorted(left_out)))


def _own_folders(tree: str, config: DeploymentConfig, source: Source) -> tuple[str, ...]:
    """Those of deploy-code's own folders that lie inside ``tree``, relative to it."""
    storage = config.infrastructure.storage
    own = (storage.data_dir, storage.log_dir, storage.temp_dir, storage.backup_dir)
    inside = (_inside(source.absolute(path), tree) for path in own)
    return tuple(sorted({path for path in inside if path}))


def _inside(path: str, folder: str) -> str | None:
    """``path`` relative to ``folder`` ("" for the folder itself), or None when it lies elsewhere."""
    if path == folder:
        return ""
    prefix = folder.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def _env(service: ServiceConfig, source: Source) -> Mapping[str, str]:
    merged: dict[str, str] = {}
    for file in service.env_file:
        merged |= source.env_file(source.absolute(file))[0]
    return merged | service.environment


def _port(port: PortConfig) -> Port:
    return Port(
        container_port=port.container_port, host_port=port.host_port, protocol=str(port.protocol), dynamic=port.dynamic
    )


def _volume(volume: VolumeConfig, kind: str, source: Source) -> Volume:
    return Volume(
        name=volume.name,
        mount_path=volume.mount_path if kind == "container" else source.absolute(volume.mount_path),
        read_only=volume.read_only,
        shared=volume.shared,
        source=source.absolute(volume.source) if volume.source else "",
        tmpfs=volume.tmpfs,
        size_mb=volume.size_mb,
    )


# --------------------------------------------------------------------------- policy


def _policy(service: ServiceConfig, config: DeploymentConfig) -> Policy:
    return Policy(
        replicas=service.replicas,
        replicas_in_file="replicas" in service.model_fields_set,
        health=_health(service.health_check, config.deployment.health_check_interval),
        restart=_restart(service.restart),
        dependencies=tuple(_dependencies(service, config)),
        strategy=service.strategy or "",
        stop_signal=_stop_signal(service),
        pull=str(service.pull),
        stop_timeout_seconds=service.stop_timeout_seconds,
        min_ready_seconds=service.min_ready_seconds,
        exclusive=service.exclusive,
    )


def _stop_signal(service: ServiceConfig) -> str:
    if type_of(service) == "container" and "stop_signal" not in service.model_fields_set:
        return ""  # the image may say one
    return signal_name(service.stop_signal)


def _health(check: HealthCheckConfig | None, interval: float) -> HealthCheck:
    if check is None:
        return HealthCheck(interval_seconds=interval)
    return HealthCheck(
        endpoint=check.endpoint,
        command=tuple(check.command),
        interval_seconds=check.interval_seconds if "interval_seconds" in check.model_fields_set else interval,
        timeout_seconds=check.timeout_seconds,
        retries=check.retries,
        start_period_seconds=check.start_period_seconds,
        disabled=check.disabled,
    )


def _restart(restart: RestartConfig) -> Restart:
    return Restart(**{**restart.model_dump(), "policy": str(restart.policy)})


def _dependencies(service: ServiceConfig, config: DeploymentConfig) -> Iterator[Dependency]:
    """Each once. A one-shot is done when it has completed: "healthy" would never come."""
    seen: set[str] = set()
    for _, name, written in needs(service):
        if name in seen:
            continue
        seen.add(name)
        usual = Condition.COMPLETED if config.services[name].one_shot else Condition.HEALTHY
        condition = usual if written in (None, Condition.HEALTHY) else written
        yield Dependency(service=name, condition=condition or usual)


# --------------------------------------------------------------------------- secrets


def _secrets(name: str, content: Content, service: ServiceConfig, source: Source) -> tuple[str, ...]:
    build = content.container.build
    values = {**dict(source.used_in(name)), **content.env, **(build.args if build else {})}
    found = dict.fromkeys([*secret_values(dict(source.used_in(name))), *secret_values(values)])
    found |= dict.fromkeys(_secret_args(content.args))
    if service.health_check and "@" in service.health_check.endpoint:
        found |= dict.fromkeys(url_passwords(service.health_check.endpoint))
    return tuple(found)


def _secret_args(args: tuple[str, ...]) -> Iterator[str]:
    """``--password=x``, ``--token x`` and URLs with a password."""
    for arg, following in zip(args, (*args[1:], ""), strict=False):
        option, equals, value = arg.partition("=")
        if "://" in arg:
            yield from url_passwords(arg)
        if option.startswith("-") and is_secret_name(option.lstrip("-")):
            given = value if equals else following
            yield from secret_values({"secret": given} if not given.startswith("-") else {})


def _project_secrets(services: Mapping[str, ServiceSpec], source: Source) -> tuple[str, ...]:
    found = dict.fromkeys(secret_values(source.dotenv))
    found |= dict.fromkeys(secret_values(dict(source.used_in())))
    for service in services.values():
        found |= dict.fromkeys(service.secrets)
    return tuple(found)
