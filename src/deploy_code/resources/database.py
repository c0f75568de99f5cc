"""The file of the ledger, made when the first promise is.

Its commits outlive the death of every process, but not the last of them a power cut: with that all who were promised
something are gone too, and what a project needs is in its own state. It spares waiting for the disk.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from functools import cache

from deploy_code.errors import StateError
from deploy_code.resources.place import path_of
from deploy_code.state.connection import Connection, connect, sqlite_errors_wrapped
from deploy_code.state.files import alone, make_private_folder, os_errors_wrapped
from deploy_code.state.sql import named

VERSION = 1
_HERE = os.path.dirname(os.path.abspath(__file__))


def open_for_writing(home: str) -> Connection:
    """The ledger below ``home``, made (0600 in a 0700 folder) when there is none. Raises StateError."""
    path = path_of(home)
    folder = os.path.dirname(path)
    make_private_folder(folder)
    if not _is_made(path):
        with os_errors_wrapped(path), alone(folder):
            if not _is_made(path):
                _build(path)
    connection = Connection(path, statements())
    try:
        connection.all("do_not_wait_for_the_disk")
        _refuse_newer(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(home: str) -> Connection | None:
    """The ledger as it is; None when there is none. Creates nothing. Raises StateError."""
    path = path_of(home)
    if not _is_made(path):
        return None
    connection = Connection(path, statements(), read_only=True)
    try:
        _refuse_newer(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_newer(connection: Connection) -> None:
    if connection.version() > VERSION:
        raise StateError(
            f"The ledger {connection.path} was written by a newer deploy-code",
            meaning="It cannot be told what is promised to whom; nothing was changed",
            remedy="Install that version again",
        )


def _is_made(path: str) -> bool:
    with os_errors_wrapped(path), suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(path).st_size > 0
    return False


def _build(path: str) -> None:
    """It appears all at once, and costs one wait for the disk: the many that SQLite needs are for what others see."""
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with sqlite_errors_wrapped(path), closing(connect(new)) as db:
            db.executescript(
                f"PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; {_text('schema.sql')}"
                f"PRAGMA user_version = {VERSION}; PRAGMA journal_mode = WAL;"
            )
        os.fsync(fd)
    finally:
        os.close(fd)
    for left in (f"{path}-wal", f"{path}-shm"):  # of one that was deleted: SQLite would read them into this one
        with suppress(FileNotFoundError):
            os.unlink(left)
    os.replace(new, path)


@cache
def statements() -> dict[str, str]:
    """The statements of queries.sql by name."""
    return named(_text("queries.sql"))


def _text(name: str) -> str:
    with open(os.path.join(_HERE, name), encoding="utf-8") as file:
        return file.read()
