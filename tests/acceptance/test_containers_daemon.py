"""The engine is away, dies or comes back, at any moment: nothing is lost or doubled, nobody is left waiting."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.engine_daemons import Docker, PrivateDocker, PrivatePodman
from support.harbour import SLEEP, Harbour, new_name, page, shell
from support.leftovers import kill
from support.ports import free_port
from support.project import ProjectFolder
from support.scenarios import agents, healthy, instances, last, pids, sleeper, states, text_at, until

QUICK = {"policy": "always", "backoff_seconds": 0.1, "backoff_max_seconds": 1}


def one_whole_revision(harbour: Harbour, version: str, *services: str) -> None:
    """Each of these once, at that version, nothing else, whatever its labels are; and nothing is under way."""
    harbour.settled(f"{version}, all healthy", lambda: harbour.text("app") == version and healthy(harbour.project), 40)
    assert harbour.running() == dict.fromkeys(sorted(services), 1)
    assert len(harbour.names()) == len(services), harbour.names()
    assert len(agents(harbour.project)) == 1


# --------------------------------------------------------------------------- not there at all


def test_no_engine_is_e014_before_anything_is_done(dock: Harbour, tmp_path: Path) -> None:
    dock.project.env["DOCKER_HOST"] = f"unix://{tmp_path}/nobody.sock"
    dock.write({"app": page(), "worker": sleeper()})
    for command in (["plan"], ["deploy"]):
        run = dock.run(*command).exits(1)
        assert "E014" in run.stderr and "nobody.sock" in run.stderr, run
    assert pids(dock.project) == {}


def test_an_engine_that_only_a_part_of_the_file_needs_does_not_matter_to_the_rest(
    dock: Harbour, tmp_path: Path
) -> None:
    dock.project.env["DOCKER_HOST"] = f"unix://{tmp_path}/nobody.sock"
    dock.deploy({"app": page(), "worker": sleeper()}, "--services", "worker").ok()
    assert set(pids(dock.project)) == {"worker"}


def test_a_project_of_processes_needs_no_engine(dock: Harbour, tmp_path: Path) -> None:
    dock.project.env["DOCKER_HOST"] = f"unix://{tmp_path}/nobody.sock"
    dock.deploy({"worker": sleeper()}).ok()


def test_something_else_on_the_socket_is_e014(dock: Harbour, tmp_path: Path) -> None:
    """A web server that knows nothing of the Engine API."""
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(20)

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        dock.project.env["DOCKER_HOST"] = f"unix://{path}"
        run = dock.deploy({"app": page()}).exits(1)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert "E014" in run.stderr, run


def test_looking_needs_no_engine(private: Harbour) -> None:
    private.deploy({"app": shell(f"echo a word; {SLEEP}"), "worker": sleeper()}).ok()
    private.until_logged("a word")
    private.engine.kill()
    for command in (["status", "--detailed"], ["history"], ["events"], ["health"]):
        assert private.run(*command, timeout=10).code in (0, 4), command
    assert "a word" in private.logs("app")
    assert set(pids(private.project)) == {"worker"}
    private.engine.start()


# --------------------------------------------------------------------------- it dies while all is quiet


def test_an_engine_that_crashes_and_comes_back_leaves_every_service_running_once(moving: Harbour) -> None:
    moving.deploy({"app": page(restart=QUICK), "db": shell(restart=QUICK), "worker": sleeper()}).ok()
    worker = pids(moving.project)["worker"]
    moving.engine.kill()
    moving.engine.start()
    one_whole_revision(moving, "v1", "app", "db")
    assert pids(moving.project)["worker"] == worker
    moving.deploy({"app": page(2, restart=QUICK), "db": shell(restart=QUICK), "worker": sleeper()}).ok()
    one_whole_revision(moving, "v2", "app", "db")


def test_an_engine_that_is_stopped_and_started_in_good_order_leaves_every_service_running_once(
    moving: Harbour,
) -> None:
    moving.deploy({"app": page(restart=QUICK), "db": shell(restart=QUICK)}).ok()
    moving.engine.restart()
    one_whole_revision(moving, "v1", "app", "db")


def test_containers_that_live_on_without_their_engine_are_taken_over_not_restarted(
    make_private_docker: Callable[..., PrivateDocker], make_project: Callable[..., ProjectFolder]
) -> None:
    engine = make_private_docker("--live-restore")
    harbour = Harbour(make_project(new_name(), **engine.env), engine)
    harbour.deploy({"app": page(), "talker": shell("n=0; while sleep 0.2; do n=$((n+1)); echo line $n; done")}).ok()
    before = harbour.ids()
    harbour.until_logged("line 3")
    engine.kill()
    engine.start()
    harbour.settled("healthy", lambda: healthy(harbour.project))
    assert harbour.ids() == before
    assert [each["restarts"] for each in harbour.project.status()["services"].values()] == [0, 0]
    seen = harbour.logs("talker", "-n", "1").split()[-1]
    harbour.settled("its log to go on", lambda: int(harbour.logs("talker", "-n", "1").split()[-1]) > int(seen) + 3)
    numbers = [int(line.split()[-1]) for line in harbour.logs("talker", "-n", "10000").splitlines()]
    assert numbers == list(range(1, len(numbers) + 1)), "no line is lost or doubled"
    harbour.engine.api("POST", f"/containers/{before['app'][0]}/kill", signal="SIGKILL")
    harbour.settled("app to be back", lambda: harbour.text("app") == "v1")


def test_podmans_containers_live_on_without_its_service(
    private_podman: PrivatePodman, make_project: Callable[..., ProjectFolder]
) -> None:
    harbour = Harbour(make_project(new_name(), **private_podman.env), private_podman)
    harbour.deploy({"app": page(), "db": shell()}).ok()
    before = harbour.ids()
    private_podman.kill()
    assert states(harbour.project) == {"app": "running", "db": "running"}
    private_podman.start()
    harbour.settled("healthy", lambda: healthy(harbour.project))
    assert harbour.ids() == before
    assert [each["restarts"] for each in harbour.project.status()["services"].values()] == [0, 0]


def test_what_cannot_be_seen_is_not_counted_as_dead_and_the_circuit_is_shown(private: Harbour) -> None:
    private.deploy({"app": page(restart=QUICK), "worker": sleeper()}).ok()
    private.engine.kill()
    private.settled("the engine's circuit", lambda: "docker" in str(private.project.status()["circuits"]), 40)
    assert states(private.project)["worker"] == "running"
    private.engine.start()
    private.settled(
        "the circuit to close", lambda: not any("docker" in str(each) for each in private.project.status()["circuits"])
    )
    one_whole_revision(private, "v1", "app")


def test_a_stop_without_the_engine_says_so_and_works_once_it_is_back(private: Harbour) -> None:
    private.deploy({"app": page(restart=QUICK), "worker": sleeper()}).ok()
    private.engine.kill()
    run = private.run("stop", "--timeout", "3", timeout=60)
    left = pids(private.project)
    private.engine.start()
    private.run("stop").ok()
    assert private.names() == []
    assert left == {}, "what could be stopped was stopped"
    assert run.code == 1 and "E014" in run.stderr, run


def test_agent_and_engine_that_die_together_are_made_good(private: Harbour) -> None:
    private.deploy({"app": page(restart=QUICK), "db": shell(restart=QUICK)}).ok()
    kill(agents(private.project))
    private.engine.kill()
    private.run("agent", "start")
    private.engine.start()
    private.run("agent", "start").ok()
    one_whole_revision(private, "v1", "app", "db")


# --------------------------------------------------------------------------- it dies in the middle of a deploy


class Upgrade:
    """``app`` is to become v2, ``new`` to come, ``db`` to stay. ``seen`` is the line of progress to strike at."""

    def __init__(self, harbour: Harbour, timeout_seconds: int) -> None:
        self.harbour, self.timeout = harbour, timeout_seconds
        self.old = {"db": shell(restart=QUICK), "app": page(1, "db", restart=QUICK)}
        self.new = {"db": shell(restart=QUICK), "app": page(2, "db", restart=QUICK), "new": shell(SLEEP, "app")}
        harbour.deploy(self.old).ok()
        harbour.write(self.new, deployment={"timeout_seconds": timeout_seconds, "strategy": "Sequential"})

    @contextmanager
    def at(self, seen: str) -> Iterator[subprocess.Popen[str]]:
        deploying = self.harbour.project.start("deploy")
        assert deploying.stderr
        try:
            self.said = ""
            for line in deploying.stderr:
                self.said += line
                if seen in line:
                    break
            yield deploying
        finally:
            deploying.kill()
            deploying.communicate()

    def finish(self, deploying: subprocess.Popen[str], timeout: float) -> int:
        _, rest = deploying.communicate(timeout=timeout)
        self.said += rest
        return deploying.returncode


MOMENTS = ("deploy", "app r1 #0 stopping", "app r2 #0 starting", "app r2 #0 ready", "new r1 #0 starting")


PODMAN_MOMENTS = MOMENTS[1::3]  # only Podman's service dies, never what runs on it


@pytest.mark.parametrize(
    ("private_engine", "seen"),
    [*(("docker", seen) for seen in MOMENTS), *(("podman", seen) for seen in PODMAN_MOMENTS)],
    indirect=["private_engine"],
)
def test_an_engine_that_restarts_in_the_middle_of_a_deploy_ends_on_one_revision_whole(
    moving: Harbour, seen: str
) -> None:
    upgrade = Upgrade(moving, 30)
    with upgrade.at(seen) as deploying:
        moving.engine.kill()
        moving.engine.start()
        code = upgrade.finish(deploying, 90)
    if code == 0:
        one_whole_revision(moving, "v2", "app", "db", "new")
    else:
        assert code == 1 and ("E014" in upgrade.said or "E005" in upgrade.said or "E006" in upgrade.said), upgrade.said
        one_whole_revision(moving, "v1", "app", "db")
        moving.run("deploy", timeout=90).ok()
        one_whole_revision(moving, "v2", "app", "db", "new")


@pytest.mark.parametrize("seen", ["app r1 #0 stopping", "app r2 #0 ready"])
def test_an_engine_that_stays_away_is_e014_within_the_deadline_and_all_goes_back_once_it_returns(
    private: Harbour, seen: str
) -> None:
    upgrade = Upgrade(private, 5)
    with upgrade.at(seen) as deploying:
        private.engine.kill()
        began = time.monotonic()
        code = upgrade.finish(deploying, 60)
        took = time.monotonic() - began
    private.engine.start()
    one_whole_revision(private, "v1", "app", "db")
    assert last(private.project)["status"] != "completed"
    assert code == 1 and "E014" in upgrade.said, upgrade.said
    assert took < 45


def test_an_engine_that_hangs_does_not_hang_a_deploy(private: Harbour) -> None:
    """It is there, takes connections, and never answers."""
    upgrade = Upgrade(private, 5)
    record = private.engine.record
    assert record
    with upgrade.at("app r1 #0 stopping") as deploying:
        os.kill(record.pid, signal.SIGSTOP)
        try:
            code = upgrade.finish(deploying, 90)
        finally:
            os.kill(record.pid, signal.SIGCONT)
    if code == 0:
        one_whole_revision(private, "v2", "app", "db", "new")
    else:
        assert "E014" in upgrade.said or "E008" in upgrade.said, upgrade.said
        one_whole_revision(private, "v1", "app", "db")


def test_an_engine_that_hangs_from_the_beginning_is_e014_soon(private: Harbour) -> None:
    record = private.engine.record
    assert record
    private.write({"app": page()})
    os.kill(record.pid, signal.SIGSTOP)
    try:
        run = private.run("deploy", timeout=90)
    finally:
        os.kill(record.pid, signal.SIGCONT)
    assert run.code == 1 and "E014" in run.stderr, run


# --------------------------------------------------------------------------- where the engine is


@pytest.fixture
def nowhere(dock: Harbour, monkeypatch: pytest.MonkeyPatch) -> Harbour:
    """A project that is told nothing of where Docker is, with a folder for the docker command's own settings."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
        dock.project.env.pop(name, None)
        monkeypatch.delenv(name, raising=False)
    return dock


def docker_here(harbour: Harbour, *args: str) -> None:
    subprocess.run(["docker", *args], env={**os.environ, **harbour.project.env}, check=True, capture_output=True)


def test_the_context_in_use_is_the_engine_that_is_used(nowhere: Harbour) -> None:
    docker_here(nowhere, "context", "create", "test", "--docker", f"host={nowhere.engine.url}")
    docker_here(nowhere, "context", "use", "test")
    nowhere.deploy({"app": page()}).ok()
    assert nowhere.running() == {"app": 1}
    nowhere.run("stop").ok()


def test_docker_context_names_a_context_and_docker_host_goes_before_it(nowhere: Harbour, tmp_path: Path) -> None:
    docker_here(nowhere, "context", "create", "good", "--docker", f"host={nowhere.engine.url}")
    docker_here(nowhere, "context", "create", "bad", "--docker", f"host=unix://{tmp_path}/nobody.sock")
    nowhere.write({"app": page()})
    assert "nobody.sock" in nowhere.run("plan", env={"DOCKER_CONTEXT": "bad"}).exits(1).stderr
    nowhere.run("deploy", env={"DOCKER_CONTEXT": "good"}).ok()
    nowhere.run("plan", env={"DOCKER_CONTEXT": "bad", "DOCKER_HOST": nowhere.engine.url}).ok()
    nowhere.run("stop").ok()
    assert nowhere.names() == []


def test_a_context_that_is_not_there_is_e014_that_names_it(nowhere: Harbour) -> None:
    nowhere.write({"app": page()})
    run = nowhere.run("deploy", env={"DOCKER_CONTEXT": "atlantis"}).exits(1)
    assert "E014" in run.stderr and "atlantis" in run.stderr


def test_an_engine_by_ssh_is_e014_that_says_what_to_do(dock: Harbour) -> None:
    dock.project.env["DOCKER_HOST"] = "ssh://somebody@example.org"
    run = dock.deploy({"app": page()}).exits(1)
    assert "E014" in run.stderr and "ssh" in run.stderr


def test_stop_and_restart_need_no_environment_that_names_the_engine(nowhere: Harbour) -> None:
    """The agent knows where its containers are, whoever asks."""
    nowhere.write({"app": page()})
    nowhere.run("deploy", env=nowhere.engine.env).ok()
    before = nowhere.ids()
    nowhere.run("restart").ok()
    assert nowhere.ids() != before
    nowhere.run("stop").ok()
    assert nowhere.names() == []


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A CA, and one certificate for the daemon and its client alike, as `DOCKER_CERT_PATH` wants them."""
    folder = tmp_path / "certs"
    folder.mkdir()

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    ca = ("-subj", "/CN=test CA", "-addext", "basicConstraints=critical,CA:TRUE")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "ca-key.pem", "-out", "ca.pem", *ca
    )
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=localhost"
    )
    (folder / "usage").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "usage")
    openssl("x509", "-req", "-in", "request.pem", "-out", "cert.pem", *signed)
    return folder


def test_an_engine_behind_tls_is_used_with_the_users_certificates(
    certificates: Path,
    make_private_docker: Callable[..., PrivateDocker],
    make_project: Callable[..., ProjectFolder],
    tmp_path: Path,
) -> None:
    """It may be on another machine: containers are reached by published ports alone."""
    files = {"--tlscacert": "ca.pem", "--tlscert": "cert.pem", "--tlskey": "key.pem"}
    options = [word for option, file in files.items() for word in (option, str(certificates / file))]
    port = free_port()
    engine = make_private_docker("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", *options)
    where = {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    harbour = Harbour(make_project(new_name(), **where), engine)
    ask = "import sys, time, urllib.request as r; print(r.urlopen(sys.argv[1]).read(), flush=True); time.sleep(1000)"
    url = "http://${services.app.host}:${services.app.port}/"
    front = sleeper(command="python3", args=["-c", ask, url], dependencies=["app"])
    harbour.deploy({"app": page(), "front": front}).ok()
    [app] = instances(harbour.project, "app")
    assert text_at(app["published"]["8080"]).strip() == "v1"
    harbour.until_logged("v1", "front")
    harbour.run("stop").ok()
    nobody = {"DOCKER_CERT_PATH": str(tmp_path)}
    assert "E014" in harbour.run("deploy", env=nobody).exits(1).stderr


def test_two_projects_on_two_engines_do_not_disturb_each_other(
    docker: Docker, private: Harbour, make_project: Callable[..., ProjectFolder]
) -> None:
    other = Harbour(make_project(new_name(), **docker.env), docker)
    private.deploy({"app": page(restart=QUICK)}).ok()
    other.deploy({"app": page(2)}).ok()
    private.engine.kill()
    assert other.run("restart").ok()
    assert other.text("app") == "v2"
    private.engine.start()
    until(lambda: private.text("app") == "v1", "the other to be back", 40)
