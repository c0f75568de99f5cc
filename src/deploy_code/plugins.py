"""Plugins: what they may listen to. And how extensions of every kind are found and told apart.

A plugin only listens, but for its ``before_`` hook, which may refuse. Whatever else it does, raising, hanging or
returning nonsense, is reported and changes nothing about the deployment. Hooks may be plain or ``async``.

They are registered under ``plugins:`` in the file, or by installed packages (entry points, ``deploy_code.plugins``).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from deploy_code.errors import ConfigError, shown
from deploy_code.events import Event

if TYPE_CHECKING:
    from collections.abc import Awaitable

ENTRY_POINTS = "deploy_code.plugins"
LOAD_SECONDS = 30.0  # for one import or constructor: what takes longer hangs


class AbortDeployment(Exception):
    """Raised in a ``before_`` hook: this service must not be rolled out. The deployment fails, and is rolled back."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason or "no reason given"
        super().__init__(self.reason)


class Plugin:
    """Base class; override what you need. ``super().__init__()`` is not needed.

    ``timeout_seconds``: how long one call of a hook may take before it is given up on, and reported.
    """

    extension_kind: ClassVar[str] = "plugin"

    timeout_seconds: float = 10.0

    def on_deployment_start(self, services: Sequence[str]) -> Awaitable[None] | None:
        """After preflight and lock, before anything is changed. Never on a dry run."""
        return None

    def on_deployment_complete(self, report: Any) -> Awaitable[None] | None:
        """Exactly once for each ``on_deployment_start``: after success, failure, rollback and Ctrl-C alike."""
        return None

    def before_service_rollout(self, service: str, revision: int) -> Awaitable[None] | None:
        """Before the first step that brings this revision of a service."""
        return None

    def after_service_rollout(self, service: str, revision: int) -> Awaitable[None] | None:
        """After its gate has opened."""
        return None

    def on_failure(self, report: Any) -> Awaitable[None] | None:
        """A service failed; what is to be rolled back has not been yet. ``report`` is its FailureReport."""
        return None

    def on_rollback(self, report: Any) -> Awaitable[None] | None:
        """A rollback ended, well or not. ``report`` is the DeploymentReport so far."""
        return None

    def on_event(self, event: Event) -> Awaitable[None] | None:
        """Every event, in order."""
        return None


# ---------------------------------------------------------------------------------------------------------- extensions


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """Something of somebody else's that this project may use: a plugin, a service type, a strategy or a rollout.

    ``value`` is what was found: a class, a plain function, or a ready ``Plugin``. ``source`` finds it again in another
    process (``"package.module:attr"`` or ``"/abs/file.py:attr"``), "" for what exists only in this one. ``where``: who
    registered it, for people.
    """

    name: str
    kind: str  # plugin | service type | strategy | rollout
    value: Any = field(repr=False)
    source: str
    where: str

    def __str__(self) -> str:
        at = ", ".join(part for part in (self.source, self.where) if part)
        return f'{self.kind} "{self.name}" ({at})'


class Extensions:
    """All extensions of a project, by kind and name. Plugins are constructed when they are first asked for."""

    def __init__(self, found: Iterable[Extension] = (), *, on_error: OnError | None = None) -> None:
        self.all = tuple(found)
        self.types = self._named("service type")
        self.strategies = self._named("strategy")
        self.rollouts = self._named("rollout")
        self._on_error = on_error

    def _named(self, kind: str) -> dict[str, Extension]:
        return {each.name: each for each in self.all if each.kind == kind}

    @property
    def plugins(self) -> list[Plugin]:
        """One object of each plugin. Raises ConfigError (E002) that names the one which cannot be constructed."""
        return [plugin for plugin, _ in self.constructed]

    @cached_property
    def constructed(self) -> list[tuple[Plugin, Extension]]:
        """The same, each with where it comes from."""
        named = [each for each in self.all if each.kind == "plugin"]
        made = [(_kept(partial(_construct, each), self._on_error), each) for each in named]
        return [(plugin, each) for plugin, each in made if plugin is not None]


OnError = Callable[[ConfigError], None]


def load_extensions(
    texts: Iterable[str],
    *,
    root: str,
    installed: bool = True,
    file: str = "",
    on_error: OnError | None = None,
) -> Extensions:
    """What ``plugins:`` names, and with ``installed`` what installed packages offer.

    ``root``: the folder that ``./file.py`` is relative to. ``file``: the config file's name, for messages. Raises
    ConfigError (E002) that names the extension and where it is registered, when it cannot be imported, is nothing that
    is known, or has the name of another or a built-in one; with ``on_error`` it is told to that instead, and left out.
    """
    found: dict[tuple[str, str], Extension] = {}
    for load in (*_listed(texts, root, file), *(_installed() if installed else ())):
        extension = _kept(partial(_added, found, load), on_error)
        if extension is not None:
            found[extension.kind, extension.name] = extension
    return Extensions(found.values(), on_error=on_error)


def load_extension(text: str, root: str, *, where: str = "") -> Extension:
    """The one that ``text`` names: ``package.module:attr``, ``./file.py:attr``, or either after ``NAME = ``.

    What it is follows from what is found: classes say so (``extension_kind``), a plain function is a rollout. Raises
    ConfigError (E002).
    """
    name, module, attribute = _parsed(text, root, where)
    source = f"{module}:{attribute}"
    value = _import(module, attribute, f'"{source}"{_registered(where)}')
    return Extension(
        name=name or getattr(value, "__name__", type(value).__name__),
        kind=_kind(value, f'"{source}"{_registered(where)}'),
        value=value,
        source=source,
        where=where,
    )


def absolute(text: str, root: str) -> str:
    """An entry of ``plugins:`` so that it means the same from any folder. One that cannot be read stays as it is."""
    try:
        name, module, attribute = _parsed(text, root, "")
    except ConfigError:
        return text
    return f"{name} = {module}:{attribute}" if name else f"{module}:{attribute}"


def in_code(kind: str, name: str, value: Any) -> Extension:
    """What this process registered by a call, under the name it chose."""
    call = {"strategy": "register_strategy()", "service type": "register_type()"}.get(kind, "a call")
    return Extension(name=name, kind=kind, value=value, source="", where=f"{call} in code")


def _may_offer(folder: str) -> bool:
    """A quick look, in 2 ms instead of 70: does any package here mention our group at all?"""
    if not os.path.isdir(folder or "."):
        return os.path.isfile(folder)  # an archive: leave that to the scan
    with os.scandir(folder or ".") as entries:
        packages = [each.path for each in entries if each.name.endswith((".dist-info", ".egg-info"))]
    return any(ENTRY_POINTS.encode() in _points(each) for each in packages)


def _points(package: str) -> bytes:
    try:
        with open(os.path.join(package, "entry_points.txt"), "rb") as file:
            return file.read()
    except OSError:
        return b""


# --------------------------------------------------------------------------------------------------- how they are found


_NAMED = re.compile(r"\s*([\w.-]+)\s*=\s*(.+)")
_TARGET = re.compile(r"(.+?)\s*:\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*")
_KINDS = ("plugin", "service type", "strategy")

T = TypeVar("T")


def _kept(load: Callable[[], T | None], on_error: OnError | None) -> T | None:
    try:
        return load()
    except ConfigError as exc:
        if on_error is None:
            raise
        on_error(exc)
        return None


def _listed(texts: Iterable[str], root: str, file: str) -> Iterator[Callable[[], Extension]]:
    for number, text in enumerate(texts):
        yield partial(load_extension, text, root, where=f"plugins[{number}]" + (f" of {file}" if file else ""))


def _installed() -> Iterator[Callable[[], Extension]]:
    for text, where in _entry_points(tuple(sys.path)):
        yield partial(load_extension, text, "", where=where)


@lru_cache(maxsize=1)
def _entry_points(path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """As (text, where): a quick look, and a scan of some 70 ms where there is any.

    Once for each ``path``, which is ``sys.path``: the scan reads that itself.
    """
    if not any(map(_may_offer, path)):
        return ()
    from importlib.metadata import entry_points

    return tuple(
        (
            f"{each.name} = {each.module}:{each.attr}",
            f"entry point {each.name}" + (f" of distribution {each.dist.name}" if each.dist is not None else ""),
        )
        for each in entry_points(group=ENTRY_POINTS)
    )


def _added(found: dict[tuple[str, str], Extension], load: Callable[[], Extension]) -> Extension | None:
    """The loaded one, None where the very same is there already: who names an installed package's asks for no second.

    One name for two things is a mistake in the file (E002): which of them is meant must not depend on an order. What
    has no name to choose it by, a plugin, may share it.
    """
    extension = load()
    _refuse_ours(extension)
    if any(each.kind == extension.kind and each.source == extension.source for each in found.values()):
        return None
    other = found.get((extension.kind, extension.name))
    if other is None:
        return extension
    if extension.kind == "plugin":
        return replace(extension, name=f"{extension.name} ({extension.source})")
    raise ConfigError(
        f'two things are called {extension.kind} "{extension.name}": '
        f"{other.source} ({other.where}) and {extension.source} ({extension.where})",
        remedy=f'Give one of them another name under `plugins:`, such as "OTHER = {extension.source}"',
    )


def _refuse_ours(extension: Extension) -> None:
    """What is built in is always meant by its name, whatever is installed. Raises ConfigError."""
    from deploy_code.model import OWN_TYPES, StrategyName

    ours = {"strategy": StrategyName, "rollout": StrategyName, "service type": OWN_TYPES}.get(extension.kind, ())
    if extension.name in {*ours}:
        raise ConfigError(
            f"{extension} has a name that is built in",
            remedy=f'Give it another under `plugins:`, such as "My{extension.name} = {extension.source}"',
        )


def _parsed(text: str, root: str, where: str) -> tuple[str, str, str]:
    """``"N = ./p.py:C"`` → (``"N"``, ``"/root/p.py"``, ``"C"``)."""
    named = _NAMED.fullmatch(text)
    name, target = named.groups() if named else ("", text.strip())
    parts = _TARGET.fullmatch(target)
    if parts is None:
        raise ConfigError(
            f'extension "{text}"{_registered(where)} is not of the form package.module:Class or ./file.py:Class',
            remedy="Write it so under `plugins:`",
        )
    module, attribute = parts.groups()
    if "/" in module or module.endswith(".py"):
        module = os.path.normpath(os.path.join(root or os.getcwd(), os.path.expanduser(module)))
    return name, module, attribute


def _registered(where: str) -> str:
    return f" ({where})" if where else ""


def _import(module: str, attribute: str, what: str) -> Any:
    from deploy_code.apart import in_time

    def find() -> Any:
        found: Any = _file(module) if os.path.isabs(module) else importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found

    try:
        return in_time(find, LOAD_SECONDS, f"import of {module}")
    except (Exception, SystemExit) as exc:  # somebody else's module: whatever it raises is its failure
        raise ConfigError(
            f"extension {what} cannot be imported: {_said(exc)}", meaning="Nothing was changed", remedy=_remedy(module)
        ) from exc


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, ImportError | SyntaxError):
        return str(error)
    if isinstance(error, AttributeError) and error.name and inspect.ismodule(error.obj):
        return f"it has no {error.name!r}"
    with suppress(Exception):  # told by the name of its type instead
        if text := str(error):
            return f"{type(error).__name__}: {text}"
    return type(error).__name__


def _remedy(module: str) -> str:
    if os.path.isabs(module):
        return "Correct the file or its path, or take the entry out"
    return "Install it into the environment that deploy-code runs in, correct it, or take it out"


def _file(path: str) -> ModuleType:
    """The module of one file: the same object for the same content, another one once the file has been edited.

    It gets a name of its own, so that it hides no other module, and stands in ``sys.modules``, as dataclasses and
    pickle want it. Nothing is written beside it.
    """
    with open(path, "rb") as file:
        code = file.read()
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape") + b"\0" + code).hexdigest()[:16]
    name = f"_deploy_code_{re.sub(r'[^0-9A-Za-z]', '_', os.path.basename(path)[:-3])}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.machinery.SourceFileLoader(name, path)
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, loader, origin=path))
    module.__file__ = path
    sys.modules[name] = module
    try:
        exec(loader.source_to_code(code, path), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _kind(value: Any, what: str) -> str:
    kind = getattr(value, "extension_kind", None)
    if isinstance(kind, str) and kind in _KINDS:
        if isinstance(value, type) or kind == "plugin" or inspect.isroutine(value):
            return kind
        raise ConfigError(f"extension {what} is a ready object", remedy=f"Name the class of the {kind}, not an object")
    if inspect.isfunction(value) and not inspect.iscoroutinefunction(value):
        return "rollout"
    found = "a coroutine function" if inspect.iscoroutinefunction(value) else _described(value)
    raise ConfigError(
        f"extension {what} is {found}: no plugin, service type, strategy or rollout",
        remedy="Derive it from Plugin, Service or DeploymentStrategy, or name a plain function (a rollout)",
    )


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "a module" if inspect.ismodule(value) else f"an object of type {type(value).__name__}"


def _construct(extension: Extension) -> Plugin:
    from deploy_code.apart import in_time

    what = f'plugin "{extension.source}"{_registered(extension.where)}'
    try:
        make = extension.value
        made = in_time(make, LOAD_SECONDS, f"constructor of {extension.name}") if callable(make) else make
    except (Exception, SystemExit) as exc:  # somebody else's constructor: whatever it raises is its failure
        raise ConfigError(f"{what} cannot be constructed: {shown(exc)}", remedy="Correct it or take it out") from exc
    if not isinstance(made, Plugin):
        raise ConfigError(f"{what} is not a deploy_code.plugins.Plugin", remedy="Derive it from Plugin")
    return made
