"""Every error this package raises, and the catalogue of their codes.

The tree says who can do something about it::

    DeployCodeError
    ├── ConfigError            the file: E001, E002 and what they enclose
    ├── PreflightError         the machine, before anything was changed: E003 E004 E010 E014 S004 S005
    ├── DeploymentError        a running deployment: E005 E006 E007 E008 E009 E017
    ├── LockedError            somebody else is deploying: E011
    ├── StalePlanError         the world moved since it was looked at: E012
    ├── AgentError             the agent cannot be reached or refuses: E013
    ├── DriverError            one runtime refused one operation (``retryable`` says whether to try again)
    ├── StateError             our own files cannot be had (permissions: S005) or written (disk full: E004)
    ├── ServiceError           unknown or doubly registered service: S001 S002 S003
    └── CircuitOpenError       a call was not made, because it has failed too often just before: E018

``str(error)`` is always ``CODE NAME: what happened. What it means. What to do.``
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class CodeInfo(NamedTuple):
    """One line of the catalogue: its ``name``, what it says, and the exit code of the command line."""

    name: str
    description: str
    exit_code: int


CATALOGUE: dict[str, CodeInfo] = {
    "E001": CodeInfo("CONFIG_NOT_FOUND", "Configuration file not found", 2),
    "E002": CodeInfo("CONFIG_INVALID", "Configuration validation failed", 2),
    "E003": CodeInfo("BINARY_NOT_FOUND", "A program that a service or deploy-code needs was not found", 1),
    "E004": CodeInfo("INSUFFICIENT_RESOURCES", "Not enough resources available", 1),
    "E005": CodeInfo("SERVICE_START_FAILED", "Service failed to start, or died", 1),
    "E006": CodeInfo("HEALTH_CHECK_FAILED", "Service did not become ready", 1),
    "E007": CodeInfo("DEPENDENCY_FAILED", "Service dependency not available", 1),
    "E008": CodeInfo("TIMEOUT_EXCEEDED", "A bound on an operation ran out", 1),
    "E009": CodeInfo("ROLLBACK_FAILED", "Rollback operation failed", 1),
    "E010": CodeInfo("NETWORK_ERROR", "Network configuration error", 1),
    "E011": CodeInfo("DEPLOYMENT_LOCKED", "Another deployment of this project is running", 3),
    "E012": CodeInfo("PLAN_STALE", "The world changed since the plan was made", 1),
    "E013": CodeInfo("AGENT_UNREACHABLE", "The agent cannot be reached", 1),
    "E014": CodeInfo("RUNTIME_UNAVAILABLE", "The runtime that a service needs is not available", 1),
    "E015": CodeInfo("UNAUTHORIZED", "Not authenticated", 1),
    "E016": CodeInfo("FORBIDDEN", "Not permitted", 1),
    "E017": CodeInfo("DEPLOYMENT_INTERRUPTED", "A person or a signal ended the deployment", 130),
    "E018": CodeInfo("CIRCUIT_OPEN", "Not tried: it failed too often just before", 1),
    "S001": CodeInfo("SERVICE_NOT_FOUND", "Service not found", 2),
    "S002": CodeInfo("SERVICE_ALREADY_EXISTS", "Service already registered", 2),
    "S003": CodeInfo("INVALID_SERVICE_CONFIG", "Invalid service configuration", 2),
    "S004": CodeInfo("PORT_CONFLICT", "Port already in use", 1),
    "S005": CodeInfo("VOLUME_MOUNT_FAILED", "A directory that a service needs cannot be had", 1),
}


def title(code: str) -> str:
    """``E004`` → ``E004 INSUFFICIENT_RESOURCES``."""
    return f"{code} {CATALOGUE[code].name}"


class DeployCodeError(Exception):
    """Root of all errors raised here.

    ``message`` says what happened; ``meaning`` what follows from it; ``remedy`` what to do. ``code`` is a key of
    ``CATALOGUE``. The library error behind it, if any, is chained as ``__cause__``.
    """

    default_code = "E002"

    def __init__(self, message: str, *, code: str | None = None, meaning: str = "", remedy: str = "") -> None:
        self.code = code or self.default_code
        self.message = message
        self.meaning = meaning
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        return f"{title(self.code)}: {self.text}"

    @property
    def text(self) -> str:
        """Message, meaning and remedy as sentences, without the code."""
        return " ".join(_sentence(part) for part in (self.message, self.meaning, self.remedy) if part)

    @property
    def exit_code(self) -> int:
        """What the command line exits with (CONTRACTS §4)."""
        return CATALOGUE[self.code].exit_code


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":", "\n")) or "\n" in text else text + "."


def shown(error: BaseException) -> str:
    """The ``repr`` of somebody else's error; its type alone where even that raises."""
    try:
        return repr(error)
    except Exception:  # told by the name of its type instead
        return type(error).__name__


class Problem:
    """One thing that is wrong, and where. Several travel together in one error.

    ``line`` and ``column`` count from 1; 0 means "no place in a file" (config built in code, facts about the
    machine). ``path`` is dotted: ``services.api.ports[0].host_port``.
    """

    __slots__ = ("code", "column", "file", "line", "message", "path", "remedy")

    def __init__(
        self,
        message: str,
        *,
        code: str = "E002",
        path: str = "",
        remedy: str = "",
        file: str = "",
        line: int = 0,
        column: int = 0,
    ) -> None:
        self.message = message
        self.code = code
        self.path = path
        self.remedy = remedy
        self.file = file
        self.line = line
        self.column = column

    @property
    def where(self) -> str:
        """``file:line:col: path`` with the parts that are known."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.path) if part)

    def __str__(self) -> str:
        """As a list under a heading shows it: place first, so that editors can jump; code last."""
        return f"{self._body()} [{self.code}]"

    def coded(self) -> str:
        """As mappings and reports carry it: led by its code."""
        return f"{title(self.code)}: {self._body()}"

    def _body(self) -> str:
        head = f"{self.where}: " if self.where else ""
        return f"{head}{self.message}" + (f" ({self.remedy})" if self.remedy else "")

    def __repr__(self) -> str:
        return f"Problem({self.coded()!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.coded() == other.coded()

    def __hash__(self) -> int:
        return hash(self.coded())


class _ProblemsError(DeployCodeError):
    """An error that encloses several problems, each with a code of its own."""

    def __init__(
        self,
        message: str,
        problems: Sequence[Problem] = (),
        *,
        code: str | None = None,
        meaning: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(message, code=code, meaning=meaning, remedy=remedy)
        self.problems = tuple(problems)

    @property
    def text(self) -> str:
        lines = [super().text, *(f"  {problem}" for problem in self.problems)]
        return "\n".join(lines)


class ConfigError(_ProblemsError):
    """The file is missing or wrong; nothing was changed. All problems at once in ``problems``."""

    default_code = "E002"


class PreflightError(_ProblemsError):
    """The machine is not as the file needs it; nothing was changed.

    The code is that of the first problem, so that one missing program is E003 and not a riddle.
    """

    default_code = "E003"

    def __init__(
        self, message: str, problems: Sequence[Problem] = (), *, code: str | None = None, remedy: str = ""
    ) -> None:
        first = problems[0].code if problems else None
        super().__init__(message, problems, code=code or first, remedy=remedy)

    @property
    def exit_code(self) -> int:
        """It is the world that is not as needed, and not the file, whatever the code."""
        return 1


class DeploymentError(DeployCodeError):
    """A deployment in progress failed at one service."""

    default_code = "E005"

    def __init__(
        self, message: str, *, service: str = "", code: str | None = None, meaning: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message, code=code, meaning=meaning, remedy=remedy)
        self.service = service


class LockedError(DeployCodeError):
    """Somebody else holds the deploy lock."""

    default_code = "E011"


class StalePlanError(DeployCodeError):
    """What was planned no longer fits what is there."""

    default_code = "E012"


class AgentError(DeployCodeError):
    """The agent cannot be started or reached, or refused a message."""

    default_code = "E013"


class StateError(DeployCodeError):
    """deploy-code's own files (state, lock, logs) cannot be had (S005) or written because the disk is full (E004)."""

    default_code = "S005"


class ServiceError(DeployCodeError):
    """A service name is unknown or taken."""

    default_code = "S001"


class DriverError(DeployCodeError):
    """One runtime refused one operation. ``retryable``: the same call may succeed later."""

    default_code = "E005"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        meaning: str = "",
        remedy: str = "",
        retryable: bool = False,
    ) -> None:
        super().__init__(message, code=code, meaning=meaning, remedy=remedy)
        self.retryable = retryable


class CircuitOpenError(DeployCodeError):
    """A circuit is open: the call behind it was not made. ``retry_at``: seconds since the epoch of the next try."""

    default_code = "E018"

    def __init__(self, message: str, *, retry_at: float, meaning: str = "", remedy: str = "") -> None:
        super().__init__(message, meaning=meaning, remedy=remedy)
        self.retry_at = retry_at
