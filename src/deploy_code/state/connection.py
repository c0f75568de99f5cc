"""One SQLite connection: SQL by name, errors in our words, explicit transactions.

The database is in WAL mode and every commit is synced. SQLite would delete ``-wal`` and ``-shm`` with the
last writer and have the next reader create them again, which a dry run must not and a full disk cannot; so
a writer leaves them there.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from deploy_code.errors import StateError
from deploy_code.state.files import disk_full

BUSY_SECONDS = 5.0  # how long one statement waits for another process's commit

Parameters = Sequence[Any] | Mapping[str, Any]


class Connection:
    """Named statements over one database file. Use it from one thread at a time.

    All raise ``StateError``: E004 disk full, S005 cannot be opened or is damaged, E008 busy for too long.
    """

    def __init__(self, path: str, statements: Mapping[str, str], *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._statements = statements
        self._closed = False
        with sqlite_errors_wrapped(path):
            self._db = connect(path, read_only=read_only)

    def all(self, name: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of a named statement."""
        with sqlite_errors_wrapped(self.path):
            return self._db.execute(self._statements[name], parameters).fetchall()

    def mappings(self, name: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """All rows of a named statement, by column name."""
        with sqlite_errors_wrapped(self.path):
            cursor = self._db.execute(self._statements[name], parameters)
            columns = [column[0] for column in cursor.description]
            return [dict(zip(columns, row, strict=True)) for row in cursor]

    def one(self, name: str, parameters: Parameters = ()) -> tuple[Any, ...] | None:
        """The first row of a named statement, if any."""
        rows = self.all(name, parameters)
        return rows[0] if rows else None

    def run(self, name: str, parameters: Parameters = ()) -> int:
        """Execute a named statement; how many rows it touched."""
        with sqlite_errors_wrapped(self.path):
            return self._db.execute(self._statements[name], parameters).rowcount

    def run_many(self, name: str, rows: Iterable[Parameters]) -> None:
        """Execute a named statement once a row; call it inside ``transaction``."""
        with sqlite_errors_wrapped(self.path):
            self._db.executemany(self._statements[name], rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, with the write lock from the start: what is read in it still holds at its end."""
        with sqlite_errors_wrapped(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """The version of the schema in this file."""
        with sqlite_errors_wrapped(self.path):
            return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self.read_only:
            self._db.close()
        else:
            self._close_and_keep_files()

    def _close_and_keep_files(self) -> None:
        keeper = None
        with suppress(sqlite3.Error):  # the file may be gone; then there is nothing to keep
            keeper = connect(self.path, read_only=True)
        self._db.close()
        if keeper is not None:
            keeper.close()  # a reader that goes last deletes nothing


def connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to an existing file, without implicit transactions."""
    escaped = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    db = sqlite3.connect(
        f"file:{escaped}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # the Python API may be called from any thread, one at a time
    )
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("SELECT 1 FROM sqlite_master LIMIT 1")  # opens the file now, so that what is wrong shows here
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def sqlite_errors_wrapped(path: str) -> Iterator[None]:
    """Turn an ``sqlite3.Error`` about ``path`` into a ``StateError``, the original chained."""
    try:
        yield
    except sqlite3.Error as exc:
        raise explain(path, exc) from exc


def explain(path: str, exc: sqlite3.Error) -> StateError:
    """What an SQLite error means here. Extended codes share the low byte of their family."""
    code = getattr(exc, "sqlite_errorcode", 0)
    family = code & 0xFF
    if family == sqlite3.SQLITE_FULL or code in _CANNOT_WRITE:
        return disk_full(path, str(exc))
    if family in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, exc)
    if family in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _busy(path)
    return StateError(
        f"The state {path} cannot be had: {exc}",
        meaning="deploy-code cannot tell what runs",
        remedy=f"Run as the user who owns {os.path.dirname(path)}; check that the folder is writable",
    )


# A quota or a file size limit is not SQLITE_FULL but one of these.
_CANNOT_WRITE = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
)


def _damaged(path: str, exc: sqlite3.Error) -> StateError:
    return StateError(
        f"The state {path} is damaged: {exc}",
        meaning="Running services are not affected, but deploy-code cannot tell what it knows of them",
        remedy=f"Put a backup of the file back, or move {path}* away and run `deploy-code deploy`",
    )


def _busy(path: str) -> StateError:
    return StateError(
        f"The state {path} was kept busy by another process for more than {BUSY_SECONDS:g} s",
        code="E008",
        remedy="Run the command again; if it stays so, see who has the file open (fuser)",
    )
