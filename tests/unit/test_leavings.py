"""What is said of things that are to be removed."""

from __future__ import annotations

from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.orchestrator.leavings import Leaving, Leavings

DOCKER, PODMAN = Endpoint(url="unix:///docker.sock"), Endpoint(url="unix:///podman.sock")


def volume(name: str, engine: Endpoint) -> Leaving:
    return Leaving(kind="volume", key=name, name=name, why="named in the file", engine=engine)


def test_volumes_of_one_engine_are_told_by_their_names() -> None:
    assert Leavings(items=(volume("shop_a", DOCKER), volume("shop_b", DOCKER))).names == "shop_a, shop_b"


def test_volumes_of_one_name_in_two_engines_are_told_apart() -> None:
    told = Leavings(items=(volume("shop_a", DOCKER), volume("shop_a", PODMAN))).names
    assert told == f"shop_a ({DOCKER}), shop_a ({PODMAN})" and str(DOCKER) != str(PODMAN)


def test_nothing_has_no_names() -> None:
    assert Leavings().names == ""
