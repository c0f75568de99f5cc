"""The user's credentials for registries, as `docker login` and `podman login` left them."""

from __future__ import annotations

from collections.abc import Mapping


def registry_auth(image: str, environ: Mapping[str, str], *, runtime: str = "docker") -> str:
    """The value of ``X-Registry-Auth`` for pulling ``image``; "" where there are no credentials.

    May run a credential helper (bounded): call it in a thread. Raises DriverError E003 where that fails.
    """
    raise NotImplementedError


def registry_config(environ: Mapping[str, str], *, runtime: str = "docker") -> str:
    """The value of ``X-Registry-Config`` for a build: all credentials that are known; "" where there are none."""
    raise NotImplementedError
