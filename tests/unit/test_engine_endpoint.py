"""Which engine is spoken with: the one that the user's own `docker` and `podman` would speak with."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from deploy_code.drivers.engine import endpoint as module
from deploy_code.drivers.engine.endpoint import Endpoint, find_endpoint
from deploy_code.errors import DriverError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder on a machine without an engine."""
    monkeypatch.setattr(module, "DOCKER_SOCKET", str(tmp_path / "run" / "docker.sock"))
    return tmp_path


def docker(home: Path, **environ: str) -> Endpoint:
    return find_endpoint("docker", {"HOME": str(home), **environ})


def write_settings(home: Path, **settings: Any) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps(settings))


def write_context(home: Path, name: str, host: str, *, tls: bool = False, skip: bool = False) -> Path:
    """As `docker context create` keeps it; the folder of its certificates."""
    key = sha256(name.encode()).hexdigest()
    folder = home / ".docker" / "contexts"
    (folder / "meta" / key).mkdir(parents=True)
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}}}
    (folder / "meta" / key / "meta.json").write_text(json.dumps(meta))
    material = folder / "tls" / key / "docker"
    if tls:
        material.mkdir(parents=True)
    return material


def test_without_any_settings_docker_is_asked_at_its_usual_socket(home: Path) -> None:
    assert docker(home) == Endpoint(url=f"unix://{home}/run/docker.sock")


def test_both_names_of_the_usual_socket_are_one_engine(home: Path) -> None:
    (home / "run").mkdir()
    (home / "var").symlink_to(home / "run")
    assert docker(home, DOCKER_HOST=f"unix://{home}/var/docker.sock") == docker(home)


def test_a_rootless_docker_is_found_where_there_is_no_other(home: Path) -> None:
    (home / "docker.sock").touch()
    assert docker(home, XDG_RUNTIME_DIR=str(home)).url == f"unix://{home}/docker.sock"
    (home / "run").mkdir()
    (home / "run" / "docker.sock").touch()
    assert docker(home, XDG_RUNTIME_DIR=str(home)).url == f"unix://{home}/run/docker.sock"


@pytest.mark.parametrize(
    ("written", "url", "host", "port"),
    [
        ("tcp://build.example:2375", "tcp://build.example:2375", "build.example", 2375),
        ("tcp://build.example", "tcp://build.example:2375", "build.example", 2375),
        ("build.example:4000", "tcp://build.example:4000", "build.example", 4000),
        ("http://10.0.0.7:4000/", "tcp://10.0.0.7:4000", "10.0.0.7", 4000),
        ("tcp://[::1]:2375", "tcp://[::1]:2375", "::1", 2375),
        ("tcp://[::1]", "tcp://[::1]:2375", "::1", 2375),
    ],
)
def test_docker_host_names_an_engine_on_the_network(home: Path, written: str, url: str, host: str, port: int) -> None:
    found = docker(home, DOCKER_HOST=written)
    assert (found.url, found.host, found.port) == (url, host, port)
    assert not found.is_local
    assert found.tls == ""


def test_an_engine_on_a_socket_publishes_its_ports_on_this_machine(home: Path) -> None:
    found = docker(home)
    assert found.is_local
    assert (found.host, found.port, found.socket) == ("127.0.0.1", 0, f"{home}/run/docker.sock")


def test_docker_tls_verify_takes_the_users_certificates(home: Path) -> None:
    found = docker(home, DOCKER_HOST="tcp://build.example", DOCKER_TLS_VERIFY="1")
    assert found == Endpoint(url="tcp://build.example:2376", tls=f"{home}/.docker")
    assert found.verify


def test_docker_cert_path_names_the_folder_of_the_certificates(home: Path) -> None:
    found = docker(home, DOCKER_HOST="tcp://b:1", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH="/etc/certs/")
    assert found.tls == "/etc/certs"


def test_docker_tls_alone_is_encrypted_but_takes_any_certificate(home: Path) -> None:
    found = docker(home, DOCKER_HOST="tcp://b:1", DOCKER_TLS="1")
    assert (found.tls, found.verify) == (f"{home}/.docker", False)
    assert (found.host, found.port) == ("b", 1)
    assert Endpoint(url=found.url, tls=found.tls) == found  # what is kept of it says all


def test_the_current_context_names_the_engine(home: Path) -> None:
    write_settings(home, currentContext="build")
    material = write_context(home, "build", "tcp://build.example:2376", tls=True)
    assert docker(home) == Endpoint(url="tcp://build.example:2376", tls=str(material))


def test_docker_context_beats_the_current_one_and_docker_host_beats_both(home: Path) -> None:
    write_settings(home, currentContext="build")
    write_context(home, "build", "tcp://build.example:2375")
    write_context(home, "other", f"unix://{home}/other.sock")
    assert docker(home, DOCKER_CONTEXT="other").url == f"unix://{home}/other.sock"
    assert docker(home, DOCKER_CONTEXT="default").url == f"unix://{home}/run/docker.sock"
    assert docker(home, DOCKER_CONTEXT="other", DOCKER_HOST="tcp://b:1").url == "tcp://b:1"


def test_a_context_may_take_any_certificate(home: Path) -> None:
    material = write_context(home, "lab", "tcp://lab.example:2376", skip=True)
    found = docker(home, DOCKER_CONTEXT="lab")
    assert (found.host, found.port, found.tls, found.verify) == ("lab.example", 2376, str(material), False)


def test_docker_config_moves_the_users_settings(home: Path) -> None:
    write_settings(home, currentContext="build")
    write_context(home, "build", "tcp://build.example:1")
    (home / ".docker").rename(home / "elsewhere")
    assert docker(home, DOCKER_CONFIG=str(home / "elsewhere")).url == "tcp://build.example:1"


def test_a_context_that_is_not_there_is_said_so(home: Path) -> None:
    with pytest.raises(DriverError, match="no Docker context 'gone'") as caught:
        docker(home, DOCKER_CONTEXT="gone")
    assert caught.value.code == "E014"
    assert "docker context ls" in caught.value.remedy


def test_settings_that_cannot_be_read_are_said_so(home: Path) -> None:
    write_settings(home)
    (home / ".docker" / "config.json").write_text("{")
    with pytest.raises(DriverError, match=r"config\.json cannot be read") as caught:
        docker(home)
    assert caught.value.code == "E014"


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("ssh://me@build.example", "ssh -nNT -L"),
        ("npipe:////./pipe/docker_engine", "WSL"),
        ("https://build.example", "DOCKER_TLS_VERIFY"),
        ("fd://", "unix:///"),
        ("tcp://:2375", "tcp://host:port"),
        ("tcp://b:99999", "tcp://host:port"),
        ("tcp://b:x", "tcp://host:port"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_what_to_do(home: Path, written: str, advice: str) -> None:
    with pytest.raises(DriverError) as caught:
        docker(home, DOCKER_HOST=written)
    assert caught.value.code == "E014"
    assert "DOCKER_HOST" in caught.value.message
    assert advice in caught.value.remedy


def test_a_password_in_an_address_is_not_repeated(home: Path) -> None:
    for written in ("tcp://me:hunter2@b:1", "ssh://me:hunter2@b", "me:hunter2@b:1"):
        with pytest.raises(DriverError) as caught:
            docker(home, DOCKER_HOST=written)
        assert "hunter2" not in str(caught.value)


def test_podman_is_asked_at_its_socket_or_where_container_host_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert find_endpoint("podman", {"XDG_RUNTIME_DIR": "/run/user/0"}).url == "unix:///run/podman/podman.sock"
    assert find_endpoint("podman", {"CONTAINER_HOST": "unix:///srv/p.sock"}).url == "unix:///srv/p.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    own = find_endpoint("podman", {"XDG_RUNTIME_DIR": "/run/user/1000"})
    assert own.url == "unix:///run/user/1000/podman/podman.sock"
    assert find_endpoint("podman", {"DOCKER_HOST": "tcp://b:1"}).url == "unix:///run/podman/podman.sock"
