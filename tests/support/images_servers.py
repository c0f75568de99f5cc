"""Stand-ins for the official images of PostgreSQL, Redis and Python, made of this machine's own programs.

They have what people rely on of the originals: the entry point, the variables, the folders, the ports. Below them is
busybox instead of a Debian, with the shared libraries that the programs need.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from support.images import Entry, Image, Layer, copy, folder, link, program
from support.images_small import base
from support.needs import find, postgresql_bin

HERE = Path(__file__).parent

PATH = "PATH=/usr/local/bin:/usr/bin:/bin"

#: The user IDs of the official images: volumes are theirs.
POSTGRES, REDIS = 999, 998

#: What of PostgreSQL's folder no server needs: compiled queries, which want a compiler's library of 100 MB.
UNNEEDED = ("bitcode", "llvmjit")

#: What of Python's library no service needs.
NOT_IN_PYTHON = ("test", "site-packages", "idlelib", "lib2to3", "ensurepip", "config-", "tkinter", "pydoc_data")

POSTGRES_ENTRYPOINT = """\
#!/bin/sh
# As the official image's: makes the database on the first start, then runs the server as a user of its own.
set -eu
[ "${1#-}" = "$1" ] || set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" && chown -R postgres:postgres "$PGDATA" && chmod 700 "$PGDATA"
    exec /usr/bin/setpriv --reuid=999 --regid=999 --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        echo "       You must specify POSTGRES_PASSWORD to a non-empty value for the superuser." >&2
        exit 1
    fi
    user="${POSTGRES_USER:-postgres}" database="${POSTGRES_DB:-${POSTGRES_USER:-postgres}}"
    printf '%s\\n' "${POSTGRES_PASSWORD:-}" >/tmp/pwfile
    initdb --username="$user" --pwfile=/tmp/pwfile --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8
    rm /tmp/pwfile
    printf '\\nhost all all all %s\\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    pg_ctl -w start -o "-c listen_addresses=''" >/dev/null
    run() { psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$user" "$@"; }
    [ "$database" = postgres ] || run --dbname postgres -c "CREATE DATABASE \\"$database\\""
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sql) run --dbname "$database" -f "$file" ;;
            *.sh) . "$file" ;;
        esac
    done
    pg_ctl -m fast -w stop >/dev/null
    echo "PostgreSQL init process complete; ready for start up."
fi
exec "$@"
"""

REDIS_ENTRYPOINT = """\
#!/bin/sh
# As the official image's: arguments alone are redis-server's, which runs as a user of its own.
set -eu
case "${1:-}" in -*|*.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    chown -R redis:redis /data
    exec /usr/bin/setpriv --reuid=998 --regid=998 --clear-groups "$0" "$@"
fi
exec "$@"
"""


def users(**more: int) -> dict[str, Entry]:
    """/etc/passwd and /etc/group of busybox, and ``more`` users."""
    return {
        path: Entry(base().entries[path].text + "".join(line.format(name=name, number=more[name]) for name in more))  # type: ignore[operator]
        for path, line in (
            ("/etc/passwd", "{name}:x:{number}:{number}::/:/bin/sh\n"),
            ("/etc/group", "{name}:x:{number}:\n"),
        )
    }


def libraries(programs: Iterable[Path]) -> dict[str, Entry]:
    """The shared libraries of ``programs``, where the loader looks first, and the loader itself."""
    said = subprocess.run(["ldd", *map(str, programs)], check=False, capture_output=True, text=True).stdout
    loaders = set(re.findall(r"^\s*(/\S+) \(0x", said, re.M))
    found = set(re.findall(r"=> (/\S+) \(0x", said))
    return {path: copy(Path(path)) for path in loaders} | {f"/usr/lib/{Path(p).name}": copy(Path(p)) for p in found}


def as_user() -> dict[str, Entry]:
    """The program that starts another as some user: busybox has none that does so without a process in between."""
    setpriv = Path("/usr/bin/setpriv")
    return libraries([setpriv]) | {"/usr/bin/setpriv": copy(setpriv)}


def tree(source: Path, target: str, *, without: Iterable[str] = ()) -> dict[str, Entry]:
    """All files below ``source`` but those with a part of their path that starts with one of ``without``."""
    entries: dict[str, Entry] = {}
    unwanted = tuple(without)
    for at, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(unwanted)]
        inside = Path(at).relative_to(source)
        wanted = (name for name in files if not name.startswith(unwanted) and ".opt-" not in name)
        entries |= {f"{target}/{inside / name}": copy(path) for name in wanted if (path := Path(at, name)).exists()}
    return entries


def postgres() -> Image:
    binaries = postgresql_bin()
    assert binaries is not None, "PostgreSQL is not on this machine"
    home, version = binaries.parent, binaries.parent.name
    share = Path("/usr/share/postgresql", version)
    entries = tree(home, str(home), without=UNNEEDED) | tree(share, str(share), without=("man",))
    entries |= libraries(Path(path) for path in entries if Path(path).parent in (binaries, home / "lib"))
    zones = Path("/usr/share/zoneinfo")
    entries |= {str(zones / name): copy(zones / name) for name in ("UTC", "GMT") if (zones / name).exists()}
    entries |= tree(Path("/usr/lib/locale/C.utf8"), "/usr/lib/locale/C.utf8")
    entries |= (
        as_user()
        | users(postgres=POSTGRES)
        | {
            "/usr/local/bin/docker-entrypoint.sh": program(POSTGRES_ENTRYPOINT),
            "/docker-entrypoint-initdb.d": folder(),
            "/usr/bin/pager": link("/bin/more"),  # psql's
            "/var/lib/postgresql": folder(uid=POSTGRES),
            "/var/lib/postgresql/data": folder(0o700, uid=POSTGRES),
            "/var/run/postgresql": folder(0o3777, uid=POSTGRES),
        }
    )
    config = {
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "Env": [f"{PATH}:{binaries}", "LANG=C.UTF-8", "PGDATA=/var/lib/postgresql/data", f"PG_MAJOR={version}"],
        "ExposedPorts": {"5432/tcp": {}},
        "StopSignal": "SIGINT",
        "Volumes": {"/var/lib/postgresql/data": {}},
    }
    return Image("postgres:15", (base(), Layer(entries)), config)


def redis() -> Image:
    server, client = find("redis-server"), find("redis-cli")
    assert server and client, "Redis is not on this machine"
    entries = libraries([server.resolve(), client.resolve()]) | as_user() | users(redis=REDIS)
    entries |= {
        "/usr/local/bin/redis-server": copy(server),
        "/usr/local/bin/redis-cli": copy(client),
        "/usr/local/bin/docker-entrypoint.sh": program(REDIS_ENTRYPOINT),
        "/data": folder(uid=REDIS),
    }
    config = {
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["redis-server", "--protected-mode", "no"],
        "Env": [PATH],
        "ExposedPorts": {"6379/tcp": {}},
        "Volumes": {"/data": {}},
        "WorkingDir": "/data",
    }
    return Image("redis:7", (base(), Layer(entries)), config)


def python() -> Image:
    """The interpreter that runs the tests, below /usr/local as in the official image; without pip."""
    prefix, name = Path(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    standard, binary = prefix / "lib" / name, prefix / "bin" / name
    entries = tree(standard, f"/usr/local/lib/{name}", without=NOT_IN_PYTHON)
    entries |= libraries([binary, *(standard / "lib-dynload").glob("*.so")])
    entries |= {
        f"/usr/local/bin/{name}": copy(binary),
        "/usr/local/bin/python3": link(name),
        "/usr/local/bin/python": link(name),
        f"/usr/local/lib/{name}/site-packages": folder(),
    }
    config = {"Cmd": ["python3"], "Env": [PATH, "LANG=C.UTF-8", "PYTHONHOME=/usr/local"]}
    return Image("python:3.11-slim", (base(), Layer(entries)), config)


NAMES = ("postgres:15", "redis:7", "python:3.11-slim")


def server_images() -> list[Image]:
    """Takes some seconds: hundreds of files are read and hashed. ``recipe`` tells whether that is needed."""
    return [postgres(), redis(), python()]


@cache
def recipe() -> str:
    """Changes when ``server_images`` would: with the programs of this machine or with how images are made of them."""
    sources = [path.read_bytes() for path in sorted(HERE.glob("images*.py"))]
    found = (find("postgres"), find("redis-server"), find("busybox"), Path(sys.base_prefix, "bin", "python3"))
    stamps = [f"{path} {path.stat().st_mtime_ns}" for path in found if path]
    return hashlib.sha256(b"\0".join([*sources, *(stamp.encode() for stamp in stamps)])).hexdigest()
