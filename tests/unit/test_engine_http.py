"""HTTP to an engine, against a server that says exactly what the test wrote down: what real ones do only when ill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy_code.drivers.engine import client as client_module
from deploy_code.drivers.engine import http
from deploy_code.drivers.engine.client import EngineClient, EngineError, EngineGoneError
from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.drivers.engine.parts import as_frames, as_json_lines
from deploy_code.errors import CircuitOpenError
from deploy_code.model import Breaker
from deploy_code.reliability.circuit import Circuit, CircuitBreaker
from support.engine_server import JSON, Served, Server, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "engine.sock") as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[EngineClient]:
    client = EngineClient(Endpoint(url=f"unix://{server.path}"))
    yield client
    await client.close()


async def test_calls_share_connections_and_ask_for_the_version_once(server: Server, client: EngineClient) -> None:
    for _ in range(5):
        await client.call("GET", "/containers/json")
    assert server.requests == ["GET /_ping"] + ["GET /v1.41/containers/json"] * 5
    assert server.connections == 1


async def test_the_newest_version_that_both_know_is_spoken(server: Server, client: EngineClient) -> None:
    server.ping = "Api-Version: 1.40\r\n"
    await client.call("GET", "/x")
    assert server.requests[-1] == "GET /v1.40/x"


async def test_an_engine_that_has_forgotten_our_version_is_spoken_with_in_its_oldest(
    server: Server, client: EngineClient
) -> None:
    server.ping = "Api-Version: 1.52\r\n"
    server.answer = lambda served: served.json({"ApiVersion": "1.52", "MinAPIVersion": "1.44"})
    await client.call("GET", "/x")
    assert server.requests == ["GET /_ping", "GET /version", "GET /v1.44/x"]


async def test_something_else_on_the_socket_is_told(server: Server, client: EngineClient) -> None:
    server.ping = ""
    with pytest.raises(EngineError, match="no container engine"):
        await client.call("GET", "/x")


async def test_queries_are_sent_as_the_api_wants_them(server: Server, client: EngineClient) -> None:
    await client.call(
        "GET",
        "/images/a b:1/json",
        query={"filters": {"label": ["a=b&c"]}, "all": True, "no": False, "t": 10, "gone": None, "n": ["x", "ü"]},
    )
    _, _, query = server.requests[-1].partition("?")
    assert server.requests[-1].startswith("GET /v1.41/images/a%20b:1/json?")
    filters = "filters=%7B%22label%22:%5B%22a%3Db%26c%22%5D%7D"
    assert query == f"{filters}&all=true&no=false&t=10&n=x&n=%C3%BC"


async def test_bodies_go_as_json_or_as_they_are(server: Server, client: EngineClient) -> None:
    seen: list[tuple[str, bytes]] = []

    async def answer(served: Served) -> None:
        seen.append((served.headers["content-type"], served.body))
        await served.json({})

    async def tar() -> AsyncIterator[bytes]:
        for part in (b"one", b"", b"two" * 100_000):
            yield part

    server.answer = answer
    await client.call("POST", "/a", body={"Image": "x"})
    await client.call("PUT", "/b", body=b"tar")
    async with client.stream("POST", "/c", body=tar()) as parts:
        assert b"".join([part async for part in parts]) == b"{}"
    assert seen == [
        ("application/json", b'{"Image":"x"}'),
        ("application/x-tar", b"tar"),
        ("application/x-tar", b"one" + b"two" * 100_000),
    ]


async def test_a_header_with_a_line_break_is_never_sent(server: Server, client: EngineClient) -> None:
    with pytest.raises(ValueError, match="line break"):
        await client.call("GET", "/x", headers=[("X-Registry-Auth", "a\r\nX: y")])
    assert not any("/x" in request for request in server.requests)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK", "OK"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", None),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n", [1]),
        (JSON + b"Connection: close\r\n\r\n[1]", [1]),
    ],
)
async def test_every_kind_of_answer_is_read(server: Server, client: EngineClient, raw: bytes, found: object) -> None:
    async def answer(served: Served) -> None:
        for byte in raw:  # in the smallest parts
            await served.say(bytes([byte]))
        if b"close" in raw:
            served.writer.close()

    server.answer = answer
    assert await client.call("GET", "/x") == found
    assert await client.call("GET", "/x") == found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message":"No such container: x"}', "No such container: x"),
        (b'{"cause":"no such container","message":"no container x: no such container","response":404}', "no container"),
        (b"404 page not found\n", "404 page not found"),
        (b"", "HTTP 404"),
    ],
)
async def test_an_error_keeps_the_engines_own_words(
    server: Server, client: EngineClient, body: bytes, message: str
) -> None:
    server.answer = lambda served: served.say(
        b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    with pytest.raises(EngineError) as caught:
        await client.call("GET", "/x")
    assert caught.value.status == 404
    assert caught.value.message.startswith(message)
    with pytest.raises(EngineError, match=message):
        async with client.stream("GET", "/x"):
            pytest.fail("an error is no stream")


async def test_an_answer_without_end_is_not_collected(
    server: Server, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ANSWER_LIMIT", 1 << 20)

    async def answer(served: Served) -> None:
        await served.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            await served.say(b"[" * 65536)

    server.answer = answer
    with pytest.raises(EngineError, match="longer than 1 MB"):
        await client.call("GET", "/x")


async def test_a_stream_that_is_not_read_holds_the_engine_back(server: Server, client: EngineClient) -> None:
    sent = 0
    stuck = asyncio.Event()

    async def answer(served: Served) -> None:
        nonlocal sent
        await served.say(b"HTTP/1.1 200 OK\r\n\r\n")
        served.writer.transport.set_write_buffer_limits(high=0)
        part = b"x" * 65536
        for _ in range(160):
            served.writer.write(part)
            try:
                await asyncio.wait_for(served.writer.drain(), 0.3)
            except TimeoutError:
                stuck.set()
                await served.writer.drain()
            sent += len(part)
        served.writer.close()

    server.answer = answer
    async with client.stream("GET", "/x") as parts:
        await asyncio.wait_for(stuck.wait(), 10)
        assert sent < 4 << 20
        assert sum([len(part) async for part in parts]) == 160 * 65536


async def test_a_call_that_takes_too_long_is_an_engine_that_is_away(server: Server, client: EngineClient) -> None:
    server.answer = Served.say_nothing
    with pytest.raises(EngineGoneError, match=r"no answer to GET /x within 0\.1 s") as caught:
        await client.call("GET", "/x", timeout=0.1)
    assert caught.value.code == "E014"
    assert caught.value.retryable


async def test_a_cancelled_call_closes_its_connection_and_harms_no_other(server: Server, client: EngineClient) -> None:
    closed = asyncio.Event()
    asked = asyncio.Event()

    async def answer(served: Served) -> None:
        if served.target.endswith("/slow"):
            asked.set()
            try:
                await served.say_nothing()
            finally:
                closed.set()
        else:
            await served.json([served.target])

    server.answer = answer
    slow = asyncio.create_task(client.call("GET", "/slow"))
    await asked.wait()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    await asyncio.wait_for(closed.wait(), 5)
    assert await client.call("GET", "/next") == ["/v1.41/next"]


async def test_at_most_sixteen_calls_are_under_way_and_streams_are_not_counted(
    server: Server, client: EngineClient
) -> None:
    now, most = 0, 0

    async def answer(served: Served) -> None:
        nonlocal now, most
        if served.target.endswith("/stream"):
            await served.say(b"HTTP/1.1 200 OK\r\n\r\n")
            await served.say_nothing()
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        await served.json({})

    server.answer = answer
    async with client.stream("GET", "/stream"), client.stream("GET", "/stream"):
        await asyncio.gather(*(client.call("GET", "/x") for _ in range(60)))
    assert most == http.POOL_SIZE


# ---------------------------------------------------------------------- kept connections


async def answer_once_then_close(served: Served) -> None:
    """A keep-alive that the server takes back, after it has read the next request."""
    if getattr(served.writer, "was_used", False):
        served.writer.transport.abort()
        raise ConnectionError
    served.writer.was_used = True  # type: ignore[attr-defined]
    await served.json({})


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_what_may_be_repeated_survives_a_kept_connection_that_went_stale(
    server: Server, client: EngineClient, method: str
) -> None:
    server.answer = answer_once_then_close
    await client.call("GET", "/first")
    assert await client.call(method, "/second") == {}
    assert server.requests.count(f"{method} /v1.41/second") == 2


async def test_what_may_not_be_repeated_is_sent_once(server: Server, client: EngineClient) -> None:
    server.answer = answer_once_then_close
    await client.call("GET", "/first")
    with pytest.raises(EngineGoneError, match=r"closed|reset"):
        await client.call("POST", "/containers/create", body={})
    assert server.requests.count("POST /v1.41/containers/create") == 1


async def test_a_connection_that_the_engine_closed_while_idle_is_not_used(server: Server, client: EngineClient) -> None:
    await client.call("GET", "/first")
    server.hang_up()
    while server.writers:
        await asyncio.sleep(0)
    assert await client.call("POST", "/containers/create", body={}) == {}
    assert server.requests.count("POST /v1.41/containers/create") == 1


async def test_a_connection_that_lies_idle_is_given_back(
    server: Server, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "IDLE_SECONDS", 0.05)
    await client.call("GET", "/x")
    assert len(server.writers) == 1
    async with asyncio.timeout(5):
        while server.writers:
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------- lost


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[1", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n", "in the middle"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "headers of its answer are longer"),
    ],
)
async def test_an_answer_that_breaks_off_is_an_engine_that_is_gone(
    server: Server, client: EngineClient, raw: bytes, why: str
) -> None:
    async def answer(served: Served) -> None:
        await served.say(raw)
        served.writer.close()

    server.answer = answer
    with pytest.raises(EngineGoneError, match=why):
        await client.call("POST", "/x")
    with pytest.raises(EngineGoneError, match=why):
        async with client.stream("GET", "/x") as parts:
            assert [part async for part in parts]


async def test_a_stream_without_a_length_ends_with_its_connection(server: Server, client: EngineClient) -> None:
    async def answer(served: Served) -> None:
        await served.say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst ")
        await served.say(b"second")
        served.writer.close()

    server.answer = answer
    async with client.stream("POST", "/exec/1/start", headers=[("Upgrade", "tcp")]) as parts:
        assert b"".join([part async for part in parts]) == b"first second"


async def test_closing_the_client_ends_its_streams(server: Server, client: EngineClient) -> None:
    async def answer(served: Served) -> None:
        await served.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await served.say_nothing()

    server.answer = answer
    with pytest.raises(EngineGoneError, match="closed"):
        async with client.stream("GET", "/events") as parts:
            async for _ in parts:
                await client.close()


async def test_a_source_that_fails_ends_the_upload_with_its_own_error(server: Server, client: EngineClient) -> None:
    async def tar() -> AsyncIterator[bytes]:
        yield b"one"
        raise FileNotFoundError("a file of the context went away")

    with pytest.raises(FileNotFoundError, match="went away"):
        async with client.stream("POST", "/build", body=tar()) as parts:
            assert [part async for part in parts]


async def test_an_engine_that_refuses_an_upload_in_the_middle_is_heard(
    server: Server, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                yield b"x" * 1024
                await asyncio.sleep(0)
        finally:
            closed = True

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Served:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        return Served(head.split("\r\n")[0], {}, b"", reader, writer)

    async def answer(served: Served) -> None:
        await served.json({"message": "no such builder"}, status=400)
        await served.say_nothing()

    await client.call("GET", "/x")
    monkeypatch.setattr(Server, "_read", staticmethod(read))
    server.answer = answer
    with pytest.raises(EngineError, match="no such builder"):
        async with client.stream("POST", "/build", body=endless()):
            pytest.fail("it was refused")
    assert closed


# ---------------------------------------------------------------------- the breaker


def breaker() -> CircuitBreaker:
    return CircuitBreaker("docker", Breaker(failures=2, window_seconds=60, cooldown_seconds=60))


async def test_an_engine_that_is_away_opens_the_circuit_and_its_errors_do_not(tmp_path: Path) -> None:
    client = EngineClient(Endpoint(url=f"unix://{tmp_path}/engine.sock"), breaker=breaker())
    async with serving(tmp_path / "engine.sock") as server:
        server.answer = lambda served: served.json({"message": "no"}, status=500)
        for _ in range(5):
            with pytest.raises(EngineError):
                await client.call("GET", "/x")
    for _ in range(2):
        with pytest.raises(EngineGoneError):
            await client.call("GET", "/x")
    with pytest.raises(CircuitOpenError):
        await client.call("GET", "/x")
    await client.close()


async def test_a_stream_that_gets_through_lets_the_next_call_try(tmp_path: Path) -> None:
    guard = breaker()
    client = EngineClient(Endpoint(url=f"unix://{tmp_path}/engine.sock"), breaker=guard)
    for _ in range(2):
        with pytest.raises(EngineGoneError):
            await client.call("GET", "/x")
    assert guard.state is Circuit.OPEN
    with pytest.raises(EngineGoneError):  # no circuit keeps a stream from trying
        async with client.stream("GET", "/events"):
            pytest.fail("nobody is there")
    (tmp_path / "engine.sock").unlink(missing_ok=True)
    async with serving(tmp_path / "engine.sock"):
        async with client.stream("GET", "/events"):
            pass
        assert await client.call("GET", "/x") == {}
        assert guard.state is Circuit.CLOSED
        await client.close()


async def test_a_cancelled_call_says_nothing_about_the_engine(server: Server) -> None:
    guard = breaker()
    client = EngineClient(Endpoint(url=f"unix://{server.path}"), breaker=guard)
    server.answer = Served.say_nothing
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.call("GET", "/x")
    assert guard.failures == 0
    await client.close()


# ---------------------------------------------------------------------- words for what is not there


async def test_a_socket_that_is_not_there_says_how_to_start_the_engine(tmp_path: Path) -> None:
    for name, advice in (("docker.sock", "systemctl start docker"), ("podman.sock", "podman system service")):
        with pytest.raises(EngineGoneError, match="no such socket") as caught:
            await EngineClient(Endpoint(url=f"unix://{tmp_path}/{name}")).info()
        assert advice in caught.value.remedy
        assert caught.value.code == "E014"
        assert caught.value.retryable


async def test_a_host_where_nothing_listens_is_told(port: int) -> None:
    with pytest.raises(EngineGoneError, match=f"container engine tcp://127.0.0.1:{port}: connection refused"):
        await EngineClient(Endpoint(url=f"tcp://127.0.0.1:{port}")).info()


async def test_certificates_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("none")
    with pytest.raises(EngineGoneError, match=r"certificates in .* cannot be used") as caught:
        await EngineClient(Endpoint(url="tcp://127.0.0.1:1", tls=str(tmp_path))).info()
    assert not caught.value.retryable


# ---------------------------------------------------------------------- bodies in parts

OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=6)
CUTS = st.lists(st.integers(1, 30), min_size=1, max_size=5)


async def in_parts(data: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    position, turn = 0, 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        yield data[position : position + size]
        position, turn = position + size, turn + 1


@given(OBJECTS, CUTS, st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.booleans())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_json_lines_are_the_same_however_they_are_cut(
    objects: list[dict[str, str]], cuts: list[int], end: bytes, last: bool
) -> None:
    data = end.join(json.dumps(each).encode() for each in objects) + (end if last else b"")

    async def read() -> list[dict[str, Any]]:
        return [each async for each in as_json_lines(in_parts(data, cuts))]

    assert asyncio.run(read()) == objects


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=6), CUTS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_frames_are_the_same_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(bytes([stream, 0, 0, 0]) + len(text).to_bytes(4) + text for stream, text in frames)

    async def read() -> list[tuple[int, bytes]]:
        return [each async for each in as_frames(in_parts(data, cuts))]

    assert asyncio.run(read()) == frames


async def test_a_failure_that_is_told_inside_a_stream_is_raised() -> None:
    text = b"error from daemon"
    data = bytes([3, 0, 0, 0]) + len(text).to_bytes(4) + text
    with pytest.raises(EngineError, match="error from daemon"):
        assert [each async for each in as_frames(in_parts(data, [7]))]


async def test_lines_that_are_no_json_are_an_error() -> None:
    for data in (b"what\n", b"[1]\n", b'{"cut'):
        with pytest.raises(EngineError, match="no JSON"):
            assert [each async for each in as_json_lines(in_parts(data, [7]))]
