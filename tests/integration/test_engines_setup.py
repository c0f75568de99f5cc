"""The set-up that other tests stand on: real engines, their images, and a registry."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from support.daemons import Daemon, Record, Unavailable
from support.engine_api import ApiError
from support.engine_daemons import Docker, Engine
from support.engines import STATE, Left, left_in_engines
from support.image_registry import Registry
from support.images_small import web
from support.project import ProjectFolder
from support.wait import wait_until


@contextmanager
def container(engine: Engine, image: str, **body: Any) -> Iterator[str]:
    """A running container; removed afterwards."""
    name = f"setup-{uuid4().hex[:8]}"
    engine.api("POST", "/containers/create", {"Image": image, **body}, name=name)
    try:
        engine.api("POST", f"/containers/{name}/start")
        yield name
    finally:
        engine.api("DELETE", f"/containers/{name}", force="1", v="1")


@contextmanager
def network(engine: Engine) -> Iterator[str]:
    name = f"setup-{uuid4().hex[:8]}"
    engine.api("POST", "/networks/create", {"Name": name, "Driver": "bridge"})
    try:
        yield name
    finally:
        engine.api("DELETE", f"/networks/{name}")


def inspected(engine: Engine, name: str) -> Any:
    return engine.api("GET", f"/containers/{name}/json")


def address(engine: Engine, name: str) -> str:
    (found,) = inspected(engine, name)["NetworkSettings"]["Networks"].values()
    return str(found["IPAddress"])


def page(url: str) -> str:
    def read() -> str:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    return wait_until(read, what=url)


def run(engine: Engine, name: str, *command: str) -> tuple[int, str]:
    """Exit code and output of a command inside."""
    body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
    number = engine.api("POST", f"/containers/{name}/exec", body)["Id"]
    output = engine.api.output("POST", f"/exec/{number}/start", {})
    return engine.api("GET", f"/exec/{number}/json")["ExitCode"], output


def test_a_web_server_answers_at_its_own_address_and_at_a_published_port(engine: Engine, port: int):
    ports = {"ExposedPorts": {"8080/tcp": {}}, "HostConfig": {"PortBindings": {"8080/tcp": [{"HostPort": str(port)}]}}}
    with container(engine, "dc-test/web:2", **ports) as name:
        assert page(f"http://{address(engine, name)}:8080") == "v2\n"
        assert page(f"http://127.0.0.1:{port}") == "v2\n"


def test_the_web_server_ends_at_once_when_it_is_told_to(engine: Engine):
    with container(engine, "dc-test/web:1") as name:
        page(f"http://{address(engine, name)}:8080")
        started = time.monotonic()
        engine.api("POST", f"/containers/{name}/stop", t="30")
        assert time.monotonic() - started < 10
        assert inspected(engine, name)["State"]["ExitCode"] == 0


def test_containers_of_one_network_find_each_other_by_name(engine: Engine):
    with network(engine) as own:
        on_it = {"HostConfig": {"NetworkMode": own}}
        names = {"NetworkingConfig": {"EndpointsConfig": {own: {"Aliases": ["shop"]}}}}
        with container(engine, "dc-test/web:1", **on_it, **names) as there:
            page(f"http://{address(engine, there)}:8080")
            with container(engine, "dc-test/busybox:1", Cmd=["sleep", "1000"], **on_it) as here:
                assert run(engine, here, "wget", "-qO-", "http://shop:8080/") == (0, "v1\n")


def test_postgresql_starts_with_the_variables_of_the_official_image(engine: Engine):
    env = ["POSTGRES_PASSWORD=secret", "POSTGRES_USER=app", "POSTGRES_DB=shop"]
    with container(engine, "postgres:15", Env=env) as name:
        ask = ("psql", "-h", address(engine, name), "-U", "app", "-d", "shop", "-tAc", "select current_user")
        wait_until(lambda: run(engine, name, "env", "PGPASSWORD=secret", *ask) == (0, "app\n"), 30)
        assert run(engine, name, "env", "PGPASSWORD=wrong", *ask)[0] == 2


def test_redis_answers_and_asks_for_the_password_it_was_given(engine: Engine):
    with container(engine, "redis:7", Cmd=["redis-server", "--requirepass", "secret"]) as name:
        wait_until(lambda: "NOAUTH" in run(engine, name, "redis-cli", "ping")[1])
        assert run(engine, name, "env", "REDISCLI_AUTH=secret", "redis-cli", "ping") == (0, "PONG\n")


def test_python_runs_with_its_standard_library(engine: Engine):
    program = "import asyncio, ctypes, json, sqlite3, ssl; print('all', 'there')"
    with container(engine, "python:3.11-slim", Cmd=["sleep", "1000"]) as name:
        assert run(engine, name, "python3", "-c", program) == (0, "all there\n")


def test_the_foreign_image_is_of_another_architecture_and_does_not_run(engine: Engine):
    assert engine.api("GET", "/images/dc-test/arm:1/json")["Architecture"] != engine.api("GET", "/version")["Arch"]
    with container(engine, "dc-test/arm:1") as name:
        wait_until(lambda: inspected(engine, name)["State"]["Status"] == "exited")
        assert inspected(engine, name)["State"]["ExitCode"] == 1


def pulled(engine: Engine, name: str, registry: Registry, password: str) -> str:
    """The error, or nothing. Docker refuses with a status, Podman with a line."""
    try:
        login = {"username": registry.user, "password": password, "serveraddress": registry.address}
        lines = engine.api.lines("POST", "/images/create", login=login, fromImage=f"{registry.address}/{name}", tag="1")
        return "".join(line.get("error", "") for line in lines)
    except ApiError as exc:
        return exc.message


def test_the_registry_gives_images_to_those_who_know_the_password(engine: Engine, registry: Registry):
    name = f"setup/web-{uuid4().hex[:8]}"
    digest = registry.push(web(1), f"{name}:1")
    assert "authentication required" in pulled(engine, name, registry, "wrong")
    assert pulled(engine, name, registry, registry.password) == ""
    image = f"{registry.address}/{name}:1"
    found = engine.api("GET", f"/images/{image}/json")
    engine.api("DELETE", f"/images/{image}")
    assert f"{registry.address}/{name}@{digest}" in found["RepoDigests"]


def test_a_private_engine_can_be_killed_and_started_again(private_engine: Engine):
    private_engine.kill()
    assert not private_engine.api.answers()
    private_engine.start()
    assert private_engine.has("dc-test/web:1", "dc-test/web:2")


def test_containers_outlive_a_killed_daemon_with_live_restore(make_private_docker: Callable[..., Docker]):
    docker = make_private_docker("--live-restore")
    with container(docker, "dc-test/busybox:1", Cmd=["sleep", "1000"]) as name:
        pid = inspected(docker, name)["State"]["Pid"]
        docker.kill()
        docker.start()
        assert inspected(docker, name)["State"]["Pid"] == pid


def test_nothing_of_a_private_docker_is_left(make_private_docker: Callable[..., Docker]):
    docker = make_private_docker()
    docker.api(
        "POST", "/containers/create", {"Image": "dc-test/web:1", "HostConfig": {"NetworkMode": "none"}}, name="one"
    )
    docker.api("POST", "/containers/one/start")
    shell = Record.of(inspected(docker, "one")["State"]["Pid"])
    assert shell is not None and shell.alive()
    docker.kill()
    docker.close()
    assert not shell.alive()
    assert f"{docker.folder}/" not in Path("/proc/mounts").read_text()
    assert not any(f"{docker.folder}/".encode() in line.read_bytes() for line in command_lines())


def command_lines() -> Iterator[Path]:
    return (path for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())


def test_what_a_project_leaves_in_an_engine_is_found_and_removed(
    engine: Engine, make_project: Callable[..., ProjectFolder]
):
    project = make_project(**engine.env)
    labels = {"Labels": {STATE: str(project.state)}}
    name = f"setup-{uuid4().hex[:8]}"
    engine.api("POST", "/volumes/create", {"Name": name, **labels})
    engine.api("POST", "/networks/create", {"Name": name, **labels})
    engine.api("POST", "/containers/create", {"Image": "dc-test/web:1", **labels}, name=name)
    assert {(each.engine.kind, each.kind, each.name) for each in project.in_engines()} == {
        (engine.kind, kind, name) for kind in ("container", "network", "volume")
    }
    assert left_in_engines(project.folder.parent / "other") == []
    told = {each.kind for each in project.close() if isinstance(each, Left)}
    assert told == {"container", "network"}, "volumes stay after a stop: that is no fault"
    assert project.in_engines() == []


class Broken(Daemon):
    def command(self) -> tuple[str, ...]:
        return ("sh", "-c", "echo no such disk; exit 3")

    def ready(self) -> bool:
        return False


def test_a_daemon_that_does_not_start_is_told_with_its_last_words(tmp_path: Path):
    with pytest.raises(Unavailable, match="no such disk"):
        Broken(tmp_path / "broken").start()


def test_a_record_of_another_process_with_the_same_number_is_not_alive(tmp_path: Path):
    daemon = Broken(tmp_path / "broken")
    daemon.folder.mkdir()
    (daemon.folder / "process").write_text(json.dumps({"pid": 1, "start_time": "-1"}))
    assert daemon.record is None
