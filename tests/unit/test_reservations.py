"""What the engine sets aside for a deployment, over a machine of a known size."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from deploy_code.errors import PreflightError, StateError
from deploy_code.model import Content, Directories, Identity, Policy, Resources, ServiceSpec, Settings, Volume
from deploy_code.orchestrator.reserve import Reservations
from deploy_code.plan.plan import Goal, Plan, Want
from deploy_code.resources.ledger import Ledger
from deploy_code.resources.place import path_of
from support.ledgers import SMALL, LedgerProject, amount, holders, promises


def reservations(project: LedgerProject) -> Reservations:
    directories = Directories(state=str(project.folder), logs=str(project.data_dir))
    return Reservations(Identity(name=project.owner.name, directories=directories), capacity=SMALL)


def goals(resources: Resources, revision: int = 1) -> dict[str, Goal]:
    spec = ServiceSpec(name="web", content=Content(resources=resources), policy=Policy())
    return {"web": Goal(spec=spec, revision=revision, replicas=1)}


def plan(before: Resources | None, after: Resources) -> Plan:
    """From one running revision to the next, stop first."""
    steps = [Want(id="stop", service="web", revision=1, replicas=0)] if before else []
    steps.append(Want(id="start", service="web", revision=2, replicas=1))
    old = goals(before) if before else {}
    return Plan(project="shop", kind="deploy", steps=tuple(steps), before=old, after=goals(after, 2))


@pytest.fixture
def shop(tmp_path: Path) -> LedgerProject:
    return LedgerProject(tmp_path, "shop")


def test_from_reserve_to_settle(shop: LedgerProject, tmp_path: Path):
    mine = reservations(shop)
    assert mine.reserve(plan(None, amount(cpu=2, gpus=1)), Settings()) == []
    mine.settle(goals(amount(cpu=2, gpus=1)))
    assert mine.reserve(plan(amount(cpu=2, gpus=1), amount(cpu=1, gpus=2)), Settings()) == []
    assert promises(tmp_path) == {"shop/web": amount(cpu=2, gpus=2)}
    mine.settle(goals(amount(cpu=1, gpus=2)))
    assert promises(tmp_path) == {"shop/web": amount(cpu=1, gpus=2)}
    assert holders(tmp_path) == {"shop/web": (0, 1)}


def test_what_is_short_is_refused_checked_or_forced(shop: LedgerProject, tmp_path: Path):
    mine, large = reservations(shop), plan(None, amount(cpu=5))
    for refuse in (lambda: mine.check(large, Settings()), lambda: mine.reserve(large, Settings())):
        with pytest.raises(PreflightError, match="E004") as caught:
            refuse()
        assert [problem.code for problem in caught.value.problems] == ["E004"]
        assert promises(tmp_path) == {}
    [warning] = mine.reserve(large, Settings(), force=True)
    assert warning.startswith("E004 INSUFFICIENT_RESOURCES: cpu:") and warning.endswith("(forced)")
    assert promises(tmp_path) == {"shop/web": amount(cpu=5)}
    assert mine.reserve(large, Settings(), check=False) == []


def test_the_overcommit_of_the_settings_counts(shop: LedgerProject):
    reservations(shop).check(plan(None, amount(cpu=8)), Settings(overcommit={"cpu": 2.0}))


def test_a_check_leaves_nothing_behind(shop: LedgerProject, tmp_path: Path):
    reservations(shop).check(plan(None, amount(cpu=1)), Settings())
    assert not Ledger.is_there(str(tmp_path))


def test_who_needs_nothing_makes_no_ledger(shop: LedgerProject, tmp_path: Path):
    mine = reservations(shop)
    assert mine.reserve(plan(None, amount()), Settings()) == []
    mine.settle(goals(amount()))
    assert not Ledger.is_there(str(tmp_path))


def test_who_needs_nothing_any_more_gives_back_what_it_had(shop: LedgerProject, tmp_path: Path):
    mine = reservations(shop)
    mine.settle(goals(amount(cpu=1)))
    mine.settle(goals(amount()))
    assert promises(tmp_path) == {}


def test_a_new_project_in_the_folder_of_an_old_one_gives_back_what_that_had(shop: LedgerProject, tmp_path: Path):
    shop.settle(amount(cpu=1))
    mine = reservations(shop)
    mine.reserve(plan(None, amount()), Settings())
    mine.settle(goals(amount()))
    assert promises(tmp_path) == {}


def test_an_unchanged_project_confirms_what_is_written_down(shop: LedgerProject, tmp_path: Path):
    mine = reservations(shop)
    mine.confirm(goals(amount()))
    assert not Ledger.is_there(str(tmp_path)), "it asks for nothing"
    mine.confirm(goals(amount(cpu=1, gpus=1)))
    assert promises(tmp_path) == {"shop/web": amount(cpu=1, gpus=1)} and holders(tmp_path) == {"shop/web": (0,)}
    log = Path(f"{path_of(str(tmp_path))}-wal")
    before = log.read_bytes()
    mine.confirm(goals(amount(cpu=1, gpus=1)))
    assert log.read_bytes() == before, "nothing to write"


def test_nobody_waits_while_it_is_measured_how_full_the_disk_is(
    shop: LedgerProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A look at a large disk takes seconds, and all others would wait for the ledger."""
    blog, looked = LedgerProject(tmp_path, "blog"), []

    def size(folder: str, device: int, budget: int) -> tuple[int, int]:
        looked.append(folder)
        blog.settle(amount(cpu=1))
        return 5 << 30, 1

    monkeypatch.setattr("deploy_code.resources.written._size", size)
    volume = Volume(name="data", mount_path=str(tmp_path), read_only=False)
    content = Content(resources=amount(storage=50), volumes=(volume,))
    old = {"web": Goal(spec=ServiceSpec(name="web", content=content), revision=1, replicas=1)}
    new = {"web": Goal(spec=ServiceSpec(name="web", content=content), revision=1, replicas=2)}
    mine = reservations(shop)
    mine.settle(old)
    step = Want(id="start", service="web", revision=1, replicas=2)
    larger = Plan(project="shop", kind="scale", steps=(step,), before=old, after=new)
    with pytest.raises(PreflightError, match=r"storage: 50 GB more are needed \(web 50\), 5 of 55 GB are free"):
        mine.reserve(larger, Settings())
    assert looked == [str(tmp_path)]
    assert promises(tmp_path)["blog/web"] == amount(cpu=1)


def test_what_runs_since_before_there_was_a_ledger_is_not_refused(shop: LedgerProject, tmp_path: Path):
    """It is held, whatever is written down, and written down from now on."""
    LedgerProject(tmp_path, "blog").settle(amount(cpu=4))
    mine = reservations(shop)
    assert mine.reserve(plan(amount(cpu=2), amount(cpu=2)), Settings()) == []
    mine.settle(goals(amount(cpu=2)))
    assert promises(tmp_path)["shop/web"] == amount(cpu=2)


def test_allocations_by_name_of_the_same_project_are_not_its_services(shop: LedgerProject):
    with Ledger.open(str(shop.data_dir)) as ledger:
        ledger.allocate(shop.owner, "batch", amount(cpu=3), gpus=(), check=lambda _: None)
    with pytest.raises(PreflightError, match="shop/batch holds 3 cores"):
        reservations(shop).reserve(plan(None, amount(cpu=2)), Settings())


# --------------------------------------------------------------------------- a ledger that cannot be had


@pytest.fixture
def broken(shop: LedgerProject) -> LedgerProject:
    path = Path(path_of(str(shop.data_dir)))
    path.parent.mkdir()
    path.write_text("this is no database, and never was one")
    return shop


def test_without_a_ledger_who_asks_for_something_is_refused(broken: LedgerProject):
    with pytest.raises(StateError, match=r"ledger\.db"):
        reservations(broken).reserve(plan(None, amount(cpu=1)), Settings())


@pytest.mark.parametrize("how", [{"force": True}, {"check": False}], ids=str)
def test_without_a_ledger_force_and_skipping_warn(broken: LedgerProject, how: dict[str, bool]):
    [warning] = reservations(broken).reserve(plan(None, amount(cpu=1)), Settings(), **how)
    assert warning.startswith("nothing could be set aside: S005")


def test_without_a_ledger_who_asks_for_nothing_is_deployed(broken: LedgerProject):
    [warning] = reservations(broken).reserve(plan(None, amount()), Settings())
    assert warning.startswith("nothing could be set aside")
    assert reservations(broken).reserve(plan(amount(), amount()), Settings()) == [], "it is not even looked at"


def test_the_end_of_a_deployment_never_fails_for_the_ledger(broken: LedgerProject, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        reservations(broken).settle(goals(amount(cpu=1)))
    assert "could not be brought up to date" in caplog.text
