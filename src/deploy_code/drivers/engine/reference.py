"""The name of an image, read as the distribution specification's grammar has it."""

from __future__ import annotations

from dataclasses import dataclass


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
        raise NotImplementedError

    @property
    def familiar(self) -> str:
        """The familiar name with tag and digest."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError


def parse_reference(text: str) -> Reference:
    """Read ``text``. Raises ServiceError S003 where it is no image reference."""
    raise NotImplementedError


def is_image_id(text: str) -> bool:
    """Is it the ID of an image (``sha256:`` and 64 hex digits) and no name?"""
    raise NotImplementedError
