"""What an ``endpoint`` names: text once, then plain fields. Nothing here opens a connection."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace

import httptools

from deploy_code.errors import ServiceError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE = "#/?&=%:@!$'()*+,;~-._[]|"  # sent as written


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to ask, and for what. ``authorization`` is the value of that header; it is never shown."""

    scheme: str  # http | https | tcp
    host: str  # without brackets
    port: int
    path: str = "/"  # with its query, ready to be sent
    authorization: str = ""
    dial: str = ""  # where to connect to, if that is not what the host says

    @property
    def authority(self) -> str:
        """``host:port`` as a Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def is_this_machine(self) -> bool:
        """Does the host name this machine: localhost, a loopback or unspecified address, or its own name?"""
        return _names_this_machine(self.host.lower())

    def at_port(self, port: int) -> Target:
        return replace(self, port=port)

    def at(self, address: str) -> Target:
        """The same question put to ``address``: names in it, and in certificates, stay as they are written."""
        return replace(self, dial=address)

    def __str__(self) -> str:
        path = "" if self.scheme == "tcp" else self.path
        at = f" at {self.dial}" if self.dial else ""
        return f"{self.scheme}://{self.authority}{path}{at}"


def parse_target(endpoint: str) -> Target:
    """``http(s)://…`` or ``tcp://host:port``. Raises ServiceError S003 for anything else."""
    try:
        parsed = httptools.parse_url(_escaped(endpoint))
    except httptools.HttpParserInvalidURLError as error:
        raise _invalid(endpoint, "it cannot be read as a URL") from error
    scheme = (parsed.schema or b"").decode().lower()
    port = parsed.port or _DEFAULT_PORTS.get(scheme)
    if scheme not in ("http", "https", "tcp") or not parsed.host:
        raise _invalid(endpoint, "it names no http, https or tcp address")
    if not port or port > 65535:
        raise _invalid(endpoint, "it names no port between 1 and 65535")
    return Target(
        scheme=scheme,
        host=parsed.host.decode(),
        port=port,
        path=((parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")).decode(),
        authorization=_basic(parsed.userinfo),
    )


def _escaped(text: str) -> bytes:
    """What may not stand in a request line (spaces, line breaks, letters beyond ASCII) percent-encoded."""
    from urllib.parse import quote

    return quote(text, safe=_SAFE).encode()


def _invalid(endpoint: str, why: str) -> ServiceError:
    return ServiceError(
        f"health_check.endpoint {endpoint!r}: {why}",
        code="S003",
        remedy="write http://host:port/path, /path or tcp://host:port",
    )


def _basic(userinfo: bytes | None) -> str:
    if not userinfo:
        return ""
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes

    return "Basic " + b64encode(unquote_to_bytes(userinfo)).decode()


def _names_this_machine(host: str) -> bool:
    if host in ("localhost", "::1", "::", "0.0.0.0"):
        return True
    if host == socket.gethostname().lower():
        return True
    try:
        return socket.inet_pton(socket.AF_INET, host)[0] == 127
    except OSError:
        return False
