"""What services use: real processes with children, files, restarts and deaths."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from time import time

import pytest

from deploy_code.agent.records import Records, statements
from deploy_code.drivers.proctree import boot_id
from deploy_code.errors import ServiceError
from deploy_code.model import Instance, Phase, Resources, Restart
from deploy_code.monitoring import MetricsCollector
from deploy_code.monitoring.collector import read_metrics
from deploy_code.reliability.circuit import Circuit, Reading
from deploy_code.state.connection import Connection
from deploy_code.state.store import FILE
from support.agents import FAST_RESTART, House, python, shell, sleeper
from support.groups import need_groups

MIB = 2**20


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


@pytest.fixture
def metrics(house: House) -> MetricsCollector:
    return MetricsCollector(str(house.state))


async def started(house: House, name: str, *children: Path) -> None:
    """Ready, recorded, and all its children begun."""
    await house.ready(name)
    await house.eventually(lambda: all(each.exists() and each.read_text() for each in children))
    await house.mirrored()


# --------------------------------------------------------------------------- the machine


async def test_the_machine_is_measured_without_any_project() -> None:
    system = await MetricsCollector().get_system_metrics()
    assert 0 <= system.cpu_usage <= 100
    assert 0 < system.memory_usage <= 100
    assert 0 < system.disk_usage <= 100
    assert 0 < system.cpu_count <= (os.cpu_count() or 1)
    assert 0 < system.memory_used_bytes < system.memory_total_bytes
    assert len(system.load_average) == 3


async def test_a_busy_machine_is_seen_to_be_busy(house: House, metrics: MetricsCollector) -> None:
    await house.want(house.wanted("burner", shell("while :; do :; done"), min_ready_seconds=0.05))
    await started(house, "burner")
    one_core = 100 / (os.cpu_count() or 1)
    async with asyncio.timeout(10):
        while (await metrics.get_system_metrics()).cpu_usage < one_core / 3:
            await asyncio.sleep(0.1)


async def test_a_folder_of_state_that_is_yet_to_be_made_is_no_obstacle(tmp_path: Path) -> None:
    state = str(tmp_path / "not" / "yet")
    collector = MetricsCollector(state)
    assert (await collector.get_system_metrics()).disk_total_bytes > 0
    assert await collector.get_all_service_metrics() == {}
    with pytest.raises(ServiceError, match=r"^S001 .*nothing was deployed"):
        await collector.get_service_metrics("api")
    assert "services" not in read_metrics(state)


async def test_alone_it_knows_no_services() -> None:
    with pytest.raises(ServiceError, match=r"^S001"):
        await MetricsCollector().get_service_metrics("api")


# --------------------------------------------------------------------------- services


async def test_children_count_however_they_cut_themselves_loose(
    house: House, metrics: MetricsCollector, tmp_path: Path
) -> None:
    burns, alone = tmp_path / "burns", tmp_path / "alone"
    script = (
        "sleep 1000 & sleep 1000 &"
        f"setsid sh -c 'echo $$ > {burns}; while :; do :; done' &"
        f"(setsid sh -c 'echo $$ > {alone}; exec sleep 1000' &) ;"
        "wait"
    )
    await house.want(house.wanted("tree", shell(script), min_ready_seconds=0.05))
    await started(house, "tree", burns, alone)
    first = await metrics.get_service_metrics("tree")
    assert first.processes == 5
    assert first.cpu_percent > 10, "the burning child is in"
    async with asyncio.timeout(10):
        while (second := await metrics.get_service_metrics("tree")).cpu_seconds <= first.cpu_seconds:
            await asyncio.sleep(0.1)
    assert second.uptime_seconds >= first.uptime_seconds > 0


async def test_what_cut_every_tie_is_counted_by_its_control_group(
    house: House, metrics: MetricsCollector, tmp_path: Path
) -> None:
    """No parent, no session and no env of its instance: only the group that its limit made tells whose it is."""
    need_groups()
    lost = tmp_path / "lost"
    script = f"(setsid env -i /bin/sh -c 'echo $$ > {lost}; exec /bin/sleep 1000' &); exec sleep 1000"
    content = shell(script, resources=Resources(memory_mb=64))
    await house.want(house.wanted("limited", content, min_ready_seconds=0.05))
    await started(house, "limited", lost)
    await house.end_agent()  # which knew it, too
    assert (await metrics.get_service_metrics("limited")).processes == 2


async def test_an_instance_of_no_process_is_up_all_the_same(house: House, metrics: MetricsCollector) -> None:
    """As custom service types may have them."""
    house.rewrite(
        Instance(
            uuid="custom",
            service="app",
            revision=1,
            index=0,
            phase=Phase.READY,
            boot_id=boot_id(),
            started_at=time() - 60,
        )
    )
    found = await metrics.get_service_metrics("app")
    assert found.uptime_seconds == pytest.approx(60, abs=10)
    assert (found.processes, found.cpu_percent, found.memory_bytes) == (0, 0.0, 0)


async def test_what_ended_children_used_is_not_lost(house: House, metrics: MetricsCollector, tmp_path: Path) -> None:
    done = tmp_path / "done"
    script = f"sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo x > {done}; exec sleep 1000"
    await house.want(house.wanted("worker", shell(script), min_ready_seconds=0.05))
    await started(house, "worker", done)
    found = await metrics.get_service_metrics("worker")
    assert found.cpu_seconds >= 0.05
    assert found.processes == 1


async def test_memory_that_forked_children_share_counts_once(
    house: House, metrics: MetricsCollector, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    script = (
        "import os, time; held = bytearray(os.urandom(1)) * (40 * 2**20)\n"
        "for _ in range(4):\n    if not os.fork():\n        time.sleep(1000)\n"
        f"open({str(ready)!r}, 'w').write('x'); time.sleep(1000)"
    )
    await house.want(house.wanted("forker", python(script), min_ready_seconds=0.05))
    await started(house, "forker", ready)
    found = await metrics.get_service_metrics("forker")
    assert found.processes == 5
    assert 40 * MIB < found.memory_bytes < 100 * MIB


async def test_open_files_are_counted(house: House, metrics: MetricsCollector, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"import time; held = [open('/dev/null') for _ in range(60)]; open({str(ready)!r}, 'w').write('x'); "
    await house.want(house.wanted("opener", python(script + "time.sleep(1000)"), min_ready_seconds=0.05))
    await house.want(house.wanted("plain", sleeper(), min_ready_seconds=0.05))
    await started(house, "opener", ready)
    await started(house, "plain")
    found = await metrics.get_all_service_metrics()
    opener, plain = found["opener"].open_files, found["plain"].open_files
    assert opener is not None and plain is not None
    assert opener >= plain + 60


async def test_each_instance_is_told_and_all_are_summed(house: House, metrics: MetricsCollector) -> None:
    await house.want(house.wanted("app", sleeper(), replicas=3, min_ready_seconds=0.05))
    await house.ready("app", count=3)
    await house.mirrored()
    found = await metrics.get_service_metrics("app")
    assert [each.index for each in found.instances] == [0, 1, 2]
    assert found.memory_bytes == sum(each.memory_bytes for each in found.instances) > 0
    assert found.processes == sum(each.processes for each in found.instances) == 3
    assert found.uptime_seconds == max(each.uptime_seconds for each in found.instances)
    assert found.circuit.state == "closed"


async def test_restarts_uptime_and_the_last_probe_are_told(house: House, metrics: MetricsCollector) -> None:
    await house.want(house.wanted("app", sleeper(), min_ready_seconds=0.05, restart=FAST_RESTART))
    first = await house.ready("app")
    os.kill(first.pid, signal.SIGKILL)
    await house.until("app", lambda found: found[0].phase is Phase.READY and found[0].pid != first.pid)
    await house.mirrored()
    found = await metrics.get_service_metrics("app")
    assert found.restarts == 1
    assert found.probe_seconds is not None and found.probe_seconds >= 0
    assert 0 < found.uptime_seconds < 10


async def test_an_open_circuit_is_told(house: House, metrics: MetricsCollector) -> None:
    loop = Restart(backoff_seconds=0.02, backoff_max_seconds=0.02, max_exits=2, cooldown_seconds=600)
    await house.want(house.wanted("app", shell("sleep 0.1; exit 4"), min_ready_seconds=0.05, restart=loop))
    failed = await house.phase("app", Phase.FAILED)
    await house.mirrored()
    found = await metrics.get_service_metrics("app")
    assert found.circuit == ("open", failed.next_start_at, "exit code 4")
    assert (found.processes, found.uptime_seconds, found.cpu_percent) == (0, 0.0, 0.0)


async def test_circuits_of_the_agent_are_told(house: House, metrics: MetricsCollector) -> None:
    records = Records(Connection(str(house.state / FILE), statements()), lambda error: None)
    records.save_circuit(Reading("the docker socket", Circuit.OPEN, 12.5, "refused"))
    await house.eventually(house.store.circuits)
    (found,) = await metrics.get_circuits()
    assert found == ("the docker socket", "open", 12.5, "refused")
    assert read_metrics(str(house.state))["circuits"] == [found._asdict()]
    await records.close()
    assert await metrics.get_circuits() == (), "an agent that ends takes its breakers along"
    assert await MetricsCollector().get_circuits() == ()


async def test_one_that_dies_between_two_looks_uses_nothing(house: House, metrics: MetricsCollector) -> None:
    await house.want(house.wanted("app", sleeper(), min_ready_seconds=0.05))
    instance = await house.ready("app")
    await house.end_agent()
    asked = asyncio.create_task(metrics.get_service_metrics("app"))
    os.kill(instance.pid, signal.SIGKILL)
    during = await asked
    assert during.cpu_percent == 0.0
    after = await metrics.get_service_metrics("app")
    assert (after.processes, after.memory_bytes, after.cpu_seconds, after.uptime_seconds) == (0, 0, 0.0, 0.0)


async def test_children_that_come_and_go_all_the_time_do_no_harm(house: House, metrics: MetricsCollector) -> None:
    script = "while :; do for i in 1 2 3 4 5 6 7 8; do true & done; /bin/true; wait; done"
    await house.want(house.wanted("busy", shell(script), min_ready_seconds=0.05))
    await started(house, "busy")
    for _ in range(20):
        found = await metrics.get_service_metrics("busy")
        assert found.processes >= 1


async def test_fifty_may_ask_at_once_and_the_loop_goes_on(house: House, metrics: MetricsCollector) -> None:
    await house.want(house.wanted("app", shell("while :; do :; done"), min_ready_seconds=0.05))
    await started(house, "app")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(*(metrics.get_service_metrics("app") for _ in range(50)))
    ticking.cancel()
    assert all(each.cpu_percent > 10 for each in found)
    assert ticks >= 5


async def test_an_unknown_name_is_told_with_those_there_are(house: House, metrics: MetricsCollector) -> None:
    await house.want(house.wanted("app", sleeper(), min_ready_seconds=0.05))
    await started(house, "app")
    with pytest.raises(ServiceError, match=r'^S001 .*"ap" in this project. It has app'):
        await metrics.get_service_metrics("ap")


async def test_plain_metrics_work_inside_a_running_loop_and_are_plain_data(house: House) -> None:
    await house.want(house.wanted("app", shell("while :; do :; done"), min_ready_seconds=0.05))
    await started(house, "app")
    data = read_metrics(str(house.state))
    assert json.loads(json.dumps(data)) == data
    assert {"cpu_percent", "memory_percent", "load_average", "disk_percent", "services", "circuits"} == data.keys()
    app = data["services"]["app"]
    assert app["cpu_percent"] > 10
    assert app["circuit"]["state"] == "closed"
    assert app["instances"][0]["processes"] == 1
