"""Turning a start order into a process, and every way in which that fails into an error that says what to do.

``subprocess.Popen`` without ``preexec_fn`` uses vfork: some 0.3 ms a process, whatever the size of the agent. Only a
process with limits has one, because it has to be in its control group before its program begins; that costs a fork.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from deploy_code.drivers import oneshot
from deploy_code.drivers.base import StartOrder
from deploy_code.drivers.group import Group
from deploy_code.errors import DriverError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_TRY_LATER = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Owner(NamedTuple):
    """Whom a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def spawn(order: StartOrder, group: Group | None = None) -> int:
    """Start it in a session of its own, inside ``group``, and return its pid.

    Raises DriverError (E003, E004, E005, S005).
    """
    owner = resolve_user(order.user)
    if order.one_shot:
        _prepare_one_shot(order)
    log = _open_log(order, owner)
    try:
        with _door(order, group) as enter:
            return _popen(order, owner, log, enter)
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise _explain(order, exc) from exc
    finally:
        os.close(log)


@contextmanager
def _door(order: StartOrder, group: Group | None) -> Iterator[Callable[[], None] | None]:
    with ExitStack() as stack:
        try:
            enter = stack.enter_context(group.door()) if group is not None else None
        except OSError as exc:
            raise _outside(order, exc) from exc
        yield enter


def _popen(order: StartOrder, owner: Owner | None, log: int, enter: Callable[[], None] | None) -> int:
    drops = owner is not None and not order.one_shot  # a one-shot's wrapper keeps ours, its command does not
    child = subprocess.Popen(
        _argv(order, owner),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=order.working_dir,
        env=order.env,
        start_new_session=True,
        user=owner.uid if owner and drops else None,
        group=owner.gid if owner and drops else None,
        extra_groups=owner.groups if owner and drops else None,
        # Python code after a fork may meet a lock that another thread held. This one takes none: it writes two bytes
        # to files that are open already. There is no other way into a group before exec without a shell in between.
        preexec_fn=enter,
    )
    child.returncode = 0  # its pidfd waits for it from here on: subprocess must neither reap it nor warn
    return child.pid


def _argv(order: StartOrder, owner: Owner | None) -> list[str]:
    command = [order.command, *order.args]
    if not order.one_shot:
        return command
    identity = f"{owner.uid}:{owner.gid}:{','.join(map(str, owner.groups))}" if owner else "-"
    return [sys.executable, "-I", "-S", "-E", oneshot.__file__, order.status_path, identity, "--", *command]


def _prepare_one_shot(order: StartOrder) -> None:
    """The wrapper always starts; so what would keep its command from starting is looked for beforehand."""
    if not os.path.isdir(order.working_dir):
        raise _no_folder(order)
    if not _is_executable(_located(order)):
        raise _not_started(order)
    with suppress(FileNotFoundError):
        os.unlink(order.status_path)


# --------------------------------------------------------------------------- log


def _open_log(order: StartOrder, owner: Owner | None) -> int:
    """Open the instance's log for itself to write: what it says never passes through the agent."""
    path = order.log_path or os.devnull
    try:
        fd = _open_append(path)
        if owner is not None and order.log_path:
            os.fchown(fd, owner.uid, -1)  # so that it may open /dev/stdout and /dev/stderr itself
    except OSError as exc:
        raise _log_error(order, exc) from exc
    return fd


def _open_append(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o640)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        return os.open(path, flags, 0o640)


def _log_error(order: StartOrder, exc: OSError) -> DriverError:
    full = exc.errno in _NO_ROOM
    return DriverError(
        f"{order.service}: its log {order.log_path} cannot be opened: {exc.strerror}",
        code="E004" if full else "S005",
        meaning="It was not started, because nobody could see what it says",
        remedy="Free some space" if full else 'Mend the permissions of that folder, or set another "log_dir"',
        retryable=full or exc.errno in _TRY_LATER,
    )


# --------------------------------------------------------------------------- user


def resolve_user(user: str) -> Owner | None:
    """Who "name", "name:group" or their numbers are; None when that is who we are already.

    Raises DriverError (E005) for an unknown name, and for another user when we are not root.
    """
    if not user:
        return None
    name, _, group = user.partition(":")
    owner = _named(name, group)
    if os.geteuid() == 0:
        return owner if owner.uid != 0 or group else None
    if (owner.uid, owner.gid) == (os.geteuid(), os.getegid()):
        return None
    raise DriverError(
        f'"user: {user}" needs root, and deploy-code runs as uid {os.geteuid()}',
        remedy='Run it as root, or take "user" out',
    )


def _named(name: str, group: str) -> Owner:
    try:
        uid, main, login = _account(name)
        gid = _group(group) if group else main
    except KeyError as exc:
        raise DriverError(
            f"there is no user or group {str(exc.args[0]).rpartition(': ')[2]} on this machine",
            remedy='Create it, or correct "user"',
        ) from exc
    return Owner(uid, gid, tuple(os.getgrouplist(login, gid)) if login else (gid,))


def _account(name: str) -> tuple[int, int, str]:
    """uid, main group and login name; a bare number needs no account."""
    if name.isdecimal() and not any(entry.pw_uid == int(name) for entry in pwd.getpwall()):
        return int(name), int(name), ""
    entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(name: str) -> int:
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid


# --------------------------------------------------------------------------- what went wrong


def _explain(order: StartOrder, exc: Exception) -> DriverError:
    if isinstance(exc, OSError) and exc.errno in _TRY_LATER:
        return DriverError(
            f"{order.service}: no process could be made: {exc.strerror}",
            meaning="The machine or a limit of this user is exhausted",
            remedy="See `ulimit -u`, `ulimit -n` and the free memory",
            retryable=True,
        )
    if isinstance(exc, OSError) and exc.filename == order.working_dir:
        return _no_folder(order)
    if isinstance(exc, OSError) and exc.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC):
        return _not_started(order, exc.errno)
    if isinstance(exc, subprocess.SubprocessError):  # all that it ever says of our own code in the child
        return _outside(order, exc)
    return DriverError(f"{order.service}: {order.command} could not be started: {exc}")


def _outside(order: StartOrder, exc: Exception) -> DriverError:
    return DriverError(
        f"{order.service}: it could not be put into its control group: {exc}",
        meaning="Its limits could not be enforced, so it was not started",
        remedy="Try again; if that does not help, take `resources` out of this service",
        retryable=True,
    )


def _no_folder(order: StartOrder) -> DriverError:
    state = "may not be entered" if os.path.isdir(order.working_dir) else "does not exist"
    return DriverError(
        f"{order.service}: its working directory {order.working_dir} {state}",
        remedy='Create it, or correct "working_dir"',
    )


def _not_started(order: StartOrder, number: int = errno.ENOENT) -> DriverError:
    path = _located(order)
    if not path:
        return _not_found(order)
    if not _is_executable(path):
        return DriverError(
            f"{order.service}: {path} is not executable",
            remedy=f"If it is meant to be a program: chmod +x {path}",
        )
    interpreter = _interpreter(path)
    if number == errno.ENOEXEC or not interpreter:
        return _bad_format(order, path, number)
    return DriverError(
        f'{order.service}: {path} is a script for "{interpreter}", which cannot run: {os.strerror(number)}',
        remedy="Install that interpreter, or correct the first line of the script",
    )


def _not_found(order: StartOrder) -> DriverError:
    named = os.path.dirname(order.command)
    if named:
        what = f"there is no file {os.path.join(order.working_dir, order.command)}"
    else:
        what = f'there is no command "{order.command}"; looked in {", ".join(_search_path(order.env))}'
    return DriverError(
        f"{order.service}: {what}",
        code="E003",
        remedy='Install it, or correct "command"',
    )


def _bad_format(order: StartOrder, path: str, number: int) -> DriverError:
    if number == errno.EACCES:
        return DriverError(
            f"{order.service}: {path} may not be run by {order.user or 'this user'}",
            remedy="See the permissions of the file and of every folder above it",
        )
    return DriverError(
        f"{order.service}: {path} cannot be run on this machine: {os.strerror(number)}",
        meaning="It is neither a script that begins with #!/bin/sh or so nor a program for this machine",
        remedy="Add that line, or install the program built for this machine",
    )


def _search_path(env: Mapping[str, str]) -> Sequence[str]:
    return os.get_exec_path(dict(env))


def _located(order: StartOrder) -> str:
    """The file that is meant; empty when there is none. An executable one is preferred."""
    if os.path.dirname(order.command):
        path = os.path.join(order.working_dir, order.command)
        return path if os.path.lexists(path) else ""
    places = [os.path.join(order.working_dir, folder, order.command) for folder in _search_path(order.env)]
    found = [path for path in places if os.path.isfile(path)]
    return next(filter(_is_executable, found), found[0] if found else "")


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _interpreter(path: str) -> str:
    """What the first line of a script names; empty for anything else."""
    with open(path, "rb") as file:
        first = file.readline(256)
    return first[2:].decode(errors="replace").strip() if first.startswith(b"#!") else ""
