"""What the file says of a container is what the container is: seen from inside, and from the engine."""

from __future__ import annotations

import json
import socket

import pytest

from support.engine_daemons import Engine
from support.harbour import BUSYBOX, CHECKED, SLEEP, Harbour, asked, page, shell
from support.ports import answers, free_port, free_range
from support.project import ProjectFolder
from support.scenarios import instances, states, text_at, until

# --------------------------------------------------------------------------- command, env, user, folder


def test_command_and_args_reach_the_program_word_for_word(dock: Harbour) -> None:
    words = ["two words", "a 'quote'", "$HOME", "*", ""]
    script = 'for each in "$@"; do echo "<$each>"; done'
    dock.deploy(
        {"app": {"image": BUSYBOX, "command": "sh", "args": ["-c", script, "sh", *words], "one_shot": True}}
    ).ok()
    said = [line.split("<", 1)[1].rstrip(">") for line in dock.logs("app").splitlines()]
    assert said == words


def test_env_and_env_file_go_in_and_nothing_of_this_machines_environment_does(dock: Harbour) -> None:
    (dock.project.folder / "shop.env").write_text("COLOUR=red\nSIZE=big\n")
    dock.write({"app": shell(env={"COLOUR": "blue", "KEY": "${SOME_SECRET}"}, env_file="shop.env")})
    dock.run("deploy", env={"SOME_SECRET": "let-me-in", "ONLY_HERE": "yes"}).ok()
    lines = dict(line.split("=", 1) for line in dock.inside("app", "env").splitlines())
    assert (lines["COLOUR"], lines["SIZE"], lines["KEY"]) == ("blue", "big", "let-me-in")
    assert "ONLY_HERE" not in lines and "NO_COLOR" not in lines
    assert lines["DEPLOY_CODE_SERVICE"] == "app" and lines["DEPLOY_CODE_REVISION"] == "1"
    for command in (["status", "--detailed"], ["plan"], ["history", "show", "1"], ["events"], ["logs"]):
        assert "let-me-in" not in dock.run(*command, env={"SOME_SECRET": "let-me-in"}).output, command


def test_a_changed_secret_is_a_change(dock: Harbour) -> None:
    dock.write({"app": shell(env={"KEY": "${SOME_SECRET}"})})
    dock.run("deploy", env={"SOME_SECRET": "one"}).ok()
    dock.run("plan", "--detailed-exitcode", env={"SOME_SECRET": "one"}).ok()
    shown = dock.run("plan", "--detailed-exitcode", env={"SOME_SECRET": "another"}).exits(2)
    assert "another" not in shown.output


def test_user_and_working_dir_are_those_of_the_file(dock: Harbour) -> None:
    dock.deploy({"app": shell(user="web", working_dir="/tmp"), "number": shell(user="1234:4321")}).ok()
    assert dock.inside("app", "id -un; pwd").split() == ["web", "/tmp"]
    assert dock.inside("number", "id -u; id -g").split() == ["1234", "4321"]


def test_a_command_that_is_not_in_the_image_is_e003_that_names_it(harbour: Harbour) -> None:
    """As of a process: the program is missing. Only the start can tell."""
    harbour.told(harbour.deploy({"app": shell(command="/no/such/program")}), "E003", "app", "/no/such/program")
    assert harbour.names() == []


def test_a_user_that_is_not_in_the_image_is_e005_that_names_it(dock: Harbour) -> None:
    dock.told(dock.deploy({"app": shell(user="nobody-here")}), "E005", "app", "nobody-here")
    assert dock.names() == []


@pytest.mark.parametrize("key", [{"cap_add": ["NET_ADMIN"]}, {"read_only": True}, {"extra_hosts": {"a": "192.0.2.1"}}])
def test_a_key_of_containers_on_a_process_is_s003(dock: Harbour, key: dict[str, object]) -> None:
    dock.write({"app": {"command": "sleep", "args": ["1000"], **key}})
    said = dock.run("validate").exits(2).output
    assert "S003" in said and next(iter(key)) in said


# --------------------------------------------------------------------------- ports


def test_a_host_port_is_published(dock: Harbour) -> None:
    port = free_port()
    dock.deploy({"web": page(ports=[{"container_port": 8080, "host_port": port}])}).ok()
    assert text_at(port).strip() == "v1"
    dock.run("stop").ok()
    assert not answers(port)


def test_a_redeploy_keeps_the_host_port(dock: Harbour) -> None:
    port = free_port()
    ports = [{"container_port": 8080, "host_port": port}]
    dock.deploy({"web": page(1, ports=ports)}).ok()
    dock.deploy({"web": page(2, ports=ports)}).ok()
    assert text_at(port).strip() == "v2"
    assert dock.running() == {"web": 1}


def test_a_port_that_is_not_published_answers_only_at_the_containers_address(dock: Harbour) -> None:
    port = free_port()
    dock.deploy({"web": page(env={"PORT": port}, ports=[{"container_port": port}])}).ok()
    assert dock.text("web", port=port) == "v1"
    assert not answers(port)


UDP = """\
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("", 5353))
    while True:
        server.sendto(b"pong", server.recvfrom(100)[1])
"""


def test_udp_is_published(dock: Harbour) -> None:
    port = free_port()
    ports = [{"container_port": 5353, "host_port": port, "protocol": "udp"}]
    dns = {"image": "python:3.11-slim", "command": "python3", "args": ["-c", UDP], "ports": ports}
    dock.deploy({"dns": dns | {"min_ready_seconds": 0.5, "stop_timeout_seconds": 1}}).ok()
    [status] = instances(dock.project, "dns")
    assert port in status["published"].values()

    def pong() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.sendto(b"ping", ("127.0.0.1", port))
            try:
                return client.recv(100) == b"pong"
            except OSError:
                return False

    until(pong, "an answer by UDP")


def test_port_is_the_first_container_port_and_each_has_a_variable(dock: Harbour) -> None:
    ports = [{"container_port": 7001}, {"container_port": 7002}]
    script = f"echo 'told ${{PORT}}'; httpd -p $PORT -h /www; httpd -p 7002 -h /www; {SLEEP}"
    dock.deploy({"app": shell(script, image="dc-test/web:1", ports=ports)}).ok()
    assert dock.inside("app", "echo $PORT $PORT_7001 $PORT_7002") == "7001 7001 7002"
    assert dock.text("app", port=7001) == "v1"
    dock.until_logged("told 7001")


def test_a_dynamic_port_comes_from_the_range_of_the_file(dock: Harbour) -> None:
    first, last = free_range(3)
    network = {"network": {"port_range": {"start": first, "end": last}}}
    ports = [{"container_port": 8080, "dynamic": True}]
    dock.deploy({"web": page(ports=ports)}, infrastructure=network).ok()
    [status] = instances(dock.project, "web")
    assert first <= (port := status["published"]["8080"]) <= last
    assert text_at(port).strip() == "v1"


def test_replicas_on_one_host_port_are_refused_before_anything_is_done(dock: Harbour) -> None:
    ports = [{"container_port": 8080, "host_port": free_port()}]
    assert "S004" in dock.deploy({"web": page(replicas=2, ports=ports)}).exits(1).output
    assert dock.names() == []


# --------------------------------------------------------------------------- volumes

DATA = {"volumes": [{"name": "data", "mount_path": "/data"}]}


def test_data_in_a_named_volume_survives_redeploys_restarts_kills_and_stop(harbour: Harbour) -> None:
    harbour.deploy({"db": page(1, **DATA)}).ok()
    harbour.inside("db", "echo precious > /data/file")
    harbour.deploy({"db": page(2, **DATA)}).ok()
    assert harbour.inside("db", "cat /data/file") == "precious"
    harbour.run("restart").ok()
    harbour.engine.api("POST", f"/containers/{harbour.id_of('db')}/kill", signal="SIGKILL")
    harbour.settled("db to be back", lambda: harbour.text("db") == "v2")
    harbour.run("stop").ok()
    assert harbour.volumes() == [f"{harbour.name}_data"]
    harbour.deploy({"db": page(1, **DATA)}).ok()
    assert harbour.inside("db", "cat /data/file") == "precious"


def test_a_failed_first_deploy_leaves_the_volume_too(dock: Harbour) -> None:
    dock.deploy({"db": shell("echo precious > /data/file; exit 1", **DATA)}).exits(1)
    dock.deploy({"db": shell(**DATA)}).ok()
    assert dock.inside("db", "cat /data/file") == "precious"


def test_stop_volumes_asks_first_and_removes_them_only_when_told(dock: Harbour) -> None:
    dock.deploy({"db": page(**DATA)}).ok()
    refused = dock.run("stop", "--volumes")
    assert refused.code != 0 and f"{dock.name}_data" in refused.output, refused
    assert "--yes" in refused.output
    assert dock.volumes() == [f"{dock.name}_data"]
    done = dock.run("stop", "--volumes", "--yes").ok()
    assert f"{dock.name}_data" in done.output
    assert (dock.names(), dock.volumes()) == ([], [])


def test_two_services_share_a_volume(dock: Harbour) -> None:
    shared = {"volumes": [{"name": "data", "mount_path": "/data", "shared": True}]}
    dock.deploy(
        {"writer": shell(f"echo hello > /data/word; {SLEEP}", **shared), "reader": shell(SLEEP, "writer", **shared)}
    ).ok()
    until(lambda: dock.inside("reader", "cat /data/word") == "hello", "the other's word")


def test_a_read_only_named_volume_cannot_be_written(dock: Harbour) -> None:
    volumes = [{"name": "data", "mount_path": "/data", "read_only": True}]
    dock.deploy({"db": shell(volumes=volumes)}).ok()
    assert "denied" in dock.inside("db", "touch /data/file 2>/dev/null || echo denied")


def test_a_folder_of_this_machine_is_mounted_where_the_file_says(dock: Harbour) -> None:
    folder = dock.project.folder / "pages"
    folder.mkdir()
    (folder / "index.html").write_text("from outside")
    volumes = [{"name": "pages", "source": "./pages", "mount_path": "/www", "read_only": True}]
    dock.deploy({"web": page(volumes=volumes)}).ok()
    assert dock.text("web") == "from outside"
    assert dock.inside("web", "touch /www/x 2>/dev/null || echo denied") == "denied"
    (folder / "index.html").write_text("changed")
    assert dock.text("web") == "changed"
    assert dock.volumes() == []


def test_a_writable_folder_of_this_machine_gets_what_the_container_writes(dock: Harbour) -> None:
    (dock.project.folder / "out").mkdir()
    volumes = [{"name": "out", "source": str(dock.project.folder / "out"), "mount_path": "/out"}]
    dock.deploy({"job": shell("echo done > /out/file", one_shot=True, volumes=volumes)}).ok()
    assert (dock.project.folder / "out" / "file").read_text() == "done\n"


def test_a_read_only_file_is_content_and_an_edit_of_it_is_a_change(dock: Harbour) -> None:
    settings = dock.project.folder / "settings.toml"
    settings.write_text("one")
    volumes = [{"name": "s", "source": "./settings.toml", "mount_path": "/etc/settings.toml", "read_only": True}]
    services = {"app": shell(volumes=volumes)}
    dock.deploy(services).ok()
    settings.write_text("two")
    dock.run("plan", "--detailed-exitcode").exits(2)
    dock.deploy(services).ok()
    assert dock.inside("app", "cat /etc/settings.toml") == "two"


def test_a_tmpfs_is_memory_of_the_size_that_is_written(harbour: Harbour) -> None:
    volumes = [{"name": "scratch", "mount_path": "/scratch", "tmpfs": True, "size_mb": 8}]
    harbour.deploy({"app": shell(volumes=volumes)}).ok()
    fields = harbour.inside("app", "df -k /scratch | tail -1").split()
    assert fields[1] == "8192"
    assert "tmpfs /scratch tmpfs" in harbour.inside("app", "grep /scratch /proc/mounts")
    assert harbour.volumes() == []


# --------------------------------------------------------------------------- limits


def test_memory_cpu_and_pids_are_limits_of_the_container(harbour: Harbour) -> None:
    limits = {"memory_mb": 64, "cpu_cores": 0.5, "pids": 20}
    harbour.deploy({"app": shell(resources=limits)}).ok()
    limited = harbour.inspect("app")["HostConfig"]
    assert limited["Memory"] == 64 * 1024 * 1024
    assert limited["MemorySwap"] in (0, 64 * 1024 * 1024), "no swap on top"
    assert limited["NanoCpus"] == 500_000_000 or limited["CpuQuota"] * 2 == limited["CpuPeriod"]
    assert limited["PidsLimit"] == 20


def test_a_fork_bomb_stays_inside_its_container(dock: Harbour) -> None:
    bomb = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo all forked; sleep 1000"
    dock.told(dock.deploy({"bomb": shell(bomb, resources={"pids": 15}, min_ready_seconds=3)}), "E005", "fork")


def test_out_of_memory_is_said_in_the_report(harbour: Harbour) -> None:
    eater = "x=a; while :; do x=$x$x; done"
    run = harbour.deploy({"eater": shell(eater, resources={"memory_mb": 16}, min_ready_seconds=20)})
    harbour.told(run, "E005", "eater", "out of memory", "memory_mb")


def test_out_of_memory_later_is_told_by_status_and_events(dock: Harbour) -> None:
    eater = "while [ ! -e /go ]; do sleep 0.1; done; x=a; while :; do x=$x$x; done"
    dock.deploy({"eater": shell(eater, resources={"memory_mb": 16}, restart="never")}).ok()
    dock.inside("eater", "touch /go")
    dock.settled("its death", lambda: states(dock.project)["eater"] == "failed")
    assert "out of memory" in dock.run("events").ok().stdout
    assert "out of memory" in dock.run("status", "--detailed").output


def test_more_than_the_machine_has_is_e004_before_anything_is_done(dock: Harbour) -> None:
    assert "E004" in dock.deploy({"app": shell(resources={"memory_mb": 100_000_000})}).exits(1).output
    assert dock.names() == []


def test_gpus_that_are_not_there_are_refused(dock: Harbour) -> None:
    said = dock.deploy({"app": shell(resources={"gpu_count": 1})}).exits(1).output
    assert "E004" in said and "GPU" in said
    assert dock.names() == []


def test_a_changed_limit_is_a_change(dock: Harbour) -> None:
    dock.deploy({"app": shell(resources={"memory_mb": 32})}).ok()
    dock.deploy({"app": shell(resources={"memory_mb": 48})}).ok()
    assert dock.inspect("app")["HostConfig"]["Memory"] == 48 * 1024 * 1024


# --------------------------------------------------------------------------- rights and surroundings


def test_a_read_only_root_cannot_be_written_and_volumes_can(dock: Harbour) -> None:
    service = shell(read_only=True, **DATA)
    dock.deploy({"app": service}).ok()
    assert dock.inside("app", "touch /file 2>/dev/null || echo denied") == "denied"
    assert dock.inside("app", "touch /data/file && echo written") == "written"


def test_capabilities_are_dropped_and_added(harbour: Harbour) -> None:
    services = {
        "plain": shell(),
        "bare": shell(cap_drop=["ALL"]),
        "more": shell(cap_add=["NET_ADMIN"]),
        "some": shell(cap_drop=["ALL"], cap_add=["CHOWN"]),
    }
    harbour.deploy(services).ok()
    chown, net_admin = 1 << 0, 1 << 12
    found = {name: int(harbour.inside(name, "grep CapEff /proc/1/status").split()[1], 16) for name in services}
    assert found["bare"] == 0
    assert found["some"] == chown
    assert found["more"] & net_admin and not found["plain"] & net_admin


def test_init_and_shared_memory_are_as_asked(dock: Harbour) -> None:
    dock.deploy({"app": shell(init=True, shm_size_mb=32)}).ok()
    assert dock.inside("app", "cat /proc/1/comm") == "docker-init"
    assert dock.inside("app", "df -k /dev/shm | tail -1").split()[1] == "32768"


def test_extra_hosts_are_known_inside(dock: Harbour) -> None:
    dock.deploy({"app": shell(extra_hosts={"legacy.example": "192.0.2.7"})}).ok()
    assert "192.0.2.7" in dock.inside("app", "grep legacy.example /etc/hosts")


def test_log_options_are_handed_on(dock: Harbour) -> None:
    log = {"log_driver": "json-file", "log_options": {"max-size": "1m", "max-file": "3"}}
    dock.deploy({"app": shell(f"echo a word; {SLEEP}", **log)}).ok()
    config = dock.inspect("app")["HostConfig"]["LogConfig"]
    assert config == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "3"}}
    dock.until_logged("a word")


def test_a_log_driver_that_cannot_be_read_back_is_said_and_harms_nothing(dock: Harbour) -> None:
    dock.deploy({"app": shell(f"echo a word; {SLEEP}", log_driver="none")}).ok()
    assert states(dock.project) == {"app": "running"}
    until(lambda: "cannot be read" in dock.run("events").output, "that it is said")


def test_each_engine_kind_that_the_file_names_is_used(
    docker: Engine, podman: Engine, dock: Harbour, project: ProjectFolder
) -> None:
    """Both environments are there at once: `container_runtime` decides."""
    dock.project.env |= podman.env
    dock.deploy({"app": shell()}).ok()
    assert dock.running() == {"app": 1}
    other = Harbour(dock.project, podman)
    assert other.running() == {}


def test_an_images_volume_that_nothing_covers_is_warned_of(dock: Harbour) -> None:
    dock.write({"app": {"image": CHECKED}})
    assert "/data" in dock.run("plan").ok().output


def test_status_as_json_is_one_document_with_containers_and_processes(dock: Harbour) -> None:
    dock.deploy({"db": shell(health_check=asked("true")), "app": {"command": "sleep", "args": ["1000"]}}).ok()
    found = json.loads(dock.run("status", "--detailed", "--format", "json").ok().stdout)
    assert {name: each["image"] for name, each in found["services"].items()} == {"db": BUSYBOX, "app": ""}
