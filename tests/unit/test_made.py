"""What a process was made from, what its control group says, and whose a process is that no row knows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_code.drivers.base import Running
from deploy_code.drivers.group import Folder, Group
from deploy_code.drivers.made import MADE, differences, made_of, said
from deploy_code.drivers.proctree import strangers
from deploy_code.model import Content, Release, Resources

CONTENT = Content(
    command="serve",
    args=("--key", "s3cr3t"),
    env={"COLOUR": "blue", "TOKEN": "s3cr3t", "ADDRESS": "http://127.0.0.1:${PORT}"},
    user="web",
    working_dir="/srv",
)


def started(content: Content, pid: int = 2**22 + 1) -> Running:
    return Running(uuid="u1", pid=pid, start_time=1, boot_id="b", handler={MADE: made_of(content, "u1")})


def compared(was: Content, now: Content, pid: int = 2**22 + 1) -> list[str]:
    return list(differences(started(was, pid), said(now, "u1", "api")))


# --------------------------------------------------------------------------- what it was made from


def test_the_same_content_is_no_drift_whatever_else_of_the_service_changed() -> None:
    assert compared(CONTENT, replace(CONTENT, resources=Resources(storage_gb=1), files={"a": "b"})) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": "other"}, "command changed"),
        ({"args": ()}, "command changed"),
        ({"env": {}}, "env changed"),
        ({"inherit_env": True}, "env changed"),
        ({"user": ""}, "user changed"),
        ({"working_dir": "/"}, "working_dir changed"),
        ({"release": Release(source="/src", digest="d2")}, "it runs other code than its revision says"),
    ],
)
def test_each_part_is_told_by_its_name(change: dict[str, object], words: str) -> None:
    assert compared(CONTENT, replace(CONTENT, **change)) == [words]  # type: ignore[arg-type]


def test_without_a_note_of_its_start_nothing_is_claimed() -> None:
    unknown = replace(started(CONTENT), handler={})
    assert list(differences(unknown, said(replace(CONTENT, command="x"), "u1", "api"))) == []


def test_a_part_that_an_older_version_did_not_note_is_not_compared() -> None:
    noted = " ".join(each for each in made_of(CONTENT, "u1").split() if not each.startswith("env="))
    old = replace(started(CONTENT), handler={MADE: noted})
    assert list(differences(old, said(replace(CONTENT, env={}, user="x"), "u1", "api"))) == ["user changed"]


def test_what_is_noted_shows_no_secret_and_not_that_two_instances_share_one() -> None:
    one, other = made_of(CONTENT, "u1"), made_of(CONTENT, "u2")
    assert "s3cr3t" not in one
    assert not {*one.split()} & {*other.split()}


def test_the_note_of_a_start_reads_the_same_in_later_versions() -> None:
    """Processes outlive the version that started them: other digests for the same content would be a false alarm."""
    assert made_of(CONTENT, "0123456789abcdef") == (
        "command=50626f500f env=ebd09f16de user=b32cfc9dc4 working_dir=89968a7d3e release=7962960230"
    )


@given(
    env=st.dictionaries(st.text(min_size=1), st.text()),
    args=st.lists(st.text()).map(tuple),
    user=st.text(),
    name=st.text(min_size=1, max_size=80),
)
def test_noting_is_the_same_each_time_and_knows_no_order_of_variables(
    env: dict[str, str], args: tuple[str, ...], user: str, name: str
) -> None:
    content = Content(command="x", args=args, env=env, user=user)
    turned = replace(content, env=dict(reversed(env.items())))
    assert made_of(content, name) == made_of(turned, name)


# --------------------------------------------------------------------------- names of variables


@contextmanager
def process(script: str = "import time; print(flush=True); time.sleep(1000)", **env: str) -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def test_variables_are_told_by_name_where_the_process_shows_what_it_got() -> None:
    with process(COLOUR="red", TOKEN="s3cr3t", ADDRESS="http://127.0.0.1:80") as pid:
        assert compared(replace(CONTENT, env={"COLOUR": "red"}), CONTENT, pid) == ["env changed (COLOUR)"]


def test_a_program_that_wrote_over_its_env_leaves_no_names() -> None:
    assert compared(replace(CONTENT, env={}), CONTENT, pid=2) == ["env changed"], "a kernel thread shows none"


# --------------------------------------------------------------------------- limits


def group(folder: Path, *, unified: bool, **files: str) -> Group:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return Group([Folder(str(folder), unified)])


LIMITS = Resources(memory_mb=64, cpu_cores=0.5, pids=9)


def test_limits_of_version_2_are_read_in_the_kernels_words(tmp_path: Path) -> None:
    right = group(tmp_path / "a", unified=True, memory__max="67108864\n", cpu__max="50000 100000\n", pids__max="9\n")
    assert all(now == due for _, now, due in right.limits(LIMITS))
    assert len([*right.limits(LIMITS)]) == 3
    open_ = group(tmp_path / "b", unified=True, memory__max="max\n", cpu__max="max 100000\n", pids__max="max\n")
    assert [*open_.limits(LIMITS)] == [
        ("memory limit", "", "64 MB"),
        ("CPU limit", "", "0.5 cores"),
        ("limit of processes", "", "9"),
    ]


def test_limits_of_version_1_are_read_in_the_kernels_words(tmp_path: Path) -> None:
    memory = group(tmp_path / "m", unified=False, memory__limit_in_bytes="134217728\n")
    assert [*memory.limits(LIMITS)] == [("memory limit", "128 MB", "64 MB")]
    none = group(tmp_path / "n", unified=False, memory__limit_in_bytes="9223372036854771712\n")
    assert [*none.limits(LIMITS)] == [("memory limit", "", "64 MB")]
    cpu = group(tmp_path / "c", unified=False, cpu__cfs_quota_us="100000\n", cpu__cfs_period_us="100000\n")
    assert [*cpu.limits(LIMITS)] == [("CPU limit", "1 core", "0.5 cores")]
    open_ = group(tmp_path / "o", unified=False, cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert [*open_.limits(LIMITS)] == [("CPU limit", "", "0.5 cores")]


def test_what_was_not_asked_for_or_cannot_be_read_is_no_difference(tmp_path: Path) -> None:
    assert [*group(tmp_path / "a", unified=True, memory__max="1\n").limits(Resources(pids=9))] == []
    assert [*Group([Folder(str(tmp_path / "gone"), True)]).limits(LIMITS)] == []


# --------------------------------------------------------------------------- strangers

MARKS = {"DEPLOY_CODE_INSTANCE": "f00", "DEPLOY_CODE_SERVICE": "old"}


def test_what_carries_the_marks_of_a_project_and_is_no_instance_is_a_stranger(tmp_path: Path) -> None:
    with process(**MARKS, DEPLOY_CODE_STATE=str(tmp_path)) as pid:
        (found,) = strangers(str(tmp_path), known=())
        assert (found.uuid, found.service, found.leader.pid, found.processes) == ("f00", "old", pid, 1)
        assert strangers(str(tmp_path), known={"f00"}) == []
        assert strangers(str(tmp_path), known=(), leaders={pid}) == []


def test_another_project_and_whoever_says_no_project_are_none_of_ours(tmp_path: Path) -> None:
    with process(**MARKS, DEPLOY_CODE_STATE=f"{tmp_path}-2"), process(**MARKS):
        assert strangers(str(tmp_path), known=()) == []
        assert strangers("", known=()) == []


def test_all_processes_of_one_stranger_are_one(tmp_path: Path) -> None:
    child = "import time; print(flush=True); time.sleep(1000)"
    script = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(1000)"
    with process(script, **MARKS, DEPLOY_CODE_STATE=str(tmp_path)) as pid:
        (found,) = strangers(str(tmp_path), known=())
        assert (found.leader.pid, found.processes) == (pid, 2)
        os.killpg(pid, 9)


def test_neither_the_one_who_looks_nor_what_started_it_is_a_stranger(tmp_path: Path) -> None:
    """A command that is run inside an instance must not end itself."""
    script = f"from deploy_code.drivers.proctree import strangers; print(strangers({str(tmp_path)!r}, ()))"
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{script}"; true'],
        env={**os.environ, **MARKS, "DEPLOY_CODE_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]", done.stderr
