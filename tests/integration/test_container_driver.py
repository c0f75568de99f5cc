"""The container drivers against real engines, and what goes wrong with containers."""

from __future__ import annotations

import asyncio
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy_code.drivers.base import Running
from deploy_code.errors import DriverError
from deploy_code.model import Network, Port, Resources, Volume
from support.containers import IMAGE, Dock, container_order, dock, project_of
from support.engine_daemons import Engine
from support.loops import until
from support.ports import free_port


async def refusal(it: Dock, *words: str, **changes: Any) -> DriverError:
    container = {"network": it.network, **changes.pop("container", {})}
    with pytest.raises(DriverError) as caught:
        await it.start(container_order(it.engine, it.folder, *words, container=container, **changes))
    return caught.value


def page(address: str, port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


async def answers(address: str, port: int, path: str = "/") -> str:
    found: list[str] = []

    def ask() -> bool:
        with suppress(OSError):
            found.append(page(address, port, path))
        return bool(found)

    await until(ask, what=f"{address}:{port}")
    return found[0]


# --------------------------------------------------------------------------- starting


async def test_what_the_file_is_silent_about_is_the_image_s_own(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        order = container_order(engine, tmp_path, image="dc-test/checked:1", stop_signal="")
        running = await it.run(order)
        config = it.inspect(running)["Config"]
        assert (config["Entrypoint"], config["WorkingDir"], config["User"]) == (["/bin/sh", "-c"], "/data", "web")
        assert "FROM_IMAGE=yes" in config["Env"]
        assert config["StopSignal"] in ("SIGUSR1", "10")
        assert await answers(running.address, 8080) == "checked\n"


async def test_command_and_args_stand_in_the_place_of_entrypoint_and_command(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        both = await it.run(container_order(engine, tmp_path, "echo", "a b", "c", image="dc-test/checked:1"))
        alone = await it.run(container_order(engine, tmp_path, "pwd", image="dc-test/checked:1"))
        args = await it.run(container_order(engine, tmp_path, "", "echo of the entrypoint", image="dc-test/checked:1"))
        for running in (both, alone, args):
            assert (await it.driver.wait(running)).code == 0
        assert sorted(it.log().splitlines()) == ["/data", "a b c", "of the entrypoint"]


async def test_env_user_folder_and_rights_are_as_ordered(engine: Engine, tmp_path: Path) -> None:
    script = "id -u; pwd; echo $GREETING; touch /x 2>&1; touch /tmp/x && echo wrote; grep CapEff /proc/self/status"
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run(
            script,
            user="1000:1000",
            working_dir="/usr",
            env={"GREETING": "a=b c"},
            container={"read_only": True, "cap_drop": ("ALL",)},
            volumes=(Volume(name="tmp", mount_path="/tmp", tmpfs=True, size_mb=1),),
        )
        await it.driver.wait(running)
        lines = it.log().splitlines()
        assert lines[:3] == ["1000", "/usr", "a=b c"]
        assert "Read-only" in lines[3] or "Permission" in lines[3]
        assert lines[4] == "wrote"
        assert lines[5].split()[1] == "0" * 16


async def test_capabilities_are_added(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        script = "grep CapEff /proc/self/status"
        running = await it.run(script, container={"cap_drop": ("ALL",), "cap_add": ("NET_ADMIN",)})
        await it.driver.wait(running)
        assert int(it.log().split()[1], 16) == 1 << 12


async def test_limits_are_the_engine_s(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        resources = Resources(cpu_cores=0.5, memory_mb=64, pids=40)
        running = await it.run("sleep", resources=resources, container={"shm_size_mb": 8})
        host = it.inspect(running)["HostConfig"]
        assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 64 << 20, 64 << 20)
        assert (host["PidsLimit"], host["ShmSize"]) == (40, 8 << 20)
        assert await it.containers.differences(running, it.started_order(running)) == ()


async def test_it_is_labelled_for_us_and_for_compose(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        order = it.order("sleep", revision=7, container={"labels": {"team": "blue", "deploy-code.state": "/forged"}})
        labels = it.inspect(await it.run(order))["Config"]["Labels"]
        assert labels["team"] == "blue"
        assert (labels["deploy-code.state"], labels["deploy-code.instance"]) == (order.state, order.uuid)
        assert (labels["deploy-code.revision"], labels["com.docker.compose.service"]) == ("7", "api")
        assert labels["com.docker.compose.project"] == order.project


async def test_containers_of_a_project_find_each_other_by_name(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        web = container_order(
            engine, tmp_path, image="dc-test/web:1", service="web", revision=3, ports=(Port(container_port=8080),)
        )
        running = await it.run(web)
        assert await answers(running.address, running.ports["8080"]) == "v1\n"
        names = ("web", "web-r3", f"{web.project}-web-{web.index}")
        await it.driver.wait(await it.run("; ".join(f"nslookup -type=a {name}" for name in names)))
        assert it.log().count(f"Address: {running.address}\n") == 3, it.log()


async def test_it_reaches_this_machine_by_name(engine: Engine, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        async with dock(engine, tmp_path) as it:
            script = "for name in host.docker.internal host.containers.internal; do nc -w 5 $name PORT </dev/null; done"
            running = await it.run(script.replace("PORT", str(port)), container={"extra_hosts": {"db": "10.9.8.7"}})
            for _ in range(2):
                peer, _ = await asyncio.to_thread(server.accept)
                peer.close()
            await it.driver.wait(running)
            assert "db:10.9.8.7" in it.inspect(running)["HostConfig"]["ExtraHosts"]


async def test_ports_are_published_tcp_and_udp(engine: Engine, tmp_path: Path) -> None:
    tcp, udp = free_port(), free_port()
    async with dock(engine, tmp_path) as it:
        order = container_order(
            engine,
            tmp_path,
            image="dc-test/web:1",
            ports=(Port(container_port=8080, host_port=tcp), Port(container_port=8080, host_port=udp, protocol="udp")),
            published={"8080": tcp, "8080/udp": udp},
        )
        running = await it.run(order)
        assert running.published == {"8080": tcp, "8080/udp": udp}
        assert running.ports == {"8080": 8080, "8080/udp": 8080}
        assert await answers("127.0.0.1", tcp) == "v1\n"


async def test_on_the_host_s_network_it_is_as_a_process_is(engine: Engine, tmp_path: Path) -> None:
    port = free_port()
    async with dock(engine, tmp_path) as it:
        order = container_order(
            engine,
            tmp_path,
            image="dc-test/web:1",
            env={"PORT": str(port)},
            ports=(Port(host_port=port),),
            container={"network": Network(mode="Host")},
        )
        running = await it.run(order)
        assert (running.address, running.ports, running.published) == ("", {}, {})
        assert await answers("127.0.0.1", port) == "v1\n"
        assert it.ours("network") == []


def _mac(it: Dock, running: Running) -> str:
    networks = it.inspect(running)["NetworkSettings"]["Networks"]
    return str(networks[project_of(it.folder)]["MacAddress"])


async def test_a_restart_gets_its_address_back_and_another_if_that_is_taken(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        first = await it.run("sleep")
        await it.run("sleep")
        mac = _mac(it, first)
        await it.driver.stop(first, "SIGTERM", 5)
        again = await it.run(replace(it.started_order(first), address=first.address))
        assert again.address == first.address
        assert _mac(it, again) == mac, "who knows where it is need not learn it anew"
        other = await it.run("sleep", address=first.address)
        assert other.address not in ("", first.address)
        outside = await it.run("sleep", address="192.0.2.7")
        assert outside.address.rpartition(".")[0] == first.address.rpartition(".")[0]


async def test_ten_at_once_share_one_network(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        running = await asyncio.gather(*(it.run(it.order("sleep 100")) for _ in range(10)))
        assert len({each.address for each in running}) == 10
        assert it.ours("network") == [project_of(tmp_path)]
        assert all(await asyncio.gather(*(it.driver.find(each) for each in running)))


# --------------------------------------------------------------------------- volumes


async def test_named_volumes_outlive_containers_and_are_labelled(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        volumes = (Volume(name="data", mount_path="/keep"),)
        await it.driver.wait(first := await it.run("echo saved > /keep/file", volumes=volumes))
        await it.driver.sweep(first)
        await it.driver.wait(await it.run("cat /keep/file", volumes=volumes))
        assert it.log() == "saved\n"
        assert it.ours("volume") == [f"{project_of(tmp_path)}_data"]


async def test_folders_of_this_machine_are_mounted_and_may_be_read_only(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "seen"
    source.mkdir()
    (source / "note").write_text("hello\n")
    async with dock(engine, tmp_path, "Host") as it:
        volumes = (Volume(name="seen", mount_path="/seen", source=str(source), read_only=True),)
        await it.driver.wait(await it.run("cat /seen/note; touch /seen/x 2>&1; true", volumes=volumes))
        assert it.log().startswith("hello\n") and "Read-only" in it.log()


async def test_what_the_image_wants_kept_is_kept_in_a_volume_that_is_labelled(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        running = await it.run(container_order(engine, tmp_path, image="dc-test/checked:1"))
        (mount,) = it.inspect(running)["Mounts"]
        assert mount["Destination"] == "/data" and it.ours("volume") == [mount["Name"]]
        await it.driver.stop(running, "SIGKILL", 5)
        assert it.ours("volume") == [mount["Name"]], "a stop never removes data"


async def test_a_failed_start_leaves_neither_container_nor_volume(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        await refusal(it, "nonsense", image="dc-test/checked:1")
        assert (it.ours("container"), it.ours("volume")) == ([], [])


# --------------------------------------------------------------------------- refusals


async def test_a_missing_folder_is_s005_and_is_not_created(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        missing = str(tmp_path / "missing")
        error = await refusal(it, volumes=(Volume(name="m", mount_path="/m", source=missing),))
        assert error.code == "S005" and missing in str(error) and not os.path.exists(missing)


async def test_a_port_that_a_program_has_is_s004_and_names_it(engine: Engine, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        async with dock(engine, tmp_path) as it:
            ports = (Port(container_port=80, host_port=port),)
            error = await refusal(it, "sleep", "9", ports=ports, published={"80": port})
            assert error.code == "S004" and f"port {port} " in str(error)
            assert it.ours("container") == []


async def test_a_port_that_another_container_has_is_s004_and_names_it(engine: Engine, tmp_path: Path) -> None:
    port = free_port()
    async with dock(engine, tmp_path) as it:
        ports = {"ports": (Port(container_port=80, host_port=port),), "published": {"80": port}}
        await it.run("sleep", **ports)
        error = await refusal(it, "sleep", "9", **ports)
        assert error.code == "S004" and f"port {port} " in str(error)


@pytest.mark.parametrize(
    ("words", "changes", "code", "said"),
    [
        (["/bin"], {}, "E005", "/bin"),
        (["sh"], {"user": "nobody-knows"}, "E005", "nobody-knows"),
        (["sh"], {"container": {"cap_add": ("NONSENSE",)}}, "E005", "NONSENSE"),
        (["sh"], {"image": "no-such-image:1"}, "E003", "no-such-image:1"),
        (["./no-such"], {}, "E003", "no-such"),
    ],
)
async def test_what_cannot_be_started_is_said(
    engine: Engine, tmp_path: Path, words: list[str], changes: dict[str, object], code: str, said: str
) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        error = await refusal(it, *words, **changes)
        assert error.code == code and said in str(error), str(error)
        assert it.ours("container") == []


async def test_a_gpu_that_docker_cannot_give_is_said(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path) as it:
        error = await refusal(it, "sh", resources=Resources(gpu_count=1))
        assert "NVIDIA Container Toolkit" in str(error)


# --------------------------------------------------------------------------- names


@pytest.fixture
def stranger(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """Somebody else's container, with the name that ours is to have."""
    name = f"{project_of(tmp_path)}-api-r1-0"
    engine.api("POST", f"/containers/create?name={name}", {"Image": IMAGE, "Cmd": ["sleep", "100"]})
    engine.api("POST", f"/containers/{name}/start")
    yield name
    engine.api("DELETE", f"/containers/{name}", force="1")


async def test_a_stranger_s_container_of_our_name_is_never_touched(
    engine: Engine, tmp_path: Path, stranger: str
) -> None:
    async with dock(engine, tmp_path) as it:
        error = await refusal(it, "sh", index=0)
        assert error.code == "S002" and stranger in str(error)
        assert engine.api("GET", f"/containers/{stranger}/json")["State"]["Running"]


async def test_a_network_of_somebody_else_is_e010_and_is_never_touched(engine: Engine, tmp_path: Path) -> None:
    name = project_of(tmp_path)
    engine.api("POST", "/networks/create", {"Name": name})
    try:
        async with dock(engine, tmp_path) as it:
            error = await refusal(it, "sh")
            assert error.code == "E010" and name in str(error)
            await it.containers.tidy()
            assert engine.api("GET", f"/networks/{name}")["Name"] == name
    finally:
        engine.api("DELETE", f"/networks/{name}")


async def test_a_volume_of_somebody_else_is_s005(engine: Engine, tmp_path: Path) -> None:
    name = f"{project_of(tmp_path)}_data"
    engine.api("POST", "/volumes/create", {"Name": name})
    try:
        async with dock(engine, tmp_path, "Host") as it:
            error = await refusal(it, "sh", volumes=(Volume(name="data", mount_path="/data"),))
            assert error.code == "S005" and name in str(error)
    finally:
        engine.api("DELETE", f"/volumes/{name}")


async def test_what_an_earlier_start_left_makes_way(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        old = await it.run("sleep", index=0)
        new = await it.run("sleep", index=0)
        assert await it.driver.find(new) and not await it.driver.find(old)
        assert len(it.ours("container")) == 1


async def test_a_start_that_is_made_twice_takes_over_what_runs(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        order = it.order("sleep")
        first = await it.run(order)
        it.successor()
        again = await it.run(order)
        assert again.handler["container"] == first.handler["container"] and again.pid == first.pid


async def test_a_cidr_that_somebody_has_is_e010(engine: Engine, tmp_path: Path) -> None:
    name = f"{project_of(tmp_path)}-other"
    engine.api("POST", "/networks/create", {"Name": name, "IPAM": {"Config": [{"Subnet": "10.219.7.0/24"}]}})
    try:
        async with dock(engine, tmp_path) as it:
            error = await refusal(
                it, "sh", container={"network": Network(name=project_of(tmp_path), cidr="10.219.7.0/25")}
            )
            assert error.code == "E010" and "10.219.7.0/25" in str(error)
    finally:
        engine.api("DELETE", f"/networks/{name}")


async def test_the_network_s_cidr_is_the_file_s(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        network = Network(name=project_of(tmp_path), cidr="10.218.9.0/28", dns_servers=("10.218.9.3",))
        running = await it.run("sleep", container={"network": network})
        assert running.address.startswith("10.218.9.")
        assert "10.218.9.3" in it.inspect(running)["HostConfig"]["Dns"]


async def test_a_network_removed_meanwhile_is_made_anew(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        await it.driver.stop(await it.run("sleep"), "SIGTERM", 5)
        engine.api("DELETE", f"/networks/{project_of(tmp_path)}")
        assert await it.driver.find(await it.run("sleep"))


async def test_several_networks_of_our_name_become_one(docker: Engine, tmp_path: Path) -> None:
    name = project_of(tmp_path)
    for _ in range(3):  # as Docker makes them where several ask at once
        labels = {"deploy-code.state": str(tmp_path / "state")}
        docker.api("POST", "/networks/create", {"Name": name, "Labels": labels})
    async with dock(docker, tmp_path) as it:
        assert it.ours("network") == [name] * 3
        running = await it.run("sleep")
        assert it.ours("network") == [name] and running.address


async def test_tidy_removes_networks_that_nobody_is_on_and_no_others(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        running = await it.run("sleep")
        await it.containers.tidy()
        assert it.ours("network") == [project_of(tmp_path)]
        await it.driver.stop(running, "SIGTERM", 5)
        await it.containers.tidy()
        assert it.ours("network") == []


# --------------------------------------------------------------------------- ends


async def test_a_signal_from_outside_is_told(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        running = await it.run("sleep")
        docker.api("POST", f"/containers/{running.handler['container']}/kill", signal="SIGKILL")
        exit_ = await it.driver.wait(running)
        assert str(exit_) == "killed by SIGKILL"


async def test_a_container_removed_by_hand_has_ended_nobody_knows_how(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("sleep")
        waiting = asyncio.create_task(it.driver.wait(running))
        engine.api("DELETE", f"/containers/{running.handler['container']}", force="1")
        async with asyncio.timeout(10):
            exit_ = await waiting
        assert not exit_.ok
        assert not await it.driver.find(running) and await it.driver.sweep(running) == 0
        assert await it.driver.stop(running, "SIGTERM", 5)


async def test_out_of_memory_is_told(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("exec tail /dev/zero", resources=Resources(memory_mb=16))
        exit_ = await it.driver.wait(running)
        assert exit_.out_of_memory, exit_


async def test_a_paused_container_goes_on_to_stop(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("sleep")
        engine.api("POST", f"/containers/{running.handler['container']}/pause")
        assert await it.driver.find(running)
        assert await it.driver.stop(running, "SIGTERM", 10)


async def test_a_cancelled_start_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        for delay in (0.0, 0.05, 0.1, 0.2, 0.4):
            order = it.order("sleep 100")
            task = asyncio.create_task(it.driver.start(order))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            await it.driver.stop(it.containers.begun(order), "SIGKILL", 5)
        assert it.ours("container") == []


async def test_orphans_are_those_that_nobody_knows(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        known, lost, ended = await it.run("sleep"), await it.run("sleep"), await it.run("exit 0")
        await it.driver.wait(ended)
        it.successor()
        orphans = await it.containers.orphans({known.uuid})
        assert {each.uuid for each in orphans} == {lost.uuid, ended.uuid}
        for each in orphans:
            await it.driver.stop(each, "SIGTERM", 5)
        assert len(it.ours("container")) == 1 and await it.driver.find(known)


async def test_what_ended_unrecorded_tells_how(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        running = await it.run("echo said; exit 6", one_shot=True)
        await it.driver.wait(running)
        it.successor()
        found = (await it.driver.find_spawned([running.uuid]))[running.uuid]
        assert not await it.driver.find(found)
        assert (await it.driver.wait(found)).code == 6


async def test_all_processes_inside_are_its_own(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("sleep 100 & sleep 100 & setsid sleep 100 & wait")
        pids: tuple[int, ...] = ()

        async def look() -> bool:
            nonlocal pids
            pids = await it.driver.pids(running)
            return len(pids) == 4

        async with asyncio.timeout(10):
            while not await look():
                await asyncio.sleep(0.02)
        assert pids[0] == running.pid
        await it.driver.stop(running, "SIGKILL", 5)
        await until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


# --------------------------------------------------------------------------- probes inside


async def test_a_health_command_runs_inside(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("sleep")
        probe = it.containers.probe_command
        good = await probe(running, ["sh", "-c", "echo fine; test -e /bin/busybox"], timeout=5)()
        assert (good.ok, good.status, good.detail, good.kind) == (True, 0, "fine", "command")
        bad = await probe(running, ["sh", "-c", "echo no >&2; exit 3"], timeout=5)()
        assert (bad.ok, bad.status, bad.detail) == (False, 3, "exit code 3: no")
        missing = await probe(running, ["no-such-probe"], timeout=5)()
        assert not missing.ok and "no-such-probe" in missing.detail
        await it.driver.stop(running, "SIGTERM", 5)
        assert not (await probe(running, ["true"], timeout=5)()).ok


async def test_a_health_command_that_takes_too_long_is_killed_with_its_children(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("sleep")
        before = await it.driver.pids(running)
        result = await it.containers.probe_command(running, ["sh", "-c", "sleep 77 & sleep 78"], timeout=0.5)()
        assert not result.ok and result.detail == "no end within 0.5 s, killed" and result.duration < 5
        async with asyncio.timeout(5):
            while await it.driver.pids(running) != before:
                await asyncio.sleep(0.02)


# --------------------------------------------------------------------------- logs


async def test_the_log_is_whole_from_the_first_byte_to_the_last(engine: Engine, tmp_path: Path) -> None:
    count = 3000 if engine.kind == "docker" else 200  # Podman 4.3 itself loses lines of fast writers when it follows
    async with dock(engine, tmp_path, "Host") as it:
        script = f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); done; echo end >&2; printf unended"
        await it.driver.wait(await it.run(script))
        lines = it.log().splitlines()
        assert [line for line in lines if line.startswith("line")] == [f"line {number}" for number in range(count)]
        assert "end" in lines and "unended" in lines and it.log().endswith("\n")


async def test_long_lines_are_not_torn(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        await it.driver.wait(await it.run("head -c 50000 /dev/zero | tr '\\0' x; echo; echo after"))
        assert it.log() == "x" * 50000 + "\nafter\n"


async def test_the_next_agent_goes_on_in_the_log_where_the_last_one_was(engine: Engine, tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); usleep 5000; done"
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run(script)
        for count in (20, 60, 100):
            await until(lambda count=count: it.log().count("\n") > count)
            assert await it.successor().find(running)
        await it.driver.wait(running)
        assert it.log().splitlines() == [f"line {number}" for number in range(300)]


async def test_what_was_said_while_no_agent_was_there_is_in_the_log(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path, "Host") as it:
        running = await it.run("echo before; while [ ! -e /go ]; do usleep 10000; done; echo after; exit 4")
        await until(lambda: it.log() == "before\n")
        it.driver.close()
        exec_ = engine.api("POST", f"/containers/{running.handler['container']}/exec", {"Cmd": ["touch", "/go"]})
        engine.api("POST", f"/exec/{exec_['Id']}/start", {"Detach": True})
        await until(lambda: not it.inspect(running)["State"]["Running"])
        assert it.log() == "before\n"
        assert (await it.successor().wait(running)).code == 4
        assert it.log() == "before\nafter\n"


async def test_a_log_that_cannot_be_read_back_is_said_once(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        running = await it.run("echo lost", container={"log_driver": "none"})
        assert (await it.driver.wait(running)).code == 0
        assert [text for text in it.told if "cannot be read" in text] == it.told and len(it.told) == 1


async def test_positions_of_logs_go_with_their_containers(docker: Engine, tmp_path: Path) -> None:
    async with dock(docker, tmp_path, "Host") as it:
        running = await it.run("sleep")
        positions = lambda: [path for path in (tmp_path / "state").rglob("*") if path.is_file()]  # noqa: E731
        await until(positions)
        (position,) = positions()
        modes = [path.stat().st_mode & 0o777 for path in (position, position.parent, position.parent.parent)]
        assert modes == [0o600, 0o700, 0o700]
        await it.driver.stop(running, "SIGTERM", 5)
        assert positions() == []


# --------------------------------------------------------------------------- drift


async def test_what_runs_as_ordered_does_not_differ(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        port = free_port()
        order = container_order(
            engine,
            tmp_path,
            image="dc-test/checked:1",
            env={"SECRET": "s3cr3t"},
            user="web",
            working_dir="/tmp",
            resources=Resources(cpu_cores=1, memory_mb=64),
            ports=(Port(container_port=8080, host_port=port),),
            published={"8080": port},
            volumes=(
                Volume(name="data", mount_path="/data"),
                Volume(name="etc", mount_path="/hostetc", source="/etc", read_only=True),
                Volume(name="fast", mount_path="/fast", tmpfs=True, size_mb=1),
            ),
            container={"read_only": True, "cap_drop": ("NET_RAW",), "init": True},
        )
        running = await it.run(order)
        assert await it.containers.differences(running, order) == ()
        other = replace(order, env={"SECRET": "t0p"}, args=("x",), resources=Resources(cpu_cores=1, memory_mb=65))
        texts = await it.containers.differences(running, other)
        assert "env: its environment has another SECRET" in texts and "command: its arguments are others" in texts
        assert "limits: its memory limit is 64 MB and not 65 MB" in texts
        assert not any("s3cr3t" in text or "t0p" in text for text in texts)


async def test_what_was_changed_by_hand_is_told(engine: Engine, tmp_path: Path) -> None:
    async with dock(engine, tmp_path) as it:
        order = it.order("sleep")
        running = await it.run(order)
        container = running.handler["container"]
        engine.api("POST", f"/containers/{container}/pause")
        engine.api("POST", f"/networks/{project_of(tmp_path)}/disconnect", {"Container": container})
        texts = await it.containers.differences(running, order)
        assert texts == ("it is paused", f"network: it is not on the network {project_of(tmp_path)}")
        engine.api("DELETE", f"/containers/{container}", force="1")
        assert await it.containers.differences(running, order) == ("missing: its container was removed",)
