"""Plugins: what they may listen to, and how they are found.

A plugin only listens. Whatever it does, raising, hanging or returning nonsense, is reported and changes nothing about
the deployment. Hooks may be plain or ``async``; plain ones run in a thread of their own, so that they may block.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from deploy_code.errors import ConfigError
from deploy_code.events import Event

if TYPE_CHECKING:
    from collections.abc import Awaitable

ENTRY_POINTS = "deploy_code.plugins"


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


def load_plugins(names: Iterable[str]) -> list[Plugin]:
    """Instances of the plugins named by import string (``package.module:Class``) and by installed entry points.

    Raises ConfigError (E002) that names the plugin which cannot be imported or is no plugin.
    """
    return [*(_build(name, _import(name)) for name in names), *_installed()]


def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigError(
            f'plugin "{name}" is not of the form package.module:Class', remedy="Write it so under `plugins:`"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(
            f'plugin "{name}" cannot be imported: {exc}',
            remedy="Install it into the environment deploy-code runs in, or take it out of `plugins:`",
        ) from exc


def _build(name: str, made: Any) -> Plugin:
    try:
        plugin = made() if isinstance(made, type) else made
    except Exception as exc:  # somebody else's constructor: whatever it raises is its failure, told with its name
        raise ConfigError(
            f'plugin "{name}" cannot be constructed: {exc!r}', remedy="Correct it or take it out"
        ) from exc
    if not isinstance(plugin, Plugin):
        raise ConfigError(f'plugin "{name}" is not a deploy_code.plugins.Plugin', remedy="Derive it from Plugin")
    return plugin


def _installed() -> list[Plugin]:
    """Those that installed packages offer; the scan costs some 70 ms, so only commands that run plugins come here."""
    from importlib.metadata import entry_points

    return [_build(each.name, _import(each.value)) for each in entry_points(group=ENTRY_POINTS)]
