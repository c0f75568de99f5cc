"""HTTP and TCP probes against real servers, the ill-behaved ones included."""

import asyncio
import gc
import os
import resource
import socket
import subprocess
import time

import pytest

from deploy_code.health.dial import ProbeNotMadeError, Resolver, fixed_addresses
from deploy_code.health.http import ExchangeError, HttpClient, encode_request
from deploy_code.health.probes import AliveProbe, AllProbes, HttpProbe, TcpProbe, port_asked
from deploy_code.health.target import parse_target
from support.endpoints import answer, saying, serving
from support.loops import on_both_loops, until
from support.ports import free_port


def http(port: int, path: str = "/", *, host: str = "127.0.0.1", timeout: float = 5.0) -> HttpProbe:
    return HttpProbe(parse_target(f"http://{host}:{port}{path}"), timeout=timeout)


def tcp(port: int, *, host: str = "127.0.0.1", timeout: float = 5.0) -> TcpProbe:
    return TcpProbe(parse_target(f"tcp://{host}:{port}"), timeout=timeout)


async def asked(*parts: bytes, then_wait: bool = False, timeout: float = 5.0):
    """What an HTTP probe says of a server that answers ``parts``."""
    async with serving(saying(*parts, then_wait=then_wait)) as server:
        return await http(server.port, timeout=timeout)()


@pytest.mark.parametrize("status", [200, 204, 301, 302, 399])
async def test_any_status_from_200_to_399_is_ready(status):
    result = await asked(answer(status))
    assert result.ok
    assert (result.kind, result.status) == ("http", status)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_any_other_status_is_not_and_the_body_is_shown(status):
    result = await asked(answer(status, b"database is down\n"))
    assert not result.ok
    assert result.status == status
    assert result.detail == f"HTTP {status}: database is down"


async def test_redirects_are_not_followed():
    async with serving(saying(answer(302).replace(b"\r\n\r\n", b"\r\nLocation: /login\r\n\r\n"))) as server:
        assert (await http(server.port)()).ok
        assert server.connections == 1


@on_both_loops
async def test_the_request_names_the_target_and_asks_to_close():
    async with serving(saying(answer(200))) as server:
        result = await http(server.port, "/health?deep=1", host="localhost")()
        request = server.requests[0].decode().split("\r\n")
        assert request[0] == "GET /health?deep=1 HTTP/1.1"
        assert f"Host: localhost:{server.port}" in request
        assert "Connection: close" in request
        assert result.target == f"http://localhost:{server.port}/health?deep=1"
        assert abs(result.at - time.time()) < 60
        assert 0 < result.duration < 60


@on_both_loops
async def test_a_refused_connection_says_so_at_once():
    result = await http(free_port())()
    assert not result.ok
    assert result.detail == "connection refused"
    assert result.status is None


async def test_a_refused_probe_on_loopback_does_not_even_suspend():
    probe = http(free_port(), host="localhost")
    with pytest.raises(StopIteration) as ended:
        probe().send(None)
    assert ended.value.value.detail == "connection refused"


@on_both_loops
async def test_a_server_that_never_answers_is_left_after_the_timeout():
    async with serving(saying(then_wait=True)) as server:
        result = await http(server.port, timeout=0.2)()
        assert result.detail == "no answer within 0.2 s"
        assert 0.15 < result.duration < 3
        await until(lambda: server.open == 0)


@on_both_loops
async def test_an_answer_that_never_ends_is_left_after_the_timeout():
    result = await asked(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", then_wait=True, timeout=0.2)
    assert result.detail == "the answer (HTTP 200) did not end within 0.2 s"


@on_both_loops
async def test_an_endless_body_is_not_read_to_its_end():
    async def endless(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(endless) as server:
        assert (await http(server.port)()).ok
        await until(lambda: server.open == 0)


@on_both_loops
async def test_a_flood_of_headers_is_bounded():
    async def flood(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Header: more\r\n" * 100)
            await writer.drain()

    async with serving(flood) as server:
        result = await http(server.port)()
        assert result.detail == "the answer's headers are longer than 64 KB"
        await until(lambda: server.open == 0)


async def test_endless_interim_answers_are_bounded():
    async def interim(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
            await writer.drain()

    async with serving(interim) as server:
        assert "longer than 64 KB" in (await http(server.port)()).detail


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0\xff\0\xff", b"220 mail.example.org ESMTP\r\n"])
async def test_what_is_no_http_is_shown(garbage):
    result = await asked(garbage, then_wait=True)
    assert not result.ok
    assert result.detail == f"not an HTTP answer: {garbage!r}"


@pytest.mark.parametrize(
    ("parts", "detail"),
    [
        ([b""], "connection closed"),
        ([b"HTTP/1.1 20"], "connection closed in the middle of the answer"),
        ([b"HTTP/1.1 200 OK\r\nX: y\r\n"], "connection closed in the middle of the answer"),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"],
            "connection closed in the middle of the answer",
        ),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
            "connection closed in the middle of the answer",
        ),
    ],
)
async def test_an_answer_that_breaks_off_is_a_failure(parts, detail):
    result = await asked(*parts)
    assert not result.ok
    assert result.detail == detail


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n", b"until the connection ends"],
        [b"HTTP/1.0 200 OK\r\n\r\n"],
        [b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"],
        [bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more than announced"],
    ],
)
@pytest.mark.parametrize("then_wait", [False, True])
async def test_whatever_shape_an_answer_comes_in_it_is_understood(parts, then_wait):
    ends_itself = any(b"Length" in part or b"chunked" in part or b"204" in part for part in [b"".join(parts)])
    result = await asked(*parts, then_wait=then_wait and ends_itself)
    assert result.ok, result.detail


async def test_control_characters_of_a_body_never_reach_a_terminal():
    result = await asked(answer(500, b"\x1b[31mred\x07\xff"))
    assert result.detail == "HTTP 500: �[31mred��"


async def test_the_detail_is_bounded():
    result = await asked(answer(500, b"x" * 60_000))
    assert len(result.detail) == 2048


async def test_tls_spoken_to_an_http_probe_says_to_write_https():
    result = await asked(b"\x15\x03\x01\x00\x02\x02\x0a", then_wait=True)
    assert "https://" in result.detail


async def test_localhost_is_tried_on_both_families():
    async with serving(saying(answer(200)), host="::1") as server:
        assert (await http(server.port, host="localhost")()).ok
        assert (await tcp(server.port, host="localhost")()).ok
        assert not (await http(server.port, host="127.0.0.1")()).ok


@on_both_loops
async def test_an_open_port_is_enough_for_a_tcp_probe():
    async with serving(saying(answer(200))) as server:
        result = await tcp(server.port)()
        assert result.ok
        assert (result.kind, result.target, result.detail) == ("tcp", f"127.0.0.1:{server.port}", "connected")
        await until(lambda: server.connections == 1 and server.open == 0)


async def test_a_closed_port_fails_a_tcp_probe():
    assert (await tcp(free_port())()).detail == "connection refused"


@on_both_loops
async def test_a_full_backlog_is_waited_for_until_the_timeout():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            result = await tcp(port, timeout=0.2)()
            assert result.detail == "no connection within 0.2 s"
            assert (await http(port, timeout=0.2)()).detail == "no connection within 0.2 s"


@pytest.mark.parametrize("kind", [http, tcp])
async def test_a_connection_that_meets_itself_is_a_failure(kind, monkeypatch):
    """On an ephemeral port without a listener the kernel may give the asker the very port that it asks."""
    port = free_port()

    class BoundToThatPort(socket.socket):
        def __init__(self, *args):
            super().__init__(*args)
            self.bind(("127.0.0.1", port))

    monkeypatch.setattr(socket, "socket", BoundToThatPort)
    result = await kind(port)()
    assert not result.ok
    assert result.detail == "nobody listens: the connection met itself"


async def test_a_name_that_does_not_exist_is_a_result_and_is_not_asked_for_again_at_once(monkeypatch):
    looked_up = []

    async def getaddrinfo(*args, **kwargs):
        looked_up.append(args)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    probe = http(80, host="no-such-host.invalid")
    for _ in range(3):
        assert (await probe()).detail == "name not found: Name or service not known"
    assert len(looked_up) == 1


async def test_a_name_is_looked_up_once_per_interval(monkeypatch):
    resolver = Resolver(socket.gethostname(), 80, max_age=30)
    first = await resolver.addresses()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", None)
    assert await resolver.addresses() is first


def test_numbers_and_localhost_need_no_look_up():
    assert fixed_addresses("127.0.0.1", 1) == ((socket.AF_INET, ("127.0.0.1", 1)),)
    assert fixed_addresses("::1", 1) == ((socket.AF_INET6, ("::1", 1)),)
    assert [address for _, address in fixed_addresses("LocalHost", 1)] == [("127.0.0.1", 1), ("::1", 1)]
    assert fixed_addresses("example.org", 1) == ()


async def test_running_out_of_open_files_says_nothing_about_the_service():
    async with serving(saying(answer(200))) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = http(server.port)
        used = max(map(int, os.listdir("/proc/self/fd")))
        hogs = [os.dup(0) for _ in range(used)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hogs), hard))
        try:
            with pytest.raises(ProbeNotMadeError, match="Too many open files"):
                await probe()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for hog in hogs:
                os.close(hog)
        assert (await probe()).ok


@on_both_loops
async def test_a_cancelled_probe_leaves_no_socket():
    async with serving(saying(then_wait=True)) as server:
        task = asyncio.create_task(http(server.port)())
        await until(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.open == 0)


@on_both_loops
async def test_a_probe_may_be_cancelled_at_any_point_of_its_way():
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    async with serving(saying(answer(200))) as server:
        for steps in range(12):
            task = asyncio.create_task(http(server.port)())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            del task
        await until(lambda: server.open == 0)
    gc.collect()
    assert complaints == []


async def test_all_parts_must_pass_and_the_first_failure_is_the_result():
    async with serving(saying(answer(200))) as server:
        good, bad = http(server.port), tcp(free_port())
        assert (await AllProbes([good, good])()).ok
        result = await AllProbes([good, bad, good])()
        assert not result.ok
        assert result.kind == "tcp"


async def test_alive_means_that_it_lives():
    assert (await AliveProbe(lambda: True)()).ok
    assert (await AliveProbe(lambda: False)()).detail == "the process is gone"


def test_only_ports_of_this_machine_count_as_asked():
    assert port_asked(http(81)) == 81
    assert port_asked(http(81, host="example.org")) is None


# --------------------------------------------------------------------------- the client itself


@on_both_loops
async def test_the_client_speaks_over_a_unix_socket(tmp_path):
    path = str(tmp_path / "engine.sock")
    target = parse_target("http://engine/version")
    async with serving(saying(answer(200, b"20.10")), path=path) as server:
        response = await HttpClient(target, unix=path).exchange(encode_request(target), timeout=5)
        assert response.body == b"20.10"
        assert b"Host: engine\r\n" in server.requests[0]
    with pytest.raises(ExchangeError, match="no such socket"):
        await HttpClient(target, unix=path + "x").exchange(encode_request(target), timeout=5)


async def test_a_body_can_be_sent_and_headers_be_read():
    async def echo(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Created\r\nX-Kind: echo\r\nContent-Length: 4\r\n\r\n" + await reader.read(4))

    async with serving(echo) as server:
        target = parse_target(f"http://127.0.0.1:{server.port}/hook")
        request = encode_request(target, method="POST", headers=[("X-Id", "7")], body=b"ping")
        response = await HttpClient(target).exchange(request, timeout=5)
        assert (response.status, response.reason, response.body) == (201, "Created", b"ping")
        assert response.header("x-kind") == "echo"
        assert response.header("missing") is None
        assert b"X-Id: 7\r\n" in server.requests[0]
        assert b"Content-Length: 4\r\n" in server.requests[0]


async def test_an_answer_to_head_has_no_body():
    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", then_wait=True)) as server:
        target = parse_target(f"http://127.0.0.1:{server.port}/")
        request = encode_request(target, method="HEAD")
        response = await HttpClient(target).exchange(request, timeout=5, without_body=True)
        assert (response.status, response.body) == (200, b"")


async def test_a_body_beyond_the_limit_is_cut_and_said_to_be():
    async with serving(saying(answer(200, b"x" * 5000))) as server:
        target = parse_target(f"http://127.0.0.1:{server.port}/")
        response = await HttpClient(target, body_limit=100).exchange(encode_request(target), timeout=5)
        assert len(response.body) == 100
        assert response.truncated


def test_a_header_cannot_smuggle_another():
    with pytest.raises(ValueError, match="line break"):
        encode_request(parse_target("http://h/"), headers=[("X", "a\r\nY: b")])


# --------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost, made by openssl: (certificate, key)."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


def server_tls(certificate):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@on_both_loops
async def test_https_is_verified_and_works_with_a_known_authority(certificate):
    import ssl

    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    async with serving(saying(answer(200, b"safe")), ssl=server_tls(certificate)) as server:
        target = parse_target(f"https://localhost:{server.port}/")
        response = await HttpClient(target, tls=trusting).exchange(encode_request(target), timeout=5)
        assert response.body == b"safe"


@on_both_loops
async def test_a_certificate_of_an_unknown_authority_is_refused(certificate):
    async with serving(saying(answer(200)), ssl=server_tls(certificate)) as server:
        result = await HttpProbe(parse_target(f"https://localhost:{server.port}/"), timeout=5)()
        assert not result.ok
        assert result.detail == "certificate not accepted: self-signed certificate"


async def test_https_asked_of_a_plain_server_says_that_there_is_no_tls():
    async def plain(reader, writer):
        await reader.read(1)
        writer.write(answer(400))

    async with serving(plain) as server:
        result = await HttpProbe(parse_target(f"https://localhost:{server.port}/"), timeout=5)()
        assert result.detail.startswith("no TLS: ")
