"""Images that are built from a folder, by real engines."""

import asyncio

import pytest

from deploy_code.errors import PreflightError
from deploy_code.events import ImageProgress
from deploy_code.model import Build
from support.loops import until
from support.pulled import image_step


@pytest.fixture
def step(engine, tmp_path):
    with image_step(engine, tmp_path) as made:
        yield made


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "page").write_text("one\n")
    dockerfile(folder, "COPY page /www/index.html", "EXPOSE 8080")
    return folder


def dockerfile(folder, *lines):
    (folder / "Dockerfile").write_text("\n".join(["FROM dc-test/busybox:1", *lines, ""]))


def of(folder, **changes):
    return Build(context=str(folder), **changes)


async def output(step, engine, image_id, *argv):
    """What a program writes in the image."""
    body = {"Image": image_id, "Cmd": list(argv), "Labels": {"deploy-code.state": str(step.folder / "state")}}
    made = engine.api("POST", "/containers/create", body)["Id"]
    try:
        engine.api("POST", f"/containers/{made}/start")
        engine.api("POST", f"/containers/{made}/wait")
        return engine.api("GET", f"/containers/{made}/logs", stdout="1", stderr="1")
    finally:
        engine.api("DELETE", f"/containers/{made}", force="1")


async def refusal(work, *words):
    with pytest.raises(PreflightError) as caught:
        await work
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    return caught.value


async def test_a_folder_becomes_an_image_with_our_labels_and_names(step, engine, context):
    spec = step.service("api", f"{step.name}/named:3", build=of(context))
    project = await step.settled(spec)
    found = project.services["api"]
    digest = found.content.container.build.digest
    inspected = engine.api("GET", f"/images/{found.content.container.image_id}/json")
    names = {
        name.removeprefix("localhost/").removeprefix("docker.io/").removeprefix("library/")
        for name in inspected["RepoTags"]
    }
    assert names == {f"{step.name}-api:{digest[:12]}", f"{step.name}/named:3"}
    labels = inspected["Config"]["Labels"]
    assert labels["deploy-code.project"] == step.name
    assert labels["deploy-code.state"] == str(step.folder / "state")
    assert (labels["deploy-code.service"], labels["deploy-code.build"]) == ("api", digest)
    assert [port.container_port for port in found.content.ports] == [8080]
    assert found.content.container.image_digest == ""
    assert "one" in await output(step, engine, found.content.container.image_id, "cat", "/www/index.html")


async def test_an_unchanged_folder_is_not_built_again_and_a_changed_one_is(step, context):
    first = await step.settle(step.service("api", build=of(context)))
    assert (await step.settle(step.service("api", build=of(context)))).image_id == first.image_id
    assert len(step.made) == 1
    (context / "page").write_text("two\n")
    second = await step.settle(step.service("api", build=of(context)))
    assert second.image_id != first.image_id
    assert len(step.made) == 2
    (context / "page").write_text("one\n")
    assert (await step.settle(step.service("api", build=of(context)))).image_id == first.image_id
    assert len(step.made) == 2


async def test_what_is_built_hashes_as_its_folder_not_as_its_id(step, context):
    spec = step.service("api", build=of(context))
    done = (await step.settled(spec)).services["api"]
    step.remove(done.content.container.image_id)
    again = (await step.settled(spec)).services["api"]
    assert len(step.made) == 2
    assert again.run_hash == done.run_hash


async def test_two_services_of_one_folder_share_one_build(step, context):
    project = await step.settled(step.service("a", build=of(context)), step.service("b", build=of(context)))
    ids = {spec.content.container.image_id for spec in project.services.values()}
    assert len(ids) == len(step.made) == 1


async def test_arguments_target_and_another_dockerfile_count(step, engine, context):
    (context / "Other").write_text(
        "FROM dc-test/busybox:1 AS first\nARG WHO\nRUN echo $WHO > /who\nFROM dc-test/busybox:1 AS last\n"
    )
    build = of(context, dockerfile="Other", target="first", args={"WHO": "somebody"})
    found = await step.settle(step.service("api", build=build))
    assert "somebody" in await output(step, engine, found.image_id, "cat", "/who")


async def test_what_is_ignored_does_not_get_into_the_image(step, engine, context):
    (context / ".dockerignore").write_text("*.secret\n")
    (context / "key.secret").write_text("hidden")
    dockerfile(context, "COPY . /all")
    found = await step.settle(step.service("api", build=of(context)))
    listed = await output(step, engine, found.image_id, "ls", "/all")
    assert "page" in listed and "secret" not in listed


async def test_steps_and_lines_are_told_while_it_is_built(step, context):
    dockerfile(context, "RUN echo a line of mine")
    await step.settle(step.service("api", build=of(context)))
    told = [event for event in step.events if isinstance(event, ImageProgress)]
    assert told[0].doing == "sending the context"
    assert any("a line of mine" in line for event in told for line in event.output)


async def test_a_look_builds_nothing(step, context):
    project = await step.settled(step.service("api", build=of(context)), look_only=True)
    assert not step.made
    assert any("deploying builds it" in warning for warning in project.warnings)


async def test_a_build_that_fails_shows_its_step_and_last_lines(step, context):
    dockerfile(context, "RUN echo what went wrong; exit 3")
    error = await refusal(
        step.settled(step.service("api", build=of(context))),
        "services.api.build",
        str(context / "Dockerfile"),
        "RUN echo what went wrong; exit 3",
        "\n    what went wrong",
    )
    assert error.code == "E003"


async def test_a_dockerfile_that_makes_no_sense_is_a_failed_build(step, context):
    (context / "Dockerfile").write_text("FROM dc-test/busybox:1\nNONSENSE\n")
    await refusal(step.settled(step.service("api", build=of(context))), "NONSENSE", str(context / "Dockerfile"))


async def test_a_base_that_cannot_be_had_is_a_failed_build(step, context):
    (context / "Dockerfile").write_text("FROM 127.0.0.1:1/no/such:1\n")
    await refusal(step.settled(step.service("api", build=of(context))), "127.0.0.1:1")


async def test_a_folder_that_changed_since_it_was_hashed_is_not_built(step, context):
    spec = step.service("api", build=of(context))
    (context / "page").write_text("changed\n")
    await refusal(step.settled(spec), "changed while it was being sent")
    assert not step.made


async def test_a_large_folder_is_sent_in_parts(step, engine, context):
    (context / "large").write_bytes(b"0123456789abcdef" * 500_000)
    dockerfile(context, "COPY large /large", "RUN md5sum /large > /sum; rm /large")
    found = await step.settle(step.service("api", build=of(context)))
    import hashlib

    expected = hashlib.md5((context / "large").read_bytes(), usedforsecurity=False).hexdigest()
    assert expected in await output(step, engine, found.image_id, "cat", "/sum")


async def test_an_interrupted_build_leaves_no_image_and_ends_at_once(step, context):
    dockerfile(context, "RUN echo begun; sleep 30")
    task = asyncio.create_task(step.settled(step.service("api", build=of(context))))
    lines = lambda: [line for event in step.events for line in getattr(event, "output", ())]  # noqa: E731
    await until(lambda: any("begun" in line for line in lines()) or len(step.events) > 1, what="the build to run")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await task
    assert not step.made


async def test_an_image_that_was_made_from_a_built_one_is_not_taken_for_it(docker, tmp_path, context):
    with image_step(docker, tmp_path) as step:
        spec = step.service("api", build=of(context))
        done = (await step.settled(spec)).services["api"].content.container
        holder = docker.api("POST", "/containers/create", {"Image": done.image_id, "Cmd": ["true"]})["Id"]
        try:
            made = docker.api("POST", "/commit", {}, container=holder, repo=f"{step.name}-mine", tag="1")["Id"]
            step.remove(f"{step.name}-api:{done.build.digest[:12]}")  # its name alone: the holder needs the rest
            labels = docker.api("GET", f"/images/{made}/json")["Config"]["Labels"]
            assert labels["deploy-code.build"] == done.build.digest
            assert (await step.settle(spec)).image_id != made
            assert len(step.made) == 2
        finally:
            docker.api("DELETE", f"/containers/{holder}", force="1")
            step.remove(f"{step.name}-mine:1")
