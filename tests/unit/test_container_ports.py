"""Ports and addresses of containers: what is inside, what is published, and where others find a service."""

from __future__ import annotations

import pytest

from deploy_code.agent.placeholders import Place, own_values
from deploy_code.agent.places import seen
from deploy_code.agent.ports import PortBook, chosen_freely, fixed_ports
from deploy_code.agent.published import Numbers, assign_numbers, bound_inside, inner_ports
from deploy_code.model import Container, Content, Instance, Network, Policy, Port

NOTHING = Numbers({}, {})
PROCESS = Content(command="x")
IN_SHOP = Container(engine="unix:///run/docker.sock", network=Network(name="shop"))
ELSEWHERE = Container(engine="tcp://other:2376", network=Network(name="shop"))
ON_HOST = Container(network=Network(mode="Host"))


def container(*ports: Port, made: Container = IN_SHOP) -> Content:
    return Content(service_type="container", image="web", ports=ports, container=made)


def instance(address: str = "", published: dict[str, int] | None = None, **ports: int) -> Instance:
    numbers = {name.removeprefix("p"): number for name, number in ports.items()}
    return Instance(
        uuid="u", service="db", revision=1, index=0, address=address, ports=numbers, published=published or {}
    )


@pytest.fixture
def book() -> PortBook:
    book = PortBook()
    book.use((20000, 20010))
    return book


def test_ports_inside_a_container_take_none_of_this_machine(book: PortBook) -> None:
    numbers = assign_numbers("u", container(Port(container_port=8080)), Policy(), book, kept=NOTHING)
    assert numbers == Numbers({"8080": 8080}, {})
    assert list(fixed_ports(container(Port(container_port=8080)))) == []


def test_a_host_port_is_published_and_the_number_inside_stays(book: PortBook) -> None:
    content = container(Port(container_port=80, host_port=8080))
    assert assign_numbers("u", content, Policy(), book, kept=NOTHING) == Numbers({"80": 80}, {"80": 8080})
    assert list(fixed_ports(content)) == [8080]
    assert not chosen_freely(content, Policy())


def test_a_dynamic_port_is_published_on_a_free_one_and_keeps_it_over_restarts(book: PortBook) -> None:
    content = container(Port(container_port=80, dynamic=True))
    first = assign_numbers("u", content, Policy(), book, kept=NOTHING)
    assert first.bound == {"80": 80} and 20000 <= first.published["80"] <= 20010
    assert assign_numbers("u", content, Policy(), book, kept=first) == first
    assert chosen_freely(content, Policy())


def test_a_dynamic_port_without_a_number_is_the_same_inside_and_outside(book: PortBook) -> None:
    content = container(Port(dynamic=True))
    numbers = assign_numbers("u", content, Policy(), book, kept=NOTHING)
    assert numbers.bound == numbers.published
    ((name, number),) = numbers.published.items()
    assert name == str(number)
    assert inner_ports(content, numbers.published)[0].container_port == number
    assert assign_numbers("u", content, Policy(), book, kept=numbers) == numbers


def test_replicas_do_not_share_what_is_chosen(book: PortBook) -> None:
    content = container(Port(container_port=80, dynamic=True))
    taken = [assign_numbers(f"u{n}", content, Policy(replicas=3), book, kept=NOTHING).published["80"] for n in range(3)]
    assert len(set(taken)) == 3


def test_the_same_number_of_both_protocols_is_two_ports(book: PortBook) -> None:
    content = container(Port(container_port=53), Port(container_port=53, protocol="udp"))
    numbers = assign_numbers("u", content, Policy(), book, kept=NOTHING)
    assert numbers.bound == {"53": 53, "53/udp": 53}
    values = own_values(service="dns", uuid="u", revision=1, index=0, ports=numbers.bound)
    assert (values["PORT"], values["PORT_53"]) == ("53", "53")


def test_on_the_network_of_the_host_a_container_has_ports_as_a_process_does(book: PortBook) -> None:
    content = container(Port(container_port=8080), made=ON_HOST)
    assert assign_numbers("u", content, Policy(), book, kept=NOTHING) == Numbers({"8080": 8080}, {})
    assert list(fixed_ports(content)) == [8080]


# ------------------------------------------------------------------------------------------ where a service is found


def test_a_process_finds_a_published_container_on_this_machine() -> None:
    found = [instance("10.0.0.2", {"5432": 15432}, p5432=5432)]
    assert seen("db", container(), found, PROCESS) == Place("127.0.0.1", 15432)


def test_a_process_finds_a_container_that_is_not_published_at_its_own_address() -> None:
    assert seen("db", container(), [instance("10.0.0.2", p5432=5432)], PROCESS) == Place("10.0.0.2", 5432)


def test_containers_of_one_network_find_each_other_by_name_even_before_one_is_there() -> None:
    assert seen("db", container(), [instance("10.0.0.2", {"5432": 1}, p5432=5432)], container()) == Place("db", 5432)
    assert seen("db", container(), [], container()) == Place("db", None)


def test_a_container_finds_a_process_under_the_name_of_the_host() -> None:
    assert seen("db", PROCESS, [instance(p5432=5432)], container()) == Place("host.docker.internal", 5432)


def test_processes_find_each_other_on_this_machine() -> None:
    assert seen("db", PROCESS, [instance(p5432=31000)], PROCESS) == Place("127.0.0.1", 31000)


def test_on_the_network_of_the_host_everything_is_on_this_machine() -> None:
    assert seen("db", container(made=ON_HOST), [instance(p80=80)], PROCESS) == Place("127.0.0.1", 80)
    assert seen("db", PROCESS, [instance(p80=80)], container(made=ON_HOST)) == Place("127.0.0.1", 80)


def test_a_container_of_another_engine_is_found_where_it_is_published() -> None:
    found = [instance("10.0.0.2", {"80": 8080}, p80=80)]
    assert seen("db", container(), found, container(made=ELSEWHERE)) == Place("host.docker.internal", 8080)


def test_a_container_that_is_not_there_has_no_address_for_a_process() -> None:
    assert seen("db", container(), [], PROCESS) == Place("", None)


def test_the_first_port_is_the_one_that_is_handed_over_whatever_else_is_published() -> None:
    found = [instance("10.0.0.2", {"9187": 9187}, p5432=5432, p9187=9187)]
    assert seen("db", container(), found, PROCESS) == Place("10.0.0.2", 5432)


def test_what_an_engine_elsewhere_publishes_is_found_on_that_machine() -> None:
    found = [instance("engine.example", {"5432": 32768}, p5432=32768)]
    assert seen("db", container(made=ELSEWHERE), found, PROCESS) == Place("engine.example", 32768)


def test_a_container_is_told_its_own_number_where_it_is_reached_by_another() -> None:
    """An engine that is elsewhere is reached by what it publishes."""
    content = container(Port(container_port=5432), Port(container_port=53, protocol="udp"))
    found = instance("127.0.0.1", {"5432": 32768}, p5432=32768)
    assert bound_inside(content, found) == {"5432": 5432, "53/udp": 53}
    assert bound_inside(PROCESS, found) == {"5432": 32768}
