"""Composition root: opens and closes everything, and is the only place that knows all parts.

Nothing is read when an ``App`` is made, and each part is imported when it is first needed: ``status`` must not pay for
what only ``deploy`` uses.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deploy_code.errors import ConfigError, DeployCodeError, ServiceError

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig, ServiceConfig
    from deploy_code.events import Bus
    from deploy_code.model import Identity, Project
    from deploy_code.orchestrator.engine import Engine
    from deploy_code.orchestrator.named_volumes import NamedVolumes
    from deploy_code.orchestrator.parts import Options, Parts
    from deploy_code.orchestrator.prepare import Preparation
    from deploy_code.orchestrator.prune import Pruning
    from deploy_code.orchestrator.reserve import Reservations
    from deploy_code.platforms.local import LocalPlatform
    from deploy_code.plugins import Plugin
    from deploy_code.security.redact import Redactor
    from deploy_code.state.store import Store

DEFAULT_FILE = "deploy-code.yaml"
_DRY_RUN = re.compile(rb"dry_run[\"']?\s*+:\s*+(?!false\b)")


class App:
    """One project as one caller wants to use it.

    ``config_files`` are merged in order; with ``project`` no file is needed for what the state alone can answer, and
    with ``config`` none is read at all. ``services``, ``types`` and ``strategies`` are what the caller registered in
    code: more services, and by name what makes a custom service or strategy. ``origin`` is the command, for the audit.
    """

    def __init__(
        self,
        config_files: Sequence[str | os.PathLike[str]] = (DEFAULT_FILE,),
        *,
        config: DeploymentConfig | None = None,
        services: Mapping[str, ServiceConfig] | None = None,
        types: Mapping[str, Callable[..., Any]] | None = None,
        strategies: Mapping[str, Callable[..., Any]] | None = None,
        project: str | None = None,
        state_dir: str | None = None,
        dry_run: bool = False,
        force: bool = False,
        adopt: bool = False,
        wait: bool = False,
        no_rollback: bool = False,
        origin: str = "python",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.config_files = tuple(os.fspath(each) for each in config_files) if config is None else ()
        self._config = config
        self._services = dict(services or {})
        self._types = dict(types or {})
        self._strategies = dict(strategies or {})
        self._project_name = project
        self._state_dir = state_dir
        self._flags = {
            "dry_run": dry_run,
            "force": force,
            "adopt": adopt,
            "wait": wait,
            "no_rollback": no_rollback,
        }
        self._origin = origin
        self._environ = environ
        self._platform: LocalPlatform | None = None

    @cached_property
    def options(self) -> Options:
        from deploy_code.orchestrator.parts import Options
        from deploy_code.state.lock import Holder

        return Options(**self._flags, origin=self._origin, who=str(Holder.this_process()))

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables that this caller goes by."""
        return os.environ if self._environ is None else self._environ

    # ----------------------------------------------------------------------------------------- cheap, for every command

    @cached_property
    def identity(self) -> Identity:
        """Name and folders of the project; works with a broken file. Raises E001 where there is none at all."""
        if self._state_dir is not None:
            return self._identity_from_state(self._state_dir)
        if self._config is not None:
            from deploy_code.config.handed import identity_in

            return identity_in(self._config)
        from deploy_code.config.identity import find_identity

        return find_identity(self.config_files, project=self._project_name, environ=self._environ)

    def _identity_from_state(self, directory: str) -> Identity:
        from deploy_code.model import Directories, Identity
        from deploy_code.state.store import Store

        with Store.open(directory, read_only=True) as store:
            row = store.project()
        if row is None:
            raise ConfigError(f"{directory} holds no project", remedy="Name the folder of a project's state")
        directories = Directories(state=os.path.abspath(directory), logs=row.log_dir)
        files = (row.file,) if row.file else ()
        return Identity(name=row.name, directories=directories, files=files, environment=row.environment)

    @cached_property
    def _is_dry(self) -> bool:
        """Must nothing be changed? A look at the raw text, since a file may say so before it can be understood."""
        if self._config is not None and self._config.dry_run:
            return True
        return self.options.dry_run or any(map(_says_dry_run, self.config_files))

    def has_state(self) -> bool:
        """Was this project ever deployed?"""
        from deploy_code.state.store import Store

        return Store.exists(self.identity.directories.state)

    def reader(self) -> Store | None:
        """The state, read-only; None when the project was never deployed. The caller closes it."""
        from deploy_code.state.store import Store

        return Store.open(self.identity.directories.state, read_only=True) if self.has_state() else None

    def agent_is_alive(self) -> bool:
        from deploy_code.platforms.spawn import agent_is_alive

        return agent_is_alive(self.identity.directories.state)

    def root(self) -> str:
        """The folder of the config file, "" where it is not known."""
        if self._config is not None:
            from deploy_code.config.handed import folder_of

            return folder_of(self._config)
        files = self.identity.files
        return os.path.dirname(files[0]) if files else ""

    def redactor(self, project: Project | None = None) -> Redactor:
        """Knows every secret value of the file (where it was loaded) and of the state."""
        from deploy_code.security.redact import Redactor

        values = set(project.secrets if project else ())
        for spec in project.services.values() if project else ():
            values.update(spec.secrets)
        store = self.reader()
        if store is not None:
            with store:
                values |= store.secrets()
        return Redactor(values)

    # ------------------------------------------------------------------------------------------------ what deploys need

    def load(self) -> Project:
        """The file, resolved and hashed; from the cache in the state where nothing it depends on has changed."""
        if self._config is not None or self._services:
            from deploy_code.config.handed import project_in

            return project_in(self.config(), code_types=self._types, code_strategies=self._strategies)
        from deploy_code.config import load_project

        with ExitStack() as stack:
            cache = _Cache(stack, self) if self._may_have_state() else None
            return load_project(
                self.config_files,
                environ=self._environ,
                cache=cache,
                code_types=self._types,
                code_strategies=self._strategies,
            )

    def config(self) -> DeploymentConfig:
        """The models: what was handed over, else the file, read anew. With the services that were registered in code.

        Raises ConfigError (E001, E002).
        """
        from deploy_code.config import load_config

        config = self._config
        if config is None:
            registered = {*self._types, *self._strategies}
            config = load_config(self.config_files, environ=self._environ, registered=registered)
        if self._services:
            config = config.model_copy(update={"services": {**config.services, **self._services}})
        return config

    @property
    def code_types(self) -> Collection[str]:
        """Types of services that were registered in code."""
        return self._types.keys()

    def _may_have_state(self) -> bool:
        return self._project_name is None and self.has_state()

    def prestart(self, bus: Bus) -> None:
        """Let the agent come up while the file is being read; it does nothing before there is a state and a lock."""
        if not self._is_dry:
            self._platform = self._local_platform(bus)
            self._platform.prestart()

    async def forget_prestarted(self) -> None:
        """The file was no good: an agent that came up for it is let go, and ends by itself."""
        made, self._platform = self._platform, None
        if made is not None:
            await made.close()

    def _local_platform(self, bus: Bus) -> LocalPlatform:
        """The one that ``prestart`` made, if it was called, else a new one."""
        from deploy_code.platforms.local import LocalPlatform

        made, self._platform = self._platform, None
        return made or LocalPlatform(self.identity, bus=bus, types=self._types)

    def reservations(self) -> Reservations:
        """What this project has been promised by the ledger of this machine."""
        from deploy_code.orchestrator.reserve import Reservations

        return Reservations(self.identity)

    def preparation(self) -> Preparation:
        """What sees to the images of containers before a deployment."""
        from deploy_code.orchestrator.prepare import Preparation

        return Preparation(self)

    def pruning(self) -> Pruning:
        """What of this project nobody returns to any more, to be shown and removed."""
        from deploy_code.orchestrator.prune import Pruning

        return Pruning(self.identity, environ=self.environ, origin=self._origin, keep=self._retained_revisions())

    def _retained_revisions(self) -> int | None:
        """What the file says now; None where it cannot be read, or is that of another project."""
        try:
            project = self.load()
        except DeployCodeError:
            return None  # `prune` needs no valid file: what the last deployment went by counts
        return project.settings.retained_revisions if project.name == self.identity.name else None

    def named_volumes(self) -> NamedVolumes:
        """The volumes that its file has named, to be shown and removed."""
        from deploy_code.orchestrator.named_volumes import NamedVolumes

        return NamedVolumes(self.identity, environ=self.environ, origin=self._origin)

    def orchestrator(self, plugins: Iterable[Plugin] = ()) -> Engine:
        from deploy_code.orchestrator.engine import Engine

        return Engine(self, plugins=plugins, strategies=self._strategies)

    @asynccontextmanager
    async def session(self, bus: Bus, project: Project | None, plugins: Iterable[Plugin]) -> AsyncIterator[Parts]:
        """Everything one deployment needs, open, and the deploy lock held. Closes it all again."""
        from deploy_code.orchestrator.audit import Audit
        from deploy_code.orchestrator.parts import Parts
        from deploy_code.orchestrator.plugin_host import PluginHost
        from deploy_code.state.lock import DeployLock
        from deploy_code.state.trace import EventWriter

        platform = self._local_platform(bus)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(platform.close)
            store = stack.enter_context(self._open_store(project))
            lock = stack.enter_context(DeployLock(self.identity.directories.state))
            await lock.acquire_async(self._origin, wait=self.options.wait)
            self._take_over(store)
            platform.prestart()
            host = PluginHost(
                plugins,
                lambda message: parts.warn(message),
                publish=lambda event: parts.publish(event),
                clean=lambda text: parts.redactor.clean(text),
            )
            stack.push_async_callback(host.close)
            parts = Parts(
                identity=self.identity,
                store=store,
                platform=platform,
                bus=bus,
                plugins=host,
                audit=Audit(EventWriter(store, self.options.who), lambda message: parts.warnings.append(message)),
                redactor=self.redactor(project),
                options=self.options,
                reservations=self.reservations(),
                warnings=list(self.identity.warnings),
            )
            stack.callback(parts.audit.flush)
            stack.callback(bus.subscribe(host.listen))
            await platform.open()
            yield parts

    def _open_store(self, project: Project | None) -> Store:
        """Only a deploy of a file makes a new state; everything else is about what was deployed before."""
        from deploy_code.state.store import Store

        identity = self.identity
        if project is None:
            if not self.has_state():
                what = f"nothing of {identity.name} was ever deployed"
                raise ServiceError(what, remedy="Run `deploy-code deploy` first")
            return Store.open(identity.directories.state)
        return Store.create(
            identity.directories.state,
            name=identity.name,
            file=identity.files[0] if identity.files else "",
            environment=identity.environment,
            log_dir=identity.directories.logs,
        )

    def check_owner(self, store: Store) -> None:
        """Two files must not fight over one project. Raises ConfigError."""
        row, identity = store.project(), self.identity
        own = identity.files[0] if identity.files else ""
        if row is None or row.file == own or self.options.adopt or not (own or self._config is not None):
            return
        raise ConfigError(
            f'the project "{identity.name}" belongs to {_owner(row.file)}, and this is {_owner(own)}',
            meaning="Deploying would stop what the other one describes; nothing was changed",
            remedy="Give one of them another `name`, or hand the project over with `deploy-code deploy --adopt`"
            if own
            else "Give one of them another `name`, or hand the project over with adopt=True",
        )

    def _take_over(self, store: Store) -> None:
        """The state follows its file: another stage, another folder of logs, or by --adopt another file."""
        self.check_owner(store)
        row, identity = store.project(), self.identity
        own = (identity.files[0] if identity.files else "", identity.environment, identity.directories.logs)
        known = bool(identity.files) or self._config is not None
        if row is not None and known and (row.file, row.environment, row.log_dir) != own:
            store.adopt(*own)


def _owner(file: str) -> str:
    """Who a project belongs to, in words: its file, or the program that builds its config."""
    if not file:
        return "a config built in code"
    return f"a config built in code in {file}" if file.endswith("/") else file


def _says_dry_run(file: str) -> bool:
    try:
        with open(file, "rb") as text:
            return _DRY_RUN.search(text.read()) is not None
    except OSError:
        return False  # whoever loads it says what is wrong with it


class _Cache:
    """The cache of resolved configs in the state; opened for writing only when something is put there."""

    def __init__(self, stack: ExitStack, app: App) -> None:
        self._stack = stack
        self._app = app

    def get(self, digest: str) -> str | None:
        reader = self._app.reader()
        if reader is None:
            return None
        with reader:
            return reader.resolved_get(digest)

    def put(self, digest: str, text: str) -> None:
        from deploy_code.state.store import Store

        if not self._app._is_dry:
            with Store.open(self._app.identity.directories.state) as store:
                store.resolved_put(digest, text)
