"""The file of the ledger: one for all projects of a ``data_dir``, made when the first promise is.

No name of a project begins with a dot, so the folder beside theirs is taken by none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from deploy_code.errors import StateError
from deploy_code.state.connection import Connection, connect, sqlite_errors_wrapped
from deploy_code.state.files import make_private_folder, os_errors_wrapped

FOLDER = ".machine"
FILE = "ledger.db"
VERSION = 1
_HERE = os.path.dirname(os.path.abspath(__file__))
_MARK = "-- name: "


def path_of(data_dir: str) -> str:
    """Where the ledger of the projects in ``data_dir`` lies."""
    return os.path.join(data_dir, FOLDER, FILE)


def open_for_writing(data_dir: str) -> Connection:
    """The ledger, made (0600 in a 0700 folder) when there is none. Raises StateError."""
    path = path_of(data_dir)
    folder = os.path.dirname(path)
    make_private_folder(folder)
    with os_errors_wrapped(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = Connection(path, statements())
    try:
        if connection.version() == 0:
            with os_errors_wrapped(folder), _alone(folder):
                _build(path)
        _refuse_newer(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(data_dir: str) -> Connection | None:
    """The ledger as it is; None when there is none. Creates nothing. Raises StateError."""
    path = path_of(data_dir)
    if not os.path.exists(path):
        return None
    connection = Connection(path, statements(), read_only=True)
    try:
        if connection.version() == 0:  # being made in this very moment
            connection.close()
            return None
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


def _build(path: str) -> None:
    with sqlite_errors_wrapped(path):
        db = connect(path)
        try:
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(f"BEGIN; {_text('schema.sql')} PRAGMA user_version = {VERSION}; COMMIT;")
        finally:
            db.close()


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Hold the folder's own flock: free when the holder dies."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@cache
def statements() -> dict[str, str]:
    """The statements of queries.sql by name."""
    parts = (part.partition("\n") for part in _text("queries.sql").split(_MARK)[1:])
    return {name.strip(): text.strip() for name, _, text in parts}


def _text(name: str) -> str:
    with open(os.path.join(_HERE, name), encoding="utf-8") as file:
        return file.read()
