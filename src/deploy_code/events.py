"""What happened, as frozen past-tense records, and the bus that hands them to listeners.

The engine writes its state first and publishes afterwards; a listener that fails is reported and cannot harm it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. ``name`` is the class's name; ``text`` is one line for people, secrets redacted."""

    at: float = field(default_factory=time.time)
    deployment: int = 0
    service: str = ""

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def text(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStarted(Event):
    kind: str  # deploy | stop | restart | scale | rollback | recover
    services: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return f"{self.kind} {self.deployment} of {len(self.services)} services"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFinished(Event):
    kind: str
    status: str  # a DeploymentStatus
    duration: float = 0.0
    errors: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return f"{self.kind} {self.deployment} {self.status} after {self.duration:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCompleted(Event):
    phase: str
    duration: float = 0.0

    @property
    def text(self) -> str:
        return f"phase {self.phase} completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    step: str  # str(step) of the plan
    cause: str = ""

    @property
    def text(self) -> str:
        return f"{self.step} ({self.cause})" if self.cause else self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    step: str
    duration: float = 0.0
    error: str = ""  # empty: done

    @property
    def text(self) -> str:
        return f"{self.step}: {self.error}" if self.error else f"{self.step} done in {self.duration:.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSkipped(Event):
    reason: str  # led by E007

    @property
    def text(self) -> str:
        return f"{self.service} skipped: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackStarted(Event):
    reason: str
    target: int = 0  # the deployment whose map is restored; 0: what was there before

    @property
    def text(self) -> str:
        return f"rolling back: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChanged(Event):
    """An instance entered another phase. Carries no object of the model, only what people read."""

    instance: str  # "api r7 #0"
    phase: str
    detail: str = ""

    @property
    def text(self) -> str:
        return f"{self.instance} {self.phase}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningRaised(Event):
    message: str

    @property
    def text(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProgress(Event):
    """An image is being pulled or built; comes a few times a second. Not recorded: it is of no use afterwards."""

    image: str
    doing: str  # "pulling", "step 3/7 : RUN make"
    done: int = 0  # bytes; of a build: steps
    total: int = 0  # 0: not known
    output: tuple[str, ...] = ()  # what a build has written since the last one

    @property
    def text(self) -> str:
        share = f" {self.done * 100 // self.total}%" if self.total else ""
        return f"image {self.image}: {self.doing}{share}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady(Event):
    """An image that was not here is here now."""

    image: str
    how: str  # pulled | built
    duration: float = 0.0

    @property
    def text(self) -> str:
        return f"image {self.image} {self.how} in {self.duration:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """Something of somebody else's, or a service, has failed too often: it is left alone until ``retry_at``."""

    protects: str  # what is behind the circuit
    reason: str = ""  # the last failure
    retry_at: float = 0.0  # seconds since the epoch

    @property
    def text(self) -> str:
        because = f" (last: {self.reason})" if self.reason else ""
        wait = f", next try in {self.retry_at - self.at:.0f} s" if self.retry_at else ""
        return f"circuit of {self.protects} opened: it has failed too often{because}{wait}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitHalfOpened(Event):
    protects: str

    @property
    def text(self) -> str:
        return f"circuit of {self.protects} half-open: one try is made"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    protects: str

    @property
    def text(self) -> str:
        return f"circuit of {self.protects} closed: it works again"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsLost(Event):
    """A reader of ``DeploymentOrchestrator.events()`` was too slow. Only that reader gets it."""

    count: int

    @property
    def text(self) -> str:
        return f"{self.count} events were not kept here: they are read more slowly than they come"


Listener = Callable[[Event], None]


class Bus:
    """Hands each event to all listeners, in the order they came. Listeners are plain and quick; slow ones queue."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self.failures: list[str] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the function that comes back removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception as exc:  # a listener must never harm a deployment; it is reported instead
                self.failures.append(f"listener {listener!r} failed on {event.name}: {exc!r}")
