"""The user's credentials for registries, as `docker login` and `podman login` left them.

They are read for each pull and build and kept nowhere. What is given back goes into one header of one request; no
error of this module tells more than the name of the registry and that of the helper.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy_code.drivers.engine.endpoint import docker_folder, home_folder
from deploy_code.drivers.engine.reference import DEFAULT_DOMAIN, parse_reference
from deploy_code.errors import DriverError

HUB = "https://index.docker.io/v1/"  # what Docker Hub is called in settings and credential stores
HELPER_SECONDS = 30.0  # a helper may ask the user to unlock a key
_ANSWER_LIMIT = 64 * 1024
_NOT_FOUND = "credentials not found in native keychain"  # the protocol's words for "none"
_TOKEN_USER = "<token>"  # then the secret is an identity token


def registry_auth(image: str, environ: Mapping[str, str], *, runtime: str = "docker") -> str:
    """The value of ``X-Registry-Auth`` for pulling ``image``; "" where there are no credentials.

    Docker's settings come first for ``docker``, Podman's ``auth.json`` for ``podman``. May run a credential helper for
    up to half a minute: call it in a thread. Raises ServiceError S003 for what is no image, DriverError E003 where a
    helper or a file cannot be used.
    """
    reference = parse_reference(image)
    found = _find(_key(reference.domain), reference.name, _files(environ, runtime), environ)
    return _encoded(found.for_pull()) if found is not None else ""


def registry_config(environ: Mapping[str, str], *, runtime: str = "docker") -> str:
    """The value of ``X-Registry-Config`` for a build: all credentials that are known; "" where there are none.

    Runs and raises as ``registry_auth``.
    """
    known: dict[str, object] = {}
    for file in _files(environ, runtime):
        for key in _all_keys(file, environ):
            if key not in known and (found := _of_file(file, key, key, environ)) is not None:
                known[key] = found.for_build()
    return _encoded(known) if known else ""


@dataclass(frozen=True, slots=True)
class _Credentials:
    """Of one registry. Never shown: only the name of the registry is in the ``repr``."""

    registry: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def for_pull(self) -> dict[str, str]:
        return {**self.for_build(), "serveraddress": self.registry}

    def for_build(self) -> dict[str, str]:
        if self.identity_token:
            return {"username": self.username, "identitytoken": self.identity_token}
        return {"username": self.username, "password": self.password}


def _encoded(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode()


def _key(domain: str) -> str:
    """What the registry is called in settings."""
    return HUB if domain == DEFAULT_DOMAIN else domain


# ---------------------------------------------------------------------- files


@dataclass(frozen=True, slots=True)
class _File:
    """One file of credentials. Its content is not shown."""

    path: str
    content: Mapping[str, Any] = field(repr=False)

    def mapping(self, name: str) -> Mapping[str, Any]:
        found = self.content.get(name)
        return found if isinstance(found, dict) else {}

    def helper(self, key: str) -> str:
        """The program that holds what belongs to ``key``; "" where the file does."""
        own = self.mapping("credHelpers")
        names = (own.get(key), own.get(_host(key)), self.content.get("credsStore"))
        return next((name for name in names if isinstance(name, str) and name), "")


def _files(environ: Mapping[str, str], runtime: str) -> Iterator[_File]:
    """Those that are there, in the order in which they count."""
    docker = [os.path.join(docker_folder(environ), "config.json")]
    podman = list(_podman_paths(environ))
    for path in podman + docker if runtime == "podman" else docker + podman:
        content = _read(path)
        if content:
            yield _File(path, content)


def _podman_paths(environ: Mapping[str, str]) -> Iterator[str]:
    if written := environ.get("REGISTRY_AUTH_FILE"):
        yield written
        return
    if runtime_dir := environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime_dir, "containers", "auth.json")
    else:
        yield f"/run/containers/{os.geteuid()}/auth.json"
    settings = environ.get("XDG_CONFIG_HOME") or os.path.join(home_folder(environ), ".config")
    yield os.path.join(settings, "containers", "auth.json")


def _read(path: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _unreadable(path, error.strerror or "") from error
    found = _parsed(text)
    if found is None:
        raise _unreadable(path, "it is no JSON object")
    return found


def _parsed(text: str) -> Mapping[str, Any] | None:
    """None for what is no JSON object. Raises nothing: the error would carry the text, and that is secret."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _unreadable(path: str, why: str) -> DriverError:
    return DriverError(
        f"the credentials in {path} cannot be read: {why}",
        code="E003",
        meaning="Images are pulled with them",
        remedy="Mend the file, or log in again",
    )


# ---------------------------------------------------------------------- looking up


def _find(key: str, name: str, files: Iterator[_File], environ: Mapping[str, str]) -> _Credentials | None:
    return next((found for file in files if (found := _of_file(file, key, name, environ)) is not None), None)


def _of_file(file: _File, key: str, name: str, environ: Mapping[str, str]) -> _Credentials | None:
    """What ``file`` or the helper that it names has for the registry ``key`` and the repository ``name``."""
    if helper := file.helper(key):
        found = _ask_helper(helper, "get", key, environ)
        if found is not None:
            return _from_helper(key, found)
    entry = _entry(file.mapping("auths"), key, name)
    return _from_entry(key, entry) if entry is not None else None


def _entry(auths: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any] | None:
    """The entry that fits best. Podman knows entries for a part of a registry: `quay.io/org` before `quay.io`."""
    parts = name.split("/") if name != key else []
    exact = ["/".join(parts[:count]) for count in range(len(parts), 1, -1)] + [key]
    same_host = [known for known in auths if _is_whole_registry(known) and _host(known) == _host(key)]
    entries = (auths.get(each) for each in (*exact, *same_host))
    return next((entry for entry in entries if isinstance(entry, dict) and entry), None)


def _is_whole_registry(key: str) -> bool:
    """Not an entry for a part of it: `quay.io`, `https://quay.io`, `https://index.docker.io/v1/`."""
    return _without_scheme(key).strip("/").partition("/")[2] in ("", "v1", "v2")


def _without_scheme(key: str) -> str:
    return key.partition("://")[2] or key


def _host(key: str) -> str:
    """The registry alone: `https://index.docker.io/v1/` → `docker.io`."""
    host = _without_scheme(key).partition("/")[0]
    return DEFAULT_DOMAIN if host in ("index.docker.io", "registry-1.docker.io") else host


def _from_entry(key: str, entry: Mapping[str, Any]) -> _Credentials | None:
    """``auth`` is base64 of `user:password`; ``identitytoken`` stands in for the password."""
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if auth := entry.get("auth"):
        text = _unpacked(str(auth))
        if text is None:
            raise DriverError(f"the credentials for {_host(key)} cannot be read", code="E003", remedy="Log in again")
        username, _, password = text.partition(":")
        password = password.strip("\0")
    token = str(entry.get("identitytoken") or "")
    return _Credentials(key, username, password, token) if username or token else None


def _unpacked(auth: str) -> str | None:
    """None for what is not base64. Raises nothing, as ``_parsed``."""
    try:
        return b64decode(auth, validate=True).decode()
    except ValueError:
        return None


def _all_keys(file: _File, environ: Mapping[str, str]) -> list[str]:
    """Every registry that a file and its helpers have something for."""
    keys = [*file.mapping("auths"), *file.mapping("credHelpers")]
    store = file.content.get("credsStore")
    if isinstance(store, str) and store:
        keys += _ask_helper(store, "list", "", environ) or {}
    return list(dict.fromkeys(keys))


# ---------------------------------------------------------------------- helpers


def _from_helper(key: str, found: Mapping[str, Any]) -> _Credentials | None:
    username, secret = str(found.get("Username") or ""), str(found.get("Secret") or "")
    if username == _TOKEN_USER:
        return _Credentials(key, identity_token=secret)
    return _Credentials(key, username, secret) if username or secret else None


def _ask_helper(helper: str, verb: str, key: str, environ: Mapping[str, str]) -> Mapping[str, Any] | None:
    """What `docker-credential-HELPER VERB` answers; None where it knows nothing of ``key``."""
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise _refused(program, "its name holds a slash")
    status, output = _run((program, verb), key, environ)
    said = output[:_ANSWER_LIMIT].decode(errors="replace").strip()
    if status:
        if _NOT_FOUND in said.lower():
            return None
        raise _refused(program, f"it ended with {status}")
    found = _parsed(said)
    if found is None:
        raise _refused(program, "its answer is no JSON object")
    return found


def _run(argv: Sequence[str], text: str, environ: Mapping[str, str]) -> tuple[int, bytes]:
    import shutil
    import subprocess

    program = shutil.which(argv[0], path=environ.get("PATH", os.defpath))
    if program is None:
        raise _refused(argv[0], "there is no such program on the PATH")
    done = None
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            timeout=HELPER_SECONDS,
            check=False,
        )
    except OSError as error:
        raise _refused(argv[0], error.strerror or "it cannot be run") from error
    except subprocess.TimeoutExpired:
        pass  # told below: this error may hold the beginning of the answer
    if done is None:
        raise _refused(argv[0], f"no answer within {HELPER_SECONDS:g} s")
    return done.returncode, done.stdout


def _refused(program: str, why: str) -> DriverError:
    return DriverError(
        f"{program} gave no credentials: {why}",
        code="E003",
        meaning="Docker's settings name it as the keeper of the credentials for this registry",
        remedy="Try `docker pull` of the same image by hand, or take credsStore and credHelpers out of config.json",
    )
