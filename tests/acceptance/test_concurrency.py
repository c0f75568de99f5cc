"""Two deployments at once, and a world that gives way under them: full disks, reboots, other people's kills."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support.cli import Finished
from support.leftovers import kill
from support.ports import answers, free_port, free_ports
from support.project import ProjectFolder
from support.scenarios import (
    FAST,
    agent_pid,
    agents,
    alive,
    history,
    kill_hard,
    last,
    one_shot,
    pages,
    pid_of,
    pids,
    program,
    sleeper,
    states,
    text_at,
    until,
    until_gone,
    web,
    write_program,
)
from support.wait import wait_until

# --------------------------------------------------------------------------- the lock


@pytest.fixture
def busy(project: ProjectFolder, port: int) -> Iterator[subprocess.Popen[str]]:
    """A deployment that goes on for some four seconds, well under way."""
    write_program(project)
    patient = {"endpoint": "/", **FAST, "retries": 9}
    slow = program(port, "slow", 4, health_check=patient)
    project.write({"quick": sleeper(), "slow": slow}, deployment={"strategy": "Parallel"})
    running = project.start("deploy")
    until(lambda: {"quick", "slow"} <= set(pids(project)), "the deployment to be under way")
    yield running
    running.communicate(timeout=30)


@pytest.mark.parametrize(
    "command", [["deploy"], ["stop"], ["restart"], ["scale", "quick=2"], ["rollback", "--to", "1"]], ids=lambda c: c[0]
)
def test_the_second_gets_e011_with_who_holds_the_lock(
    project: ProjectFolder, busy: subprocess.Popen[str], command: list[str]
) -> None:
    refused = project.cli(*command).exits(3)
    assert "E011" in refused.stderr and str(busy.pid) in refused.stderr, refused
    assert "--wait" in refused.stderr
    busy.communicate(timeout=30)
    assert busy.returncode == 0
    assert set(pids(project)) == {"quick", "slow"}
    assert len(history(project)) == 1


def test_wait_queues_behind_the_first(project: ProjectFolder, busy: subprocess.Popen[str]) -> None:
    queued = project.cli("stop", "--wait").ok()
    busy.communicate(timeout=30)
    assert busy.returncode == 0
    until_gone(project)
    assert [row["kind"] for row in history(project)] == ["stop", "deploy"]
    assert queued.code == 0


def test_read_only_commands_work_beside_a_deployment(project: ProjectFolder, busy: subprocess.Popen[str]) -> None:
    status = project.status()
    assert (status["deployment_complete"], status["deployment_status"]) == (False, "in_progress")
    for command in (["plan"], ["history"], ["events"], ["logs"], ["validate"], ["--dry-run", "deploy"]):
        project.cli(*command).ok()
    assert project.cli("health").code in (0, 4)


def test_many_first_deploys_at_once_end_in_one(project: ProjectFolder, port: int) -> None:
    pages(project, "v1")
    project.write({"web": web(port)})
    with ThreadPoolExecutor(4) as pool:
        runs: list[Finished] = list(pool.map(lambda _: project.cli("deploy"), range(4)))
    assert {run.code for run in runs} <= {0, 3} and 0 in {run.code for run in runs}, [str(run) for run in runs]
    assert len(pids(project)["web"]) == 1
    wait_until(lambda: len(agents(project)) == 1)  # those that warmed up for the others end by themselves


# --------------------------------------------------------------------------- full disks


@contextmanager
def small_disk(folder: Path, size: str = "512k") -> Iterator[Path]:
    """A tmpfs of that size at ``folder``; skipped where it cannot be mounted."""
    folder.mkdir(parents=True)
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root, where mounts are allowed, can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
        try:
            while True:
                file.write(b"x")
        except OSError:
            pass
    return path


def test_a_full_disk_under_the_state_is_a_clear_error_and_services_keep_running(
    project: ProjectFolder, port: int
) -> None:
    with small_disk(project.folder / "data", "2m"):
        pages(project, "v1", "v2")
        project.write({"web": web(port)})
        project.cli("deploy").ok()
        before = pids(project)
        ballast = fill(project.data_dir)
        project.write({"web": web(port, version="v2")})
        failed = project.cli("deploy").exits(1)
        assert "E004" in failed.stderr and "Traceback" not in failed.stderr and "fault of its own" not in failed.stderr
        assert text_at(port, "/index.html") in ("v1", "v2")
        assert pids(project) == before
        project.cli("status").ok()
        ballast.unlink()
        project.cli("deploy").ok()
        assert text_at(port, "/index.html") == "v2"
        project.cli("stop").ok()
        until_gone(project)


def test_a_service_that_dies_while_the_state_cannot_be_written_comes_back(project: ProjectFolder, port: int) -> None:
    with small_disk(project.folder / "data", "2m"):
        pages(project, "v1")
        project.write({"web": web(port)})
        project.cli("deploy").ok()
        agent = agent_pid(project)
        ballast = fill(project.data_dir)
        kill_hard(pid_of(project, "web"))
        time.sleep(1.5)  # nothing can be noted that could be awaited; longer than the first pause before a restart
        ballast.unlink()
        until(lambda: text_at(port, "/index.html") == "v1", "web to be back, now that there is room", 20)
        assert agent_pid(project) == agent, "the agent lived through it"
        project.cli("stop").ok()
        until_gone(project)


def test_a_full_disk_under_the_logs_harms_no_service(project: ProjectFolder, port: int) -> None:
    with small_disk(project.folder / "logs"):
        pages(project, "v1", "v2")
        project.write({"web": web(port)})
        project.cli("deploy").ok()
        before = pids(project)
        fill(project.log_dir)
        project.cli("deploy").ok()
        assert pids(project) == before
        assert text_at(port, "/index.html") == "v1"
        project.cli("status").ok()
        project.cli("logs").ok()
        project.write({"web": web(port, version="v2")})
        run = project.cli("deploy")
        assert "fault of its own" not in run.stderr, run
        assert run.code == 0 or "E004" in run.stderr or "S005" in run.stderr, run
        assert text_at(port, "/index.html") in ("v1", "v2")
        project.cli("stop").ok()
        until_gone(project)


def test_a_full_disk_at_the_first_deploy_is_a_clear_error(project: ProjectFolder) -> None:
    with small_disk(project.folder / "data"):
        fill(project.data_dir)
        project.write({"worker": sleeper()})
        failed = project.cli("deploy").exits(1)
        assert "E004" in failed.stderr and "fault of its own" not in failed.stderr, failed
        assert not pids(project)
        until_gone(project)


# --------------------------------------------------------------------------- reboot


def reboot(project: ProjectFolder) -> None:
    """Every process gone at once, and what is recorded of them is of another boot."""
    kill(project.leftovers())
    old, new = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), str(uuid.uuid4())
    changed = 0
    with closing(sqlite3.connect(project.state / "state.db")) as db, db:
        for uid, state in db.execute("SELECT uuid, state FROM instances").fetchall():
            changed += old in state
            db.execute("UPDATE instances SET state = ? WHERE uuid = ?", (state.replace(old, new), uid))
    assert changed, "no boot id is recorded"


def test_after_a_reboot_everything_comes_back_in_dependency_order(project: ProjectFolder) -> None:
    db, api, stopped = free_ports(3)
    write_program(project)
    ran = project.folder / "ran"
    services = {
        "migrate": one_shot(f"open({str(ran)!r}, 'a').write('x')"),
        "db": program(db, "slow", 0.5, dependencies=["migrate"]),
        "api": program(api, "needs", db, dependencies=["db"], restart="never"),  # dies for good if db does not answer
        "stopped": program(stopped),
    }
    project.write(services)
    project.cli("deploy").ok()
    project.cli("stop", "--services", "stopped").ok()
    reboot(project)
    project.cli("agent", "start").ok()
    until(lambda: text_at(api) == "v1" and text_at(db) == "v1", "both to be back", timeout=20)
    assert set(pids(project)) == {"db", "api"}, "what was stopped stays stopped"
    assert ran.read_text() == "x", "a one-shot that has run does not run again"
    assert states(project)["api"] == "running"


def test_after_a_reboot_in_the_middle_of_a_deployment_the_last_good_one_comes_back(project: ProjectFolder) -> None:
    first, second = free_ports(2)
    pages(project, "v1", "v2")
    write_program(project)
    project.write({"web": web(first)})
    project.cli("deploy").ok()
    project.write({"web": web(first, version="v2"), "slow": program(second, "deaf", dependencies=["web"])})
    running = project.start("deploy")
    until(lambda: "slow" in pids(project), "the deployment to be in the middle")
    running.kill()
    running.communicate(timeout=10)
    reboot(project)
    project.cli("agent", "start").ok()
    until(lambda: text_at(first, "/index.html") == "v1", "the last good one", timeout=20)
    until(lambda: last(project)["status"] == "rolled_back", "the interrupted one to be undone", timeout=20)
    assert set(pids(project)) == {"web"}


def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(project: ProjectFolder) -> None:
    """After a crash of everything, a stranger got the number of our service: it is neither adopted nor killed."""
    project.write({"worker": sleeper()})
    project.cli("deploy").ok()
    old = pid_of(project, "worker")
    kill(project.leftovers())
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        with closing(sqlite3.connect(project.state / "state.db")) as db, db:
            for uid, state in db.execute("SELECT uuid, state FROM instances").fetchall():
                patched = state.replace(f": {old},", f": {stranger.pid},").replace(f":{old},", f":{stranger.pid},")
                assert patched != state
                db.execute("UPDATE instances SET state = ? WHERE uuid = ?", (patched, uid))
        project.cli("agent", "start").ok()
        until(lambda: "worker" in pids(project), "a new worker")
        project.cli("stop").ok()
        assert alive(stranger.pid)
        stranger.kill()


# --------------------------------------------------------------------------- PostgreSQL, whose children lead sessions


@pytest.fixture
def postgres(make_project: Callable[..., ProjectFolder], open_folder: Path, pg_bin: Path) -> ProjectFolder:
    """A cluster made by a one-shot, and a server on it, as root's or as one's own."""
    project = make_project("shop", open_folder / "shop")
    port = free_port()
    data = open_folder / "cluster"
    data.mkdir()
    user: dict[str, str] = {}
    if os.geteuid() == 0:
        import pwd

        user = {"user": "postgres" if any(each.pw_name == "postgres" for each in pwd.getpwall()) else "nobody"}
        os.chown(data, pwd.getpwnam(user["user"]).pw_uid, -1)
    data.chmod(0o700)
    init = ["-D", str(data), "--auth=trust", "--username=shop", "--no-sync", "--encoding=UTF8", "--locale=C"]
    serve = ["-D", str(data), "-p", str(port), "-k", str(data), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    project.write(
        {
            "initdb": {"command": str(pg_bin / "initdb"), "args": init, "one_shot": True, "working_dir": "/", **user},
            "db": {
                "command": str(pg_bin / "postgres"),
                "args": serve,
                "dependencies": ["initdb"],
                "ports": [{"container_port": port}],
                "stop_signal": "SIGINT",
                "working_dir": "/",
                "health_check": {
                    "command": [str(pg_bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)],
                    "interval_seconds": 1,
                    "timeout_seconds": 5,
                },
                **user,
            },
        }
    )
    project.cli("deploy").ok()
    return project


def postmaster(project: ProjectFolder) -> int:
    """By PostgreSQL's own record; 0 while there is none."""
    try:
        return int((project.folder.parent / "cluster" / "postmaster.pid").read_text().split()[0])
    except (FileNotFoundError, IndexError):
        return 0


def cluster(project: ProjectFolder) -> set[int]:
    """The postmaster and its children. They overwrite their env with a title, and each leads a session of its own."""
    root = postmaster(project)
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return {root, *map(int, children)}


def test_postgresqls_children_do_not_outlive_a_killed_postmaster(postgres: ProjectFolder) -> None:
    until(lambda: len(cluster(postgres)) > 3, "its children")
    everyone, old = cluster(postgres), postmaster(postgres)
    kill_hard(old)
    until(lambda: not any(alive(pid) for pid in everyone), "the old children to be gone")
    until(lambda: postmaster(postgres) not in (0, old) and postgres.status()["overall_health"] == "healthy", "db", 30)


def test_postgresqls_children_do_not_outlive_a_postmaster_that_is_killed_while_no_agent_lives(
    postgres: ProjectFolder,
) -> None:
    until(lambda: len(cluster(postgres)) > 3, "its children")
    everyone, old = cluster(postgres), postmaster(postgres)
    kill_hard(agent_pid(postgres))
    kill_hard(old)
    postgres.cli("agent", "start").ok()
    until(lambda: not any(alive(pid) for pid in everyone), "the old children to be gone")
    until(lambda: postmaster(postgres) not in (0, old) and postgres.status()["overall_health"] == "healthy", "db", 30)


def test_postgresql_survives_its_agent_and_stops_with_all_its_children(postgres: ProjectFolder) -> None:
    until(lambda: len(cluster(postgres)) > 3, "its children")
    everyone = cluster(postgres)
    kill_hard(agent_pid(postgres))
    assert all(alive(pid) for pid in everyone)
    postgres.cli("stop").ok()
    assert not [pid for pid in everyone if alive(pid)]
    assert "database system is shut down" in postgres.cli("logs", "db").ok().stdout, "stop_signal, not SIGKILL"
    until_gone(postgres)


# --------------------------------------------------------------------------- what is wanted stays wanted


def test_a_stop_is_respected_by_the_next_agent(project: ProjectFolder) -> None:
    project.write({"worker": sleeper(), "other": sleeper()})
    project.cli("deploy").ok()
    project.cli("stop", "--services", "worker").ok()
    kill_hard(agent_pid(project))
    project.cli("agent", "start").ok()
    until(lambda: agents(project), "the agent")
    until(lambda: states(project)["other"] == "running", "other to be adopted")
    assert set(pids(project)) == {"other"}
    assert states(project)["worker"] == "stopped"


def test_stop_stops_dependents_first(project: ProjectFolder) -> None:
    db, api = free_ports(2)
    write_program(project)
    says = "import signal, socket, sys, time\n"  # at its end, asks whether db still answers
    asks = f"""
def ends(*_):
    print("db answered at my end", socket.socket().connect_ex(("127.0.0.1", {db})) == 0, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, ends)
while True: time.sleep(1000)
"""
    services = {
        "db": program(db),
        "api": {"command": sys.executable, "args": ["-c", says + asks], "dependencies": ["db"]},
    }
    project.write(services)
    project.cli("deploy").ok()
    time.sleep(0.1)  # its handler is set a moment after it counts as alive
    project.cli("stop").ok()
    assert "db answered at my end True" in project.cli("logs", "api").ok().stdout
    assert not answers(db)
    assert api
