"""What stands in the way of containers is found before anything is changed."""

from __future__ import annotations

from pathlib import Path

from deploy_code.errors import PreflightError
from deploy_code.model import Container, Content, Network, Policy, Port, ServiceSpec, Volume
from deploy_code.orchestrator.engine_facts import EngineFacts, Holder, Subnet
from deploy_code.orchestrator.preflight import preflight
from deploy_code.plan.plan import Goal, Plan

HERE = "unix:///run/docker.sock"
STRANGER = Holder("other", "nginx:1", "")
OURS = Holder("shop-web-r1-0", "web:1", "web")


def found(facts: EngineFacts | None = None, *, engine: str = HERE, network: Network | None = None, **content: object):
    made = Container(runtime="docker", engine=engine, network=network or Network(name="shop"))
    parts = Content(service_type="container", image="web:1", container=made, **content)  # type: ignore[arg-type]
    goal = Goal(spec=ServiceSpec(name="web", content=parts, policy=Policy()), revision=1, replicas=1)
    plan = Plan(project="shop", kind="deploy", actions={"web": "create"}, after={"web": goal})
    try:
        preflight(plan, state="/s", root="/", held={}, engines=facts or EngineFacts(project="shop"))
    except PreflightError as exc:
        return [f"{each.code} {each.path}: {each.message}" for each in exc.problems]
    return []


def test_a_sound_container_has_nothing_in_its_way() -> None:
    assert found(ports=(Port(container_port=80),)) == []


def test_a_strangers_container_of_our_name_is_s002_and_ours_is_not() -> None:
    (told,) = found(EngineFacts(project="shop", named={"shop-web-r1-0": STRANGER}))
    assert told.startswith("S002 services.web.image: the name shop-web-r1-0 is taken by a container that is not ours")
    assert "nginx:1" in told
    assert found(EngineFacts(project="shop", named={"shop-web-r1-0": OURS})) == []


def test_a_port_that_another_container_publishes_is_s004_with_its_name(port: int) -> None:
    facts = EngineFacts(project="shop", publishers={(port, "tcp"): STRANGER})
    (told,) = found(facts, ports=(Port(container_port=80, host_port=port),))
    assert told == f"S004 services.web.ports[0]: port {port}/tcp is taken by container other (image nginx:1)"


def test_a_container_of_another_project_is_told_by_that_project(port: int) -> None:
    theirs = Holder("blog-web-r1-0", "7d934297121e", "", "blog")
    facts = EngineFacts(project="shop", named={"shop-web-r1-0": theirs}, publishers={(port, "tcp"): theirs})
    told = found(facts, ports=(Port(container_port=80, host_port=port),))
    assert len(told) == 2 and all("(of another project, blog)" in each for each in told)


def test_a_published_port_may_have_another_number_than_the_one_inside(port: int) -> None:
    assert found(ports=(Port(container_port=80, host_port=port),)) == []


def test_a_source_that_is_not_there_is_s005_and_one_on_another_machine_cannot_be_told(tmp_path: Path) -> None:
    volumes = (Volume(name="d", mount_path="/d", source=str(tmp_path / "gone")),)
    (told,) = found(volumes=volumes)
    assert told.startswith("S005 services.web.volumes[0].source:") and "gone is not there" in told
    assert found(volumes=volumes, engine="tcp://other:2376") == []
    (tmp_path / "gone").mkdir()
    assert found(volumes=volumes) == []


def test_a_subnet_that_overlaps_another_network_is_e010_with_its_name() -> None:
    facts = EngineFacts(project="shop", subnets=[Subnet("bridge", "172.17.0.0/16"), Subnet("shop-1", "10.1.2.0/24")])
    (told,) = found(facts, network=Network(name="shop-2", cidr="10.1.0.0/16"))
    assert (
        told.startswith("E010 infrastructure.network.cidr")
        and "10.1.0.0/16 overlaps 10.1.2.0/24 of the network shop-1" in told
    )
    assert found(facts, network=Network(name="shop-1", cidr="10.1.2.0/24")) == [], "it is our own"
    assert found(facts, network=Network(name="shop-2", cidr="10.2.0.0/16")) == []


def test_an_overlay_network_is_e010() -> None:
    (told,) = found(network=Network(name="shop", mode="Overlay"))
    assert told.startswith("E010 infrastructure.network.mode") and "cluster" in told


def test_a_strangers_network_of_our_name_is_e010() -> None:
    (told,) = found(EngineFacts(project="shop", foreign_networks={"shop", "bridge"}))
    assert told.startswith("E010") and "the network shop is there already, and it is not this project's" in told
