"""What can go wrong between us and an engine: it says no, or it is not there."""

from __future__ import annotations

from deploy_code.errors import DriverError


class EngineError(DriverError):
    """The engine answered, with an error. ``status``: the HTTP status; ``message``: the engine's own words."""

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message, code=code, retryable=status == 503)
        self.status = status


class EngineGoneError(DriverError):
    """The engine cannot be reached, or the connection to it was lost. ``retryable`` unless only a person can help."""

    default_code = "E014"

    def __init__(self, message: str, *, meaning: str = "", remedy: str = "", retryable: bool = True) -> None:
        super().__init__(message, meaning=meaning, remedy=remedy, retryable=retryable)
