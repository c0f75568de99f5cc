"""Runs one command and leaves its exit status in a file: it is known even when nobody could wait for it.

A program, not only a module: ``python -I -S -E oneshot.py STATUS_FILE IDENTITY -- COMMAND [ARG…]``. It
stays the session's leader while the command runs, forwards the signals that ask a program to do something,
and ends as the command ended. IDENTITY is ``-`` or ``UID:GID:GROUP,GROUP``: only the command changes its
user, so the status file may lie where that user cannot write. Standard library only, and little of it: it
is started for every one-shot.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Sequence

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_KEY = b"DEPLOY_CODE_INSTANCE"
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # exit codes that shells use for a command they cannot run


def read_status(path: str, uuid: str) -> tuple[float, int | None, int | None] | None:
    """(when, exit code, signal) as this instance's wrapper left them; None while there is no such record."""
    try:
        with open(path, encoding="utf-8") as file:
            owner, at, kind, number = file.read().split()
    except FileNotFoundError:
        return None
    except ValueError:  # another program's file: it says nothing about this instance
        return None
    if owner != uuid:
        return None
    return (float(at), int(number), None) if kind == "code" else (float(at), None, int(number))


def write_status(path: str, uuid: str, kind: str, number: int) -> None:
    """Record the end: whole or not at all, and safe from a power cut."""
    partial = f"{path}.{os.getpid()}"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{uuid} {time.time():.6f} {kind} {number}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(partial, path)
    _sync_folder(os.path.dirname(path) or ".")


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _initial_environ() -> dict[bytes, bytes]:
    """The environment as it was handed over; the interpreter may have added LC_CTYPE to its own copy."""
    with open("/proc/self/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {name: value for name, _, value in pairs}


def _take_identity(identity: str) -> None:
    if identity == "-":
        return
    uid, gid, groups = identity.split(":")
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setgid(int(gid))
    os.setuid(int(uid))


def _places(command: str, environ: dict[bytes, bytes]) -> list[bytes]:
    """Where the command may lie, in order; a name without a slash is looked up on its own PATH."""
    name = os.fsencode(command)
    folders = environ.get(b"PATH", os.fsencode(os.defpath)).split(b":")
    return [name] if b"/" in name else [os.path.join(folder, name) for folder in folders]


def _execute(places: Sequence[bytes], words: Sequence[str], environ: dict[bytes, bytes]) -> int:
    """Turn into the first of these that can be run; comes back with the number of the error that says most."""
    failure = errno.ENOENT
    for place in places:
        try:
            os.execve(place, list(words), environ)
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = exc.errno or failure
    return failure


def _become(command: Sequence[str], identity: str, environ: dict[bytes, bytes], report: int) -> None:
    """In the child: turn into the command, or write the number of the error to ``report`` and end.

    Nothing may be imported once the identity has changed: that user may not be able to read our files.
    """
    places = _places(command[0], environ)
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and that would be inherited
            signal.signal(number, signal.SIG_DFL)
        _take_identity(identity)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        os.write(report, b"%d" % _execute(places, command, environ))
    except OSError as exc:
        os.write(report, b"%d" % (exc.errno or errno.EINVAL))
    finally:
        os._exit(_NOT_FOUND)


def _launch(command: Sequence[str], identity: str, environ: dict[bytes, bytes]) -> tuple[int, int]:
    """Start the command; (its pid, number of the error that kept it from running or 0)."""
    receive, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(command, identity, environ, report)
    os.close(report)
    answer = os.read(receive, 16)
    os.close(receive)
    return pid, int(answer or b"0")


def _forward_signals(pid: int) -> None:
    def forward(number: int, _frame: object) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return  # it ends at this moment

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)


def _outcome(pid: int) -> tuple[str, int]:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # once reaped, the number may be somebody else's
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "signal", os.WTERMSIG(status)
    return "code", os.WEXITSTATUS(status)


def _complain(command: str, number: int) -> tuple[str, int]:
    sys.stderr.write(f"{command}: {os.strerror(number)}\n")
    return "code", _NOT_FOUND if number == errno.ENOENT else _NOT_EXECUTABLE


def main(arguments: Sequence[str]) -> int:
    """Run what ``arguments`` say; the exit code that a shell would give."""
    status_file, identity, _, *command = arguments
    environ = _initial_environ()
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # none may be lost before there is someone to forward to
    pid, failure = _launch(command, identity, environ)
    _forward_signals(pid)
    kind, number = _outcome(pid)
    if failure:
        kind, number = _complain(command[0], failure)
    try:
        write_status(status_file, os.fsdecode(environ.get(_KEY, b"")), kind, number)
    except OSError as exc:  # whoever waits for us still gets the true code
        sys.stderr.write(f"the exit status could not be kept in {status_file}: {exc.strerror}\n")
    return number if kind == "code" else 128 + number


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
