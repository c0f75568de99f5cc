"""The client of the Engine API against the real engines: Docker and Podman, on a socket and over TLS."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy_code.drivers.engine.client import EngineClient, EngineError, EngineGoneError
from deploy_code.drivers.engine.credentials import registry_auth, registry_config
from deploy_code.drivers.engine.endpoint import find_endpoint
from deploy_code.errors import CircuitOpenError
from deploy_code.model import Breaker
from deploy_code.reliability.circuit import Circuit, CircuitBreaker
from support.engine_daemons import Engine, PrivateDocker
from support.image_registry import Registry
from support.images_small import web
from support.ports import free_port

IMAGE = "dc-test/busybox:1"
LABEL = "dc-client-test"


def new_client(engine: Engine, **options: Any) -> EngineClient:
    return EngineClient(find_endpoint(engine.kind, engine.env), **options)


@asynccontextmanager
async def connected(engine: Engine, **options: Any) -> AsyncIterator[EngineClient]:
    client = new_client(engine, **options)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[EngineClient]:
    async with connected(engine) as client:
        yield client


@asynccontextmanager
async def container(client: EngineClient, *command: str, **body: Any) -> AsyncIterator[str]:
    """A started container; removed afterwards."""
    name = f"client-{uuid4().hex[:8]}"
    order = {"Image": IMAGE, "Cmd": command, "Labels": {LABEL: name}, "HostConfig": {"NetworkMode": "none"}} | body
    await client.call("POST", "/containers/create", query={"name": name}, body=order)
    try:
        await client.call("POST", f"/containers/{name}/start")
        yield name
    finally:
        await client.call("DELETE", f"/containers/{name}", query={"force": True, "v": True})


async def test_the_engine_says_what_it_is(engine: Engine, client: EngineClient) -> None:
    info = await client.info()
    assert info.name == engine.kind
    assert info.api_version == "1.41"
    assert info.version == engine.api("GET", "/version")["Version"]
    assert (info.arch, info.os) == (engine.api("GET", "/version")["Arch"], "linux")
    assert not info.rootless
    assert Path(info.root_dir).is_dir()
    assert await client.info() is info


async def test_podmans_own_api_is_spoken_too(podman: Engine) -> None:
    async with connected(podman) as client:
        found = await client.call("GET", "/libpod/info")
        assert found["host"]["remoteSocket"]["exists"]


async def test_what_is_not_there_is_an_error_in_the_engines_words(client: EngineClient) -> None:
    with pytest.raises(EngineError, match=r"(?i)no such container|no container with name") as caught:
        await client.call("GET", "/containers/client-none/json")
    assert caught.value.status == 404


async def test_starting_what_runs_already_is_no_error(client: EngineClient) -> None:
    async with container(client, "sleep", "60") as name:
        assert await client.call("POST", f"/containers/{name}/start") is None


async def test_many_calls_at_once_share_a_few_connections(engine: Engine, client: EngineClient) -> None:
    async with container(client, "sleep", "60") as name:
        answers = await asyncio.gather(*(client.call("GET", f"/containers/{name}/json") for _ in range(50)))
    assert {answer["Name"].lstrip("/") for answer in answers} == {name}


async def test_a_list_asks_with_filters(client: EngineClient) -> None:
    async with container(client, "sleep", "60") as name, container(client, "sleep", "60"):
        found = await client.call("GET", "/containers/json", query={"filters": {"label": [f"{LABEL}={name}"]}})
        assert [each["Labels"][LABEL] for each in found] == [name]


async def test_events_come_as_they_happen(client: EngineClient) -> None:
    name = f"client-{uuid4().hex[:8]}"
    seen: list[str] = []
    filters = {"type": ["container"], "label": [f"{LABEL}={name}"]}
    async with asyncio.timeout(20), client.json_lines("GET", "/events", query={"filters": filters}) as events:
        async with container(client, "sh", "-c", "exit 7", Labels={LABEL: name}):
            async for event in events:
                seen.append(event["Action"])
                if event["Action"] == "die":
                    assert event["Actor"]["Attributes"]["exitCode"] == "7"
                    break
    assert [each for each in seen if each in ("create", "start", "die")] == ["create", "start", "die"]


async def test_logs_come_apart_into_output_and_errors(client: EngineClient) -> None:
    async with (
        asyncio.timeout(20),
        container(client, "sh", "-c", "echo out; echo err >&2; sleep 0.2; echo end") as name,
    ):
        query = {"stdout": True, "stderr": True, "follow": True}
        async with client.frames("GET", f"/containers/{name}/logs", query=query) as frames:
            found = [frame async for frame in frames]
    assert [text for stream, text in found if stream == 1] == [b"out\n", b"end\n"]
    assert [text for stream, text in found if stream == 2] == [b"err\n"]


async def test_a_command_runs_inside_and_its_output_comes_back(client: EngineClient) -> None:
    async with asyncio.timeout(20), container(client, "sleep", "60") as name:
        body = {"Cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"], "AttachStdout": True, "AttachStderr": True}
        made = await client.call("POST", f"/containers/{name}/exec", body=body)
        start = {"Detach": False, "Tty": False}
        async with client.frames("POST", f"/exec/{made['Id']}/start", body=start) as frames:
            assert sorted([frame async for frame in frames]) == [(1, b"out\n"), (2, b"err\n")]
        assert (await client.call("GET", f"/exec/{made['Id']}/json"))["ExitCode"] == 3


async def test_files_go_in_and_come_out_as_tar(client: EngineClient) -> None:
    content = bytes(range(256)) * 8192  # 2 MB: more than any buffer on the way
    async with asyncio.timeout(30), container(client, "sleep", "60") as name:
        await client.call("PUT", f"/containers/{name}/archive", query={"path": "/"}, body=tar_of({"file": content}))
        async with client.stream("GET", f"/containers/{name}/archive", query={"path": "/file"}) as parts:
            back = b"".join([part async for part in parts])
    with tarfile.open(fileobj=io.BytesIO(back)) as archive:
        file = archive.extractfile("file")
        assert file is not None
        assert file.read() == content


async def test_a_build_context_is_sent_while_it_is_made(client: EngineClient) -> None:
    name = f"dc-client/built:{uuid4().hex[:8]}"
    context = tar_of({"Dockerfile": f"FROM {IMAGE}\nCOPY big /big\n".encode(), "big": b"x" * 3_000_000})

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(context), 100_000):
            yield context[start : start + 100_000]
            await asyncio.sleep(0)

    try:
        async with asyncio.timeout(60), client.json_lines("POST", "/build", query={"t": name}, body=parts()) as lines:
            said = [line async for line in lines]
        assert not [line["error"] for line in said if "error" in line]
        assert (await client.call("GET", f"/images/{name}/json"))["Id"]
    finally:
        await client.call("DELETE", f"/images/{name}", query={"force": True})


async def test_a_stream_that_is_left_is_closed(engine: Engine, client: EngineClient) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), client.json_lines("GET", "/events") as events:
            async for _ in events:
                pass
    assert await client.call("GET", "/_ping") == "OK"


# ---------------------------------------------------------------------- pulling


async def test_an_image_is_pulled_with_the_users_login(
    engine: Engine, client: EngineClient, registry: Registry, tmp_path: Path
) -> None:
    repository = f"client/{uuid4().hex[:8]}"
    image = f"{registry.address}/{repository}"
    registry.push(web(1), f"{repository}:1")
    environ = {"DOCKER_CONFIG": str(registry.docker_config(tmp_path)), "HOME": str(tmp_path)}
    try:
        refused = await pulled(client, image, "")
        assert "error" in refused
        said = await pulled(client, image, registry_auth(f"{image}:1", environ, runtime=engine.kind))
        assert "error" not in said
        assert (await client.call("GET", f"/images/{image}:1/json"))["Id"]
    finally:
        with suppress(EngineError):
            await client.call("DELETE", f"/images/{image}:1", query={"force": True})


async def pulled(client: EngineClient, image: str, auth: str) -> dict[str, Any]:
    """The last line that tells an error, or the last at all."""
    headers = [("X-Registry-Auth", auth)] if auth else []
    query = {"fromImage": image, "tag": "1"}
    last: dict[str, Any] = {}
    try:
        async with (
            asyncio.timeout(60),
            client.json_lines("POST", "/images/create", query=query, headers=headers) as lines,
        ):
            async for line in lines:
                last = line if "error" not in last else last
    except EngineError as error:
        return {"error": error.message}
    return last


async def test_a_build_pulls_its_base_with_the_users_login(docker: Engine, registry: Registry, tmp_path: Path) -> None:
    repository = f"client/{uuid4().hex[:8]}"
    base = f"{registry.address}/{repository}:1"
    name = f"dc-client/base:{uuid4().hex[:8]}"
    registry.push(web(2), f"{repository}:1")
    environ = {"DOCKER_CONFIG": str(registry.docker_config(tmp_path)), "HOME": str(tmp_path)}
    headers = [("X-Registry-Config", registry_config(environ))]
    context = tar_of({"Dockerfile": f"FROM {base}\nLABEL a=b\n".encode()})
    async with connected(docker) as client, asyncio.timeout(60):
        try:
            async with client.json_lines("POST", "/build", query={"t": name}, body=context, headers=headers) as lines:
                assert not [line["error"] async for line in lines if "error" in line]
        finally:
            for each in (name, base):
                await client.call("DELETE", f"/images/{each}", query={"force": True})


# ---------------------------------------------------------------------- an engine that goes away


@pytest.fixture
def guard() -> CircuitBreaker:
    return CircuitBreaker("engine", Breaker(failures=2, window_seconds=60, cooldown_seconds=0.2))


async def test_an_engine_that_is_killed_ends_streams_opens_the_circuit_and_is_found_again(
    private_engine: Engine, guard: CircuitBreaker
) -> None:
    async with connected(private_engine, breaker=guard) as client, asyncio.timeout(60):
        assert await client.call("GET", "/_ping") == "OK"
        with pytest.raises(EngineGoneError):
            async with client.json_lines("GET", "/events") as events:
                private_engine.kill()
                async for _ in events:
                    pass
        for _ in range(2):
            with pytest.raises(EngineGoneError) as caught:
                await client.call("GET", "/containers/json")
            assert caught.value.code == "E014"
        with pytest.raises(CircuitOpenError):
            await client.call("GET", "/containers/json")
        await asyncio.to_thread(private_engine.start)
        async with client.json_lines("GET", "/events"):
            assert isinstance(await client.call("GET", "/containers/json"), list)
        assert guard.state is Circuit.CLOSED


async def test_an_engine_that_was_restarted_is_spoken_with_as_if_nothing_had_been(private_engine: Engine) -> None:
    async with connected(private_engine) as client, asyncio.timeout(60):
        await asyncio.gather(*(client.call("GET", "/containers/json") for _ in range(8)))
        await asyncio.to_thread(private_engine.restart)
        for _ in range(8):  # no connection of before is used, not even for what must not be sent twice
            with pytest.raises(EngineError):
                await client.call("POST", "/containers/none/start")


# ---------------------------------------------------------------------- over the network


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> Path:
    """An authority, an engine on 127.0.0.1, and a client in ``folder/client`` as Docker wants it."""
    (folder / "client").mkdir()
    subject = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"]
    openssl(folder, *subject, "/CN=authority", "-x509", "-days", "2", "-keyout", "ca-key.pem", "-out", "ca.pem")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name, key, certificate in (
        ("engine", "key.pem", "cert.pem"),
        ("client", "client/key.pem", "client/cert.pem"),
    ):
        openssl(folder, *subject, f"/CN={name}", "-keyout", key, "-out", "request")
        authority = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"]
        signed = [*authority, "-extfile", "extensions", "-days", "2", "-out", certificate]
        openssl(folder, "x509", "-req", "-in", "request", *signed)
    (folder / "client" / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    return folder


class TlsDocker:
    def __init__(self, docker: PrivateDocker, port: int, certificates: Path) -> None:
        self.docker, self.port, self.certificates = docker, port, certificates

    def environ(self, **more: str) -> dict[str, str]:
        return {"DOCKER_HOST": f"tcp://127.0.0.1:{self.port}", "HOME": str(self.certificates), **more}

    async def ask(self, environ: Mapping[str, str]) -> str:
        client = EngineClient(find_endpoint("docker", environ))
        try:
            return (await client.info()).root_dir
        finally:
            await client.close()


@pytest.fixture
def tls_docker(make_private_docker: Callable[..., PrivateDocker], tmp_path: Path) -> Iterator[TlsDocker]:
    """A dockerd that lets nobody in without a certificate of its authority."""
    certificates = make_certificates(tmp_path)
    port = free_port()
    files = {f"--tls{name}": str(certificates / f"{file}.pem") for name, file in FILES.items()}
    options = [f"{option}={path}" for option, path in files.items()]
    yield TlsDocker(make_private_docker("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", *options), port, certificates)


FILES = {"cacert": "ca", "cert": "cert", "key": "key"}


async def test_an_engine_behind_tls_is_spoken_with_by_the_users_certificate(tls_docker: TlsDocker) -> None:
    material = str(tls_docker.certificates / "client")
    tls = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": material}
    assert await tls_docker.ask(tls_docker.environ(**tls)) == str(tls_docker.docker.folder / "data")

    with pytest.raises(EngineGoneError, match="wants TLS"):
        await tls_docker.ask(tls_docker.environ())

    for name in ("cert.pem", "key.pem"):
        (tls_docker.certificates / "client" / name).rename(tls_docker.certificates / name)
    with pytest.raises(EngineGoneError, match="certificate"):
        await tls_docker.ask(tls_docker.environ(**tls))


async def test_an_engine_whose_certificate_is_of_somebody_else_is_not_spoken_with(
    tls_docker: TlsDocker, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    others = make_certificates(tmp_path / "others")
    with pytest.raises(EngineGoneError, match="certificate is not accepted") as caught:
        await tls_docker.ask(tls_docker.environ(DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(others / "client")))
    assert caught.value.code == "E014"
    assert not caught.value.retryable

    material = tls_docker.certificates / "client"
    (material / "ca.pem").write_bytes((others / "ca.pem").read_bytes())
    loose = tls_docker.environ(DOCKER_TLS="1", DOCKER_CERT_PATH=str(material))
    assert await tls_docker.ask(loose) == str(tls_docker.docker.folder / "data")


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
