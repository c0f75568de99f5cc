"""The agent and its containers: whatever dies in between, none is lost, none is there twice, none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy_code.drivers.engine.order import CONTAINER, INSTANCE, STATE
from deploy_code.model import Container, Content, Gate, HealthCheck, Instance, Network, Phase, Port, Volume, Wanted
from support.agents import FAST_RESTART, House, sleeper
from support.containers import cleared, project_of, url_of
from support.engine_daemons import Docker, Engine, Podman, PrivateDocker, PrivatePodman

SLEEP = "trap 'exit 0' TERM; echo up; sleep 1000 & wait"
ALIVE = {"health": HealthCheck(disabled=True), "min_ready_seconds": 0.1, "restart": FAST_RESTART}


class Pier(House):
    """A project whose containers lie in ``engine``."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine = engine
        self.name = project_of(folder)
        super().__init__(folder, self.name)

    def box(self, script: str = SLEEP, **fields: Any) -> Content:
        """A shell in a container."""
        return self.image("dc-test/busybox:1", command="sh", args=("-c", script), **fields)

    def page(self, **fields: Any) -> Content:
        """A web server that answers on 8080."""
        return self.image("dc-test/web:1", ports=(Port(container_port=8080, **fields),))

    def image(self, name: str, engine: Engine | None = None, **fields: Any) -> Content:
        engine = engine or self.engine
        container = Container(
            runtime=engine.kind,
            engine=url_of(engine),
            image_id=engine.api("GET", f"/images/{name}/json")["Id"],
            network=Network(name=self.name),
        )
        return Content(service_type="container", image=name, container=container, **fields)

    def there(self, engine: Engine | None = None) -> list[str]:
        """Ids of all containers of this project, running or not, as the engine has them."""
        ours = {"label": [f"{STATE}={self.state}"]}
        return [each["Id"] for each in (engine or self.engine).api("GET", "/containers/json", all="1", filters=ours)]

    async def cleared(self) -> None:
        await self.eventually(lambda: not self.there())

    def nameless(self, instance: Instance, **changes: Any) -> None:
        """Its row as an agent leaves it that dies before it could record what it started."""
        gone: dict[str, Any] = {"pid": 0, "start_time": 0, "handler": {}, "address": "", "phase": Phase.STARTING}
        self.rewrite(instance.but(**{**gone, "gate": Gate.WAITING, **changes}))

    async def take_away(self, service: str, revision: int = 1, **options: Any) -> None:
        await self.want(Wanted(service=service, revision=revision, replicas=0), **options)

    async def kill_engine(self) -> None:
        await asyncio.to_thread(self.engine.kill)

    async def start_engine(self) -> None:
        await asyncio.to_thread(self.engine.start)


@asynccontextmanager
async def pier(folder: Path, engine: Engine) -> AsyncIterator[Pier]:
    with cleared(folder):
        made = Pier(folder, engine)
        try:
            await made.platform.open()
            yield made
            for row in made.store.wanted_rows():
                await made.take_away(row.service, row.revision)
                await made.until(row.service, lambda all_: not all_)
        finally:
            await made.close()


def container_of(instance: Instance) -> str:
    return instance.handler[CONTAINER]


# --------------------------------------------------------------------------- the agent dies


async def test_containers_survive_the_agent_and_are_adopted(engine: Engine, tmp_path: Path) -> None:
    async with pier(tmp_path, engine) as it:
        await it.want(it.wanted("web", it.page(), restart=FAST_RESTART))
        before = await it.ready("web")
        await it.end_agent()
        await it.platform.open()
        after = await it.ready("web")
        assert (after.uuid, container_of(after), after.restarts) == (before.uuid, container_of(before), 0)
        os.kill(after.pid, signal.SIGKILL)
        (again,) = await it.until("web", lambda all_: all_[0].phase is Phase.READY and all_[0].restarts == 1)
        assert it.there() == [container_of(again)]


async def test_killed_between_the_start_and_its_record_the_container_is_taken_over(
    engine: Engine, tmp_path: Path
) -> None:
    """With its address, so that it is probed where it is, and with its log."""
    async with pier(tmp_path, engine) as it:
        await it.want(it.wanted("web", it.page(), restart=FAST_RESTART))
        before = await it.ready("web")
        await it.end_agent()
        it.nameless(before)
        await it.platform.open()
        after = await it.ready("web")
        assert (after.uuid, container_of(after), after.address) == (before.uuid, container_of(before), before.address)
        assert (after.restarts, after.handler["log"]) == (0, after.log_path)
        assert it.there() == [container_of(before)]


async def test_killed_between_the_row_and_the_container_it_is_started_once(docker: Docker, tmp_path: Path) -> None:
    async with pier(tmp_path, docker) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE))
        before = await it.ready("box")
        await it.end_agent()
        docker.api("DELETE", f"/containers/{container_of(before)}", force="1")
        it.nameless(before)
        await it.platform.open()
        after = await it.ready("box")
        assert (after.uuid, after.restarts) == (before.uuid, 0)
        assert it.there() == [container_of(after)]


@pytest.mark.parametrize("named", [True, False], ids=["recorded", "unrecorded"])
async def test_killed_in_the_middle_of_a_stop_the_next_agent_finishes_it(
    docker: Docker, tmp_path: Path, named: bool
) -> None:
    async with pier(tmp_path, docker) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE))
        before = await it.ready("box")
        await it.end_agent()
        if named:
            it.rewrite(before.but(phase=Phase.STOPPING))
        else:
            it.nameless(before, phase=Phase.STOPPING)
        await it.platform.open()
        (after,) = await it.until(
            "box", lambda all_: [each.uuid for each in all_] != [before.uuid] and len(all_) == 1 and all_[0].ready_at
        )
        assert it.there() == [container_of(after)] != [container_of(before)]


async def test_a_one_shot_that_ended_unseen_and_unrecorded_does_not_run_again(engine: Engine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    async with pier(tmp_path, engine) as it:
        mount = Volume(name="out", mount_path="/out", source=str(out))
        script = "echo x >> /out/runs; until test -e /out/go; do usleep 20000; done"
        await it.want(it.wanted("once", it.box(script, one_shot=True, volumes=(mount,))))
        await it.eventually((out / "runs").exists)
        (before,) = await it.until("once", lambda all_: all_ and CONTAINER in all_[0].handler)
        await it.end_agent()
        it.nameless(before)
        (out / "go").touch()
        await asyncio.to_thread(engine.api, "POST", f"/containers/{container_of(before)}/wait")
        await it.platform.open()
        await it.phase("once", Phase.COMPLETED)
        assert (out / "runs").read_text() == "x\n"
        await it.cleared()


async def test_a_container_of_ours_that_nobody_knows_is_removed_and_a_stranger_s_is_not(
    docker: Docker, tmp_path: Path
) -> None:
    async with pier(tmp_path, docker) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE))
        await it.ready("box")
        await it.end_agent()
        stranger = f"{it.name}-stranger"
        for name, state in ((f"{it.name}-old-r9-0", str(it.state)), (stranger, "/elsewhere")):
            body = {"Image": "dc-test/busybox:1", "Cmd": ["sh", "-c", SLEEP]}
            labels = {"Labels": {STATE: state, INSTANCE: uuid.uuid4().hex}}
            made = docker.api("POST", "/containers/create", body | labels, name=name)
            docker.api("POST", f"/containers/{made['Id']}/start")
        try:
            await it.platform.open()
            kept = await it.ready("box")
            await it.eventually(lambda: it.there() == [container_of(kept)])
            assert docker.api("GET", f"/containers/{stranger}/json")["State"]["Running"]
        finally:
            docker.api("DELETE", f"/containers/{stranger}", force="1")


# --------------------------------------------------------------------------- the engine is away


async def test_a_new_agent_takes_over_what_it_cannot_see_yet(private_podman: PrivatePodman, tmp_path: Path) -> None:
    async with pier(tmp_path, private_podman) as it:
        await it.want(it.wanted("web", it.page(), restart=FAST_RESTART))
        before = await it.ready("web")
        await it.settle()
        await it.end_agent()
        await it.kill_engine()
        await it.platform.open()
        assert container_of(await it.ready("web")) == container_of(before)
        await it.start_engine()
        os.kill(before.pid, signal.SIGKILL)
        (after,) = await it.until("web", lambda all_: all_[0].phase is Phase.READY and all_[0].restarts == 1)
        assert it.there() == [container_of(after)]


async def test_an_unrecorded_container_is_taken_over_once_its_engine_is_back(
    private_podman: PrivatePodman, tmp_path: Path
) -> None:
    async with pier(tmp_path, private_podman) as it:
        await it.want(it.wanted("web", it.page(), restart=FAST_RESTART))
        before = await it.ready("web")
        await it.settle()
        await it.end_agent()
        it.nameless(before)
        await it.kill_engine()
        await it.platform.open()
        await it.phase("web", Phase.STARTING)
        await it.start_engine()
        after = await it.ready("web", timeout=30)
        assert (container_of(after), after.restarts) == (container_of(before), 0)


async def test_what_ended_while_the_engine_was_away_is_started_once_more_when_it_is_back(
    private_podman: PrivatePodman, tmp_path: Path
) -> None:
    async with pier(tmp_path, private_podman) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE))
        before = await it.ready("box")
        await it.settle()
        await it.kill_engine()
        os.kill(before.pid, signal.SIGKILL)
        await it.start_engine()
        (after,) = await it.until(
            "box", lambda all_: all_[0].phase is Phase.READY and container_of(all_[0]) != container_of(before), 30
        )
        assert after.restarts == 1
        assert it.there() == [container_of(after)]


async def test_a_service_that_no_deployment_waits_for_waits_for_its_engine_as_long_as_it_takes(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    async with pier(tmp_path, private_docker) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE), start_timeout=1.0)
        before = await it.ready("box")
        await it.settle()
        await it.end_agent()
        await asyncio.to_thread(private_docker.api, "DELETE", f"/containers/{container_of(before)}", force="1")
        it.nameless(before)
        await it.kill_engine()
        await it.platform.open()
        await it.until("box", lambda all_: all_ and "E014" in all_[0].note)
        (waiting,) = it.platform.instances("box")
        assert (waiting.phase, waiting.restarts) == (Phase.STARTING, 0)
        await it.start_engine()
        after = await it.ready("box", timeout=30)
        assert after.restarts == 0
        assert it.there() == [container_of(after)]


async def test_a_start_that_a_deployment_waits_for_is_e014_before_its_gate_is_over(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    async with pier(tmp_path, private_docker) as it:
        wanted = it.wanted("box", it.box(), **ALIVE)
        await it.kill_engine()
        await it.want(wanted, start_timeout=2.0)
        ended = await it.phase("box", Phase.EXITED, timeout=2.0)
        assert ended.note.startswith("E014")
        await it.stop(wanted)


async def test_a_start_that_only_waits_for_its_engine_is_taken_back_at_once(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    """Nothing can have come of it, so nobody has to be asked."""
    async with pier(tmp_path, private_docker) as it:
        box = it.wanted("box", it.box(), **ALIVE)
        await it.kill_engine()
        await it.want(box)
        await it.until("box", lambda all_: all_ and "being made" in all_[0].note)
        await it.take_away("box")
        await it.until("box", lambda all_: not all_, timeout=3.0)


async def test_a_stop_without_the_engine_says_so_and_is_done_when_it_is_back(
    private_podman: PrivatePodman, tmp_path: Path
) -> None:
    async with pier(tmp_path, private_podman) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE), it.wanted("other", sleeper()))
        await it.ready("box")
        await it.kill_engine()
        await it.take_away("box")
        unknown = await it.phase("box", Phase.UNKNOWN, timeout=20)
        assert unknown.note.startswith("E014")
        await it.start_engine()
        await it.until("box", lambda all_: not all_)
        assert it.there() == []


async def test_what_is_forgotten_by_force_goes_when_its_engine_is_back(
    private_podman: PrivatePodman, tmp_path: Path
) -> None:
    async with pier(tmp_path, private_podman) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE), it.wanted("kept", it.box(), **ALIVE))
        await it.ready("box")
        kept = await it.ready("kept")
        await it.kill_engine()
        await it.take_away("box", forget=True)
        await it.until("box", lambda all_: not all_, timeout=5.0)
        await it.start_engine()
        await it.eventually(lambda: it.there() == [container_of(kept)])


async def test_an_engine_that_hangs_does_not_keep_anybody_from_forgetting(
    private_docker: PrivateDocker, tmp_path: Path
) -> None:
    async with pier(tmp_path, private_docker) as it:
        await it.want(it.wanted("box", it.box(), **ALIVE))
        await it.ready("box")
        assert private_docker.record
        os.kill(private_docker.record.pid, signal.SIGSTOP)
        try:
            await it.take_away("box", forget=True, stop_timeout=0.5)
            await it.until("box", lambda all_: not all_, timeout=15.0)
        finally:
            os.kill(private_docker.record.pid, signal.SIGCONT)
        await it.end_agent()
        await it.platform.open()  # it finds nothing of its own to look at; whoever wants a container next does
        await it.want(it.wanted("next", it.box(), **ALIVE))
        after = await it.ready("next")
        await it.eventually(lambda: it.there() == [container_of(after)])


# --------------------------------------------------------------------------- ends, restarts, moves


async def test_a_crash_loop_opens_its_circuit_and_leaves_no_container_about(engine: Engine, tmp_path: Path) -> None:
    async with pier(tmp_path, engine) as it:
        await it.want(it.wanted("box", it.box("echo so; exit 3"), **ALIVE))
        await it.phase("box", Phase.EXITED)
        await it.settle()
        failed = await it.phase("box", Phase.FAILED, timeout=60)
        assert failed.circuit == "open" and failed.exit is not None and failed.exit.code == 3
        assert Path(failed.log_path).read_text() == "so\n" * (failed.restarts)
        await it.cleared()


async def test_what_ends_at_once_is_never_called_ready(engine: Engine, tmp_path: Path) -> None:
    async with pier(tmp_path, engine) as it:
        await it.want(it.wanted("box", it.box("exit 0"), **{**ALIVE, "min_ready_seconds": 0.01}))
        ended = await it.phase("box", Phase.EXITED)
        assert (ended.gate, ended.ready_at) == (Gate.WAITING, 0.0)
        assert "InstanceReady" not in it.events()


async def test_a_published_dynamic_port_is_kept_over_agents_and_restarts(docker: Docker, tmp_path: Path) -> None:
    async with pier(tmp_path, docker) as it:
        await it.want(it.wanted("web", it.page(dynamic=True), restart=FAST_RESTART))
        before = await it.ready("web")
        await it.end_agent()
        os.kill(before.pid, signal.SIGKILL)
        await it.platform.open()
        (after,) = await it.until("web", lambda all_: all_ and all_[0].phase is Phase.READY and all_[0].restarts == 1)
        assert (after.published, after.ports) == (before.published, {"8080": 8080})
        assert after.address == before.address


async def test_a_service_moves_to_another_engine_and_leaves_nothing_on_the_old_one(
    docker: Docker, podman: Podman, tmp_path: Path
) -> None:
    async with pier(tmp_path, docker) as it:
        await it.want(it.wanted("web", it.page()))
        await it.ready("web")
        moved = it.image("dc-test/web:1", podman, ports=(Port(container_port=8080),))
        new = it.wanted("web", moved, revision=2)
        await it.want(new)
        await it.until("web", lambda all_: [each.phase for each in all_ if each.revision == 2] == [Phase.READY])
        await it.take_away("web")
        (after,) = await it.until("web", lambda all_: len(all_) == 1)
        assert (it.there(docker), it.there(podman)) == ([], [container_of(after)])
