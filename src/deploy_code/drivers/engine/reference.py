"""The name of an image, read as the distribution specification's grammar has it.

``redis`` is ``docker.io/library/redis:latest``: engines and registries want the whole, people write the short one.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from deploy_code.errors import ServiceError

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library"
_NAME_LIMIT = 255  # characters of domain and path together
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}  # hex digits of the registered algorithms


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """``docker.io/library/redis:7@sha256:…`` in its parts. ``tag`` is "" only where there is a ``digest``."""

    domain: str  # "docker.io", "localhost:5000"
    path: str  # "library/redis"
    tag: str = ""
    digest: str = ""  # "sha256:…"

    @property
    def name(self) -> str:
        """Domain and path: ``docker.io/library/redis``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """As people write it: ``redis``, ``grafana/grafana``, ``localhost:5000/shop``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        first, _, rest = self.path.partition("/")
        if first == _OFFICIAL and "/" not in rest:
            return rest
        return self.name if _is_domain(first) else self.path  # else it would be read as a registry

    @property
    def familiar(self) -> str:
        """The familiar name with tag and digest."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix


def parse_reference(text: str) -> Reference:
    """Read ``text``. Raises ServiceError S003 where it is no image reference."""
    head, _, remainder = text.partition("/")
    domain, rest = (head, remainder) if remainder and _is_domain(head) else (DEFAULT_DOMAIN, text)
    found = _grammar().fullmatch(rest)
    if found is None:
        raise _invalid(text, _reason(text, rest))
    path, tag, digest = found.group("path", "tag", "digest")
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{_OFFICIAL}/{path}"
    _check(text, domain, path, digest)
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(domain=domain, path=path, tag=tag or "", digest=digest or "")


def is_image_id(text: str) -> bool:
    """Is it the ID of an image (``sha256:`` and 64 hex digits) and no name?"""
    return re.fullmatch(r"(sha256:)?[0-9a-f]{64}", text) is not None


def _is_domain(head: str) -> bool:
    """The first part of a name is a domain where it cannot be a path: Docker's rule."""
    return "." in head or ":" in head or head == "localhost" or head != head.lower()


@functools.cache
def _grammar() -> re.Pattern[str]:
    """Path, tag and digest. The separators of a path part: one dot, one or two underscores, any dashes."""
    part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    return re.compile(
        rf"(?P<path>{part}(?:/{part})*)"
        r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
        r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
    )


@functools.cache
def _domain_grammar() -> re.Pattern[str]:
    part = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    return re.compile(rf"(?:{part}(?:\.{part})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")


def _check(text: str, domain: str, path: str, digest: str | None) -> None:
    if not _domain_grammar().fullmatch(domain):
        raise _invalid(text, f"{domain!r} is no name of a registry")
    if is_image_id(path.removeprefix(f"{_OFFICIAL}/")):
        raise _invalid(text, "64 hex digits are an ID and no name")
    if len(domain) + 1 + len(path) > _NAME_LIMIT:
        raise _invalid(text, f"its name is longer than {_NAME_LIMIT} characters")
    algorithm, _, digits = (digest or "").partition(":")
    wanted = _DIGEST_LENGTHS.get(algorithm, len(digits))
    if len(digits) != wanted or (algorithm in _DIGEST_LENGTHS and digits != digits.lower()):
        raise _invalid(text, f"a {algorithm} digest has {wanted} hex digits in lower case")


def _reason(text: str, rest: str) -> str:
    if not text:
        return "it is empty"
    if text != text.strip():
        return "it begins or ends with a space"
    if _grammar().fullmatch(rest.lower()):
        return "names of images are in lower case"
    return "it is not of the form [REGISTRY/]NAME[:TAG][@DIGEST]"


def _invalid(text: str, why: str) -> ServiceError:
    return ServiceError(
        f"image {text!r} is no image reference: {why}",
        code="S003",
        remedy="Write it as `redis:7`, `ghcr.io/org/app:1.4` or `localhost:5000/app@sha256:…`",
    )
