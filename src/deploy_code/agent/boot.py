"""From a bare process to one that is alone, detached and listening, before anything heavy is imported.

The socket listens a few milliseconds after the start: whoever wants the agent may connect at once, and its first
message waits in the socket while the rest is imported.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import sys
from typing import NamedTuple, NoReturn

from deploy_code.wire import AGENT_ENV, AGENT_LOCK, AGENT_LOG, DATABASE, SOCKET, socket_path

LOG_LIMIT = 1024 * 1024  # bytes of agent.log; of a longer one the end is kept
LOG_KEPT = 256 * 1024
BACKLOG = 128
_HIGHEST_FD = 1 << 20  # beyond any usual limit; closing a range is one system call


class Options(NamedTuple):
    """Arguments of ``python -m deploy_code.agent``. Descriptors are -1 where not given."""

    state: str
    hold: bool = False  # wait on standard input until there is a state
    detach: bool = False  # fork, so that whoever starts it never has to wait for it
    ready: int = -1  # a pipe: one JSON line once it listens, or what keeps it from that
    lock: int = -1  # handed over by the agent that this one replaces
    listener: int = -1
    replaced_for: str = ""  # the version that asked for the replacement


class Booted(NamedTuple):
    """What the agent holds for life."""

    options: Options
    lock: int
    listener: socket.socket


def boot(options: Options) -> Booted | None:
    """Become the agent of ``options.state``; None when there is one already."""
    if options.detach and os.fork():
        os._exit(0)
    if os.getsid(0) != os.getpid() and os.getpgid(0) != os.getpid():
        os.setsid()
    os.umask(0o022)  # services inherit it; our own files name their modes
    os.chdir("/")
    _close_inherited({options.ready, options.lock, options.listener})
    _clean_env()
    if not os.path.exists(os.path.join(options.state, DATABASE)):
        refuse(options, f"there is no {DATABASE} in {options.state}: nothing was ever deployed from there")
    return _become_the_one(options)


def _become_the_one(options: Options) -> Booted | None:
    if options.lock >= 0:
        for fd in (options.lock, options.listener):
            os.set_inheritable(fd, False)  # it was, for our sake alone: a child that had the lock would keep it
        return Booted(options, options.lock, socket.socket(fileno=options.listener))
    _redirect_output(options.state)
    lock = _take_lock(options)
    if lock is None:
        tell_starter(options, {"taken": True})
        return None
    listener = listen(options.state)
    tell_starter(options, {"ok": os.getpid()})
    return Booted(options, lock, listener)


def refuse(options: Options, message: str) -> NoReturn:
    """End, and say why to whoever started us and in agent.log."""
    tell_starter(options, {"error": message})
    sys.stderr.write(message + "\n")
    raise SystemExit(1)


def tell_starter(options: Options, message: dict[str, object]) -> None:
    """One line to whoever started us; it may have gone away meanwhile."""
    if options.ready < 0:
        return
    try:
        os.write(options.ready, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        sys.stderr.write("whoever started the agent has gone\n")
    os.close(options.ready)


def _close_inherited(kept: set[int]) -> None:
    """Descriptors that the caller's shell left open would stay open for as long as we live."""
    low = 3
    for fd in sorted(fd for fd in kept if fd >= low):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, _HIGHEST_FD)


def _clean_env() -> None:
    kept = {name: os.environ[name] for name in AGENT_ENV if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)


# --------------------------------------------------------------------------- alone


def _take_lock(options: Options) -> int | None:
    """flock on agent.lock. Under systemd wait for it: there the unit must not end while another agent serves."""
    fd = os.open(os.path.join(options.state, AGENT_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    under_systemd = "NOTIFY_SOCKET" in os.environ
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not under_systemd:
            os.close(fd)
            return None
        notify("READY=1\nSTATUS=standing by: another agent serves this project")
        fcntl.flock(fd, fcntl.LOCK_EX)
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def listen(state: str) -> socket.socket:
    """The agent's socket, 0600, in place of whatever a dead agent left there."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_socket(folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(socket_path(folder))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
    finally:
        os.close(folder)
    return listener


def _remove_socket(folder: int) -> None:
    try:
        if stat.S_ISSOCK(os.stat(SOCKET, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(SOCKET, dir_fd=folder)
    except FileNotFoundError:
        return


# --------------------------------------------------------------------------- output


def _redirect_output(state: str) -> None:
    """stdin from nowhere, stdout and stderr to agent.log; under systemd to the journal, where people look."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if "NOTIFY_SOCKET" in os.environ:
        return
    path = os.path.join(state, AGENT_LOG)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(fd, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    bound_log(path)


def bound_log(path: str) -> None:
    """Keep only the end of a long agent.log. Everyone who writes to it appends, so it may be cut in place."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= LOG_LIMIT:
            return
        file.seek(size - LOG_KEPT)
        tail = file.read().partition(b"\n")[2]
        file.seek(0)
        file.write(tail)
        file.truncate()


def notify(message: str) -> None:
    """Tell systemd, when it started us (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(message.encode(), address)
        except OSError as exc:
            sys.stderr.write(f"systemd could not be told: {exc}\n")
