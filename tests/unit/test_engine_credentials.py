"""Credentials for registries: those that `docker login` and `podman login` left, never in anything that is shown."""

from __future__ import annotations

import json
import os
from base64 import b64encode, urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.drivers.engine import credentials as module
from deploy_code.drivers.engine.credentials import HUB, registry_auth, registry_config
from deploy_code.errors import DriverError

SECRET = "hunter2:with/colon"


def login(username: str = "me", password: str = SECRET) -> dict[str, str]:
    return {"auth": b64encode(f"{username}:{password}".encode()).decode()}


def decoded(value: str) -> dict[str, Any]:
    found = json.loads(urlsafe_b64decode(value))
    assert isinstance(found, dict)
    return found


class User:
    """A user with settings and credential helpers of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}", "XDG_RUNTIME_DIR": f"{home}/run"}

    def docker(self, **settings: Any) -> None:
        self.write(".docker/config.json", settings)

    def podman(self, **settings: Any) -> None:
        self.write("run/containers/auth.json", settings)

    def write(self, path: str, settings: Any) -> None:
        (self.home / path).parent.mkdir(parents=True, exist_ok=True)
        (self.home / path).write_text(settings if isinstance(settings, str) else json.dumps(settings))

    def helper(self, name: str, script: str) -> None:
        """``$1`` is the verb; the registry is on the standard input."""
        program = self.home / "bin" / f"docker-credential-{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def auth(self, image: str, runtime: str = "docker") -> dict[str, Any]:
        found = registry_auth(image, self.environ, runtime=runtime)
        return decoded(found) if found else {}


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_without_credentials_an_image_is_asked_for_as_anybody_may(user: User) -> None:
    assert registry_auth("redis:7", user.environ) == ""
    assert registry_config(user.environ) == ""
    user.docker(auths={}, HttpHeaders={"X": "y"})
    assert registry_auth("redis:7", user.environ) == ""


@pytest.mark.parametrize(
    ("key", "image"),
    [
        (HUB, "redis"),
        (HUB, "docker.io/org/app:1"),
        ("docker.io", "redis"),
        ("ghcr.io", "ghcr.io/org/app"),
        ("https://ghcr.io", "ghcr.io/org/app"),
        ("https://ghcr.io/v2/", "ghcr.io/org/app"),
        ("localhost:5000", "localhost:5000/app"),
    ],
)
def test_a_login_is_found_by_the_registry_of_the_image(user: User, key: str, image: str) -> None:
    user.docker(auths={"other.example": login("they", "theirs"), key: login()})
    found = user.auth(image)
    assert (found["username"], found["password"]) == ("me", SECRET)
    assert found["serveraddress"] == (HUB if key in (HUB, "docker.io") else image.partition("/")[0])


def test_credentials_of_one_registry_are_not_given_to_another(user: User) -> None:
    user.docker(auths={"localhost:5000": login(), "ghcr.io": login()})
    for image in ("redis", "localhost:5001/app", "localhost/app", "evil.ghcr.io/app", "ghcr.io.evil.example/app"):
        assert user.auth(image) == {}


def test_an_identity_token_stands_in_for_the_password(user: User) -> None:
    user.docker(auths={"ghcr.io": {**login("00000000-0000", ""), "identitytoken": "a-token"}})
    found = user.auth("ghcr.io/app")
    assert found["identitytoken"] == "a-token"
    assert "password" not in found


def test_the_helper_of_a_registry_is_asked_before_the_common_one(user: User) -> None:
    answer = 'read key; echo "{\\"ServerURL\\":\\"$key\\",\\"Username\\":\\"NAME of $1 $key\\",\\"Secret\\":\\"s\\"}"'
    user.helper("common", answer.replace("NAME", "common"))
    user.helper("own", answer.replace("NAME", "own"))
    user.docker(credsStore="common", credHelpers={"ghcr.io": "own"}, auths={"ghcr.io": {}, HUB: {}})
    assert user.auth("ghcr.io/app")["username"] == "own of get ghcr.io"
    assert user.auth("redis")["username"] == f"common of get {HUB}"


def test_a_helper_may_give_a_token(user: User) -> None:
    user.helper("desktop", """echo '{"ServerURL":"x","Username":"<token>","Secret":"a-token"}'""")
    user.docker(credsStore="desktop")
    assert user.auth("redis")["identitytoken"] == "a-token"


def test_a_helper_that_knows_nothing_of_a_registry_is_no_failure(user: User) -> None:
    user.helper("pass", "echo credentials not found in native keychain; exit 1")
    user.docker(credsStore="pass", auths={"ghcr.io": login()})
    assert user.auth("redis") == {}
    assert user.auth("ghcr.io/app")["username"] == "me"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"echo {SECRET}; exit 3", "it ended with 3"),
        (f"echo {SECRET}", "no JSON object"),
        (f"echo {SECRET}; exec sleep 5", "no answer within"),
    ],
)
def test_a_helper_that_fails_is_told_without_what_it_said(
    user: User, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    monkeypatch.setattr(module, "HELPER_SECONDS", 0.3)
    user.helper("pass", script)
    user.docker(credsStore="pass")
    with pytest.raises(DriverError, match=why) as caught:
        user.auth("redis")
    assert caught.value.code == "E003"
    assert SECRET not in everything_shown(caught.value)


def test_a_helper_that_is_not_there_is_named(user: User) -> None:
    user.docker(credsStore="nowhere")
    with pytest.raises(DriverError, match="docker-credential-nowhere gave no credentials: there is no such program"):
        user.auth("redis")


def test_a_helper_is_a_name_and_no_path(user: User) -> None:
    user.docker(credsStore="x/../../evil")
    with pytest.raises(DriverError, match="slash"):
        user.auth("redis")


def test_podmans_own_file_counts_for_both_each_engine_has_its_own_first(user: User) -> None:
    user.podman(auths={"ghcr.io": login("podman"), "quay.io": login("podman")})
    user.docker(auths={"ghcr.io": login("docker")})
    assert user.auth("ghcr.io/app")["username"] == "docker"
    assert user.auth("ghcr.io/app", "podman")["username"] == "podman"
    assert user.auth("quay.io/app")["username"] == "podman"


def test_podmans_entries_for_a_part_of_a_registry_fit_best(user: User) -> None:
    user.podman(auths={"quay.io": login("all"), "quay.io/org": login("org"), "quay.io/org/app": login("app")})
    assert user.auth("quay.io/org/app:1", "podman")["username"] == "app"
    assert user.auth("quay.io/org/other", "podman")["username"] == "org"
    assert user.auth("quay.io/organ/app", "podman")["username"] == "all"


def test_an_entry_for_a_part_is_not_used_for_the_rest_of_the_registry(user: User) -> None:
    user.podman(auths={"quay.io/org": login("org")})
    assert user.auth("quay.io/others/app", "podman") == {}


def test_registry_auth_file_names_podmans_file(user: User) -> None:
    user.podman(auths={"quay.io": login("usual")})
    user.write("mine.json", {"auths": {"quay.io": login("mine")}})
    user.environ["REGISTRY_AUTH_FILE"] = f"{user.home}/mine.json"
    assert user.auth("quay.io/app")["username"] == "mine"


def test_a_build_may_pull_from_all_registries_that_are_known(user: User) -> None:
    user.helper(
        "common",
        """read key
        case $1 in
        list) echo '{"https://index.docker.io/v1/": "hub"}' ;;
        get) [ "$key" = https://index.docker.io/v1/ ] || { echo credentials not found in native keychain; exit 1; }
             echo '{"ServerURL": "x", "Username": "hub", "Secret": "s"}' ;;
        esac""",
    )
    user.docker(credsStore="common", auths={"ghcr.io": login("g"), "empty.example": {}})
    user.podman(auths={"quay.io": login("q"), "ghcr.io": login("second")})
    found = decoded(registry_config(user.environ))
    assert {key: value["username"] for key, value in found.items()} == {HUB: "hub", "ghcr.io": "g", "quay.io": "q"}
    assert found["ghcr.io"]["password"] == SECRET


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"ghcr.io": {"auth": "%%"}}}', "\x00\x01"])
def test_a_broken_file_is_named_and_not_quoted(user: User, text: str) -> None:
    user.write(".docker/config.json", text)
    with pytest.raises(DriverError, match="cannot be read") as caught:
        user.auth("ghcr.io/app")
    assert caught.value.code == "E003"


def test_nothing_that_is_raised_or_shown_holds_a_secret(user: User) -> None:
    user.write(".docker/config.json", '{"auths": {"ghcr.io": {"auth": "' + SECRET + '"}}')
    with pytest.raises(DriverError) as caught:
        user.auth("ghcr.io/app")
    assert SECRET not in everything_shown(caught.value)
    user.docker(auths={"ghcr.io": {"auth": SECRET}})
    with pytest.raises(DriverError) as caught:
        user.auth("ghcr.io/app")
    assert SECRET not in everything_shown(caught.value)
    found = module._Credentials("ghcr.io", "me", SECRET, SECRET)
    assert SECRET not in repr(found)


@given(st.text(min_size=1).filter(lambda text: ":" not in text and "\0" not in text), st.text())
def test_any_user_and_password_arrive_as_they_are(username: str, password: str) -> None:
    try:
        entry = login(username, password)
    except UnicodeEncodeError:
        return  # half a character: nobody can type it
    found = module._from_entry("ghcr.io", entry)
    assert found is not None
    assert (found.username, found.password) == (username, password.strip("\0"))


def everything_shown(error: BaseException) -> str:
    """The error and whatever is chained to it, as a debugger would find it."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append(f"{seen!r} {seen} {vars(seen)}")
        seen = seen.__cause__ or seen.__context__
    return "\n".join(texts)
