"""``DeploymentStrategy``: base class of custom strategies, how one is chosen, and how it is run without risk.

A strategy decides over all of a deployment: what is deployed when, and whether to go on. What it asks for goes the way
of every deployment, with plan, gates, events and rollback; what it leaves undone is a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from deploy_code.apart import in_time
from deploy_code.errors import ConfigError, DeployCodeError, DeploymentError, Problem, ServiceError, shown
from deploy_code.model import Breaker, Settings, StrategyName
from deploy_code.orchestrator.own_loop import EndedError, OwnLoop, called, crossing
from deploy_code.orchestrator.report import DeploymentReport
from deploy_code.plan.rollouts.custom import CustomRollout, listed
from deploy_code.plugins import Extension, Extensions, in_code, load_extensions

if TYPE_CHECKING:
    from deploy_code.config.schema import DeploymentConfig
    from deploy_code.model import Project
    from deploy_code.plan.diff import Change
    from deploy_code.plan.plan import Step

T = TypeVar("T")

LEAVE_SECONDS = 2.0  # what a strategy that is to end has for its own clean-up
ROLLOUT_SECONDS = 10.0  # a rollout function only computes: what takes longer hangs

BUILT_IN = frozenset(StrategyName)


class Pieces(Protocol):
    """What the engine does for a strategy; everything in the engine's own loop."""

    async def deploy_services(self, names: Sequence[str]) -> None: ...

    async def check_health(self, names: Sequence[str]) -> bool: ...

    def config(self) -> DeploymentConfig: ...

    async def leave(self) -> None: ...


class DeploymentStrategy:
    """Derive from this and override ``deploy``; ``super().__init__()`` is not needed.

    ``deployment.strategy_options`` are the keyword arguments of the constructor. A strategy runs in a thread with an
    event loop of its own, so that it can be interrupted whatever it does.
    """

    extension_kind: ClassVar[str] = "strategy"

    async def deploy(self, services: list[str]) -> DeploymentReport:
        """Deploy ``services``: the names of the run, in dependency order.

        Every one of them must have been given to ``deploy_services`` in the end. Whatever this raises fails the
        deployment, as does a report that says so; warnings of the report are added to that of the deployment.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override deploy()")

    async def deploy_services(self, names: Iterable[str]) -> None:
        """Bring these to what the file says, and what they need that is not healthy; gates included.

        Free for those that are there already. One call at a time: a second one waits. Raises DeploymentError when a
        service fails, ServiceError (S001) for a name that is not part of this run.
        """
        chosen = _names(names)
        await _seat(self).across(lambda pieces: pieces.deploy_services(chosen))

    async def check_health(self, names: Iterable[str]) -> bool:
        """Are all instances of these ready, and was none restarted since this strategy deployed it?

        Waits for their ``min_ready_seconds``, and for nothing else.
        Raises ServiceError (S001) for a name that is not part of this run.
        """
        chosen = _names(names)
        return await _seat(self).across(lambda pieces: pieces.check_health(chosen))

    @cached_property
    def config(self) -> DeploymentConfig:
        """The whole file, as models; read when it is first asked for."""
        return _seat(self).config()


def _names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"a list of names is expected, not the text {names!r}")
    return list(names)


def _seat(strategy: DeploymentStrategy) -> _Seat:
    seat = strategy.__dict__.get("_seat")
    if not isinstance(seat, _Seat):
        raise DeploymentError(
            f"{type(strategy).__name__} is not run by a deployment yet",
            remedy="Use deploy_services, check_health and config in deploy(), not in the constructor",
        )
    return seat


# ------------------------------------------------------------------------------------------------------------- choosing


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What one operation may use of somebody else's. ``strategy``: the one that decides over this deployment."""

    extensions: Extensions = field(default_factory=Extensions)
    strategy: Extension | None = None
    rollouts: Mapping[str, CustomRollout] = field(default_factory=dict)
    limits: Breaker = field(default_factory=Breaker)

    @property
    def chosen(self) -> str:
        """The name of the custom strategy, "" where a built-in one was chosen."""
        return self.strategy.name if self.strategy is not None else ""


def registered(project: Project, extensions: Extensions, code: Mapping[str, Any]) -> Registered:
    """What ``project`` chose by name, from ``extensions`` and what ``code`` registered.

    Raises ConfigError (E002) that lists every name nobody registered, or that is used where it cannot be.
    """
    table = _Table(extensions, code)
    problems = list(_problems(project, table))
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{count}:", problems)
    chosen = table.strategies.get(project.settings.strategy)
    return Registered(
        extensions=extensions, strategy=chosen, rollouts=table.custom_rollouts(), limits=project.settings.breaker
    )


def remembered(settings: Settings, code: Mapping[str, Any], warn: Callable[[str], object]) -> Registered:
    """What a deployment with these settings used. What cannot be had any more is warned of, and done without."""

    def missing(exc: ConfigError) -> None:
        warn(f"done without: {exc.message}")

    extensions = load_extensions(settings.plugins, root="", on_error=missing)
    try:
        table = _Table(extensions, code)
    except ConfigError as exc:
        missing(exc)
        table = _Table(Extensions(), code)
    return Registered(
        extensions=extensions,
        strategy=table.strategies.get(settings.strategy),
        rollouts=table.custom_rollouts(),
        limits=settings.breaker,
    )


class _Table:
    """Strategies and rollouts by name; what was registered in code is found under either, as it is used."""

    def __init__(self, extensions: Extensions, code: Mapping[str, Any]) -> None:
        own = {name: in_code("strategy", name, value) for name, value in code.items()}
        for name, each in own.items():
            other = extensions.strategies.get(name) or extensions.rollouts.get(name)
            if other is not None:
                raise ConfigError(
                    f'two things are called "{name}": {other}, and what was given to {each.where}',
                    remedy="Register one of them under another name",
                )
        functions = {n: each for n, each in own.items() if not isinstance(each.value, type)}
        self.strategies = {**extensions.strategies, **own}
        self.rollouts = {**extensions.rollouts, **functions}

    @property
    def names(self) -> list[str]:
        return sorted({*self.strategies, *self.rollouts})

    def custom_rollouts(self) -> dict[str, CustomRollout]:
        return {
            name: CustomRollout(name=name, where=_where(each), make=_bounded(each.value))
            for name, each in self.rollouts.items()
        }


def _where(extension: Extension) -> str:
    return ", ".join(part for part in (extension.source, extension.where) if part)


def _problems(project: Project, table: _Table) -> Iterator[Problem]:
    name = project.settings.strategy
    if name not in BUILT_IN and name not in table.strategies:
        yield Problem(
            f'"{name}" is a rollout, for one service'
            if name in table.rollouts
            else f'no strategy is registered as "{name}"',
            path="deployment.strategy",
            remedy=f"write services.NAME.strategy: {name}" if name in table.rollouts else _choices(name, table),
        )
    for service, spec in project.services.items():
        name = spec.policy.strategy
        if name and name not in BUILT_IN and name not in table.rollouts:
            yield Problem(
                f'"{name}" is a strategy for a whole deployment'
                if name in table.strategies
                else f'no rollout is registered as "{name}"',
                code="S003",
                path=f"services.{service}.strategy",
                remedy=f"write deployment.strategy: {name}" if name in table.strategies else _choices(name, table),
            )


def _choices(name: str, table: _Table) -> str:
    import difflib

    known = [*BUILT_IN, *table.names]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"{hint}registered: {', '.join(table.names) or 'none'}; built in: {', '.join(StrategyName)}"


def _bounded(function: Callable[[Change], Iterable[Step]]) -> Callable[[Change], list[Step]]:
    """The same function, but one that hangs is given up on. Its own thread, so that nothing waits for it."""

    def made(change: Change) -> list[Step]:
        return in_time(lambda: _steps(function, change), ROLLOUT_SECONDS, "rollout")

    return made


def _steps(function: Callable[[Change], Iterable[Step]], change: Change) -> list[Step]:
    try:
        return listed(function(change))
    except BaseException as exc:  # one that would end the program, too, is a failure of the function
        raise crossing(exc) from exc


# -------------------------------------------------------------------------------------------------------------- running


async def follow(
    extension: Extension, options: Mapping[str, object], services: Sequence[str], pieces: Pieces
) -> DeploymentReport:
    """Construct the strategy, let it deploy, and give back what it reports.

    Raises DeploymentError (E005) that names it and where it was registered when it raises, cannot be constructed, or
    gives back something else; what a service failed with comes through as it is.
    """
    loop = OwnLoop(f"strategy {extension.name}")
    seat = _Seat(pieces)
    future, cancel = loop.run(lambda: called(_deploy, (extension, dict(options), list(services), seat)))
    try:
        return await _until_ended(future, cancel)
    except Exception as exc:  # somebody else's code: whatever it raises is its failure
        if any(exc is each for each in seat.raised):
            raise  # what a service failed with
        raise failed(extension, _words(exc)) from exc
    finally:
        seat.over = True
        loop.close()
        await pieces.leave()


def _words(error: Exception) -> str:
    """Ours say it in their message, should they have one."""
    message = getattr(error, "message", "") if isinstance(error, DeployCodeError) else ""
    return message or shown(error)


async def _until_ended(future: asyncio.Future[DeploymentReport], cancel: Callable[[], None]) -> DeploymentReport:
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if future.cancelled():
            raise
        cancel()
        await asyncio.wait({future}, timeout=LEAVE_SECONDS)
        if future.done() and not future.cancelled():
            future.exception()  # looked at: it was told to end
        raise


async def _deploy(
    extension: Extension, options: dict[str, object], services: list[str], seat: _Seat
) -> DeploymentReport:
    try:
        strategy = extension.value(**options)
    except Exception as exc:
        given = f" with strategy_options {', '.join(options)}" if options else ""
        raise EndedError(f"it cannot be constructed{given}: {shown(exc)}") from exc
    if not isinstance(strategy, DeploymentStrategy):
        raise EndedError(f"{type(strategy).__name__} is no deploy_code.orchestrator.DeploymentStrategy")
    strategy.__dict__["_seat"] = seat
    result = strategy.deploy(services)
    if not isinstance(result, Coroutine):
        raise EndedError(f"deploy() is no `async def`: it gave back {type(result).__name__}")
    return _plain(await result)


def _plain(report: object) -> DeploymentReport:
    """What counts of its report, as plain values: nothing of somebody else's is called later on."""
    if not isinstance(report, DeploymentReport):
        raise EndedError(f"deploy() gave back {type(report).__name__}, not a DeploymentReport")
    for name in ("warnings", "errors"):
        if not isinstance(getattr(report, name), list | tuple):
            raise EndedError(f"`{name}` of its report is no list of texts")
    return DeploymentReport(
        success=bool(report.success), warnings=[*map(str, report.warnings)], errors=[*map(str, report.errors)]
    )


def failed(extension: Extension, what: str) -> DeploymentError:
    """The failure of a strategy itself, which says whose it is."""
    return DeploymentError(f"{extension} failed: {what}", remedy="Correct it, or choose another deployment.strategy")


class _Seat:
    """Where a strategy sits: what it asks for is done in the engine's loop, for as long as the deployment lasts."""

    def __init__(self, pieces: Pieces) -> None:
        self.over = False
        self.raised: list[BaseException] = []  # what came of its calls, and is no failure of its own
        self._pieces = pieces
        self._engine = asyncio.get_running_loop()

    async def across(self, make: Callable[[Pieces], Coroutine[Any, Any, T]]) -> T:
        try:
            return await asyncio.wrap_future(self._submit(make))
        except ServiceError:
            raise  # a name that it made up: no service failed
        except DeployCodeError as exc:
            self.raised.append(exc)
            raise

    def _submit(self, make: Callable[[Pieces], Coroutine[Any, Any, T]]) -> Future[T]:
        if self.over or self._engine.is_closed():
            raise DeploymentError("this deployment is over: its strategy has no more say", code="E017")
        work = make(self._pieces)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._engine)
        except RuntimeError as exc:
            work.close()
            raise DeploymentError("this deployment is over: its strategy has no more say", code="E017") from exc

    def config(self) -> DeploymentConfig:
        try:
            return self._pieces.config()
        except DeployCodeError as exc:
            self.raised.append(exc)
            raise
