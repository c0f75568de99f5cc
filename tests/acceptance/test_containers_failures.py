"""What goes wrong with containers, and what must then happen: the right code, the cause named, strangers untouched."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.engine_daemons import PrivateDocker
from support.harbour import BUSYBOX, SLEEP, Harbour, new_name, page, shell
from support.image_registry import Registry
from support.images import Entry, Image, Layer
from support.images_small import web
from support.ports import answers, free_port
from support.project import ProjectFolder
from support.scenarios import agents, healthy, last, sleeper, states, until

# --------------------------------------------------------------------------- images


def refused(harbour: Harbour, service: dict[str, Any], *facts: str) -> None:
    """The deploy of ``service`` beside a running one fails with these facts before anything is changed."""
    harbour.deploy({"steady": shell()}).ok()
    before = harbour.ids()
    run = harbour.deploy({"steady": shell(), "app": service}).exits(1)
    for fact in facts:
        assert fact in run.stderr, f"{fact!r} is not on stderr: {run}"
    assert harbour.ids() == before, "nothing was changed"
    assert states(harbour.project)["steady"] == "running"


def test_an_image_that_is_not_there_and_not_to_be_pulled_is_e003(dock: Harbour) -> None:
    refused(dock, page(image="dc-test/no-such:7", pull="never"), "E003", "dc-test/no-such:7")


def test_an_image_that_the_registry_does_not_have_is_e003(dock: Harbour, registry: Registry, tmp_path: Path) -> None:
    dock.project.env["DOCKER_CONFIG"] = str(registry.docker_config(tmp_path / "docker"))
    name = f"{registry.address}/shop/no-such:1"
    refused(dock, page(image=name), "E003", name)


def test_a_pull_without_credentials_is_e003_that_says_how_to_log_in(dock: Harbour, registry: Registry) -> None:
    registry.push(web(1), "shop/closed:1")
    name = f"{registry.address}/shop/closed:1"
    refused(dock, page(image=name), "E003", name, "login")


def test_a_registry_that_is_away_is_e003_that_names_it(dock: Harbour) -> None:
    name = f"127.0.0.1:{free_port()}/shop/web:1"
    refused(dock, page(image=name), "E003", name)


def test_a_plan_with_a_missing_image_says_what_deploy_would_fetch_and_fetches_nothing(
    dock: Harbour, registry: Registry, tmp_path: Path
) -> None:
    dock.project.env["DOCKER_CONFIG"] = str(registry.docker_config(tmp_path / "docker"))
    repository = f"shop/{dock.name}"
    registry.push(web(1), f"{repository}:1")
    dock.write({"app": page(image=f"{registry.address}/{repository}:1")})
    assert f"{repository}:1" in dock.run("plan").ok().output
    tags = [tag for image in dock.engine.api("GET", "/images/json") for tag in image["RepoTags"] or ()]
    assert not [tag for tag in tags if repository in tag]


def test_an_image_for_another_processor_is_said_to_be_one(dock: Harbour) -> None:
    run = dock.deploy({"app": {"image": "dc-test/arm:1", "min_ready_seconds": 0.1}}).exits(1)
    assert ("E003" in run.stderr or "E005" in run.stderr) and "dc-test/arm:1" in run.stderr, run
    assert "arm64" in run.stderr and "amd64" in run.stderr
    assert dock.names() == []


def test_an_image_that_was_removed_after_the_deploy_does_not_harm_what_runs(dock: Harbour) -> None:
    """The engine keeps what a container uses; the tag may go."""
    tag = f"{dock.name}:1"
    dock.engine.api("POST", f"/images/{BUSYBOX}/tag", repo=dock.name, tag="1")
    dock.deploy({"app": shell(image=tag)}).ok()
    dock.engine.api("DELETE", f"/images/{tag}")
    dock.engine.api("POST", f"/containers/{dock.id_of('app')}/kill", signal="SIGKILL")
    dock.settled("app to be back", lambda: dock.running() == {"app": 1})


# --------------------------------------------------------------------------- ports


def test_a_published_port_of_another_program_is_s004_that_names_it(dock: Harbour, busybox: Path) -> None:
    port = free_port()
    command = [busybox, "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(dock.project.folder)]
    with subprocess.Popen(command) as program:
        try:
            until(lambda: answers(port), "the other program")
            service = page(ports=[{"container_port": 8080, "host_port": port}])
            refused(dock, service, "S004", str(port), "busybox", str(program.pid))
        finally:
            program.kill()


def test_a_published_port_of_somebodys_container_is_s004_that_names_it(dock: Harbour) -> None:
    port, stranger = free_port(), f"{dock.name}-theirs"
    with somebodys(dock, stranger, "-p", f"{port}:8080"):
        refused(dock, page(ports=[{"container_port": 8080, "host_port": port}]), "S004", str(port), stranger)


def test_a_port_that_is_taken_between_the_look_and_the_start_is_s004_and_rolled_back(dock: Harbour) -> None:
    """The service before it takes the port, so preflight finds it free."""
    port = free_port()
    script = f"import socket, time; s = socket.create_server(('', {port})); time.sleep(1000)"
    thief = sleeper(command="python3", args=["-c", script], min_ready_seconds=0.5)
    api = page(1, "thief", ports=[{"container_port": 8080, "host_port": port}])
    dock.told(dock.deploy({"thief": thief, "api": api}), "S004", str(port))
    assert dock.names() == []
    assert last(dock.project)["status"] == "rolled_back"


@contextmanager
def somebodys(harbour: Harbour, name: str, *options: str) -> Iterator[str]:
    """A container that somebody else runs. Afterwards it must be as it was: running, the very same."""
    found = harbour.docker("run", "-d", "--name", name, *options, "dc-test/web:1").strip()
    try:
        yield found
        now = harbour.engine.api("GET", f"/containers/{name}/json")
        assert now["Id"] == found and now["State"]["Running"], "it was touched"
    finally:
        harbour.docker("rm", "-f", found)


# --------------------------------------------------------------------------- names, volumes


def test_a_name_of_somebody_elses_container_is_s002_and_it_is_never_touched(harbour: Harbour) -> None:
    name = f"{harbour.name}-app-r2-0"  # the next revision of a service that is to become v2
    harbour.deploy({"app": page(1)}).ok()
    before = harbour.id_of("app")
    with somebodys(harbour, name):
        run = harbour.deploy({"app": page(2)}).exits(1)
        assert "S002" in run.stderr and name in run.stderr, run
        assert harbour.id_of("app") == before and harbour.text("app") == "v1"
        harbour.run("stop").ok()
    assert harbour.containers() == []


def test_a_volume_path_that_is_missing_is_s005_and_is_not_made(dock: Harbour) -> None:
    missing = dock.project.folder / "no-such-folder"
    volumes = [{"name": "in", "source": str(missing), "mount_path": "/in"}]
    refused(dock, page(volumes=volumes), "S005", str(missing))
    assert not missing.exists()


def test_a_volume_path_that_disappears_later_is_told_and_never_made(dock: Harbour) -> None:
    folder = dock.project.folder / "in"
    folder.mkdir()
    volumes = [{"name": "in", "source": str(folder), "mount_path": "/in"}]
    dock.deploy({"app": page(volumes=volumes, restart={"policy": "always", "backoff_seconds": 0.1})}).ok()
    folder.rmdir()
    dock.engine.api("POST", f"/containers/{dock.id_of('app')}/kill", signal="SIGKILL")
    dock.settled("its reason", lambda: str(folder) in dock.run("status", "--detailed").output)
    assert not folder.exists()
    folder.mkdir()
    dock.settled("app to be back", lambda: dock.text("app") == "v1", 40)


def test_somebody_elses_volume_of_our_name_is_s005_and_keeps_its_data(dock: Harbour) -> None:
    name = f"{dock.name}_data"
    dock.docker("volume", "create", name)
    try:
        refused(dock, page(volumes=[{"name": "data", "mount_path": "/data"}]), "S005", name)
        dock.run("stop", "--volumes", "--yes")
        dock.engine.api("GET", f"/volumes/{name}")
    finally:
        dock.docker("volume", "rm", "-f", name)


# --------------------------------------------------------------------------- hands that meddle


REMOVE = ("DELETE", "", {"force": "1"})
STOP = ("POST", "/stop", {"t": "1"})


@pytest.mark.parametrize("deed", [REMOVE, STOP], ids=["removed", "stopped"])
def test_a_container_that_is_removed_or_stopped_by_hand_comes_back(
    harbour: Harbour, deed: tuple[str, str, dict[str, str]]
) -> None:
    quick = {"policy": "always", "backoff_seconds": 0.1}
    harbour.deploy({"app": page(restart=quick), "other": shell()}).ok()
    before = harbour.ids()
    method, path, query = deed
    harbour.engine.api(method, f"/containers/{before['app'][0]}{path}", **query)
    harbour.settled("app to be back", lambda: harbour.text("app") == "v1" and healthy(harbour.project))
    assert harbour.running() == {"app": 1, "other": 1}
    assert len(harbour.containers()) == 2
    assert harbour.ids()["other"] == before["other"]
    assert harbour.project.status()["services"]["app"]["restarts"] == 1


def test_a_container_that_is_removed_while_no_agent_lives_comes_back_with_the_next(dock: Harbour) -> None:
    dock.deploy({"app": page(), "other": shell()}).ok()
    dock.run("agent", "stop").ok()
    until(lambda: not agents(dock.project), "the agent to go")
    assert dock.text("app") == "v1", "containers go on without it"
    dock.engine.api("DELETE", f"/containers/{dock.id_of('app')}", force="1")
    dock.run("agent", "start").ok()
    dock.settled("app to be back", lambda: dock.text("app") == "v1")
    assert dock.running() == {"app": 1, "other": 1}


def test_a_paused_container_is_unhealthy_and_replaced_by_the_restart_policy(harbour: Harbour) -> None:
    harbour.deploy({"app": page(stop_timeout_seconds=1)}).ok()
    before = harbour.id_of("app")
    harbour.docker("pause", before)
    harbour.settled("another", lambda: harbour.ids().get("app") != [before] and harbour.text("app") == "v1", 40)
    harbour.settled("healthy", lambda: healthy(harbour.project))
    assert harbour.running() == {"app": 1}
    assert len(harbour.names()) == 1


def test_a_paused_container_that_is_never_restarted_is_well_again_once_it_goes_on(dock: Harbour) -> None:
    dock.deploy({"app": page(restart="never")}).ok()
    before = dock.id_of("app")
    dock.docker("pause", before)
    dock.settled("unhealthy", lambda: dock.run("health").code == 4)
    dock.docker("unpause", before)
    dock.settled("healthy again", lambda: healthy(dock.project))
    assert dock.id_of("app") == before


def test_a_paused_container_can_be_stopped(dock: Harbour) -> None:
    dock.deploy({"app": page(stop_timeout_seconds=1)}).ok()
    dock.docker("pause", dock.id_of("app"))
    dock.run("stop", timeout=40).ok()
    assert dock.names() == []


def test_a_container_that_is_removed_right_before_stop_is_no_error(dock: Harbour) -> None:
    dock.deploy({"app": page(restart="never"), "other": shell()}).ok()
    dock.engine.api("DELETE", f"/containers/{dock.id_of('app')}", force="1")
    dock.run("stop").ok()
    assert dock.names() == []


def test_a_network_that_is_taken_from_under_containers_is_made_again(dock: Harbour) -> None:
    dock.deploy({"app": page()}).ok()
    dock.docker("network", "disconnect", "-f", dock.name, dock.id_of("app"))
    dock.docker("network", "rm", dock.name)
    dock.run("restart").ok()
    assert dock.text("app") == "v1"


def test_a_stranger_with_our_labels_is_not_doubled_up(dock: Harbour) -> None:
    """Compose's labels alone make nobody ours."""
    label = f"com.docker.compose.project={dock.name}"
    with somebodys(dock, new_name(), "--label", label, "--label", "com.docker.compose.service=app"):
        dock.deploy({"app": page()}).ok()
        dock.run("stop").ok()


def test_a_deploy_mends_what_hands_did_and_says_so(dock: Harbour) -> None:
    """Drift has tests of its own; this is its story."""
    dock.deploy({"app": page(1), "other": shell(restart="never")}).ok()
    dock.run("status", "--drift").ok()
    dock.engine.api("DELETE", f"/containers/{dock.id_of('other')}", force="1")
    dock.settled("drift", lambda: dock.run("status", "--drift").code == 4)
    assert "other" in dock.run("status", "--drift").exits(4).output
    mended = dock.run("deploy").ok()
    assert "other" in mended.output
    dock.run("status", "--drift").ok()
    assert dock.running() == {"app": 1, "other": 1}


# --------------------------------------------------------------------------- a full disk


@contextmanager
def small_disk(mb: int) -> Iterator[Path]:
    """A folder that holds so many MB."""
    folder = Path(tempfile.mkdtemp(prefix="dc-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mb}m,mode=755", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def test_a_full_disk_of_the_engine_fails_the_pull_with_e004_and_changes_nothing(
    make_private_docker: Callable[..., PrivateDocker],
    make_project: Callable[..., ProjectFolder],
    registry: Registry,
    tmp_path: Path,
) -> None:
    with small_disk(60) as disk:
        engine = make_private_docker("--data-root", str(disk), "--storage-driver", "vfs")
        harbour = Harbour(make_project(new_name(), **engine.env), engine)
        harbour.deploy({"app": page()}).ok()
        before = harbour.id_of("app")
        harbour.project.env["DOCKER_CONFIG"] = str(registry.docker_config(tmp_path / "docker"))
        registry.push(large(), "shop/large:1")
        ballast, free = disk / "ballast", os.statvfs(disk)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 2_000_000))
        try:
            run = harbour.deploy({"app": page(image=f"{registry.address}/shop/large:1")}).exits(1)
            assert "E004" in run.stderr and "no space left" in run.stderr.lower(), run
            assert harbour.id_of("app") == before and harbour.text("app") == "v1"
        finally:
            ballast.unlink()
        harbour.run("deploy").ok()
        assert harbour.text("app") == "v2"
        harbour.run("stop").ok()


def large() -> Image:
    """Version 2 of the web server, with a file of 5 MB that cannot be made smaller."""
    return Image("large", (*web(2).layers, Layer({"/noise": Entry(os.urandom(5_000_000))})), web(2).config)


def test_a_full_disk_of_the_logs_harms_no_container(dock: Harbour) -> None:
    with small_disk(1) as disk:
        storage = {"storage": {"data_dir": str(dock.project.data_dir), "log_dir": str(disk)}}
        flood = f"yes a long line that fills the disk | head -c 3000000; echo full; {SLEEP}"
        dock.deploy({"app": shell(flood), "web": page()}, infrastructure=storage).ok()
        until(lambda: os.statvfs(disk).f_bavail == 0, "the disk to be full", 30)
        assert dock.running() == {"app": 1, "web": 1}
        assert dock.text("web") == "v1"
        assert healthy(dock.project)
        dock.run("stop").ok()
    assert dock.names() == []
