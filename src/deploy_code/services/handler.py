"""``Service``: the base class of custom service types, and what one of its instances is told about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deploy_code.model import Resources, Volume
from deploy_code.services.status import ServiceStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceConfig:
    """One instance of a custom service, everything resolved: what a factory gets.

    ``ports``: by declared number (or ``"port"``) → the number to bind, the first one first. ``log_path``: the file that
    ``deploy-code logs`` shows; what the service has to say belongs there. ``options``: as in the file.
    """

    service: str
    service_type: str
    revision: int
    index: int
    uuid: str
    command: str = ""
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    working_dir: str = ""
    user: str = ""
    image: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    resources: Resources = Resources()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    log_path: str = ""

    @property
    def environment(self) -> Mapping[str, str]:
        """Another name of ``env``, as in the file."""
        return self.env

    @property
    def container_image(self) -> str:
        """Another name of ``image``, as in the file."""
        return self.image

    @property
    def port(self) -> int | None:
        """The first port, None where there is none."""
        return next(iter(self.ports.values()), None)


class Service:
    """One instance of a custom type: override the three methods, plain or ``async``; no ``super().__init__()`` needed.

    ``config`` and ``memory`` are bound after construction. An object may be made anew at any time (the agent was
    restarted, the machine was rebooted): what it must know then is what ``start`` gave back, in ``memory``.
    """

    extension_kind: ClassVar[str] = "service type"

    config: InstanceConfig
    memory: Mapping[str, str] = {}

    def start(self) -> Awaitable[Mapping[str, str] | None] | Mapping[str, str] | None:
        """Start it; gives back what must be remembered: a small mapping of text, at most 16 KB.

        Whatever it raises fails the start (E005). It is bounded by the deployment's ``timeout_seconds``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override start()")

    def stop(self) -> Awaitable[None] | None:
        """Stop it and clean up. Called after a failed ``start`` too, and possibly twice: nothing to do is no error."""
        raise NotImplementedError(f"{type(self).__name__} does not override stop()")

    def health_check(self) -> Awaitable[ServiceStatus] | ServiceStatus:
        """How it is. RUNNING: ready. STARTING, STOPPING, UNKNOWN: not ready. FAILED, STOPPED: it has ended by itself.

        What has ended is restarted by policy. Raising is a failed probe, with what was raised as its detail. Bounded by
        ``health_check.timeout_seconds``.
        """
        return ServiceStatus.RUNNING
