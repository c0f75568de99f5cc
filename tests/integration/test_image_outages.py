"""Pulls and builds that do not come to their end: the engine dies under them, or somebody else wants the same."""

import asyncio
import socket
import uuid
from contextlib import asynccontextmanager, suppress

import pytest

from deploy_code.errors import PreflightError
from deploy_code.model import Build
from support.loops import until
from support.pulled import image, image_step


@asynccontextmanager
async def mute_registry():
    """An address that takes connections and never says a word; ``asked`` is set by the first."""
    asked = asyncio.Event()
    held = []

    def hold(reader, writer):
        held.append(writer)
        asked.set()

    server = await asyncio.start_server(hold, "127.0.0.1", family=socket.AF_INET)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        for writer in held:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def under_way(work):
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def told_as_away(task, docker):
    with pytest.raises(PreflightError) as caught:
        async with asyncio.timeout(10):
            await task
    assert [problem.code for problem in caught.value.problems] == ["E014"]
    assert str(docker.socket) in str(caught.value)
    assert "nothing was changed" in str(caught.value)


async def test_an_engine_that_dies_in_a_pull_or_a_build_is_told_at_once_and_both_work_when_it_is_back(
    private_docker, tmp_path
):
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM dc-test/busybox:1\nCOPY wait /\nRUN echo begun && . /wait\n")
    (context / "wait").write_text("sleep 60\n")
    with image_step(private_docker, tmp_path) as step:
        async with mute_registry() as (address, asked):
            pulling = step.settled(step.service("api", f"{address}/team/app:1"), step.service("b", "dc-test/web:1"))
            async with under_way(pulling) as task:
                await asyncio.wait_for(asked.wait(), 10)
                await asyncio.to_thread(private_docker.kill)
                await told_as_away(task, private_docker)
            await asyncio.to_thread(private_docker.start)
        async with under_way(step.settled(step.service("api", build=Build(context=str(context))))) as task:
            lines = lambda: [line for event in step.events for line in getattr(event, "output", ())]  # noqa: E731
            await until(lambda: "begun" in lines() or task.done(), what="the build to run")
            await asyncio.to_thread(private_docker.kill)
            await told_as_away(task, private_docker)
        await asyncio.to_thread(private_docker.start)
        assert not step.made
        (context / "wait").write_text("true\n")
        await step.settle(step.service("api", build=Build(context=str(context))))
        assert [how for how, _ in step.made] == ["built"]


async def test_an_interrupted_pull_ends_at_once(engine, tmp_path):
    with image_step(engine, tmp_path) as step:
        async with mute_registry() as (address, asked):
            async with under_way(step.settled(step.service("api", f"{address}/team/app:1"))) as task:
                await asyncio.wait_for(asked.wait(), 10)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    async with asyncio.timeout(5):
                        await task


async def test_two_projects_may_pull_one_image_at_once_and_one_may_give_up(engine, registry, tmp_path):
    folder = registry.docker_config(tmp_path / "docker")
    env = {"DOCKER_CONFIG": str(folder), "REGISTRY_AUTH_FILE": str(folder / "config.json")}
    repository = f"team/app-{uuid.uuid4().hex[:8]}"
    registry.push(image(repository), f"{repository}:1")
    name = f"{registry.address}/{repository}:1"
    with image_step(engine, tmp_path, **env) as one, image_step(engine, tmp_path, **env) as other:
        async with under_way(one.settle(one.service("api", name))) as given_up:
            await until(lambda: one.events, what="the first pull to begin")
            async with under_way(other.settle(other.service("web", name))) as kept:
                await until(lambda: other.events or kept.done(), what="the second pull to begin")
                given_up.cancel()
                assert (await kept).image_id == image(repository).id
