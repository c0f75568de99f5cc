"""What an order becomes in the Engine API's words, and what the API's refusals become in ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.drivers.engine import refusals
from deploy_code.drivers.engine.body import create_body, port_bindings
from deploy_code.drivers.engine.client import EngineError
from deploy_code.drivers.engine.order import ContainerOrder, container_name
from deploy_code.model import Container, Network, Port, Resources, Volume

LOG = {"Type": "json-file", "Config": {}}


def order(**changes: Any) -> ContainerOrder:
    values: dict[str, Any] = {
        "uuid": "u1",
        "service": "api",
        "command": "",
        "working_dir": "",
        "project": "shop",
        "state": "/state",
        "revision": 2,
        "index": 0,
        "run_hash": "abc",
        "image": "api:1",
        "container": Container(image_id="sha256:1"),
    }
    return ContainerOrder(**{**values, **changes})


def body(**changes: Any) -> dict[str, Any]:
    return create_body(order(**changes), log=LOG, gateway="10.0.0.1")


def test_a_silent_order_leaves_everything_to_the_image() -> None:
    silent = body(stop_signal="")
    assert not {"Entrypoint", "Cmd", "WorkingDir", "User", "StopSignal"} & silent.keys()
    assert silent["Image"] == "sha256:1", "the very image, whatever its name means by now"


def test_a_command_without_arguments_hides_the_image_s_arguments_too() -> None:
    assert (body(command="sh")["Entrypoint"], body(command="sh")["Cmd"]) == (["sh"], [])
    assert "Entrypoint" not in body(args=("x",)) and body(args=("x",))["Cmd"] == ["x"]


def test_the_engine_neither_restarts_nor_probes() -> None:
    assert body()["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert body()["Healthcheck"] == {"Test": ["NONE"]}


def test_no_limit_is_no_key() -> None:
    assert not {"Memory", "MemorySwap", "NanoCpus", "PidsLimit", "DeviceRequests"} & body()["HostConfig"].keys()


def test_limits_are_in_the_api_s_units_and_leave_no_swap() -> None:
    host = body(resources=Resources(cpu_cores=0.25, memory_mb=10, pids=5))["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (
        25 * 10**7,
        10 << 20,
        10 << 20,
        5,
    )


def test_gpus_are_those_that_were_given_and_are_counted_from_0_inside() -> None:
    given_two = body(resources=Resources(gpu_count=2), env={"CUDA_VISIBLE_DEVICES": "2,3", "A": "b"})
    assert given_two["HostConfig"]["DeviceRequests"] == [{"DeviceIDs": ["2", "3"], "Capabilities": [["gpu"]]}]
    assert given_two["Env"] == ["A=b"]
    any_one = body(resources=Resources(gpu_count=1))
    assert any_one["HostConfig"]["DeviceRequests"] == [{"Count": 1, "Capabilities": [["gpu"]]}]
    assert body(env={"CUDA_VISIBLE_DEVICES": "2"})["Env"] == ["CUDA_VISIBLE_DEVICES=2"], (
        "no GPU of ours: not our affair"
    )


def test_volumes_become_mounts() -> None:
    volumes = (
        Volume(name="data", mount_path="/data"),
        Volume(name="conf", mount_path="/conf", source="/etc/shop", read_only=True),
        Volume(name="tmp", mount_path="/tmp", tmpfs=True, size_mb=2),
    )
    named, bound, memory, kept = create_body(order(volumes=volumes), log=LOG, anonymous={"/keep": "v9"})["HostConfig"][
        "Mounts"
    ]
    assert (named["Type"], named["Source"], named["Target"]) == ("volume", "shop_data", "/data")
    assert named["VolumeOptions"]["Labels"]["com.docker.compose.volume"] == "data"
    assert bound == {"Type": "bind", "Source": "/etc/shop", "Target": "/conf", "ReadOnly": True}
    assert memory == {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 2 << 20}}
    assert kept == {"Type": "volume", "Source": "v9", "Target": "/keep"}


def test_the_machine_s_names_lead_to_the_gateway_unless_the_file_says_otherwise() -> None:
    hosts = body(container=Container(extra_hosts={"host.docker.internal": "10.9.9.9", "db": "10.1.1.1"}))
    assert sorted(hosts["HostConfig"]["ExtraHosts"]) == [
        "db:10.1.1.1",
        "host.containers.internal:10.0.0.1",
        "host.docker.internal:10.9.9.9",
    ]


def test_on_the_host_s_network_there_are_no_networks_names_and_ports_of_its_own() -> None:
    host = body(container=Container(network=Network(mode="Host")), ports=(Port(host_port=80),), published={"80": 80})
    assert host["HostConfig"]["NetworkMode"] == "host" and "NetworkingConfig" not in host
    assert host["HostConfig"]["PortBindings"] == {} and host["HostConfig"]["ExtraHosts"] == []


def test_ports_of_both_protocols_are_kept_apart() -> None:
    ports = (Port(container_port=53, host_port=5353), Port(container_port=53, host_port=5354, protocol="udp"))
    found = port_bindings(order(ports=ports, published={"53": 5353, "53/udp": 5354}))
    assert found == {"53/tcp": [{"HostPort": "5353"}], "53/udp": [{"HostPort": "5354"}]}


def test_where_containers_cannot_be_reached_every_tcp_port_is_published() -> None:
    ports = (Port(container_port=80), Port(container_port=81, protocol="udp"))
    assert port_bindings(order(ports=ports), publish_all=True) == {"80/tcp": [{"HostPort": ""}]}
    assert port_bindings(order(ports=ports)) == {}


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_no_label_of_the_file_can_replace_one_of_ours(labels: dict[str, str]) -> None:
    forged = {**labels, "deploy-code.state": "/other", "com.docker.compose.project": "other"}
    found = body(container=Container(labels=forged))["Labels"]
    assert (found["deploy-code.state"], found["com.docker.compose.project"]) == ("/state", "shop")
    assert labels.items() <= {**found, **labels}.items()


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_what_engines_take(project: str, service: str) -> None:
    assert set(container_name(project, service, 1, 0)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
    )


@pytest.mark.parametrize(
    ("status", "text", "code", "said"),
    [
        (400, 'exec: "x": executable file not found in $PATH: unknown', "E003", '"x"'),
        (500, 'runc: exec: "/no/x": stat /no/x: no such file or directory: OCI runtime attempted', "E003", "/no/x"),
        (400, 'exec: "/bin": permission denied: unknown', "E005", "chmod +x"),
        (400, "exec /bin/sh: exec format error", "E003", "processor"),
        (404, "No such image: api:1", "E003", "api:1"),
        (404, "no such image: docker.io/api:1: image not known", "E003", "api:1"),
        (500, "listen tcp4 0.0.0.0:8080: bind: address already in use", "S004", "8080"),
        (500, "Bind for 0.0.0.0:8081 failed: port is already allocated", "S004", "8081"),
        (500, "cannot listen on the TCP port: listen tcp4 :8082: bind: address already in use", "S004", "8082"),
        (500, "Bind for :::8083 failed: port is already allocated", "S004", "8083"),
        (400, "bind source path does not exist: /a/b", "S005", "/a/b"),
        (500, "write /var/lib/x: no space left on device", "E004", "disk"),
        (500, 'could not select device driver "" with capabilities: [[gpu]]', "E005", "NVIDIA"),
        (500, "unable to find user x: no matching entries in passwd file", "E005", "/etc/passwd"),
        (400, 'invalid CapAdd: unknown capability: "CAP_X"', "E005", "cap_add"),
        (404, "network shop not found", "E010", "network"),
        (500, "something new", "E005", "something new"),
    ],
)
def test_refusals_have_our_words_and_codes(status: int, text: str, code: str, said: str) -> None:
    error = refusals.in_our_words(EngineError(text, status=status), order(user="x"))
    assert error.code == code and said in str(error)


def test_an_address_that_is_taken_is_told_from_a_port_that_is_taken() -> None:
    assert refusals.is_address_refused(EngineError("Address already in use", status=403))
    taken = EngineError("listen tcp4 0.0.0.0:80: bind: address already in use", status=500)
    assert not refusals.is_address_refused(taken)


def test_a_missing_image_is_no_missing_network() -> None:
    assert refusals.is_network_gone(EngineError("network x not found", status=404))
    assert not refusals.is_network_gone(EngineError("No such image: network: not found", status=404))


def test_the_order_shows_no_secret() -> None:
    assert "s3cr3t" not in repr(replace(order(), args=("s3cr3t",)).container)
