"""``ResourceManager`` as programs use it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploy_code.config import ResourceRequirements
from deploy_code.errors import PreflightError, ServiceError
from deploy_code.model import Resources
from deploy_code.resources import Capacity, ResourceManager
from deploy_code.resources.ledger import Ledger
from support.ledgers import LedgerProject, amount, child, promises

MACHINE = Capacity(cpu_cores=4.0, memory_mb=8192, storage_gb=100, gpus=(0, 1))


@pytest.fixture
def manager(tmp_path: Path) -> ResourceManager:
    return ResourceManager(tmp_path, capacity=MACHINE)


async def test_what_is_allocated_is_no_longer_available(manager: ResourceManager):
    made = await manager.allocate(
        "myapp", ResourceRequirements(cpu_cores=2.0, memory_mb=4096, storage_gb=50, gpu_count=1)
    )
    assert (made.name, made.cpu_cores, made.memory_mb, made.storage_gb, made.gpus) == ("myapp", 2.0, 4096, 50, (0,))
    assert manager.allocations() == [made]
    assert manager.available() == Capacity(cpu_cores=2.0, memory_mb=4096, storage_gb=50, gpus=(1,))


async def test_plain_resources_are_understood_too(manager: ResourceManager):
    assert (await manager.allocate("myapp", Resources(cpu_cores=1))).cpu_cores == 1


async def test_availability_is_asked_without_taking_anything(manager: ResourceManager):
    assert await manager.check_availability(Resources(cpu_cores=4.0))
    assert not await manager.check_availability(Resources(cpu_cores=4.5))
    assert not await manager.check_availability(Resources(gpu_count=3))
    assert manager.available() == MACHINE


async def test_too_much_is_e004_and_nothing_is_taken(manager: ResourceManager):
    await manager.allocate("first", Resources(memory_mb=6144))
    with pytest.raises(PreflightError, match="E004 INSUFFICIENT_RESOURCES") as caught:
        await manager.allocate("second", Resources(cpu_cores=1, memory_mb=4096))
    assert "memory: 4096 MB are needed, 2048 of 8192 MB are free (2048 MB short)" in str(caught.value)
    assert "/first holds 6144 MB" in str(caught.value)
    assert [each.name for each in manager.allocations()] == ["first"]


async def test_a_name_is_allocated_once(manager: ResourceManager):
    await manager.allocate("myapp", Resources(cpu_cores=1))
    with pytest.raises(ServiceError, match="S002"):
        await manager.allocate("myapp", Resources(cpu_cores=1))


async def test_released_by_name_or_by_allocation_it_is_free_again(manager: ResourceManager):
    await manager.allocate("one", Resources(cpu_cores=2, gpu_count=2))
    await manager.release("one")
    made = await manager.allocate("two", Resources(cpu_cores=2, gpu_count=2))
    await manager.release(made)
    assert manager.available() == MACHINE and manager.allocations() == []


async def test_to_release_what_is_not_there_is_s001(manager: ResourceManager):
    with pytest.raises(ServiceError, match="S001"):
        await manager.release("nothing")
    await manager.allocate("myapp", Resources(cpu_cores=1))
    with pytest.raises(ServiceError, match="There are: myapp"):
        await manager.release("nothing")


async def test_negative_amounts_are_refused(manager: ResourceManager):
    with pytest.raises(ValueError, match="negative"):
        await manager.allocate("myapp", Resources(cpu_cores=-1))
    assert manager.available() == MACHINE


@pytest.mark.parametrize("cores", [float("nan"), float("inf")])
async def test_amounts_without_end_are_refused(manager: ResourceManager, cores: float):
    with pytest.raises(ValueError, match="without end"):
        await manager.allocate("myapp", Resources(cpu_cores=cores))


async def test_what_is_counted_is_whole(manager: ResourceManager):
    with pytest.raises(TypeError):
        await manager.allocate("myapp", Resources(memory_mb=0.5))  # type: ignore[arg-type]


async def test_who_is_cancelled_while_it_asks_keeps_nothing(manager: ResourceManager, tmp_path: Path):
    """It waits in a thread for others, and a thread cannot be stopped."""
    with Ledger.open(str(tmp_path)) as ledger, ledger._change():
        asking = asyncio.create_task(manager.allocate("myapp", Resources(cpu_cores=1)))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert manager.allocations() == []


async def test_one_with_a_folder_of_its_own_is_apart_from_the_machine(tmp_path: Path):
    apart = ResourceManager(tmp_path / "apart", capacity=MACHINE)
    await apart.allocate("mine", Resources(cpu_cores=1))
    assert ResourceManager(capacity=MACHINE).available().cpu_cores == 4.0
    assert apart.available().cpu_cores == 3.0


async def test_overcommit_widens_all_but_gpus(tmp_path: Path):
    manager = ResourceManager(tmp_path, overcommit={"cpu": 2.0, "memory": 1.5}, capacity=MACHINE)
    await manager.allocate("myapp", Resources(cpu_cores=8, memory_mb=12000))
    assert manager.available() == Capacity(cpu_cores=0.0, memory_mb=288, storage_gb=100, gpus=(0, 1))


async def test_what_a_dead_process_held_is_free(tmp_path: Path, manager: ResourceManager):
    child(lambda: asyncio.run(ResourceManager(tmp_path, capacity=MACHINE).allocate("x", Resources(cpu_cores=4))))
    assert manager.available() == MACHINE
    assert (await manager.allocate("y", Resources(cpu_cores=4))).cpu_cores == 4


async def test_what_a_project_allocates_outlives_the_process_and_its_deployments(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    manager = ResourceManager(owner=shop.folder, capacity=MACHINE)
    made = await manager.allocate("batch", Resources(cpu_cores=1, gpu_count=1))
    assert made.owner == "shop" and made.by_name
    shop.reserve(amount(cpu=2))
    shop.settle(amount(cpu=2))
    assert promises(tmp_path) == {"shop/web": amount(cpu=2), "shop/batch!": amount(cpu=1, gpus=1)}
    again = ResourceManager(owner=shop.folder, capacity=MACHINE)
    assert {each.name: each.by_name for each in again.allocations()} == {"web": False, "batch": True}
    await again.release("batch")
    assert promises(tmp_path) == {"shop/web": amount(cpu=2)}


async def test_a_project_may_allocate_before_it_was_ever_deployed(tmp_path: Path):
    manager = ResourceManager(owner=tmp_path / "shop", capacity=MACHINE)
    await manager.allocate("batch", Resources(cpu_cores=1))
    assert [each.name for each in manager.allocations()] == ["batch"]


async def test_a_service_cannot_be_released_by_hand(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.settle(amount(cpu=2))
    with pytest.raises(ServiceError, match="S001"):
        await ResourceManager(owner=shop.folder, capacity=MACHINE).release("web")


async def test_everyone_is_shown_on_request(tmp_path: Path, manager: ResourceManager):
    LedgerProject(tmp_path, "shop").settle(amount(cpu=2))
    await manager.allocate("myapp", Resources(cpu_cores=1))
    assert [each.name for each in manager.allocations()] == ["myapp"]
    assert {each.name for each in manager.allocations(everyone=True)} == {"web", "myapp"}


async def test_alone_it_asks_this_machine_and_writes_where_this_user_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("DEPLOY_CODE_MACHINE_DIR")
    monkeypatch.setattr("deploy_code.state.places.DATA_DIR", str(tmp_path / "machine"))
    manager = ResourceManager()
    assert manager.available().cpu_cores > 0
    made = await manager.allocate("myapp", Resources(cpu_cores=0.25, memory_mb=16))
    assert (tmp_path / "machine/.machine/ledger.db").is_file()
    await manager.release(made)
