"""The small types that the schema is built of: how a number, a text or a name from a fixed set may be written.

Numbers and booleans are strict: ``replicas: "2"`` is a mistake to point out, not one to guess about. Names from a fixed
set are accepted in any case and with any separator (``RollingUpdate``, ``rolling-update``, ``rolling_update``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from deploy_code.model import Condition, StrategyName

T = TypeVar("T")

if TYPE_CHECKING:
    Listed = Sequence
    Named: TypeAlias = T | str
else:

    class Listed:
        """``Listed[X]``: a list in the file and, being frozen, a tuple here; type checkers let code give either."""

        def __class_getitem__(cls, item):
            return tuple[item, ...]

    class Named:
        """``Named[X]``: a name of a fixed set, always an ``X`` here; type checkers let code give it as text."""

        def __class_getitem__(cls, item):
            return item


def mistake(what: str, remedy: str = "", *, key: str = "") -> PydanticCustomError:
    """An error with words of ours; ``key`` names the key below the current place that it is about."""
    context = {"what": what, "remedy": remedy, "key": key}
    return PydanticCustomError("deploy_code", "{what}", context)


class Section(BaseModel):
    """Base of all models: immutable, unknown keys refused, empty means default, ``x-`` keys are the user's own.

    Built in code, one raises ConfigError with all problems, in the words that a file would get. Only the constructor
    does: what pydantic itself calls (``model_validate``, models inside models) raises what pydantic expects.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, serialize_by_alias=True, hide_input_in_errors=True
    )
    spellings: ClassVar[Mapping[str, str]] = {}  # second spelling → field

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as exc:
            from deploy_code.config.built import refused

            raise refused(exc, type(self), data) from exc

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # or it would run for models inside models too

    if not TYPE_CHECKING:  # for type checkers the fields stay read-only

        def __setattr__(self, name, value):
            try:
                super().__setattr__(name, value)
            except ValidationError as exc:
                from deploy_code.config.built import frozen

                raise frozen(name, type(self)) from exc

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, data: Any) -> Any:
        if data is None:
            return {}
        return cls._tidied(data) if isinstance(data, dict) else data

    @classmethod
    def _tidied(cls, data: dict[Any, Any]) -> dict[Any, Any]:
        tidy: dict[Any, Any] = {}
        for key, value in data.items():
            name = cls.spellings.get(key, key)
            if name is not key and name in data:
                raise mistake(f"'{key}' and '{name}' are the same, both are given", "keep one", key=key)
            if (value is None and name in cls.model_fields) or str(key).startswith("x-"):
                continue
            tidy[name] = value
        return tidy


def fold(name: str) -> str:
    """``Rolling-Update`` → ``rollingupdate``: how names from a fixed set are compared."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


class Spelled(StrEnum):
    """Names from a fixed set, whatever the case and the separators."""

    @classmethod
    def _missing_(cls, value: object) -> Spelled | None:
        folded = fold(value) if isinstance(value, str) else None
        return next((member for member in cls if fold(member) == folded), None)


class Environment(Spelled):
    """The stage a project is deployed to."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class ContainerRuntime(Spelled):
    DOCKER = "Docker"
    PODMAN = "Podman"
    CONTAINERD = "Containerd"


class Orchestrator(Spelled):
    DOCKER_COMPOSE = "DockerCompose"
    KUBERNETES = "Kubernetes"
    SWARM = "Swarm"


class NetworkMode(Spelled):
    BRIDGE = "Bridge"
    HOST = "Host"
    OVERLAY = "Overlay"


class AuthMethod(Spelled):
    JWT = "JWT"
    OAUTH2 = "OAuth2"
    BASIC = "Basic"


class Severity(Spelled):
    CRITICAL = "Critical"
    WARNING = "Warning"
    INFO = "Info"


class Protocol(Spelled):
    TCP = "tcp"
    UDP = "udp"


class PullPolicy(Spelled):
    ALWAYS = "always"
    MISSING = "missing"
    NEVER = "never"


class RestartPolicy(Spelled):
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


def canonical_strategy(name: Any) -> Any:
    """``rolling-update`` → ``RollingUpdate``; a name that is none of ours stays as it is."""
    if not isinstance(name, str):
        return name
    return next((known.value for known in StrategyName if fold(known) == fold(name)), name)


def _condition(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return next((known for known in Condition if fold(known) == fold(value)), value)


def _as_text(value: Any) -> Any:
    """Numbers and booleans given in code become the text that the file would have."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _name_list(value: Any) -> Any:
    """Text where a list belongs is never split: say how the list would be written."""
    if isinstance(value, str):
        import shlex

        try:
            words = shlex.split(value)
        except ValueError:
            words = value.split()
        raise mistake("must be a list, got text", f"write {flow(words)}")
    return value


def _plain_data(value: Any) -> Any:
    """What a file could hold: it is recorded with each deployment, and handed to other processes."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain_data(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain_data(item) for key, item in value.items()}
    found = "a mapping whose keys are not text" if isinstance(value, Mapping) else f"a {type(value).__name__}"
    raise mistake(f"must be plain data, got {found}", "use text, numbers, true and false, lists and mappings of these")


def flow(words: Any) -> str:
    """A list as YAML would have it on one line: ``["-m", "myapp"]``."""
    import json

    return json.dumps(list(words), ensure_ascii=False)


Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Positive = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
PortNumber = Annotated[int, Field(strict=True, ge=1, le=65535)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, BeforeValidator(_as_text)]
Filled = Annotated[str, Field(min_length=1)]
Words = Annotated[Listed[Text], BeforeValidator(_name_list)]
Paths = Annotated[Listed[Filled], BeforeValidator(_one_or_more)]
StrategyText = Annotated[Filled, BeforeValidator(canonical_strategy)]
Data = Annotated[dict[str, Any], BeforeValidator(_plain_data)]
When = Annotated[Named[Condition], BeforeValidator(_condition)]
