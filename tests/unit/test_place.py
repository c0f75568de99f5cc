"""Where it is written down what of this machine is promised."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy_code.resources.place import FOLDER, OVERRIDE, machine_dir
from deploy_code.state import places

NOBODY = 65534


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands for /var/lib/deploy-code; the user's own folder is not to be had."""
    monkeypatch.setattr(places, "DATA_DIR", str(tmp_path / "machine"))
    monkeypatch.setattr(places, "state_home", lambda environ: str(tmp_path / "user"))
    return tmp_path / "machine"


def test_one_place_for_projects_wherever_their_data_is(machine: Path, tmp_path: Path):
    assert {machine_dir(str(tmp_path / name), {}) for name in ("a", "b")} == {str(machine)}
    assert not machine.exists(), "looking creates nothing"


def test_it_can_be_moved(machine: Path):
    assert machine_dir("/data", {OVERRIDE: "/elsewhere"}) == "/elsewhere"
    assert machine_dir("/data", {OVERRIDE: "not/absolute"}) == str(machine)


def test_who_may_not_write_there_has_a_place_at_home(machine: Path, tmp_path: Path):
    machine.write_text("a file is no folder that one could write in")
    assert machine_dir("/data", {}) == str(tmp_path / "user/deploy-code")


def test_who_has_no_home_that_can_be_written_keeps_it_beside_the_data(machine: Path, tmp_path: Path):
    machine.touch()
    (tmp_path / "user").touch()
    assert machine_dir("/data", {}) == "/data"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else")
@pytest.mark.parametrize("planted", ["folder", "link"])
def test_what_another_user_has_put_there_is_not_used(machine: Path, tmp_path: Path, planted: str):
    machine.mkdir()
    if planted == "folder":
        (machine / FOLDER).mkdir(mode=0o777)
    else:
        (machine / FOLDER).symlink_to(tmp_path)
    os.chown(machine / FOLDER, NOBODY, NOBODY, follow_symlinks=False)
    assert machine_dir("/data", {}) == str(tmp_path / "user/deploy-code")


def test_the_variables_of_a_shell_do_not_decide_where_an_agent_looks(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    machine.touch()
    monkeypatch.undo()
    monkeypatch.setattr(places, "DATA_DIR", str(machine))
    one, other = ({"HOME": f"/home/{name}", "XDG_STATE_HOME": f"/state/{name}"} for name in "ab")
    assert machine_dir("/data", one) == machine_dir("/data", other)
