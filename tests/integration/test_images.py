"""What the image of a service is, found out before a plan is made: on real engines, from a real registry."""

import uuid
from dataclasses import replace

import pytest

from deploy_code.errors import PreflightError
from deploy_code.events import ImageProgress
from deploy_code.model import HealthCheck, Port
from support.pulled import image, image_step


@pytest.fixture
def step(engine, tmp_path):
    with image_step(engine, tmp_path) as made:
        yield made


@pytest.fixture
def logged_in(engine, tmp_path, registry):
    """The image step of somebody who has logged in to the registry."""
    folder = registry.docker_config(tmp_path / "docker")
    env = {"DOCKER_CONFIG": str(folder), "REGISTRY_AUTH_FILE": str(folder / "config.json")}
    with image_step(engine, tmp_path, **env) as made:
        yield made


@pytest.fixture
def repository(registry):
    """A name in the registry that no other test has."""
    return f"team/app-{uuid.uuid4().hex[:8]}"


def url(registry, repository, tag="1"):
    return f"{registry.address}/{repository}:{tag}"


async def failure(work, *codes):
    """The problems of a PreflightError; all of ``codes``."""
    with pytest.raises(PreflightError) as caught:
        await work
    assert [problem.code for problem in caught.value.problems] == list(codes)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- what is here


async def test_an_image_that_is_here_fills_in_what_the_file_leaves_out(step, engine):
    project = await step.settled(step.service("api", "dc-test/checked:1"))
    spec = project.services["api"]
    inspected = engine.api("GET", "/images/dc-test/checked:1/json")
    assert spec.content.container.image_id.endswith(inspected["Id"].removeprefix("sha256:"))
    assert spec.content.container.image_id.startswith("sha256:")
    assert spec.content.container.engine == f"unix://{engine.socket}"
    assert spec.content.ports == (Port(container_port=8080), Port(container_port=9090, protocol="udp"))
    assert spec.policy.stop_signal == "SIGUSR1"
    assert spec.policy.health == HealthCheck(
        command=("/bin/sh", "-c", "test -e /data/healthy"),
        interval_seconds=1.0,
        timeout_seconds=2.0,
        retries=3,
        start_period_seconds=1.0,
    )
    assert any("keeps data in /data" in warning for warning in project.warnings)
    assert not step.made


async def test_an_image_is_asked_once_for_ever(step):
    first = await step.settled(step.service("api", "dc-test/checked:1"))
    known = dict(step.book.facts)
    assert known
    step.book.put_images = None
    again = await step.settled(step.service("api", "dc-test/checked:1"), step.service("b", "dc-test/checked:1"))
    assert again.services["api"] == first.services["api"]


async def test_a_look_remembers_nothing(step):
    await step.settled(step.service("api", "dc-test/web:1"), look_only=True)
    assert not step.book.facts


async def test_an_image_may_be_named_by_its_id(step):
    named = await step.settle(step.service("api", "dc-test/web:1"))
    by_id = await step.settle(step.service("api", named.image_id))
    assert (by_id.image_id, by_id.image_digest) == (named.image_id, "")


async def test_a_container_without_port_and_check_is_told_of(step):
    project = await step.settled(step.service("api", "dc-test/busybox:1"))
    assert any("says how to check it" in warning for warning in project.warnings)


async def test_an_image_for_another_processor_is_refused(step):
    text = await failure(step.settled(step.service("api", "dc-test/arm:1")), "E003")
    assert "services.api.image" in text and "dc-test/arm:1 is made for" in text


async def test_an_engine_that_is_not_there_is_told_with_who_needs_it(docker, tmp_path):
    with image_step(docker, tmp_path) as step:
        step.env["DOCKER_HOST"] = "unix:///tmp/no-engine-here.sock"
        for look_only in (True, False):
            work = step.settled(step.service("api", "x:1"), step.service("db", "y:1"), look_only=look_only)
            text = await failure(work, "E014")
            assert "api, db need" in text and "/tmp/no-engine-here.sock" in text


async def test_a_runtime_that_is_not_driven_is_refused(step):
    spec = step.service("api", "x:1")
    container = replace(spec.content.container, runtime="containerd")
    spec = replace(spec, content=replace(spec.content, container=container))
    assert "containerd" in await failure(step.settled(spec), "E014")


# ------------------------------------------------------------------------------------------------------------- pulling


async def test_an_image_is_pulled_with_the_users_credentials(logged_in, registry, repository):
    digest = registry.push(image(repository), f"{repository}:1")
    found = await logged_in.settle(logged_in.service("api", url(registry, repository)))
    assert found.image_id == image(repository).id
    assert found.image_digest == f"{registry.address}/{repository}@{digest}"
    assert logged_in.made == [("pulled", url(registry, repository))]
    assert any(isinstance(event, ImageProgress) for event in logged_in.events)


async def test_a_look_pulls_nothing_and_says_what_will_be_pulled(logged_in, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    project = await logged_in.settled(
        logged_in.service("api", url(registry, repository)),
        logged_in.service("web", "dc-test/web:1", pull="always"),
        look_only=True,
    )
    assert any("deploying pulls it" in warning for warning in project.warnings)
    assert any("pulled again" in warning for warning in project.warnings)
    assert project.services["api"].content.container.image_id == ""
    assert project.services["api"].policy.stop_signal == "SIGTERM"
    assert not logged_in.made


async def test_one_pull_serves_all_services_of_an_image(logged_in, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    services = [logged_in.service(name, url(registry, repository)) for name in "abc"]
    project = await logged_in.settled(*services)
    assert {spec.content.container.image_id for spec in project.services.values()} == {image(repository).id}
    assert len(logged_in.made) == 1


async def test_missing_pulls_once_and_always_follows_the_tag(logged_in, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    missing = logged_in.service("api", url(registry, repository))
    always = logged_in.service("api", url(registry, repository), pull="always")
    first = await logged_in.settle(missing)
    registry.push(image("moved" + repository), f"{repository}:1")
    assert (await logged_in.settle(missing)).image_id == first.image_id
    assert (await logged_in.settle(always)).image_id == image("moved" + repository).id


async def test_a_service_that_is_not_deployed_is_not_pulled(logged_in, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    project = await logged_in.settled(
        logged_in.service("api", "dc-test/web:1"), logged_in.service("db", url(registry, repository)), only=["api"]
    )
    assert not logged_in.made
    assert project.services["db"].content.container.image_id == ""


async def test_never_means_never(logged_in, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    spec = logged_in.service("api", url(registry, repository), pull="never")
    for look_only in (True, False):
        text = await failure(logged_in.settled(spec, look_only=look_only), "E003")
        assert "may not be pulled" in text and repository in text


async def test_all_images_that_cannot_be_had_are_told_at_once(step, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    text = await failure(
        step.settled(
            step.service("away", "127.0.0.1:1/team/app:1"),
            step.service("arm", "dc-test/arm:1"),
            step.service("denied", url(registry, repository)),
        ),
        "E003",
        "E003",
        "E003",
    )
    assert f"log in with `{step.engine.kind} login {registry.address}`" in text
    assert "see that this machine reaches 127.0.0.1:1" in text
    assert {"services.away.image", "services.denied.image", "services.arm.image"} <= {
        word.rstrip(":") for word in text.split()
    }


async def test_an_image_that_is_not_in_the_registry_is_named(logged_in, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    text = await failure(logged_in.settled(logged_in.service("api", url(registry, repository, "none"))), "E003")
    assert f"{repository}:none is not there" in text and "correct its name" in text
    assert registry.password not in text


async def test_always_makes_do_with_what_is_here_when_the_registry_is_away(step, engine):
    here = "127.0.0.1:1/team/app"
    engine.api("POST", "/images/dc-test/web:1/tag", repo=here, tag="1")
    try:
        project = await step.settled(step.service("api", f"{here}:1", pull="always"))
    finally:
        step.remove(f"{here}:1")
    assert project.services["api"].content.container.image_id
    assert any("what is here of it is used" in warning for warning in project.warnings)


async def test_always_is_refused_when_the_registry_refuses(step, engine, registry, repository):
    here = f"{registry.address}/{repository}"
    engine.api("POST", "/images/dc-test/web:1/tag", repo=here, tag="1")
    try:
        text = await failure(step.settled(step.service("api", f"{here}:1", pull="always")), "E003")
    finally:
        step.remove(f"{here}:1")
    assert "log in with" in text


# -------------------------------------------------------------------------------------------------- the very same again


async def test_the_image_of_a_revision_comes_back_although_the_tag_moved_and_it_was_removed(
    logged_in, registry, repository
):
    registry.push(image(repository), f"{repository}:1")
    old = (await logged_in.settled(logged_in.service("api", url(registry, repository)))).services["api"]
    registry.push(image("new" + repository), f"{repository}:1")
    logged_in.remove(old.content.container.image_id)
    assert old.content.container.image_id not in logged_in.ids()
    await logged_in.present(old, look_only=True)
    assert old.content.container.image_id not in logged_in.ids()
    await logged_in.present(old)
    assert old.content.container.image_id in logged_in.ids()


async def test_an_image_that_is_gone_everywhere_is_told_with_its_revision(logged_in, registry, repository):
    registry.push(image(repository), f"{repository}:1")
    old = (await logged_in.settled(logged_in.service("api", url(registry, repository)))).services["api"]
    logged_in.remove(old.content.container.image_id)
    # a registry that was told to forget an image may serve it for a while; one that never had it does not
    container = old.content.container
    elsewhere = replace(container, image_digest=container.image_digest.replace(repository, f"{repository}-gone"))
    gone = replace(old, content=replace(old.content, container=elsewhere))
    text = await failure(logged_in.present(gone), "E003")
    assert "revision r7" in text and repository in text


async def test_an_image_that_no_registry_has_cannot_be_brought_back(step, engine):
    named = (await step.settled(step.service("api", "dc-test/web:1"))).services["api"]
    container = replace(named.content.container, image_id="sha256:" + "0" * 64, image_digest="")
    gone = replace(named, content=replace(named.content, container=container))
    await step.present(named)
    for look_only in (True, False):
        assert "no registry is known" in await failure(step.present(gone, look_only=look_only), "E003")
