"""Where an engine listens: what the user's environment and Docker's own settings say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where one engine listens.

    ``url``: ``unix:///run/docker.sock`` (real path) or ``tcp://host:port``; ``tls``: the folder of ``ca.pem``,
    ``cert.pem`` and ``key.pem``, "" for none; ``verify``: whether the engine's certificate must be good.
    """

    url: str
    tls: str = ""
    verify: bool = True

    @property
    def is_local(self) -> bool:
        """Is it a socket of this machine?"""
        return self.url.startswith("unix://")

    @property
    def host(self) -> str:
        """Where ports that it publishes answer."""
        raise NotImplementedError


def find_endpoint(runtime: str, environ: Mapping[str, str]) -> Endpoint:
    """The endpoint of ``runtime`` (``docker`` or ``podman``). Raises DriverError E014 for one that we cannot use."""
    raise NotImplementedError
