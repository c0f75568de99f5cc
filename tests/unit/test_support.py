"""The tools of the tests are tested too: a guard that sees nothing guards nothing."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from support import needs
from support.leftovers import kill, leftovers
from support.ports import answers, free_ports, free_range, is_free
from support.wait import wait_until


def sleeper(folder: Path, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], cwd=folder, env={**os.environ, **env}, start_new_session=True)


def test_a_process_of_the_project_is_found_and_killed(tmp_path: Path) -> None:
    with sleeper(tmp_path, DEPLOY_CODE_INSTANCE="u1") as process:
        left = wait_until(lambda: leftovers(tmp_path))
        assert [each.pid for each in left] == [process.pid]
        kill(left)
        assert process.wait() == -9
    assert not leftovers(tmp_path)


def test_a_process_that_only_writes_a_file_of_the_project_is_found(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["sleep", "60"], cwd="/", env={"DEPLOY_CODE_INSTANCE": "u1"}, stdout=log)
    with process:
        assert wait_until(lambda: leftovers(tmp_path))
        process.kill()


def test_strangers_and_other_projects_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    mine = tmp_path / "mine"
    other.mkdir(), mine.mkdir()
    with sleeper(mine) as stranger, sleeper(other, DEPLOY_CODE_INSTANCE="u2") as others:
        assert not leftovers(mine)
        stranger.kill(), others.kill()


def test_ports_are_free_and_never_handed_out_twice() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(20000 <= port < 32768 for port in ports)
    assert not any(answers(port) for port in ports)
    assert all(map(is_free, ports))


def test_a_range_of_ports_has_no_holes() -> None:
    first, last = free_range(10)
    assert last - first == 9


def test_waiting_gives_the_answer_and_says_what_it_waited_for_in_vain() -> None:
    answers_of = iter(["", "", "here"])
    assert wait_until(lambda: next(answers_of)) == "here"
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: a bus"):
        wait_until(lambda: False, 0.05, "a bus")
    assert time.monotonic() - started < 5


def test_a_missing_program_skips_with_its_package_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "find", lambda program: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install redis-server"):
        needs.need("redis-server")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install packages")
def test_in_ci_a_missing_program_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "find", lambda program: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="scripts/system-packages"):
        needs.need("redis-server")


def test_postgresql_is_found_off_the_path(pg_bin: Path) -> None:
    assert (pg_bin / "initdb").is_file()
