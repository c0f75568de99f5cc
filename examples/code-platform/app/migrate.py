"""Applies each file of migrations/ that this database has not seen, in order, all or none."""

import os
from pathlib import Path

import psycopg

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
    db.execute("LOCK TABLE migrations")  # two at once would both see the same file as new
    applied = {name for (name,) in db.execute("SELECT name FROM migrations")}
    for file in sorted(MIGRATIONS.glob("*.sql")):
        if file.name not in applied:
            print(f"applying {file.name}")
            db.execute(file.read_text())
            db.execute("INSERT INTO migrations (name) VALUES (%s)", (file.name,))


if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:  # commits, or rolls back on an error
        migrate(connection)
    print("the database is up to date")
