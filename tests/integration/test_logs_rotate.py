"""Rotation: not a byte lost or doubled, whoever writes, reads or dies meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy_code.errors import StateError
from deploy_code.logs import rotate
from deploy_code.logs.position import Position, read_position
from deploy_code.logs.rotate import Rotator
from deploy_code.logs.stream import LogStream, data_begins
from support.logs import content, memory_folder, numbered

KB64 = 64 * 1024


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where heads can be collapsed (ext4, xfs), and where they can only become holes (tmpfs)."""
    if request.param == "disk":
        yield tmp_path
    else:
        with memory_folder() as made:
            yield made


def archives(log: Path) -> list[Path]:
    """Oldest first."""
    found = [path for path in log.parent.glob(f"{log.name}.*") if path.suffix[1:].isdigit()]
    return sorted(found, key=lambda path: -int(path.suffix[1:]))


def as_files(log: Path) -> bytes:
    """The files one after the other, as cat(1) would show them, without the hole."""
    live = log.read_bytes()[data_begins(str(log)) :]
    return b"".join(path.read_bytes() for path in archives(log)) + live


def test_a_small_log_is_left_alone(folder: Path) -> None:
    log = folder / "api.0.log"
    rotator = Rotator(log, max_bytes=KB64)
    assert not rotator.is_due() and rotator.rotate() == 0
    log.write_bytes(b"x" * KB64)
    assert not rotator.is_due() and rotator.rotate() == 0
    assert [path.name for path in folder.iterdir()] == [log.name]


def test_what_is_archived_and_what_is_live_are_the_log(folder: Path) -> None:
    log = folder / "api.0.log"
    written = numbered(1, 60_000)
    log.write_bytes(written)
    rotator = Rotator(log, max_bytes=KB64, keep=9)
    assert rotator.is_due()
    assert rotator.rotate() == 5
    assert not rotator.is_due()
    assert as_files(log) == content(log) == written
    assert LogStream(log).bounds() == (0, len(written))


def test_archives_take_the_room_that_the_head_gave_back(folder: Path) -> None:
    log = folder / "api.0.log"
    log.write_bytes(b"x" * 1_000_000)
    Rotator(log, max_bytes=KB64, keep=20).rotate()
    assert log.stat().st_blocks * 512 <= 2 * KB64


def test_only_so_many_archives_are_kept(folder: Path) -> None:
    log = folder / "api.0.log"
    written = numbered(1, 60_000)
    log.write_bytes(written)
    Rotator(log, max_bytes=KB64, keep=2).rotate()
    assert [path.suffix for path in archives(log)] == [".2", ".1"]
    assert written.endswith(content(log)) and len(content(log)) > 2 * KB64
    start, end = LogStream(log).bounds()
    assert (end, end - start) == (len(written), len(content(log)))


def test_archives_are_as_private_as_the_log(folder: Path) -> None:
    log = folder / "api.0.log"
    log.write_bytes(b"x" * 200_000)
    log.chmod(0o640)
    Rotator(log, max_bytes=KB64).rotate()
    assert {path.stat().st_mode & 0o777 for path in archives(log)} == {0o640}


def test_what_is_written_between_two_rotations_is_kept(folder: Path) -> None:
    log = folder / "api.0.log"
    rotator = Rotator(log, max_bytes=KB64, keep=50)
    with open(log, "ab", buffering=0) as service:
        for begin in range(1, 200_001, 20_000):
            service.write(numbered(begin, begin + 19_999))
            rotator.rotate()
    assert as_files(log) == content(log) == numbered(1, 200_000)


@pytest.mark.parametrize("lines", [1_500_000])
def test_nothing_is_lost_or_doubled_while_a_service_writes_at_full_speed(folder: Path, lines: int) -> None:
    log = folder / "api.0.log"
    expected = b"".join(b"%d\n" % number for number in range(1, lines + 1))
    rotator, stream, read, rounds = Rotator(log, max_bytes=4 * KB64, keep=1000), LogStream(log), bytearray(), 0
    with open(log, "ab") as file:
        service = subprocess.Popen(["seq", "1", str(lines)], stdout=file)
    running = True
    while running or len(read) < len(expected):
        running = running and service.poll() is None
        rounds += rotator.rotate()
        begins, data = stream.read(len(read), 300_000)
        assert begins == len(read)
        read += data
    assert service.returncode == 0
    rounds += rotator.rotate()
    assert rounds > 20
    assert read == expected
    assert as_files(log) == expected


def test_readers_in_another_process_see_every_byte_while_it_rotates(folder: Path) -> None:
    log = folder / "api.0.log"
    log.write_bytes(b"")
    lines = 400_000
    size = len(numbered(1, lines))
    source = f"""
import sys; sys.path[:0] = {sys.path!r}
from deploy_code.logs.stream import LogStream
stream, read = LogStream({str(log)!r}), b""
while len(read) < {size}:
    begins, data = stream.read(len(read), 50_000)
    assert begins == len(read)
    read += data
sys.exit(read != b"".join(b"%d\\n" % number for number in range(1, {lines} + 1)))
"""
    reader = subprocess.Popen([sys.executable, "-c", source])
    rotator = Rotator(log, max_bytes=KB64, keep=1000)
    with open(log, "ab", buffering=0) as service:
        for begin in range(1, lines, 10_000):
            service.write(numbered(begin, begin + 9_999))
            rotator.rotate()
    assert reader.wait(60) == 0


# --------------------------------------------------------------------------- dying in the middle


class Killed(BaseException):
    """The process ends here: no handler of it may run."""


STEPS = ("write_position", "punch_head", "collapse_head", "sync_folder")
CALLS = ("rename", "unlink", "sendfile", "open", "fchmod")


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Dies at step number ``at``: even numbers before it is done, odd ones just after."""
    count = iter(range(10_000))

    def wrap(step: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **options: object) -> object:
            if next(count) == at:
                raise Killed
            done = step(*args, **options)
            if next(count) == at:
                raise Killed
            return done

        return run

    for name in STEPS:
        monkeypatch.setattr(rotate, name, wrap(getattr(rotate, name)))
    for name in CALLS:
        monkeypatch.setattr(rotate.os, name, wrap(getattr(os, name)))


def test_a_death_at_any_step_loses_and_doubles_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, at, died = numbered(1, 30_000), 0, True
    while died:
        log = folder / f"api.{at}.log"
        log.write_bytes(written[:100_000])
        Rotator(log, max_bytes=KB64, keep=9).rotate()
        with open(log, "ab") as service:
            service.write(written[100_000:])
        with monkeypatch.context() as patch:
            dying(patch, at)
            try:
                died = not Rotator(log, max_bytes=KB64, keep=9).rotate()
            except Killed:
                died = True
        assert content(log) == written, f"as readers see it when killed at step {at}"
        assert LogStream(log).bounds() == (0, len(written))
        Rotator(log, max_bytes=KB64, keep=9).recover()
        assert as_files(log) == content(log) == written, f"recovered after step {at}"
        assert not read_position(str(log)).step
        assert not list(folder.glob(f"{log.name}.new"))
        at += 1
    assert at > 30


def test_a_death_while_the_oldest_archive_is_dropped_leaves_a_log_without_a_gap(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, at, died = numbered(1, 60_000), 0, True
    while died:
        log = folder / f"api.{at}.log"
        log.write_bytes(written[:200_000])
        Rotator(log, max_bytes=KB64, keep=2).rotate()
        with open(log, "ab") as service:
            service.write(written[200_000:])
        with monkeypatch.context() as patch:
            dying(patch, at)
            try:
                died = not Rotator(log, max_bytes=KB64, keep=2).rotate()
            except Killed:
                died = True
        assert written.endswith(content(log))
        Rotator(log, max_bytes=KB64, keep=2).rotate()
        assert written.endswith(content(log)) and as_files(log) == content(log)
        assert len(archives(log)) == 2
        at += 1


def test_a_death_with_lines_that_are_all_alike_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a collapse nothing in the file shows that it happened when every block looks like the next."""
    log = tmp_path / "api.0.log"
    log.write_bytes(b"y\n" * 100_000)
    monkeypatch.setattr(rotate, "collapse_head", _then_die(rotate.collapse_head))
    with pytest.raises(Killed):
        Rotator(log, max_bytes=KB64).rotate()
    monkeypatch.undo()
    assert len(content(log)) == 200_000
    Rotator(log, max_bytes=KB64).recover()
    assert len(content(log)) == len(as_files(log)) == 200_000


def _then_die(step: Callable[..., object]) -> Callable[..., object]:
    def run(*args: object) -> object:
        step(*args)
        raise Killed

    return run


def test_a_real_kill_9_while_rotating_loses_nothing(folder: Path) -> None:
    log = folder / "api.0.log"
    written = numbered(1, 300_000)
    log.write_bytes(written)
    source = f"""
import sys; sys.path[:0] = {sys.path!r}
from deploy_code.logs.rotate import Rotator
print(flush=True)
Rotator({str(log)!r}, max_bytes=65536, keep=1000).rotate()
"""
    for wait in range(8):
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as agent:
            assert agent.stdout and agent.stdout.readline()
            time.sleep(wait / 1000)  # anywhere in the middle
            agent.kill()
        assert content(log) == written
    Rotator(log, max_bytes=KB64, keep=1000).rotate()
    assert as_files(log) == written


# --------------------------------------------------------------------------- what else goes wrong


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path]).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        log = tmp_path / "api.0.log"
        log.write_bytes(written := numbered(1, 150_000)[:900_000])
        with pytest.raises(StateError, match="disk is full") as caught:
            Rotator(log, max_bytes=8 * KB64).rotate()
        assert caught.value.code == "E004"
        assert log.read_bytes() == written
        assert [path.name for path in tmp_path.iterdir()] == [log.name]
        log.write_bytes(written[:600_000])
        assert Rotator(log, max_bytes=4 * KB64).rotate() == 2
        assert content(log) == written[:600_000]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_log_that_somebody_emptied_goes_on(folder: Path) -> None:
    log = folder / "api.0.log"
    log.write_bytes(b"x" * 300_000)
    rotator = Rotator(log, max_bytes=KB64)
    rotator.rotate()
    os.truncate(log, 0)
    with open(log, "ab") as service:
        service.write(b"y" * (KB64 + 5000) + b"\n")
    rotator.rotate()
    assert content(log).endswith(b"y" * (KB64 + 5000) + b"\n")


def test_a_log_that_somebody_deleted_in_the_middle_of_a_move_is_no_trouble(folder: Path) -> None:
    log = folder / "api.0.log"
    log.write_bytes(b"x" * 300_000)
    rotator = Rotator(log, max_bytes=KB64)
    rotator.rotate()
    rotate.write_position(str(log), Position(base=1000, moving_to=KB64, step="collapsing"))
    log.unlink()
    rotator.recover()
    assert not rotator.is_due()
    assert LogStream(log).bounds()[1] == 1000 + KB64


def test_a_damaged_position_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    log = tmp_path / "api.0.log"
    log.write_bytes(b"x" * 100_000)
    (tmp_path / "api.0.log.pos").write_text("what")
    with pytest.raises(StateError, match="damaged"):
        Rotator(log, max_bytes=KB64).rotate()
    with pytest.raises(StateError, match="damaged"):
        LogStream(log).bounds()


def test_a_link_in_place_of_the_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 100_000)
    log = tmp_path / "api.0.log"
    log.symlink_to("secret")
    with pytest.raises(StateError):
        Rotator(log, max_bytes=KB64).rotate()
