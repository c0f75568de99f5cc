"""Which numbers an instance binds: DESIGN §7 "Ports", CONTRACTS §2."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from deploy_code.agent.ports import PortBook, assign, can_bind, chosen_freely, dynamic_keys, ephemeral_range
from deploy_code.agent.wanted import WantedSet
from deploy_code.errors import DriverError
from deploy_code.model import Content, Policy, Port, Wanted
from deploy_code.wire import Want
from support.ports import free_port, free_ports, free_range

ONE, TWO = Policy(replicas=1), Policy(replicas=2)


def book(port_range: tuple[int, int] | None = None) -> PortBook:
    made = PortBook()
    made.use(port_range or free_range(5))
    return made


def test_a_port_is_the_container_port_when_nothing_asks_for_a_dynamic_one():
    content = Content(command="x", ports=(Port(container_port=8080),))
    assert assign("a", content, ONE, book(), kept={}) == {"8080": 8080}


def test_a_port_placeholder_in_args_makes_the_first_port_dynamic():
    content = Content(args=("--port=${PORT}",), ports=(Port(container_port=8080), Port(container_port=9090)))
    assert dynamic_keys(content, ONE) == {"8080"}


def test_a_port_placeholder_in_env_makes_the_first_port_dynamic():
    assert dynamic_keys(Content(env={"LISTEN": ":${PORT}"}, ports=(Port(container_port=80),)), ONE) == {"80"}


def test_a_numbered_placeholder_makes_that_port_dynamic():
    content = Content(args=("${PORT_9090}",), ports=(Port(container_port=8080), Port(container_port=9090)))
    assert dynamic_keys(content, ONE) == {"9090"}


def test_a_placeholder_without_declared_ports_gets_a_port_of_its_own():
    content = Content(args=("${PORT}",))
    low, high = free_range(3)
    ports = assign("a", content, ONE, book((low, high)), kept={})
    assert low <= ports["port"] <= high


def test_all_ports_of_several_replicas_are_dynamic():
    content = Content(ports=(Port(container_port=8080), Port(container_port=9090)))
    assert dynamic_keys(content, TWO) == {"8080", "9090"}


def test_a_dynamic_port_of_a_single_replica_is_its_host_port():
    content = Content(args=("${PORT}",), ports=(Port(container_port=8080, host_port=18080),))
    assert assign("a", content, ONE, book(), kept={}) == {"8080": 18080}
    assert not chosen_freely(content, ONE)


def test_a_dynamic_port_comes_first_whatever_its_place_in_the_file():
    content = Content(ports=(Port(container_port=8080), Port(container_port=9090, dynamic=True)))
    assert list(assign("a", content, ONE, book(), kept={})) == ["9090", "8080"]


def test_dynamic_ports_survive_restarts():
    content = Content(args=("${PORT}",))
    numbers = book()
    first = assign("a", content, ONE, numbers, kept={})
    assert assign("a", content, ONE, numbers, kept=first) == first


def test_no_two_instances_get_the_same_port():
    content = Content(ports=(Port(container_port=80, dynamic=True),))
    numbers = book(free_range(4))
    chosen = {assign(uuid, content, ONE, numbers, kept={})["80"] for uuid in "abcd"}
    assert len(chosen) == 4


def test_a_used_up_range_is_s004():
    content = Content(ports=(Port(container_port=80, dynamic=True),))
    numbers = book((low := free_port(), low))
    assign("a", content, ONE, numbers, kept={})
    with pytest.raises(DriverError) as caught:
        assign("b", content, ONE, numbers, kept={})
    assert caught.value.code == "S004"


def test_a_port_given_back_can_be_used_again():
    content = Content(ports=(Port(container_port=80, dynamic=True),))
    numbers = book((low := free_port(), low))
    assign("a", content, ONE, numbers, kept={})
    numbers.release("a")
    assert assign("b", content, ONE, numbers, kept={}) == {"80": low}


def test_a_port_that_a_stranger_listens_on_is_left_out():
    low, high = free_range(2)
    with closing(socket.create_server(("127.0.0.1", low))):
        assert not can_bind(low)
        assert book((low, high)).choose() == high


def test_a_port_that_a_stranger_listens_on_over_ipv6_is_left_out():
    port = free_port()
    try:
        server = socket.create_server(("::1", port), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with closing(server):
        assert not can_bind(port)


def test_numbers_that_other_services_bind_by_themselves_are_left_out():
    low, high = free_range(2)
    numbers = book((low, high))
    numbers.is_fixed = lambda number: number == low
    assert numbers.choose() == high


def test_both_ends_of_the_range_are_used():
    low, high = free_range(2)
    numbers = book((low, high))
    content = Content(ports=(Port(container_port=80, dynamic=True),))
    assert {assign(uuid, content, ONE, numbers, kept={})["80"] for uuid in "ab"} == {low, high}


def test_ports_outside_the_kernels_ephemeral_range_come_first():
    low, _ = ephemeral_range()
    numbers = PortBook()
    numbers.use((low - 3, low + 50))
    assert numbers.choose() < low


def test_different_ports_are_chosen_for_two_ports_of_one_instance():
    content = Content(ports=(Port(container_port=1, dynamic=True), Port(container_port=2, dynamic=True)))
    ports = assign("a", content, ONE, book(), kept={})
    assert ports["1"] != ports["2"]


def test_ports_are_assigned_without_a_search_where_they_are_fixed():
    port = free_ports(1)[0]
    content = Content(ports=(Port(host_port=port),))
    assert assign("a", content, ONE, PortBook(), kept={}) == {str(port): port}


class NoRecords:
    """Records nothing."""

    async def record_want(self, want: Want, fresh: object) -> None:
        return None


async def test_a_number_is_left_alone_as_long_as_any_service_binds_it_by_itself():
    wanted_set = WantedSet(NoRecords())  # type: ignore[arg-type]

    async def want(service: str, replicas: int, port: int) -> None:
        content = Content(ports=(Port(container_port=port),))
        one = Wanted(service=service, revision=1, replicas=replicas, content=content)
        await wanted_set.change(Want(deployment=1, wanted=(one,), port_range=(1, 2)))

    await want("a", 1, 80)
    await want("b", 1, 80)
    assert wanted_set.binds(80) and not wanted_set.binds(81)
    await want("a", 0, 80)
    assert wanted_set.binds(80), "b does"
    await want("b", 1, 81)
    assert wanted_set.binds(81) and not wanted_set.binds(80)
    await want("b", 0, 81)
    assert not wanted_set.binds(81)
