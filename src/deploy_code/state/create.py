"""Makes the state of a new project, whole or not at all, even when two first deploys race."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from deploy_code.state.connection import connect, sqlite_errors_wrapped
from deploy_code.state.files import alone, make_private_folder, os_errors_wrapped
from deploy_code.state.migrate import VERSION
from deploy_code.state.rows import ProjectRow
from deploy_code.state.sql import read, statements


def create(path: str, project: ProjectRow) -> None:
    """Create the database at ``path`` (0600, in a 0700 folder) unless it is there already.

    It is built beside and renamed: nobody ever opens half a database, and who comes second finds the first's.
    """
    folder = os.path.dirname(path)
    make_private_folder(folder)
    with os_errors_wrapped(path), alone(folder):
        if not os.path.exists(path):
            draft = path + ".new"  # one name: what a killed predecessor left is overwritten
            _remove(draft)
            _remove(path)  # a -wal whose database was moved away would be taken for the new one's
            try:
                _build(draft, project)
                os.rename(draft, path)
                _sync(folder)
            finally:
                _remove(draft)


def _build(path: str, project: ProjectRow) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with sqlite_errors_wrapped(path):
        db = connect(path)
        try:
            db.executescript(f"BEGIN; {read('schema.sql')} PRAGMA user_version = {VERSION}; COMMIT;")
            db.execute(statements()["insert_project"], project._replace(created_at=project.created_at or time.time()))
            db.execute("PRAGMA journal_mode = WAL")
        finally:
            db.close()


def _remove(path: str) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _sync(folder: str) -> None:
    """A rename is on disk only when its folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
