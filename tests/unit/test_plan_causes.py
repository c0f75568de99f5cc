"""Why a container is replaced, in words that name what a person has changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy_code.model import Build, Container, Content, Network, Port, ServiceSpec, Volume
from deploy_code.plan.diff import content_causes
from support.plans import deployed, planned

PULLED = Content(service_type="container", image="redis:7", container=Container(runtime="docker", image_id="sha256:1"))
BUILT = Content(
    service_type="container", container=Container(image_id="sha256:1", build=Build(context="/api", digest="one"))
)


def causes(old: Content, **changed: object) -> list[str]:
    return list(content_causes(old, replace(old, container=replace(old.container, **changed))))


def test_a_tag_that_moved_is_told_by_its_name() -> None:
    assert causes(PULLED, image_id="sha256:2") == ["redis:7 is another image now"]


def test_another_name_is_told_once_and_not_by_its_id_again() -> None:
    new = replace(PULLED, image="redis:8", container=replace(PULLED.container, image_id="sha256:2"))
    assert list(content_causes(PULLED, new)) == ["image redis:7 → redis:8"]


def test_an_image_that_was_built_anew_is_told_by_its_build() -> None:
    assert causes(BUILT, image_id="sha256:2", build=Build(context="/api", digest="two")) == ["build changed"]


def test_where_an_image_can_be_pulled_from_is_no_cause() -> None:
    assert causes(PULLED, image_digest="docker.io/library/redis@sha256:3") == []


@pytest.mark.parametrize(
    ("key", "value"), [("network", Network(mode="Host")), ("read_only", True), ("cap_drop", ("ALL",))]
)
def test_every_other_change_is_told_by_its_key(key: str, value: object) -> None:
    assert causes(PULLED, **{key: value}) == [f"{key} changed"]


@pytest.mark.parametrize(
    ("runtime", "engine", "said"),
    [
        ("podman", "unix:///podman.sock", "stays in docker: the other engine"),
        ("docker", "tcp://there:2376", "stays in docker at unix:///docker.sock: the other engine"),
    ],
)
def test_the_data_that_stays_in_another_engine_is_told(runtime: str, engine: str, said: str) -> None:
    here = Container(runtime="docker", engine="unix:///docker.sock", image_id="sha256:1")
    volumes = (Volume(name="data", mount_path="/data"), Volume(name="conf", mount_path="/conf", source="/etc/conf"))
    old = ServiceSpec(name="db", content=replace(PULLED, container=here, volumes=volumes))
    there = replace(here, runtime=runtime, engine=engine)
    new = replace(old, content=replace(old.content, container=there))
    told = [note for note in planned([new], deployed([old])).notes if "stays in" in note]
    assert len(told) == 1 and told[0].startswith(f"db: the data in volume data {said}")


def test_of_data_that_stays_where_it_is_nothing_is_told() -> None:
    volumes = (Volume(name="data", mount_path="/data"),)
    old = ServiceSpec(name="db", content=replace(PULLED, volumes=volumes))
    new = replace(old, content=replace(old.content, image="redis:8"))
    assert not [note for note in planned([new], deployed([old])).notes if "stays in" in note]


def test_who_goes_on_with_what_it_was_told_of_a_service_that_moves_is_named() -> None:
    web = ServiceSpec(name="web", content=replace(PULLED, ports=(Port(container_port=80, host_port=8080),)))
    asks = ServiceSpec(name="job", content=Content(command="job", env={"WEB": "${services.web.port}"}))
    silent = ServiceSpec(name="other", content=Content(command="other"))
    moved = replace(web, content=replace(web.content, ports=(Port(container_port=80, host_port=9090),)))
    (told,) = [each for each in planned([moved, asks, silent], deployed([web, asks, silent])).notes if "told" in each]
    assert told == "web answers elsewhere from now on, and job goes on with what it was told: restart it"
    newer = replace(web, content=replace(web.content, image="redis:8"))
    assert not [each for each in planned([newer, asks], deployed([web, asks])).notes if "told" in each]
