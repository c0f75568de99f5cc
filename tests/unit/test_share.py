"""What an agent has of the machine for its project alone."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy_code.agent.ports import PortBook
from deploy_code.agent.share import BLOCK, Share
from deploy_code.errors import DriverError
from deploy_code.model import Content, Instance, Resources, Wanted
from deploy_code.resources.ledger import Ledger
from deploy_code.resources.place import path_of
from deploy_code.wire import AGENT_LOCK
from support.ledgers import LedgerProject, amount, holders, promises
from support.ports import free_range


def share_of(project: LedgerProject) -> Share:
    return Share(str(project.folder), project.owner.name)


def book_of(share: Share, port_range: tuple[int, int]) -> PortBook:
    book = PortBook()
    book.lease = share.lease
    book.use(port_range)
    return book


def choose(book: PortBook, name: str) -> int:
    """As an instance does: chosen, then held."""
    number = book.choose()
    book.hold(name, [number])
    return number


def leased(data_dir: Path) -> dict[str, int]:
    with Ledger.open(str(data_dir)) as ledger:
        return ledger.leases()


def test_two_projects_choose_different_ports_of_one_range(tmp_path: Path):
    ports = free_range(12)
    shop = book_of(share_of(LedgerProject(tmp_path, "shop")), ports)
    blog = book_of(share_of(LedgerProject(tmp_path, "blog")), ports)
    mine = {choose(shop, f"s{n}") for n in range(6)}
    theirs = {choose(blog, f"b{n}") for n in range(6)}
    assert len(mine | theirs) == 12


def test_a_range_that_others_have_used_up_is_s004(tmp_path: Path):
    ports = free_range(2)
    first = LedgerProject(tmp_path, "shop")
    (first.folder / AGENT_LOCK).write_text(f"{os.getpid()}\n")
    shop, blog = book_of(share_of(first), ports), book_of(share_of(LedgerProject(tmp_path, "blog")), ports)
    assert {choose(shop, "a"), choose(shop, "b")} == set(range(ports[0], ports[1] + 1))
    with pytest.raises(DriverError, match="that is not another project's") as caught:
        blog.choose()
    assert caught.value.code == "S004"


def test_a_large_range_is_leased_in_blocks(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    asked = 0

    def counted(candidates, held):
        nonlocal asked
        asked += 1
        return share.lease(candidates, held)

    share = share_of(shop)
    book = PortBook()
    book.lease = counted
    book.use((20000, 25000))
    chosen = {choose(book, f"s{n}") for n in range(100)}
    assert len(chosen) == 100
    assert asked <= 4, "a handful of transactions, not one for each"
    assert leased(tmp_path)["shop"] <= 4 * BLOCK  # a stranger may sit on some


def test_a_new_agent_goes_on_with_what_the_old_one_leased(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    ports = free_range(8)
    choose(book_of(share_of(shop), ports), "a")
    before = leased(tmp_path)
    choose(book_of(share_of(shop), ports), "a")
    assert leased(tmp_path) == before


def test_given_back_they_are_leased_anew(tmp_path: Path):
    shop, ports = share_of(LedgerProject(tmp_path, "shop")), free_range(4)
    book = book_of(shop, ports)
    choose(book, "a")
    book.release("a")
    shop.give_back_ports()
    book.give_back()
    assert leased(tmp_path) == {}
    choose(book, "a")
    assert leased(tmp_path)["shop"] >= 1


def test_to_give_back_nothing_makes_no_ledger(tmp_path: Path):
    share_of(LedgerProject(tmp_path, "shop")).give_back_ports()
    assert not Ledger.is_there(str(tmp_path))


def broken(data_dir: Path) -> None:
    path = Path(path_of(str(data_dir)))
    path.parent.mkdir()
    path.write_text("this is no database, and never was one")


def test_without_a_ledger_ports_are_chosen_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    shop = LedgerProject(tmp_path, "shop")
    broken(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert choose(book_of(share_of(shop), free_range(3)), "a")
    assert "without regard to other projects" in caplog.text


# --------------------------------------------------------------------------- GPUs


def wanted(gpus: int) -> Wanted:
    return Wanted(service="web", revision=1, replicas=2, content=Content(resources=Resources(gpu_count=gpus)))


def instance(index: int) -> Instance:
    return Instance(uuid=f"u{index}", service="web", revision=1, index=index)


def test_an_instance_sees_its_own_devices(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=2))
    share, both = share_of(shop), [instance(0), instance(1)]
    share.instances = lambda: both
    shown = [share.gpu_env(wanted(1), each)["CUDA_VISIBLE_DEVICES"] for each in both]
    assert shown == ["0", "1"]


def test_who_asks_for_none_is_shown_what_there_is(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=2))
    assert share_of(shop).gpu_env(wanted(0), instance(0)) == {}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that knows two devices: there are none here."""
    driver = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: f"GPU {handle}",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=16 << 30, used=0),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=0),
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)  # type: ignore[arg-type]


def test_when_the_ledger_is_lost_nobody_is_shown_more_than_it_asked_for(two_gpus: None, tmp_path: Path):
    """Restarted over a new ledger it is written down again, and gets devices of its own."""
    shop, blog = LedgerProject(tmp_path, "shop"), LedgerProject(tmp_path, "blog")
    assert share_of(shop).gpu_env(wanted(1), instance(0))["CUDA_VISIBLE_DEVICES"] == "0"
    assert share_of(blog).gpu_env(wanted(1), instance(0))["CUDA_VISIBLE_DEVICES"] == ""
    assert promises(tmp_path) == {"shop/web": amount(gpus=2), "blog/web": amount(gpus=2)}, "two replicas each"
    assert holders(tmp_path) == {"shop/web": (0, 1)}


def test_a_restart_writes_nothing_so_that_a_full_disk_does_not_hinder_it(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    shop.reserve(amount(gpus=2))
    share = share_of(shop)
    first = share.gpu_env(wanted(1), instance(0))
    log = Path(f"{path_of(str(tmp_path))}-wal")
    before = log.read_bytes()
    assert share.gpu_env(wanted(1), instance(0)) == first
    assert log.read_bytes() == before


def test_who_was_deployed_before_there_was_a_ledger_goes_on_as_it_did(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    assert share_of(shop).gpu_env(wanted(1), instance(0)) == {}
    LedgerProject(tmp_path, "blog").reserve(amount(cpu=1))
    assert share_of(shop).gpu_env(wanted(1), instance(0)) == {}


def test_without_a_ledger_nobody_is_shown_the_devices_of_others(tmp_path: Path):
    shop = LedgerProject(tmp_path, "shop")
    broken(tmp_path)
    with pytest.raises(DriverError, match="cannot be told"):
        share_of(shop).gpu_env(wanted(1), instance(0))
