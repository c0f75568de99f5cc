"""Why a container is replaced, in words that name what a person has changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy_code.model import Build, Container, Content, Network
from deploy_code.plan.diff import content_causes

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
