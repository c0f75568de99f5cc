"""One short-lived program in a session of its own: the command of a health check.

Its end is awaited by pidfd and its output by the loop, so a probe costs no thread, no zombie, and nothing it
started in its process group outlives it. Works the same on asyncio's loop and on uvloop, whatever child
watcher they use.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

OUTPUT_LIMIT = 1920  # bytes kept: the last ones, where programs say what went wrong; 2 KB with our own words
_CHUNK = 64 * 1024  # what a pipe holds


class Child:
    """A started program. ``output`` is the end of what it wrote to stdout and stderr."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None, user: str = "") -> None:
        """Starts it. Raises OSError as exec does, and KeyError for an unknown ``user`` ("name" or
        "name:group").
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = _spawn(argv, env, cwd, user, writer)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        self.returncode: int | None = None
        self._tail = bytearray()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._output_fd = reader
        self._pidfd = self._open_pidfd()
        self._loop.add_reader(self._output_fd, self._read)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> bytes:
        return bytes(self._tail)

    async def wait(self, timeout: float) -> bool:
        """Has it ended within ``timeout`` seconds? Neither the time-out nor a cancellation harms it."""
        done, _ = await asyncio.wait([self._ended], timeout=timeout)
        return bool(done)

    def kill(self) -> None:
        """Kill it and its whole process group; idempotent."""
        if self.returncode is None:
            # not reaped yet: the number cannot belong to anybody else
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _open_pidfd(self) -> int:
        try:
            return os.pidfd_open(self.pid)
        except OSError:
            self.kill()
            self._process.wait()
            os.close(self._output_fd)
            raise

    def _read(self) -> None:
        try:
            part = os.read(self._output_fd, _CHUNK)
        except BlockingIOError:
            return
        if not part:
            self._loop.remove_reader(self._output_fd)
        self._tail += part
        del self._tail[:-OUTPUT_LIMIT]

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.kill()  # what it left in its group: the number is still its own, as it is a zombie
        self._read()
        self._loop.remove_reader(self._output_fd)
        os.close(self._output_fd)
        os.close(self._pidfd)
        self.returncode = self._process.returncode = _exit_code(self.pid)
        self._ended.set_result(None)


def _exit_code(pid: int) -> int:
    """Negative for a signal. 255 where somebody else reaped it: unknown is no success."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 255


def _spawn(
    argv: Sequence[str], env: Mapping[str, str], cwd: str | None, user: str, output: int
) -> subprocess.Popen[bytes]:
    uid, gid, groups = _identity(user)
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
        user=uid,
        group=gid,
        extra_groups=groups,
    )


def _identity(user: str) -> tuple[int | None, int | None, list[int] | None]:
    """uid, gid and further groups of "name" or "name:group"; all None where it is who we are anyway."""
    if not user:
        return None, None, None
    import grp
    import pwd

    name, _, group = user.partition(":")
    entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    gid = entry.pw_gid
    if group:
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    if (entry.pw_uid, gid) == (os.geteuid(), os.getegid()):
        return None, None, None
    return entry.pw_uid, gid, os.getgrouplist(entry.pw_name, gid)
