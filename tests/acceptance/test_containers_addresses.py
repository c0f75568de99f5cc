"""Who reaches whom, under which name, and in which network: containers and processes, old revisions and new ones."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from support.harbour import SLEEP, Harbour, new_name, page, shell
from support.ports import answers, free_port
from support.project import ProjectFolder
from support.scenarios import env_of, instances, pid_of, program, sleeper, states, text_at, until, write_program

API = "http://${services.api.host}:${services.api.port}"


def asks(url: str, *dependencies: str, **options: Any) -> dict[str, Any]:
    """A process that fetches ``url`` at its birth and says what it got; it dies when nobody answers."""
    script = (
        f"import time, urllib.request as r; print('got', r.urlopen('{url}', timeout=5).read().decode(), flush=True)"
    )
    return sleeper(command=sys.executable, args=["-c", f"{script}; time.sleep(1000)"]) | {
        "dependencies": list(dependencies),
        **options,
    }


def fetches(url: str, *dependencies: str, **options: Any) -> dict[str, Any]:
    """A container that does the same."""
    return shell(f"echo got $(wget -q -O - {url} || echo nothing); {SLEEP}", *dependencies, **options)


def anywhere(port: int, body: str = "hello") -> dict[str, Any]:
    """A process that listens on all addresses of this machine, as one that containers reach must."""
    script = (
        "import http.server as h\n"
        "class Page(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response(200); self.end_headers(); self.wfile.write(b'{body}')\n"
        f"h.ThreadingHTTPServer(('', {port}), Page).serve_forever()"
    )
    check = {"endpoint": "/", "interval_seconds": 1}
    ports = [{"container_port": port}]
    return {"command": sys.executable, "args": ["-c", script], "ports": ports, "health_check": check}


def net(**network: Any) -> dict[str, Any]:
    return {"network": network}


# --------------------------------------------------------------------------- ${services.NAME.host} and .port


def test_a_process_reaches_a_container_that_publishes_nothing(harbour: Harbour) -> None:
    harbour.deploy({"api": page(), "front": asks(API, "api")}).ok()
    harbour.until_logged("got v1")


def test_a_process_is_told_the_published_port(dock: Harbour) -> None:
    port = free_port()
    api = page(ports=[{"container_port": 8080, "host_port": port}])
    front = asks(API, "api", env={"WHERE": "${services.api.host} ${services.api.port}"})
    dock.deploy({"api": api, "front": front}).ok()
    dock.until_logged("got v1")
    assert env_of(pid_of(dock.project, "front"))["WHERE"] == f"127.0.0.1 {port}"


def test_a_container_reaches_a_process(harbour: Harbour) -> None:
    harbour.deploy({"api": anywhere(free_port()), "front": fetches(API, "api")}).ok()
    harbour.until_logged("got hello")


def test_a_container_reaches_another_by_its_name_and_container_port(harbour: Harbour) -> None:
    api = page(ports=[{"container_port": 8080, "host_port": free_port()}])
    front = fetches(API, "api", env={"WHERE": "${services.api.host} ${services.api.port}"})
    harbour.deploy({"api": api, "front": front}).ok()
    harbour.until_logged("got v1")
    assert harbour.inside("front", "echo $WHERE") == "api 8080"
    assert harbour.inside("front", "wget -q -O - http://api:8080/") == "v1"


def test_addresses_stand_in_command_args_env_and_health_checks(dock: Harbour) -> None:
    url = "http://${services.api.host}:${services.api.port}/"
    check = {"command": ["wget", "-q", "-O", "/dev/null", url], "interval_seconds": 1}
    dock.deploy({"api": page(), "front": fetches("$URL", "api", env={"URL": url}, health_check=check)}).ok()
    dock.until_logged("got v1")
    assert states(dock.project) == {"api": "running", "front": "running"}


def test_a_process_between_two_containers_gets_and_gives_addresses(dock: Harbour) -> None:
    middle_port = free_port()
    script = (
        "import os, http.server as h, urllib.request as r\n"
        "class Page(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = r.urlopen(os.environ['DB'], timeout=5).read()\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'via middle ' + body)\n"
        f"h.ThreadingHTTPServer(('', {middle_port}), Page).serve_forever()"
    )
    middle = {
        "command": sys.executable,
        "args": ["-c", script],
        "dependencies": ["db"],
        "env": {"DB": "http://${services.db.host}:${services.db.port}/"},
        "ports": [{"container_port": middle_port}],
        "health_check": {"endpoint": "/", "interval_seconds": 1},
    }
    edge = fetches("http://${services.middle.host}:${services.middle.port}/", "middle")
    dock.deploy({"db": page(2), "middle": middle, "edge": edge}).ok()
    dock.until_logged("got via middle v2")


def test_a_container_that_restarts_is_still_where_a_process_was_told(harbour: Harbour) -> None:
    """No port is published, and the process was handed an address once, at its birth."""
    harbour.deploy({"api": page(restart={"policy": "always", "backoff_seconds": 0.1}), "front": asks(API, "api")}).ok()
    before, process = harbour.address("api"), pid_of(harbour.project, "front")
    harbour.engine.api("POST", f"/containers/{harbour.id_of('api')}/kill", signal="SIGKILL")
    harbour.settled("api to be back", lambda: harbour.text("api") == "v1")
    assert harbour.address("api") == before
    harbour.run("restart", "--services", "api").ok()
    assert harbour.address("api") == before
    assert pid_of(harbour.project, "front") == process


def test_a_command_that_runs_on_after_a_new_revision_finds_it_by_name(harbour: Harbour) -> None:
    front = shell(SLEEP, "api")
    harbour.deploy({"api": page(1), "front": front}).ok()
    before = harbour.id_of("front")
    assert harbour.inside("front", "wget -q -O - http://api:8080/") == "v1"
    harbour.deploy({"api": page(2), "front": front}).ok()
    assert harbour.id_of("front") == before
    asked = "wget -q -O - http://api:8080/ || true"  # a name is told a moment after its container is there
    until(lambda: harbour.inside("front", asked) == "v2", "the new revision")


BESIDE = """
from deploy_code.plan import WaitReady, Want

def beside(change):
    name, new = change.service, change.new
    yield Want(id="new", service=name, revision=new.revision, replicas=new.replicas)
    yield WaitReady(id="ready", service=name, revision=new.revision, replicas=new.replicas)
    for old in change.stale:
        yield Want(id=f"old-{old}", service=name, revision=old, replicas=0)
"""


def test_old_and_new_revision_reach_each_other_by_name(harbour: Harbour) -> None:
    """A rollout that starts the new one beside the old; while that waits at its gate, both have names."""
    harbour.project.program("ours.py", BESIDE)
    plugins = ["./ours.py:beside"]
    check = {"command": ["test", "-e", "/go"], "interval_seconds": 1, "retries": 60}
    harbour.deploy({"api": page(1, strategy="beside")}, plugins=plugins).ok()
    harbour.write({"api": page(2, strategy="beside", health_check=check)}, plugins=plugins)
    deploying = harbour.project.start("deploy")
    try:
        harbour.settled("both revisions to run", lambda: harbour.running() == {"api": 2})
        old, new = f"{harbour.name}-api-r1-0", f"{harbour.name}-api-r2-0"
        assert harbour.docker("exec", old, "wget", "-q", "-O", "-", "http://api-r2:8080/").strip() == "v2"
        assert harbour.docker("exec", new, "wget", "-q", "-O", "-", "http://api-r1:8080/").strip() == "v1"
        harbour.docker("exec", new, "touch", "/go")
        _, stderr = deploying.communicate(timeout=40)
    finally:
        deploying.kill()
        deploying.wait()
    assert deploying.returncode == 0, stderr
    assert harbour.names() == [new]


def test_each_instance_has_a_name_of_its_own(dock: Harbour) -> None:
    dock.deploy({"api": page(replicas=2), "front": shell(SLEEP, "api")}).ok()
    for number in (0, 1):
        assert dock.inside("front", f"wget -q -O - http://{dock.name}-api-{number}:8080/") == "v1"


def test_two_projects_do_not_reach_each_other_by_name(dock: Harbour, make_project: Any) -> None:
    dock.deploy({"api": page()}).ok()
    other = Harbour(make_project(new_name(), **dock.engine.env), dock.engine)
    other.deploy({"front": fetches("http://api:8080/")}).ok()
    other.until_logged("got nothing")


# --------------------------------------------------------------------------- the network


def test_a_project_has_one_network_which_goes_with_it(dock: Harbour) -> None:
    dock.deploy({"api": page(), "db": shell()}).ok()
    [network] = dock.networks()
    assert network["Name"] == dock.name
    for each in dock.containers():
        assert list(each["NetworkSettings"]["Networks"]) == [dock.name]
    dock.run("stop").ok()
    until(lambda: dock.networks() == [], "the network to go")


def test_the_cidr_of_the_file_is_that_of_the_network(dock: Harbour) -> None:
    cidr = "10.199.7.0/24" if dock.engine.kind == "docker" else "10.199.8.0/24"
    dock.deploy({"api": page(), "front": fetches("http://api:8080", "api")}, infrastructure=net(cidr=cidr)).ok()
    assert dock.address("api").rpartition(".")[0] == cidr.rpartition(".")[0]
    dock.until_logged("got v1")


def test_a_cidr_that_overlaps_a_network_is_e010_that_names_it(harbour: Harbour) -> None:
    stranger, cidr = f"{harbour.name}-theirs", "10.198.0.0/16" if harbour.engine.kind == "docker" else "10.197.0.0/16"
    ipam = {"Config": [{"Subnet": cidr}]}
    harbour.engine.api("POST", "/networks/create", {"Name": stranger, "Driver": "bridge", "IPAM": ipam})
    try:
        overlap = cidr.replace("0.0/16", "5.0/24")
        harbour.write({"api": page()}, infrastructure=net(cidr=overlap))
        for command in (["plan"], ["deploy"]):
            run = harbour.run(*command).exits(1)
            assert "E010" in run.stderr and stranger in run.stderr and overlap in run.stderr, run
        assert harbour.names() == []
    finally:
        harbour.engine.api("DELETE", f"/networks/{stranger}")


def test_a_cidr_that_is_none_is_e010_in_validate(dock: Harbour) -> None:
    dock.write({"api": page()}, infrastructure=net(cidr="10.0.0.0/99"))
    assert "E010" in dock.run("validate").exits(2).output


def test_a_new_cidr_moves_the_project_to_a_new_network(dock: Harbour) -> None:
    services = {"api": page(), "front": shell(SLEEP, "api")}
    dock.deploy(services, infrastructure=net(cidr="10.196.1.0/24")).ok()
    dock.deploy(services, infrastructure=net(cidr="10.196.2.0/24")).ok()
    assert dock.address("api").startswith("10.196.2.") and dock.address("front").startswith("10.196.2.")
    assert dock.inside("front", "wget -q -O - http://api:8080/") == "v1"
    until(lambda: len(dock.networks()) == 1, "the old network to go")


def test_a_network_of_our_name_that_is_not_ours_is_e010_and_is_left_alone(dock: Harbour) -> None:
    made = dock.engine.api("POST", "/networks/create", {"Name": dock.name, "Driver": "bridge"})
    try:
        run = dock.deploy({"api": page()}).exits(1)
        assert "E010" in run.stderr and dock.name in run.stderr
        assert dock.names() == []
        dock.engine.api("GET", f"/networks/{made['Id']}")
    finally:
        dock.engine.api("DELETE", f"/networks/{dock.name}")


def test_dns_servers_of_the_file_are_asked(dock: Harbour) -> None:
    dock.deploy({"api": shell()}, infrastructure=net(dns_servers=["192.0.2.53"])).ok()
    assert dock.inspect("api")["HostConfig"]["Dns"] == ["192.0.2.53"]


def test_host_mode_is_this_machines_own_network(harbour: Harbour) -> None:
    port, other = free_port(), free_port()
    write_program(harbour.project)
    api = page(env={"PORT": port}, ports=[{"container_port": port}])
    front = fetches(API, "api")
    back = fetches("http://${services.app.host}:${services.app.port}", "app")
    harbour.deploy(
        {"api": api, "front": front, "app": program(other), "back": back}, infrastructure=net(mode="Host")
    ).ok()
    assert text_at(port).strip() == "v1"
    assert harbour.inspect("api")["HostConfig"]["NetworkMode"] == "host"
    harbour.until_logged("got v1", "front")
    harbour.until_logged("got v1", "back")
    assert harbour.networks() == []
    harbour.run("stop").ok()
    assert not answers(port)


def test_in_host_mode_a_port_of_another_program_is_s004(dock: Harbour) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        api = page(env={"PORT": port}, ports=[{"container_port": port}])
        run = dock.deploy({"api": api}, infrastructure=net(mode="Host")).exits(1)
        assert "S004" in run.stderr and str(port) in run.stderr
    assert dock.names() == []


@pytest.mark.parametrize("kind", ["address", "published"])
def test_status_tells_where_a_container_is_reached(dock: Harbour, kind: str) -> None:
    port = free_port()
    ports = [{"container_port": 8080} | ({"host_port": port} if kind == "published" else {})]
    dock.deploy({"api": page(ports=ports)}).ok()
    [api] = instances(dock.project, "api")
    assert api["address"] == dock.address("api")
    assert api["published"] == ({"8080": port} if kind == "published" else {})


def test_a_project_that_moves_to_another_folder_with_the_same_name_is_not_mixed_up(
    dock: Harbour, make_project: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two projects of one name, from two people: neither touches the other's containers."""
    dock.deploy({"api": page()}).ok()
    before = dock.id_of("api")
    theirs: ProjectFolder = make_project(dock.name, tmp_path_factory.mktemp("theirs"), **dock.engine.env)
    theirs.write({"api": page(2)}, deployment={"timeout_seconds": 20})
    run = theirs.cli("deploy").exits(1)
    assert "S002" in run.stderr or "E010" in run.stderr, run
    theirs.cli("stop")
    assert dock.id_of("api") == before and dock.text("api") == "v1"
