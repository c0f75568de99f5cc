"""Whose process is it? Told from tables written by hand, and from the real one."""

import os
import subprocess
import sys

from deploy_code.drivers.proctree import Claim, Ident, Proc, Table, boot_id, look_up

SELF = os.getpid()


def proc(pid: int, parent: int = 1, session: int = 0, at: int = 100, state: str = "S", threads: int = 1) -> Proc:
    return Proc(pid, parent, session or pid, state, threads, at)


def claim(pid: int = 500, at: int = 100, known: frozenset[Ident] = frozenset(), watched: bool = True) -> Claim:
    return Claim("", Ident(pid, at), known, watched)


def members(claimed: Claim, *procs: Proc) -> list[int]:
    return sorted(Table(procs).members(claimed))


def test_leader_children_and_grandchildren_belong_to_it() -> None:
    assert members(claim(), proc(500), proc(501, 500), proc(502, 501), proc(600)) == [500, 501, 502]


def test_a_session_belongs_to_it_even_without_its_leader() -> None:
    assert members(claim(), proc(501, 1, 500), proc(600)) == [501]


def test_a_session_that_a_child_opened_belongs_to_it_with_all_in_it() -> None:
    backend, detached = proc(501, 500), proc(502, 1, 501)
    assert members(claim(), proc(500), backend, detached) == [500, 501, 502]


def test_a_session_whose_leader_was_known_is_searched_after_its_end() -> None:
    assert members(claim(known=frozenset({Ident(501, 101)})), proc(502, 1, 501, at=105)) == [502]


def test_a_reused_pid_is_a_stranger() -> None:
    assert members(claim(at=100), proc(500, at=900), proc(501, 500, at=901)) == []


def test_a_known_pid_that_was_reused_is_a_stranger() -> None:
    assert members(claim(known=frozenset({Ident(501, 101)})), proc(501, at=900)) == []


def test_a_session_number_that_was_reused_is_a_stranger() -> None:
    stranger = proc(500, at=900)
    assert members(claim(), stranger, proc(501, 1, 500, at=901)) == []


def test_without_having_watched_the_leader_a_session_alone_proves_nothing() -> None:
    assert members(claim(watched=False), proc(501, 1, 500, at=901)) == []


def test_a_process_older_than_the_instance_is_not_in_its_session() -> None:
    assert members(claim(at=100), proc(501, 1, 500, at=50)) == []


def test_zombies_do_not_count() -> None:
    assert members(claim(), proc(500, state="Z"), proc(501, 1, 500)) == [501]


def test_a_process_whose_main_thread_left_is_alive() -> None:
    assert members(claim(), proc(500, state="Z", threads=3)) == [500]


def test_we_and_those_we_descend_from_are_never_touched() -> None:
    above, shell = proc(500), proc(os.getppid(), 500, 500)
    assert members(claim(), above, shell, proc(SELF, shell.pid, 500), proc(700, SELF, 500)) == []


def test_pid_1_is_never_touched() -> None:
    assert members(claim(pid=1, at=1), proc(1, 0, at=1), proc(500, 1)) == []


def test_our_other_children_do_not_belong_to_it() -> None:
    assert members(claim(), proc(SELF, 1), proc(500, SELF), proc(600, SELF)) == [500]


def test_a_name_with_spaces_and_parentheses_is_read() -> None:
    script = "import sys; open('/proc/self/comm', 'w').write('a) Z 1 (b'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as child:
        assert child.stdout and child.stdout.readline()
        found = look_up(child.pid)
        child.communicate()
    assert found and found.ppid == SELF and found.alive


def test_a_missing_process_is_none() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert look_up(child.pid) is None


def test_the_uuid_in_an_environment_is_found() -> None:
    env = {"DEPLOY_CODE_INSTANCE": "u-1", "XDEPLOY_CODE_INSTANCE": "u-2"}
    with subprocess.Popen(["/bin/cat"], stdin=-1, stdout=-1, env=env, start_new_session=True) as child:
        table = Table.scan()
        assert {name: found.pid for name, found in table.leaders(["u-1", "u-2"]).items()} == {"u-1": child.pid}
        child.communicate()


def test_this_boot_has_an_id() -> None:
    assert len(boot_id()) == 36
