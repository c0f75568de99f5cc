"""The file behind the state: who may read it, who may race for it, and what is said when it cannot be had."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

from deploy_code.errors import StateError
from deploy_code.state import migrate
from deploy_code.state.connection import Connection, connect
from deploy_code.state.sql import read, statements
from deploy_code.state.store import Store
from state_support import ABOUT, begin, finish, service

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "shop"


@pytest.fixture
def store(folder):
    with Store.create(folder, **ABOUT) as store:
        yield store


# --------------------------------------------------------------------------- files


def test_only_the_owner_can_look_into_the_state(store, folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


def test_a_folder_that_was_open_to_others_is_tightened(folder):
    folder.mkdir(parents=True, mode=0o755)
    Store.create(folder, **ABOUT).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_project_is_remembered(store):
    row = store.project()
    assert row[:4] == ("shop", "/srv/shop.yaml", "staging", "/var/log/shop")
    assert row.created_at == pytest.approx(time.time(), abs=60)


def test_creating_what_exists_opens_it_as_it_is(store, folder):
    with Store.create(folder, **{**ABOUT, "file": "/other.yaml"}) as again:
        assert again.project().file == "/srv/shop.yaml"
        again.adopt("/other.yaml", "production", "/logs")
    assert store.project()[1:4] == ("/other.yaml", "production", "/logs")


def test_there_is_nothing_until_it_is_created(folder):
    assert not Store.exists(folder)
    with pytest.raises(StateError, match=r"S005 .*no state at"):
        Store.open(folder, read_only=True)
    assert not folder.exists()


def test_commits_are_synced_and_in_wal_mode(store):
    db = store._sql._db
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_two_processes_that_create_it_at_once_do_not_harm_each_other(folder):
    code = (
        "import sys; from deploy_code.state.store import Store\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "store = Store.create(sys.argv[1], name='shop', file=sys.argv[2], environment='', log_dir='')\n"
        "print(store.project().file, flush=True)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), f"/{racer}.yaml"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENV,
            text=True,
        )
        for racer in range(4)
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 4
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert len(set(answers)) == 1
    assert not [path for path in folder.iterdir() if ".new" in path.name]


def test_what_a_killed_creator_left_does_not_matter(folder):
    folder.mkdir(parents=True)
    (folder / "state.db.new").write_bytes(b"half a database")
    (folder / "state.db-wal").write_bytes(b"of a database that was moved away")
    with Store.create(folder, **ABOUT) as store:
        assert store.project().name == "shop"


def test_a_reader_sees_what_a_writer_commits_meanwhile(store, folder):
    with Store.open(folder, read_only=True) as reader:
        assert reader.current_map() == {}
        finish(store, begin(store, service()))
        assert set(reader.current_map()) == {"api"}


def test_a_reader_cannot_write_and_creates_no_file(folder):
    Store.create(folder, **ABOUT).close()
    before = sorted(os.listdir(folder)), os.stat(folder / "state.db").st_mtime_ns
    with Store.open(folder, read_only=True) as reader:
        assert reader.last_deployment() is None
        with pytest.raises(StateError, match="readonly"):
            reader.adopt("/f", "", "")
    assert (sorted(os.listdir(folder)), os.stat(folder / "state.db").st_mtime_ns) == before


def test_closing_twice_is_the_same_as_once(store):
    store.close()
    store.close()


# --------------------------------------------------------------------------- what can go wrong


def test_a_full_disk_is_told_and_harms_nothing_recorded(store):
    number = begin(store, service())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(StateError, match=r"E004 INSUFFICIENT_RESOURCES: .*Free space") as caught:
            store.set_plan(number, "x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    store.set_plan(number, "again")
    assert store.deployment(number).plan == "again"


@pytest.fixture
def small_disk(tmp_path):
    point = tmp_path / "disk"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(point)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def fill(disk):
    with pytest.raises(OSError, match="No space"), open(disk / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(b"\0" * 4096)


def test_a_disk_that_is_really_full_can_still_be_read(small_disk):
    with Store.create(small_disk / "shop", **ABOUT) as store:
        number = begin(store, service())
        fill(small_disk)
        with pytest.raises(StateError, match="E004"):
            store.set_plan(number, "x" * 1_000_000)
        with Store.open(small_disk / "shop", read_only=True) as reader:
            assert reader.running_deployment().number == number
    with Store.open(small_disk / "shop", read_only=True) as reader:
        assert reader.running_deployment().number == number
    (small_disk / "ballast").unlink()
    with Store.open(small_disk / "shop") as store:
        finish(store, number)


def test_no_state_is_begun_on_a_full_disk(small_disk):
    fill(small_disk)
    with pytest.raises(StateError, match="E004"):
        Store.create(small_disk / "shop", **ABOUT)
    assert not Store.exists(small_disk / "shop")
    (small_disk / "ballast").unlink()
    Store.create(small_disk / "shop", **ABOUT).close()


def test_a_damaged_file_is_told_with_what_to_do(folder):
    folder.mkdir(parents=True)
    (folder / "state.db").write_bytes(b"this is no database, or no longer one" * 100)
    with pytest.raises(StateError, match=r"S005 .* is damaged: .*move .* away"):
        Store.open(folder)


def test_a_place_that_cannot_be_had_is_told_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"S005 .*data_dir"):
        Store.create(tmp_path / "file" / "shop", **ABOUT)
    assert not Store.exists(tmp_path / "file" / "shop")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user: run as root")
def test_the_state_of_another_user_is_refused_and_not_taken_for_missing(store, folder):
    code = (
        f"import os, sys; sys.path[:] = {sys.path!r}; import deploy_code.state.files\n"
        "from deploy_code.state.store import Store; from deploy_code.errors import StateError\n"
        "os.setuid(65534)\n"
        "try: Store.exists(sys.argv[1])\n"
        "except StateError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.stdout.startswith("S005 VOLUME_MOUNT_FAILED"), done.stderr


def test_a_state_that_stays_busy_is_told(store, folder):
    store._sql._db.execute("PRAGMA busy_timeout = 10")
    other = connect(str(folder / "state.db"))
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StateError, match=r"E008 .*kept busy"):
            begin(store, service())
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert begin(store, service()) == 1


def test_the_state_of_a_newer_version_is_left_alone(store, folder):
    store._sql._db.execute(f"PRAGMA user_version = {migrate.VERSION + 1}")
    with pytest.raises(StateError, match="newer deploy-code"):
        Store.open(folder)


def test_migrations_lead_to_the_version_of_the_schema():
    numbers = [number for number, _ in migrate.pending(migrate.MIGRATIONS, 1, 10_000)]
    assert numbers == list(range(2, migrate.VERSION + 1))


def test_a_state_of_the_first_version_becomes_what_a_new_one_is(store, folder):
    fresh = _schema_of(folder)
    for statement in ("DROP TABLE circuits", "DROP TABLE images", "PRAGMA user_version = 1"):
        store._sql._db.execute(statement)
    number = begin(store, service())
    with Store.open(folder) as again:
        assert again._sql.version() == migrate.VERSION
        assert again.circuits() == []
        assert again.deployment(number) is not None
    assert _schema_of(folder) == fresh


def _schema_of(folder):
    """Every table and index, each as its words."""
    with contextlib.closing(connect(str(folder / "state.db"), read_only=True)) as db:
        found = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: sql.split() for name, sql in found}


def test_migrations_run_in_order_and_all_or_nothing(store, folder, tmp_path):
    steps = tmp_path / "steps"
    steps.mkdir()
    store._sql._db.execute("PRAGMA user_version = 1")
    (steps / "0002_a.sql").write_text("CREATE TABLE a (x TEXT);\nINSERT INTO a VALUES ('a;b');")
    (steps / "0003_b.sql").write_text("ALTER TABLE a ADD COLUMN y TEXT; UPDATE a SET y = 'c';")
    (steps / "0004_c.sql").write_text("CREATE TABLE c (x TEXT); INSERT INTO missing VALUES (1);")
    db = connect(str(folder / "state.db"))
    try:
        with pytest.raises(sqlite3.OperationalError):
            migrate.migrate(db, folder=str(steps), target=4)
        assert migrate.version(db) == 1
        migrate.migrate(db, folder=str(steps), target=3)
        migrate.migrate(db, folder=str(steps), target=3)
        assert db.execute("SELECT * FROM a").fetchall() == [("a;b", "c")]
        assert migrate.version(db) == 3
    finally:
        db.close()


# --------------------------------------------------------------------------- the house


def test_every_statement_fits_the_schema(store):
    for name, text in statements().items():
        parameters = {"number": 1} if ":" in text else [None] * text.count("?")
        try:
            store._sql._db.execute(f"EXPLAIN {text}", parameters)
        except sqlite3.ProgrammingError as exc:
            assert "binding" in str(exc), name  # named parameters are checked last: the statement itself is sound


def test_a_committed_write_survives_a_kill(folder):
    Store.create(folder, **ABOUT).close()
    code = (
        "import os, signal, sys; from deploy_code.state.store import Store\n"
        "Store.open(sys.argv[1]).adopt('/kept', 'x', 'y'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], env=ENV).returncode == -9
    with Store.open(folder, read_only=True) as store:
        assert store.project().file == "/kept"


def test_a_transaction_that_fails_leaves_nothing(store, folder):
    connection = Connection(str(folder / "state.db"), statements())
    with pytest.raises(RuntimeError, match="on purpose"), connection.transaction():
        connection.run("adopt", {"file": "/half", "environment": "", "log_dir": ""})
        raise RuntimeError("on purpose")
    connection.close()
    assert store.project().file == "/srv/shop.yaml"


def test_reading_the_state_imports_nothing_slow(store, folder):
    code = (
        "import sys; from deploy_code.state.store import Store\n"
        "store = Store.open(sys.argv[1], read_only=True); store.project(); store.current_map()\n"
        "store.instance_data(); store.wanted_rows(); store.deployments(); store.events()\n"
        "slow = {'asyncio', 'pydantic', 'rich', 'dataclasses', 'pathlib', 'deploy_code.model'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=ENV, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_schema_is_the_one_file():
    assert "CREATE TABLE deployments" in read("schema.sql")
