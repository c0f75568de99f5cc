"""What is promised to whom, and what is said when it is too much."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from deploy_code.errors import PreflightError, StateError
from deploy_code.model import Resources
from deploy_code.resources.capacity import Capacity
from deploy_code.resources.ledger import Ledger, Promise
from deploy_code.resources.owners import Owner, Process
from deploy_code.resources.place import path_of
from deploy_code.resources.recorded import Need
from deploy_code.resources.shortage import Request, shortages
from deploy_code.resources.written import here, written_gb
from deploy_code.wire import AGENT_LOCK
from support.ledgers import SMALL, LedgerProject, amount, anything, child, holders, promises

MACHINE = Capacity(cpu_cores=2.0, memory_mb=8192, storage_gb=100, gpus=(0, 1))


def promise(project: str, service: str, resources: Resources, **more: object) -> Promise:
    owner = Owner(id=f"/state/{project}", name=project, is_project=True)
    return Promise(owner=owner, service=service, resources=resources, **more)  # type: ignore[arg-type]


def said(*others: Promise, capacity: Capacity = MACHINE, **request: object) -> list[str]:
    found = shortages(capacity, Request(others=others, **request))  # type: ignore[arg-type]
    return [problem.message for problem in found]


# --------------------------------------------------------------------------- what E004 says


def test_it_says_what_is_short_by_how_much_and_who_holds_it():
    held = promise("shop", "web", amount(memory=4096)), promise("blog", "db", amount(memory=2048))
    assert said(*held, needs={"": amount(memory=6144)}) == [
        "memory: 6144 MB are needed, 2048 of 8192 MB are free (4096 MB short); shop/web holds 4096 MB, blog/db 2048 MB"
    ]


def test_all_that_is_short_is_said_at_once():
    needs = {"": amount(cpu=2.5, memory=9000, storage=101, gpus=3)}
    assert said(needs=needs) == [
        "cpu: 2.5 cores are needed, 2 of 2 cores are free (0.5 cores short); nobody holds any",
        "memory: 9000 MB are needed, 8192 of 8192 MB are free (808 MB short); nobody holds any",
        "storage: 101 GB are needed, 100 of 100 GB are free (1 GB short); nobody holds any",
        "gpu: 3 GPUs are needed, 2 of 2 GPUs are free (1 GPU short); nobody holds any",
    ]


def test_a_project_hears_which_of_its_services_want_more_than_they_have():
    needs = {"api": amount(cpu=1), "web": amount(cpu=2)}
    assert said(needs=needs, holds={"web": amount(cpu=1)}, label="shop") == [
        "cpu: 2 cores more are needed (api 1, web 1), 1 of 2 cores are free (1 core short); shop/web holds 1 core"
    ]


def test_many_holders_are_counted_and_not_all_named():
    held = [promise("shop", f"s{n}", amount(memory=1000 + n)) for n in range(8)]
    (text,) = said(*held, needs={"": amount(memory=1000)})
    assert text.endswith("; shop/s7 holds 1007 MB, shop/s6 1006 MB, shop/s5 1005 MB, shop/s4 1004 MB, "
                         "shop/s3 1003 MB and 3 more")  # fmt: skip


def test_what_is_held_by_force_beyond_what_there_is_leaves_nothing_and_not_less():
    held = promise("shop", "web", amount(cpu=5))
    assert said(held, needs={"": amount(cpu=1)}) == [
        "cpu: 1 core is needed, 0 of 2 cores are free (4 cores short); shop/web holds 5 cores"
    ]


def test_tenths_of_cores_add_up():
    needs = {f"s{n}": amount(cpu=0.1) for n in range(20)}
    assert said(needs=needs) == []


def test_what_is_held_already_is_never_too_much():
    large = amount(cpu=16, memory=1 << 20)
    assert said(needs={"web": large}, holds={"web": large}) == []
    assert said(needs={"web": amount(cpu=12, memory=1 << 19)}, holds={"web": large}) == []


def test_overcommit_promises_the_same_core_twice_and_never_the_same_gpu():
    needs = {"": amount(cpu=4, gpus=2)}
    assert said(needs=needs, overcommit={"cpu": 2.0, "gpu": 2.0}) == []
    assert said(needs={"": amount(cpu=5)}, overcommit={"cpu": 2.0}) == [
        "cpu: 5 cores are needed, 4 of 4 cores (overcommit 2) are free (1 core short); nobody holds any"
    ]
    holder = promise("ml", "train", amount(gpus=2), gpus=(0, 1))
    assert said(holder, needs={"": amount(gpus=1)}, overcommit={"cpu": 9.0}) == [
        "gpu: 1 GPU is needed, 0 of 2 GPUs are free (1 GPU short); ml/train holds 2 GPUs"
    ]


def test_data_that_a_service_wrote_into_its_own_volume_counts_once(tmp_path: Path):
    """What it was promised is taken anyway; that it has filled a part of it takes nothing from others."""
    volume = tmp_path / "volume"
    volume.mkdir()
    with open(volume / "data", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 30)
    holder = promise("shop", "db", amount(storage=60), folders=(str(volume),))
    assert written_gb([holder], str(tmp_path)) == 1
    full = Capacity(storage_gb=69)
    needs = {"": amount(storage=10)}
    assert said(holder, capacity=full, needs=needs) != []
    assert said(holder, capacity=full, needs=needs, written_gb=lambda: written_gb([holder], str(tmp_path))) == []


def test_what_many_have_written_is_summed_up_before_it_is_rounded(tmp_path: Path):
    half = 1 << 29
    folders = [tmp_path / name for name in "ab"]
    for each in folders:
        each.mkdir()
        with open(each / "data", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, half)
    holders = [promise("shop", each.name, amount(storage=1), folders=(str(each),)) for each in folders]
    assert written_gb(holders, str(tmp_path)) == 1


def test_what_lies_in_a_folder_of_two_services_counts_once(tmp_path: Path):
    with open(tmp_path / "data", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 30)
    both = [promise("shop", name, amount(storage=5), folders=(str(tmp_path),)) for name in "ab"]
    assert written_gb(both, str(tmp_path)) == 1


def test_disk_that_is_promised_elsewhere_takes_nothing_from_this_one(tmp_path: Path):
    away = promise("shop", "db", amount(cpu=1, storage=90), disk="/proc")
    near = promise("shop", "db", amount(cpu=1, storage=90), disk=str(tmp_path / "not/yet/there"))
    needs = {"": amount(storage=20)}
    assert said(*here([away], str(tmp_path)), needs=needs) == []
    assert said(*here([near], str(tmp_path)), needs=needs) != []
    assert here([away], str(tmp_path))[0].resources == amount(cpu=1)


def test_that_old_and_new_run_side_by_side_is_said(tmp_path: Path):
    request = Request(
        others=[], needs={"web": amount(cpu=3)}, holds={"web": amount(cpu=1)}, settled={"web": amount(cpu=2)}
    )
    (problem,) = shortages(MACHINE, request)
    assert problem.remedy == "old and new of web run side by side for a while; stop-first needs less"
    grown = Request(
        others=[], needs={"web": amount(cpu=3)}, holds={"web": amount(cpu=1)}, settled={"web": amount(cpu=3)}
    )
    assert shortages(MACHINE, grown)[0].remedy == ""


def test_no_more_than_was_promised_counts_as_written(tmp_path: Path):
    with open(tmp_path / "data", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 << 30)
    holder = promise("shop", "db", amount(storage=1), folders=(str(tmp_path), str(tmp_path / "gone")))
    assert written_gb([holder], str(tmp_path)) == 1


# --------------------------------------------------------------------------- the file


def test_only_its_owner_may_read_it(tmp_path: Path):
    LedgerProject(tmp_path, "shop").settle(amount(cpu=1))
    path = Path(path_of(str(tmp_path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_looking_creates_nothing(tmp_path: Path):
    assert Ledger.reader(str(tmp_path)) is None
    assert not Ledger.is_there(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_being_made_is_no_ledger_yet(tmp_path: Path):
    path = Path(path_of(str(tmp_path)))
    path.parent.mkdir()
    path.touch()
    assert Ledger.reader(str(tmp_path)) is None
    LedgerProject(tmp_path, "shop").settle(amount(cpu=1))
    assert promises(tmp_path) == {"shop/web": amount(cpu=1)}


def test_a_newer_ledger_is_left_alone(tmp_path: Path):
    import sqlite3
    from contextlib import closing

    Ledger.open(str(tmp_path)).close()
    with closing(sqlite3.connect(path_of(str(tmp_path)))) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="newer deploy-code"):
        Ledger.open(str(tmp_path))
    with pytest.raises(StateError, match="newer deploy-code"):
        Ledger.reader(str(tmp_path))


# --------------------------------------------------------------------------- deployments


def test_old_and_new_are_both_held_until_the_deployment_is_over(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.settle(amount(cpu=2, memory=100))
    shop.reserve(amount(cpu=1, memory=500))
    assert promises(tmp_path) == {"shop/web": amount(cpu=2, memory=500)}
    shop.settle(amount(cpu=1, memory=500))
    assert promises(tmp_path) == {"shop/web": amount(cpu=1, memory=500)}


def test_a_refused_deployment_changes_nothing(tmp_path: Path):
    shop, blog = LedgerProject(tmp_path, "shop"), LedgerProject(tmp_path, "blog")
    shop.settle(amount(cpu=3))
    with pytest.raises(PreflightError, match="E004"):
        blog.reserve(amount(cpu=2, memory=10))
    assert promises(tmp_path) == {"shop/web": amount(cpu=3)}


def test_what_a_process_set_aside_and_did_not_record_is_free_when_it_has_died(tmp_path: Path):
    shop, blog = LedgerProject(tmp_path, "shop"), LedgerProject(tmp_path, "blog")
    child(lambda: shop.reserve(amount(cpu=4)))
    assert promises(tmp_path) == {}
    blog.reserve(amount(cpu=4))
    assert promises(tmp_path) == {"blog/web": amount(cpu=4)}


def test_gpus_that_a_dead_process_set_aside_are_seen_to_be_free_at_once(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    number = shop.begin(amount(cpu=1, gpus=1))
    shop.finish(number)
    shop.reserve(amount(cpu=1, gpus=1))
    shop.settle(amount(cpu=1, gpus=1))
    child(lambda: shop.reserve(amount(cpu=1, gpus=3)))
    assert holders(tmp_path) == {"shop/web": (0,)}
    LedgerProject(tmp_path, "blog").reserve(amount(gpus=2))
    assert holders(tmp_path) == {"shop/web": (0,), "blog/web": (1, 2)}


def test_an_interrupted_deployment_keeps_what_it_set_aside_until_it_is_undone(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    child(lambda: (shop.reserve(amount(cpu=4)), shop.begin(amount(cpu=4))))
    assert promises(tmp_path) == {"shop/web": amount(cpu=4)}
    with pytest.raises(PreflightError):
        LedgerProject(tmp_path, "blog").reserve(amount(cpu=1))
    shop.finish(1, rolled_back=True)
    shop.settle(amount())
    assert promises(tmp_path) == {}


def test_a_deployment_that_ended_and_died_before_the_ledger_heard_of_it_is_put_right_from_the_state(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")

    def work() -> None:
        shop.reserve(amount(cpu=3))
        shop.finish(shop.begin(amount(cpu=3)))

    child(work)
    assert promises(tmp_path) == {"shop/web": amount(cpu=3)}
    LedgerProject(tmp_path, "blog").reserve(amount(cpu=1))
    assert promises(tmp_path) == {"shop/web": amount(cpu=3), "blog/web": amount(cpu=1)}


def test_a_project_whose_state_is_gone_holds_nothing(tmp_path: Path):
    shop, blog = LedgerProject(tmp_path, "shop"), LedgerProject(tmp_path, "blog")
    shop.settle(amount(cpu=4))
    shutil.rmtree(shop.folder)
    assert promises(tmp_path) == {}
    blog.reserve(amount(cpu=4))
    with Ledger.open(str(tmp_path)) as ledger:
        assert [each.owner.name for each in ledger.promises()] == ["blog"]


def test_a_pid_that_another_process_has_by_now_is_not_the_old_owner():
    now = Process.current()
    assert now.is_alive
    assert not now._replace(start_time=now.start_time - 1).is_alive
    assert not now._replace(boot_id="of the last boot").is_alive
    assert not Process(0, 0, "").is_alive


# --------------------------------------------------------------------------- GPUs


def give(data_dir: Path, project: LedgerProject, revision: int, index: int, count: int, *alive: tuple[int, int]):
    with Ledger.open(str(data_dir)) as ledger:
        return ledger.assign_gpus(project.owner, "web", (revision, index), count, alive)


def test_instances_of_a_service_get_devices_of_their_own_and_keep_them(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=2))
    assert give(tmp_path, shop, 1, 0, 1) == (0,)
    assert give(tmp_path, shop, 1, 1, 1, (1, 0), (1, 1)) == (1,)
    assert give(tmp_path, shop, 1, 1, 1, (1, 0), (1, 1)) == (1,)
    assert give(tmp_path, shop, 1, 0, 1, (1, 0), (1, 1)) == (0,)


def test_a_new_revision_takes_over_what_the_old_one_left(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=1))
    assert give(tmp_path, shop, 1, 0, 1) == (0,)
    assert give(tmp_path, shop, 2, 0, 1, (1, 0)) == ()  # while the old one is there
    assert give(tmp_path, shop, 2, 0, 1) == (0,)


def test_no_instance_gets_more_than_its_service_was_promised(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=5), check=anything)
    assert give(tmp_path, shop, 1, 0, 5) == SMALL.gpus


def test_a_shrunken_promise_gives_back_what_no_instance_has(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=3))
    shop.settle(amount(gpus=3))
    give(tmp_path, shop, 1, 2, 1)
    shop.settle(amount(gpus=1))
    assert holders(tmp_path) == {"shop/web": (0,)}, "the device in use stays, the idle ones go"


def test_a_device_in_use_is_given_back_when_its_instance_is_gone(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=2))
    first, second = give(tmp_path, shop, 1, 0, 1), give(tmp_path, shop, 1, 1, 1, (1, 0))
    shop.settle(amount(gpus=1))
    assert holders(tmp_path) == {"shop/web": (*first, *second)}, "both still run"
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_gpus(shop.owner, {"web": {(1, 1)}})
    assert holders(tmp_path) == {"shop/web": second}


def test_nothing_promised_is_no_device(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=2))
    give(tmp_path, shop, 1, 0, 2)
    shop.settle(amount())
    assert holders(tmp_path) == {}


# --------------------------------------------------------------------------- ports


def lease(data_dir: Path, project: LedgerProject, candidates: range, count: int, *held: int) -> set[int]:
    with Ledger.open(str(data_dir)) as ledger:
        return ledger.lease_ports(project.owner, candidates, count, held)


def test_two_projects_lease_different_ports(tmp_path: Path):
    shop, blog = LedgerProject(tmp_path, "shop"), LedgerProject(tmp_path, "blog")
    (shop.folder / AGENT_LOCK).write_text(f"{os.getpid()}\n")
    assert lease(tmp_path, shop, range(10, 20), 3) == {10, 11, 12}
    assert lease(tmp_path, blog, range(10, 20), 3) == {13, 14, 15}
    assert lease(tmp_path, shop, range(10, 20), 9) == {10, 11, 12, 16, 17, 18, 19}
    assert lease(tmp_path, blog, range(10, 20), 1) == {13, 14, 15}


def test_ports_in_use_are_leased_whatever_was_written_down(tmp_path: Path):
    shop, blog = LedgerProject(tmp_path, "shop"), LedgerProject(tmp_path, "blog")
    assert lease(tmp_path, shop, range(10, 20), 1, 11) == {10, 11}
    assert lease(tmp_path, blog, range(10, 13), 3, 11) == {12}


def test_ports_are_free_when_they_are_given_back_or_the_project_is_gone(tmp_path: Path):
    shop, blog = LedgerProject(tmp_path, "shop"), LedgerProject(tmp_path, "blog")
    lease(tmp_path, shop, range(10, 12), 2)
    with Ledger.open(str(tmp_path)) as ledger:
        assert ledger.leases() == {"shop": 2}
        ledger.release_ports(shop.owner)
    assert lease(tmp_path, blog, range(10, 12), 2) == {10, 11}
    shutil.rmtree(blog.folder)
    assert lease(tmp_path, shop, range(10, 12), 2) == {10, 11}


def test_ports_of_projects_that_no_agent_keeps_are_free_when_no_others_are(tmp_path: Path):
    kept, deserted, asking = (LedgerProject(tmp_path, name) for name in ("kept", "deserted", "asking"))
    (kept.folder / AGENT_LOCK).write_text(f"{os.getpid()}\n")
    (deserted.folder / AGENT_LOCK).write_text("0\n")
    assert lease(tmp_path, kept, range(10, 20), 3) == {10, 11, 12}
    assert lease(tmp_path, deserted, range(10, 20), 3) == {13, 14, 15}
    assert lease(tmp_path, asking, range(10, 20), 3) == {16, 17, 18}, "as long as there are others"
    assert lease(tmp_path, asking, range(10, 20), 3) == {16, 17, 18, 19}
    assert lease(tmp_path, asking, range(10, 20), 2) == {13, 14, 16, 17, 18, 19}
    assert lease(tmp_path, asking, range(10, 20), 9) == set(range(13, 20))
    assert lease(tmp_path, asking, range(10, 20), 9) == set(range(13, 20))


def test_a_ledger_that_was_deleted_leaves_nothing_to_the_next(tmp_path: Path):
    LedgerProject(tmp_path, "shop").settle(amount(cpu=1))
    Path(path_of(str(tmp_path))).unlink()
    assert promises(tmp_path) == {}
    LedgerProject(tmp_path, "blog").settle(amount(cpu=2))
    assert promises(tmp_path) == {"blog/web": amount(cpu=2)}


def test_a_ledger_whose_making_was_broken_off_is_made_anew(tmp_path: Path):
    path = Path(path_of(str(tmp_path)))
    path.parent.mkdir()
    path.with_name("ledger.db.new").write_text("half of it")
    LedgerProject(tmp_path, "shop").settle(amount(cpu=1))
    assert promises(tmp_path) == {"shop/web": amount(cpu=1)}
    assert not path.with_name("ledger.db.new").exists()


def test_what_was_settled_without_its_gpus_gets_them(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.settle(amount(gpus=2))
    with Ledger.open(str(tmp_path)) as ledger:
        needs = {"web": Need(amount(gpus=2))}
        assert not ledger.agrees(shop.owner, needs)
        ledger.settle(shop.owner, needs, gpus=(0, 1, 2))
        assert ledger.agrees(shop.owner, needs)
    assert holders(tmp_path) == {"shop/web": (0, 1)}


def test_needs_of_nothing_are_not_written_down(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.settle(shop.owner, {"web": Need(amount())})
        assert ledger.promises() == [] and not ledger.owns(shop.owner)
