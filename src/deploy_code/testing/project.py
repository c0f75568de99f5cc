"""A whole project in memory: the real engine, its real state in a folder of its own, and a ``FakePlatform`` below."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_code.app import App
from deploy_code.events import Bus, Event
from deploy_code.model import Phase
from deploy_code.orchestrator.engine import Engine
from deploy_code.orchestrator.prepare import Preparation
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.orchestrator.reserve import Reservations
from deploy_code.testing.platform import FakePlatform
from deploy_code.testing.records import FakeRecords

if TYPE_CHECKING:
    from typing import Self

    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.model import Project, Settings
    from deploy_code.plan.plan import Goal, Plan
    from deploy_code.plugins import Plugin

    Config = DeploymentConfig | Mapping[str, Any] | str | os.PathLike[str]

NAME = "deploy-code.yaml"
OUTSIDE = "use it as `async with FakeProject(...) as project:`"


class FakeProject:
    """Deploys onto a ``FakePlatform`` with the real planner, engine and state: for tests of strategies and plugins.

    ``config``: a DeploymentConfig, a mapping of plain data, the text of a file, or the path of one (text without a
    colon is a path). ``strategies`` and ``types``: by
    name, as ``register_strategy`` and ``register_type`` take them (of a custom type only the name is used: instances
    are the platform's). ``plugins``: as ``add_plugin`` takes them. ``platform``: one of your own. ``dry_run``,
    ``force``, ``no_rollback``: as on the command line.

    Use it as ``async with FakeProject(config) as project:``. State lies in a temporary folder that goes at the end. The
    machine is not looked at: no command has to exist, no port to be free, no memory to be there. ``events`` has every
    event so far.
    """

    def __init__(
        self,
        config: Config,
        *,
        strategies: Mapping[str, Callable[..., Any]] | None = None,
        types: Mapping[str, Callable[..., Any]] | None = None,
        plugins: Iterable[Plugin] = (),
        platform: FakePlatform | None = None,
        dry_run: bool = False,
        force: bool = False,
        no_rollback: bool = False,
    ) -> None:
        self.platform = platform or FakePlatform()
        self.events: list[Event] = []
        self._config = config
        self._plugins = list(plugins)
        self._host = partial(
            _FakeApp,
            strategies=strategies,
            types=types,
            dry_run=dry_run,
            force=force,
            no_rollback=no_rollback,
            adopt=True,  # wherever a config of this project comes from, it is the same project
        )
        self._folder: Path | None = None
        self._engine: Engine | None = None

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="deploy-code-fake-"))
        try:
            self.change(self._config)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        folder, self._folder, self._engine = self._folder, None, None
        if self.platform.records is not None:
            self.platform.records.close()
            self.platform.records = None
        if folder is not None:
            shutil.rmtree(folder)

    def change(self, config: Config) -> None:
        """From now on the project is as ``config`` says, as if its file had been edited."""
        self._engine = self._host(self._files(config), platform=self.platform).orchestrator(self._plugins)
        self._engine.bus.subscribe(self.events.append)

    @property
    def engine(self) -> Engine:
        """For everything that has no method here."""
        if self._engine is None:
            raise RuntimeError(OUTSIDE)
        return self._engine

    async def deploy(self, services: list[str] | None = None) -> DeploymentReport:
        """As ``DeployCode.deploy``: raises for what is found before the first step, else gives the report."""
        return await self.engine.deploy(services)

    async def restart(self, services: list[str] | None = None) -> DeploymentReport:
        return await self.engine.restart(services)

    async def scale(self, replicas: Mapping[str, int]) -> DeploymentReport:
        return await self.engine.scale(replicas)

    async def rollback(self, to: int | None = None) -> DeploymentReport:
        return await self.engine.rollback(to)

    async def stop(self) -> DeploymentReport | None:
        return await self.engine.stop()

    def ready(self) -> dict[str, int]:
        """How many instances of each service are ready now, all revisions; services without one are not in it."""
        found: dict[str, int] = {}
        for each in self.platform.all():
            if each.phase is Phase.READY:
                found[each.service] = found.get(each.service, 0) + 1
        return found

    # -- pieces

    def _files(self, config: Config) -> list[str]:
        """The file, and one on top of it that says where this project's state lies."""
        folder = self._folder
        if folder is None:
            raise RuntimeError(OUTSIDE)
        storage = {key: str(folder / key) for key in ("data_dir", "log_dir", "temp_dir", "backup_dir")}
        own = folder / "storage.yaml"
        own.write_text(_yaml({"infrastructure": {"storage": storage}}))
        if isinstance(config, os.PathLike) or (isinstance(config, str) and ":" not in config):
            return [os.fspath(config), str(own)]
        written = folder / "project" / NAME
        written.parent.mkdir(exist_ok=True)
        written.write_text(config if isinstance(config, str) else _text_of(config))
        return [str(written), str(own)]


def _text_of(config: DeploymentConfig | Mapping[str, Any]) -> str:
    from deploy_code.config import DeploymentConfig

    if isinstance(config, DeploymentConfig):
        return config.to_yaml()
    if not isinstance(config, Mapping):
        raise TypeError(f"config is a DeploymentConfig, a mapping, text or a path, got {type(config).__name__}")
    return _yaml(dict(config))


def _yaml(document: Mapping[str, Any]) -> str:
    import yaml

    try:
        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    except yaml.representer.RepresenterError as exc:
        found = type(exc.args[-1]).__name__
        raise TypeError(f"a mapping holds plain data only, got a {found}: build a DeploymentConfig instead") from exc
    return text


class _FakeApp(App):
    """The composition root with another machine below it."""

    def __init__(self, files: list[str], *, platform: FakePlatform, **options: Any) -> None:
        super().__init__(files, **options)
        self._fake = platform

    def agent_is_alive(self) -> bool:
        return True  # the platform writes the rows, and nobody has to look at pids

    def reservations(self) -> Reservations:
        return _Boundless(self.identity)

    def orchestrator(self, plugins: Iterable[Plugin] = ()) -> Engine:
        return _FakeEngine(self, plugins=plugins, strategies=self._strategies)

    def preparation(self) -> Preparation:
        return _NoImages(self)

    def _local_platform(self, bus: Bus) -> Any:
        self._fake.bus = bus
        if self._fake.records is None:
            self._fake.records = FakeRecords(self.identity.directories.state)
        return self._fake


class _FakeEngine(Engine):
    """Asks this machine nothing before it begins."""

    async def _look_ahead(self, *_: Any, **__: Any) -> None:
        return None


class _NoImages(Preparation):
    """No runtime is asked for anything: images are what the file says."""

    async def settled(self, project: Project, **_: Any) -> Project:
        return project

    async def present(self, *_: Any, **__: Any) -> None:
        return None


class _Boundless(Reservations):
    """A machine that always has enough, and promises nothing in the ledger of the real one."""

    def check(self, plan: Plan, settings: Settings) -> None:
        return None

    def reserve(self, plan: Plan, settings: Settings, *, force: bool = False, check: bool = True) -> list[str]:
        return []

    def settle(self, wanted: Mapping[str, Goal]) -> None:
        return None

    def confirm(self, wanted: Mapping[str, Goal]) -> None:
        return None
