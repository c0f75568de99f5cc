"""Brings the state of an older deploy-code up to the schema of this one, in one transaction.

The version is SQLite's ``user_version``; schema.sql is the newest, migrations/NNNN_*.sql lead to version
NNNN.
"""

from __future__ import annotations

import os
import sqlite3

from deploy_code.errors import StateError
from deploy_code.state.connection import connect, sqlite_errors_wrapped
from deploy_code.state.sql import FOLDER

VERSION = 3
MIGRATIONS = os.path.join(FOLDER, "migrations")


def version(db: sqlite3.Connection) -> int:
    """The version of the schema in this file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def refuse_newer(path: str, found: int) -> None:
    """Raise ``StateError`` when a newer deploy-code wrote this file."""
    if found > VERSION:
        raise StateError(
            f"The state {path} was written by a newer deploy-code (schema {found}, this one knows {VERSION})",
            meaning="Nothing was changed",
            remedy="Install that version again",
        )


def migrate(db: sqlite3.Connection, *, folder: str = MIGRATIONS, target: int = VERSION) -> None:
    """Run every migration between the file's version and ``target``. Raises ``sqlite3.Error``, all undone."""
    if version(db) >= target:
        return
    db.execute("BEGIN EXCLUSIVE")
    try:
        for number, path in pending(folder, version(db), target):  # read again: another process may have been faster
            _apply(db, number, path)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def bring_up_to_date(path: str) -> None:
    """Migrate the database at ``path`` if it is older. Raises ``StateError``; then nothing was changed."""
    with sqlite_errors_wrapped(path):
        db = connect(path)
        try:
            migrate(db)
        finally:
            db.close()


def pending(folder: str, above: int, target: int) -> list[tuple[int, str]]:
    """The files that lead from version ``above`` to ``target``, in order."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".sql"))
    numbered = [(int(name.partition("_")[0]), os.path.join(folder, name)) for name in names]
    return [(number, path) for number, path in numbered if above < number <= target]


def _apply(db: sqlite3.Connection, number: int, path: str) -> None:
    with open(path, encoding="utf-8") as file:
        for statement in split(file.read()):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {number}")


def split(text: str) -> list[str]:
    """Whole statements; ``executescript`` would commit the transaction that must hold them together."""
    found, start = [], 0
    for end, character in enumerate(text, 1):
        if character == ";" and sqlite3.complete_statement(text[start:end]):
            found.append(text[start:end])
            start = end
    return found
