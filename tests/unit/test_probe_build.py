"""From a resolved health check to what is asked, and where."""

import socket

import pytest

from deploy_code.errors import ServiceError
from deploy_code.health.build import build_probe, first_port, has_check_or_port
from deploy_code.health.probes import (
    AliveProbe,
    AllProbes,
    CommandProbe,
    HttpProbe,
    TcpProbe,
    only_looks_alive,
    port_asked,
    starts_a_process,
)
from deploy_code.health.target import parse_target
from deploy_code.model import Content, HealthCheck, Port

WEB = Content(ports=(Port(container_port=8080, host_port=80),))


def build(check: HealthCheck, content: Content = WEB, ports=None, env=None):
    return build_probe(check, content, ports=ports or {}, env=env or {}, alive=lambda: True)


def target_of(endpoint: str, content: Content = WEB, ports=None, env=None) -> str:
    return str(build(HealthCheck(endpoint=endpoint), content, ports, env).target)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]", "0.0.0.0", socket.gethostname()]
)
@pytest.mark.parametrize("port", [8080, 80])
def test_an_endpoint_on_this_machine_and_one_of_its_ports_means_this_instance(host, port):
    assert target_of(f"http://{host}:{port}/health", ports={"8080": 30001}) == f"http://{host}:30001/health"


def test_without_a_recorded_port_the_declared_one_is_asked():
    assert target_of("http://localhost:80/") == "http://localhost:8080/"


def test_another_machine_is_asked_as_written():
    assert target_of("http://example.org:8080/", ports={"8080": 30001}) == "http://example.org:8080/"


def test_another_port_of_this_machine_is_asked_as_written():
    assert target_of("http://localhost:9000/", ports={"8080": 30001}) == "http://localhost:9000/"


def test_the_default_port_of_the_scheme_is_one_of_its_ports_too():
    assert target_of("http://localhost/", ports={"8080": 30001}) == "http://localhost:30001/"
    https = Content(ports=(Port(container_port=443),))
    assert target_of("https://localhost/", https, {"443": 30002}) == "https://localhost:30002/"


def test_a_bare_path_asks_the_first_port():
    two = Content(ports=(Port(container_port=8080), Port(container_port=9090)))
    assert target_of("/health?deep=1", two) == "http://localhost:8080/health?deep=1"


def test_a_bare_path_asks_the_dynamic_port_first():
    two = Content(ports=(Port(container_port=8080), Port(dynamic=True)))
    assert target_of("/", two, {"8080": 8080, "port": 30005}) == "http://localhost:30005/"


def test_a_bare_path_without_a_declared_port_asks_port_from_the_env():
    assert target_of("/x", Content(), env={"PORT": "4711"}) == "http://localhost:4711/x"


def test_a_bare_path_without_any_port_is_an_error_that_says_what_to_write():
    with pytest.raises(ServiceError, match="declares no port") as caught:
        target_of("/x", Content())
    assert caught.value.code == "S003"


def test_a_tcp_endpoint_becomes_a_tcp_probe():
    probe = build(HealthCheck(endpoint="tcp://localhost:8080"), ports={"8080": 30001})
    assert isinstance(probe, TcpProbe)
    assert port_asked(probe) == 30001


def test_without_a_check_the_declared_port_is_connected_to():
    probe = build(HealthCheck(), ports={"8080": 30001})
    assert isinstance(probe, TcpProbe)
    assert str(probe.target) == "tcp://localhost:30001"
    assert has_check_or_port(HealthCheck(), WEB)


@pytest.mark.parametrize("content", [Content(), Content(ports=(Port(container_port=53, protocol="udp"),))])
def test_without_a_check_and_a_tcp_port_only_its_life_is_looked_at(content):
    probe = build(HealthCheck(), content)
    assert isinstance(probe, AliveProbe)
    assert only_looks_alive(probe)
    assert not has_check_or_port(HealthCheck(), content)
    assert first_port(content, {}) is None


def test_endpoint_and_command_together_are_both_asked():
    probe = build(HealthCheck(endpoint="/h", command=("true",)))
    assert isinstance(probe, AllProbes)
    assert [type(part) for part in probe.parts] == [HttpProbe, CommandProbe]
    assert starts_a_process(probe)
    assert port_asked(probe) == 8080


def test_a_command_alone_asks_no_port():
    probe = build(HealthCheck(command=("true",)))
    assert port_asked(probe) is None
    assert starts_a_process(probe)


@pytest.mark.parametrize(
    "endpoint", ["localhost:8080", "ftp://h/x", "http://", "tcp://h", "http://h:99999/", "http://[::1/"]
)
def test_an_endpoint_that_cannot_be_asked_is_refused_with_the_forms_that_can(endpoint):
    with pytest.raises(ServiceError, match="http://host:port/path") as caught:
        parse_target(endpoint)
    assert caught.value.code == "S003"


def test_what_may_not_stand_in_a_request_line_is_encoded():
    assert parse_target("http://h/a b?c=d é\r\nX: y").path == "/a%20b?c=d%20%C3%A9%0D%0AX:%20y"
    assert parse_target("http://h/%20?a=%C3").path == "/%20?a=%C3"


def test_a_password_in_the_url_is_sent_but_never_shown():
    target = parse_target("http://me:p%40ss@h:81/x")
    assert target.authorization == "Basic bWU6cEBzcw=="
    assert str(target) == "http://h:81/x"


def test_the_fragment_is_not_sent():
    assert parse_target("http://h/x#y").path == "/x"


def test_an_ipv6_address_keeps_its_brackets():
    assert parse_target("http://[::1]:81/").authority == "[::1]:81"
    assert parse_target("https://h/").authority == "h"
