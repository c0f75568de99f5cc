"""Containers next to processes: one graph, one way to deploy, restart, scale, read logs, roll back and stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.harbour import BUSYBOX, CHECKED, SLEEP, Harbour, asked, page, shell
from support.leftovers import kill
from support.ports import free_port
from support.scenarios import (
    agents,
    healthy,
    history,
    instances,
    last,
    pid_of,
    pids,
    program,
    sleeper,
    states,
    text_at,
    until_gone,
    web,
    write_program,
)


def dying(script: str, *dependencies: str) -> dict[str, Any]:
    """A container whose end comes before it is taken to be up."""
    return shell(script, *dependencies, min_ready_seconds=2)


def wants(url: str, page_path: str = "/") -> str:
    """A program that dies unless ``url`` answers at its birth."""
    return f"import time, urllib.request; urllib.request.urlopen('{url}{page_path}', timeout=5); time.sleep(1000)"


def client(script: str, *dependencies: str) -> dict[str, Any]:
    """A process that runs Python text."""
    return sleeper(command=sys.executable, args=["-c", script], dependencies=list(dependencies))


# --------------------------------------------------------------------------- one graph


def test_a_container_and_a_process_stand_in_one_graph_and_start_in_its_order(harbour: Harbour) -> None:
    """``front`` dies unless ``api`` answers at its birth, and so does ``api`` with ``db``."""
    ready = "sleep 0.5; httpd -p 8080 -h /www; trap 'exit 0' TERM; sleep 1000 & wait"
    db = page(command="sh", args=["-c", ready])
    api = shell("wget -q -O /dev/null http://db:8080/ || exit 4; exec /bin/web", "db", image="dc-test/web:2")
    api |= {"ports": [{"container_port": 8080}], "health_check": page()["health_check"]}
    front = client(wants("http://${services.api.host}:${services.api.port}"), "api")
    harbour.deploy({"front": front, "api": api, "db": db}).ok()
    assert states(harbour.project) == {"front": "running", "api": "running", "db": "running"}
    assert [each["restarts"] for each in harbour.project.status()["services"].values()] == [0, 0, 0]
    assert healthy(harbour.project)


def test_a_second_deploy_with_nothing_changed_does_nothing(dock: Harbour) -> None:
    services = {"db": page(), "worker": shell(), "front": sleeper(dependencies=["db"])}
    dock.deploy(services).ok()
    before, process = dock.ids(), pid_of(dock.project, "front")
    dock.run("plan", "--detailed-exitcode").ok()
    report = dock.run("deploy", "--format", "json").ok().json()
    assert (report["deployed_services"], report["plan"]["steps"]) == (3, [])
    assert (dock.ids(), pid_of(dock.project, "front")) == (before, process)


def test_only_the_changed_container_is_replaced(dock: Harbour) -> None:
    dock.deploy({"db": page(), "api": page(1, "db")}).ok()
    before = dock.ids()
    dock.deploy({"db": page(), "api": page(2, "db")}).ok()
    assert dock.text("api") == "v2"
    assert dock.ids()["db"] == before["db"]
    assert dock.running() == {"api": 1, "db": 1}


def test_a_container_that_was_taken_out_of_the_file_goes(dock: Harbour) -> None:
    dock.deploy({"db": page(), "old": shell()}).ok()
    dock.deploy({"db": page()}).ok()
    assert dock.names() == [f"{dock.name}-db-r1-0"]


def test_a_service_moves_from_a_process_to_a_container_and_back(dock: Harbour) -> None:
    dock.deploy({"worker": sleeper()}).ok()
    dock.deploy({"worker": shell()}).ok()
    assert (dock.running(), pids(dock.project)) == ({"worker": 1}, {})
    dock.deploy({"worker": sleeper()}).ok()
    assert (dock.names(), len(pids(dock.project))) == ([], 1)


def test_a_dry_run_and_a_plan_touch_nothing_in_the_engine(dock: Harbour) -> None:
    dock.write({"db": page(volumes=[{"name": "data", "mount_path": "/data"}])})
    assert "db" in dock.run("--dry-run", "deploy").ok().stdout
    dock.run("plan").ok()
    assert dock.project.in_engines() == []


# --------------------------------------------------------------------------- health


def test_a_check_with_a_command_runs_inside_the_container(harbour: Harbour) -> None:
    script = f"sleep 0.7; touch /tmp/ready; {SLEEP}"
    harbour.deploy({"db": shell(script, health_check=asked("test", "-e", "/tmp/ready"), restart="never")}).ok()
    assert healthy(harbour.project)
    [db] = instances(harbour.project, "db")
    assert db["probe"]["ok"]
    harbour.inside("db", "rm /tmp/ready")
    harbour.settled("unhealthy", lambda: not healthy(harbour.project))
    assert harbour.run("health").exits(4)


def test_a_check_inside_that_fails_shows_what_it_said(dock: Harbour) -> None:
    check = asked("sh", "-c", "echo the cellar is flooded >&2; exit 1")
    dock.told(dock.deploy({"db": shell(health_check=check)}), "E006", "db", "the cellar is flooded")
    assert dock.names() == []


def test_a_check_inside_that_hangs_is_cut_off(dock: Harbour) -> None:
    dock.told(dock.deploy({"db": shell(health_check=asked("sleep", "1000"))}), "E006", "db")


def test_a_container_that_answers_500_does_not_become_ready(dock: Harbour) -> None:
    missing = page(health_check={"endpoint": "/no-such-page", "interval_seconds": 1, "retries": 2})
    dock.told(dock.deploy({"api": missing}), "E006", "api", "404")


def test_an_unhealthy_container_is_restarted_as_a_fresh_one_by_the_restart_policy(dock: Harbour) -> None:
    dock.deploy({"db": shell("touch /ok; " + SLEEP, health_check=asked("test", "-e", "/ok"))}).ok()
    before = dock.id_of("db")
    dock.inside("db", "rm /ok")
    dock.settled("healthy again", lambda: healthy(dock.project) and dock.ids()["db"] != [before])
    assert dock.running() == {"db": 1}


def test_an_unhealthy_container_that_is_never_restarted_is_well_again_by_itself(dock: Harbour) -> None:
    dock.deploy({"db": shell("touch /ok; " + SLEEP, health_check=asked("test", "-e", "/ok"), restart="never")}).ok()
    before = dock.id_of("db")
    dock.inside("db", "rm /ok")
    dock.settled("unhealthy", lambda: dock.run("status", "--check").code == 4)
    dock.inside("db", "touch /ok")
    dock.settled("healthy again", lambda: healthy(dock.project))
    assert dock.id_of("db") == before


# --------------------------------------------------------------------------- where the file is silent the image speaks


def test_what_the_image_says_counts_where_the_file_is_silent(harbour: Harbour) -> None:
    harbour.deploy({"app": {"image": CHECKED, "stop_timeout_seconds": 5, "restart": "never"}}).ok()
    app = harbour.inspect("app")
    assert "httpd" in " ".join([app["Path"], *app["Args"]])
    assert (app["Config"]["User"], app["Config"]["WorkingDir"]) == ("web", "/data")
    assert harbour.inside("app", "echo $FROM_IMAGE $PORT; whoami; pwd").split() == ["yes", "8080", "web", "/data"]
    assert harbour.text("app") == "checked"
    [status] = instances(harbour.project, "app")
    assert "8080" in status["ports"]
    assert healthy(harbour.project)
    harbour.inside("app", "rm /data/healthy")  # its HEALTHCHECK asks for this file
    harbour.settled("unhealthy", lambda: not healthy(harbour.project))
    harbour.run("stop").ok()
    assert "got SIGUSR1" in harbour.logs("app"), "its STOPSIGNAL"


def test_what_the_file_says_wins_over_the_image(dock: Harbour) -> None:
    service = {
        "image": CHECKED,
        "command": "sh",
        "args": ["-c", f"cd /www; httpd -p 7070; trap 'echo got SIGHUP; exit 0' HUP; {SLEEP}"],
        "env": {"FROM_IMAGE": "no", "COLOUR": "red"},
        "user": "root",
        "working_dir": "/tmp",
        "ports": [{"container_port": 7070}],
        "health_check": {"endpoint": "/", "interval_seconds": 1},
        "stop_signal": "SIGHUP",
        "stop_timeout_seconds": 5,
    }
    dock.deploy({"app": service}).ok()
    assert dock.inside("app", "echo $FROM_IMAGE $COLOUR $PORT; whoami; pwd").split() == [
        *("no", "red", "7070", "root", "/tmp")
    ]
    assert dock.text("app", port=7070) == "checked"
    assert healthy(dock.project), "the image's own check, which would fail, is not asked"
    dock.run("stop").ok()
    assert "got SIGHUP" in dock.logs("app")


def test_args_alone_replace_the_images_command_and_keep_its_entrypoint(dock: Harbour) -> None:
    service = {"image": CHECKED, "args": [f"echo given to sh; touch /data/healthy; {SLEEP}"], "ports": []}
    dock.deploy({"app": service | {"stop_timeout_seconds": 1, "stop_signal": "SIGTERM"}}).ok()
    dock.until_logged("given to sh")
    assert dock.inspect("app")["Path"] == "/bin/sh"


def test_a_command_alone_replaces_the_entrypoint_and_drops_the_images_command(dock: Harbour) -> None:
    service = {"image": CHECKED, "command": "env", "one_shot": True, "health_check": {"disabled": True}}
    dock.deploy({"app": service}).ok()
    assert "FROM_IMAGE=yes" in dock.logs("app")


def test_a_check_of_the_image_can_be_switched_off(dock: Harbour) -> None:
    service = {"image": CHECKED, "args": [SLEEP], "health_check": {"disabled": True}, "min_ready_seconds": 0.1}
    dock.deploy({"app": service | {"stop_signal": "SIGTERM", "stop_timeout_seconds": 1}}).ok()
    assert states(dock.project) == {"app": "running"}


# --------------------------------------------------------------------------- one-shots


def test_a_one_shot_in_a_container_runs_once_before_what_needs_it(dock: Harbour) -> None:
    migrate = shell("echo migrated; echo done > /data/schema", one_shot=True)
    app = shell(f"cat /data/schema || exit 9; {SLEEP}", "migrate")
    data = {"volumes": [{"name": "data", "mount_path": "/data", "shared": True}]}
    services = {"migrate": migrate | data, "app": app | data}
    dock.deploy(services).ok()
    assert states(dock.project) == {"migrate": "stopped", "app": "running"}
    dock.deploy(services).ok()
    assert dock.logs("migrate").count("migrated") == 1
    assert dock.running() == {"app": 1}


def test_a_one_shot_that_fails_says_how_and_what_needs_it_does_not_start(dock: Harbour) -> None:
    migrate = shell("echo no such table: users >&2; exit 3", one_shot=True)
    run = dock.deploy({"migrate": migrate, "app": sleeper(dependencies=["migrate"])})
    dock.told(run, "E005", "migrate", "3", "no such table: users", "E007", "app")
    assert (dock.names(), pids(dock.project)) == ([], {})


# --------------------------------------------------------------------------- a container that fails


def test_a_container_that_dies_tells_its_exit_code_and_its_last_lines_and_what_to_do(harbour: Harbour) -> None:
    run = harbour.deploy({"db": dying("echo cannot open the vault >&2; exit 7"), "api": page(1, "db")})
    harbour.told(run, "E005", "db", "7", "cannot open the vault", "E007", "api")
    assert "deploy-code logs db" in run.stderr, "what to do"
    assert harbour.names() == []
    assert "cannot open the vault" in harbour.logs("db"), "its log outlives it"


def test_a_container_that_ends_with_0_has_failed_too(dock: Harbour) -> None:
    dock.told(dock.deploy({"db": dying("exit 0")}), "E005", "db")


def test_a_container_killed_by_a_signal_names_the_signal(dock: Harbour) -> None:
    """A shell in a shell: the kernel keeps deadly signals from a process 1 that sends them to itself."""
    dock.told(dock.deploy({"db": dying("sh -c 'kill -SEGV $$$$'; exit $?")}), "E005", "SEGV")


def test_a_failure_rolls_back_processes_and_containers_as_one_and_to_the_older_image(dock: Harbour) -> None:
    port = free_port()
    dock.project.folder.joinpath("www/v1").mkdir(parents=True)
    dock.project.folder.joinpath("www/v1/index.html").write_text("v1")
    steady = {"db": page(), "edge": web(port)}
    dock.deploy({**steady, "api": page(1, "db"), "worker": sleeper()}).ok()
    before, old_pids = dock.ids(), pids(dock.project)
    bad = dying("echo the end is near; exit 5", "api", "worker")
    changed = {"api": page(2, "db"), "worker": sleeper(args=["2000"]), "new": shell(), "bad": bad}
    dock.told(dock.deploy({**steady, **changed}), "E005", "bad", "5", "the end is near")
    assert dock.text("api") == text_at(port, "/index.html") == "v1"
    assert dock.image_of("api") == dock.image_id("dc-test/web:1")
    assert dock.running() == {"api": 1, "db": 1}
    assert dock.ids()["db"] == before["db"], "what was not touched is not touched"
    assert pids(dock.project)["edge"] == old_pids["edge"]
    assert len(pids(dock.project)["worker"]) == 1
    assert states(dock.project) == {"db": "running", "edge": "running", "api": "running", "worker": "running"}
    assert last(dock.project)["status"] == "rolled_back"


def test_without_rollback_everything_is_left_as_it_stands(dock: Harbour) -> None:
    dock.deploy({"api": page(1)}).ok()
    dock.deploy({"api": page(2), "bad": dying("exit 5", "api")}, "--no-rollback").exits(1)
    assert dock.text("api") == "v2"
    assert last(dock.project)["status"] == "failed"


def test_rollback_returns_to_the_container_of_an_older_deployment(dock: Harbour) -> None:
    dock.deploy({"api": page(1, env={"COLOUR": "red"}), "worker": sleeper()}).ok()
    first = str(last(dock.project)["number"])
    dock.deploy({"api": page(2, env={"COLOUR": "blue"}), "cache": shell()}).ok()
    dock.run("rollback").ok()
    assert dock.text("api") == "v1"
    assert dock.inside("api", "echo $COLOUR") == "red"
    assert dock.running() == {"api": 1}
    dock.deploy({"api": page(2)}).ok()
    dock.run("rollback", "--to", first).ok()
    assert dock.text("api") == "v1"
    assert set(pids(dock.project)) == {"worker"}


# --------------------------------------------------------------------------- restart policy: ours


def test_the_engines_own_restart_policy_is_off(harbour: Harbour) -> None:
    harbour.deploy({"db": shell(restart="always")}).ok()
    assert harbour.inspect("db")["HostConfig"]["RestartPolicy"]["Name"] in ("no", "")


def test_a_container_that_dies_later_is_started_again_by_the_agent(harbour: Harbour) -> None:
    harbour.deploy({"db": page(restart={"policy": "always", "backoff_seconds": 0.1}), "api": page(1, "db")}).ok()
    before = harbour.ids()
    harbour.engine.api("POST", f"/containers/{before['db'][0]}/kill", signal="SIGKILL")
    harbour.settled("db to be back", lambda: harbour.text("db") == "v1" and healthy(harbour.project))
    assert harbour.project.status()["services"]["db"]["restarts"] == 1
    assert harbour.ids()["db"] != before["db"], "a fresh container"
    assert harbour.ids()["api"] == before["api"]
    assert harbour.running() == {"api": 1, "db": 1}


@pytest.mark.parametrize(("policy", "code", "comes_back"), [("on-failure", 3, True), ("on-failure", 0, False)])
def test_on_failure_restarts_what_failed_and_nothing_else(
    dock: Harbour, policy: str, code: int, comes_back: bool
) -> None:
    script = f"trap 'exit {code}' USR1; echo alive; while :; do sleep 0.1; done"
    dock.deploy({"job": shell(script, restart={"policy": policy, "backoff_seconds": 0.1})}).ok()
    dock.engine.api("POST", f"/containers/{dock.id_of('job')}/kill", signal="SIGUSR1")
    if comes_back:
        dock.settled("job to be back", lambda: dock.running() == {"job": 1} and dock.logs("job").count("alive") == 2)
    else:
        dock.settled("job to be over", lambda: states(dock.project)["job"] != "running")
        assert dock.running() == {}


def test_a_container_that_keeps_dying_is_given_up_on_and_the_others_go_on(dock: Harbour) -> None:
    quick = {"policy": "always", "backoff_seconds": 0.05, "backoff_max_seconds": 0.1, "max_exits": 3}
    dock.deploy({"app": shell("sleep 0.5; exit 1", restart=quick), "fine": page()}).ok()
    dock.settled("app to be given up on", lambda: states(dock.project)["app"] == "failed", 60)
    assert dock.run("health").exits(4)
    assert dock.text("fine") == "v1"
    assert dock.running() == {"fine": 1}


# --------------------------------------------------------------------------- restart, scale, stop


def test_restart_makes_a_fresh_container_of_the_same_revision(dock: Harbour) -> None:
    dock.deploy({"db": page(), "api": page(1, "db")}).ok()
    before = dock.ids()
    dock.inside("db", "touch /scratch")
    dock.run("restart", "--services", "db").ok()
    assert dock.ids()["db"] != before["db"] and dock.ids()["api"] == before["api"]
    assert dock.inside("db", "ls /scratch 2>/dev/null || echo fresh") == "fresh"
    assert dock.project.status()["services"]["db"]["revision"] == 1
    dock.run("restart").ok()
    assert dock.ids()["api"] != before["api"]
    assert dock.running() == {"api": 1, "db": 1}


def test_scale_starts_and_stops_containers_and_leaves_the_others_alone(dock: Harbour) -> None:
    dock.deploy({"web": page()}).ok()
    first = dock.ids()["web"]
    dock.run("scale", "web=3").ok()
    assert dock.running() == {"web": 3}
    assert first[0] in dock.ids()["web"]
    numbers = {each["Labels"]["com.docker.compose.container-number"] for each in dock.containers("web")}
    assert numbers == {"1", "2", "3"}
    dock.run("scale", "web=1").ok()
    assert dock.ids()["web"] == first


def test_replicas_share_the_services_name_and_each_has_its_own_dynamic_port(dock: Harbour) -> None:
    ports = [{"container_port": 8080, "dynamic": True}]
    dock.deploy({"web": page(replicas=2, ports=ports), "probe": shell(SLEEP, "web")}).ok()
    published = [each["published"]["8080"] for each in instances(dock.project, "web")]
    assert len(set(published)) == 2
    assert [text_at(port).strip() for port in published] == ["v1", "v1"]
    addresses = {line for line in dock.inside("probe", "nslookup web. | grep Address").split() if "." in line}
    own = {next(iter(each["NetworkSettings"]["Networks"].values()))["IPAddress"] for each in dock.containers("web")}
    assert own <= addresses


def test_stop_removes_containers_and_the_network_dependents_first(harbour: Harbour) -> None:
    harbour.deploy({"db": shell(), "api": shell(SLEEP, "db")}).ok()
    said = harbour.run("stop").ok().output
    assert said.index("api r1 #0 gone") < said.index("db r1 #0 stopping")
    assert harbour.names() == []
    until_gone(harbour.project)
    assert harbour.networks() == []
    assert harbour.project.status()["overall_health"] == "stopped"


def test_stop_of_one_service_stops_what_needs_it_and_leaves_the_rest(dock: Harbour) -> None:
    dock.deploy({"db": shell(), "api": shell(SLEEP, "db"), "other": shell()}).ok()
    dock.run("stop", "--services", "db").ok()
    assert dock.running() == {"other": 1}


def test_a_container_that_hangs_on_its_stop_signal_is_killed_in_time(dock: Harbour) -> None:
    deaf = "trap 'echo I stay' TERM; while :; do sleep 0.2; done"
    dock.deploy({"app": shell(deaf, stop_timeout_seconds=1), "slow": shell(deaf, stop_timeout_seconds=300)}).ok()
    dock.run("stop", "--services", "app", timeout=20).ok()
    assert "I stay" in dock.logs("app")
    dock.run("stop", "--timeout", "1", timeout=20).ok()
    assert dock.names() == []


def test_stop_works_with_a_broken_file(dock: Harbour) -> None:
    dock.deploy({"db": page()}).ok()
    dock.project.write_text(dock.project.config.read_text() + "\nnonsense: [")
    dock.run("stop").ok()
    assert dock.names() == []


# --------------------------------------------------------------------------- logs and status


def test_logs_of_containers_and_processes_are_merged(dock: Harbour) -> None:
    write_program(dock.project)
    talk = f"echo first line; sleep 0.3; echo second line >&2; {SLEEP}"  # two pipes: only time puts them in order
    dock.deploy({"box": shell(talk), "app": program(free_port(), dependencies=["box"])}).ok()
    dock.until_logged("second line")
    dock.until_logged("app v1 does serve")
    lines = dock.logs().splitlines()
    assert all(line.startswith(("box", "app")) for line in lines), lines
    assert dock.logs().index("first line") < dock.logs().index("app v1 does serve")
    assert "first line" in dock.logs("--since", "10m", "box")
    assert dock.logs("--since", "2099-01-31T12:00") == ""
    assert "first line" not in dock.logs("-n", "1", "box")


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read what it prints until a line has ``text``; the test's own time-out ends it."""
    assert process.stdout
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.timeout(40)
def test_logs_follow_goes_on_over_restarts_of_a_container(dock: Harbour) -> None:
    dock.deploy({"box": shell(f"echo hello from $DEPLOY_CODE_INSTANCE; {SLEEP}")}).ok()
    dock.until_logged("hello from")
    following = dock.project.start("logs", "-f")
    try:
        read_until(following, "hello from")
        dock.run("restart").ok()
        read_until(following, f"hello from {instances(dock.project, 'box')[0]['uuid']}")
    finally:
        following.terminate()
        following.communicate(timeout=10)


def test_no_line_of_a_chatty_container_is_lost_or_doubled_when_the_agent_dies(dock: Harbour) -> None:
    count = "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); echo line $n; [ $((n % 100)) = 0 ] && sleep 0.1; done"
    dock.deploy({"box": shell(f"{count}; {SLEEP}")}).ok()
    dock.until_logged("line 200", "-n", "100000")
    kill(agents(dock.project))
    dock.run("agent", "start").ok()
    dock.until_logged("line 3000", timeout=30)
    numbers = [int(line.split("line ")[1]) for line in dock.logs("-n", "100000").splitlines()]
    assert sorted(set(numbers)) == list(range(1, 3001)), "none is lost"
    assert len(numbers) <= 3001, "none is doubled, but for one at the moment of the kill"


def test_a_container_that_floods_its_log_stays_up_and_its_last_lines_are_kept(dock: Harbour) -> None:
    flood = "i=0; seq 1 60000 | sed 's/^/line /'; echo the last line"
    dock.deploy({"box": shell(f"{flood}; {SLEEP}")}).ok()
    dock.until_logged("the last line", "-n", "3", timeout=40)
    assert [line.split()[-1] for line in dock.logs("-n", "3").splitlines()] == ["59999", "60000", "line"]


def test_status_shows_containers_with_image_container_address_and_use(dock: Harbour) -> None:
    port = free_port()
    dock.deploy({"web": page(ports=[{"container_port": 8080, "host_port": port}])}).ok()
    service = dock.project.status()["services"]["web"]
    assert service["image"] == "dc-test/web:1"
    assert service["status"] == "running" and service["health"] == "healthy"
    [web_] = instances(dock.project, "web")
    assert web_["container"] == dock.id_of("web")
    assert web_["published"] == {"8080": port}
    assert web_["pid"] == dock.inspect("web")["State"]["Pid"]
    assert web_["memory_bytes"] > 0 and web_["processes"] >= 1
    shown = dock.run("status", "--detailed").ok().stdout
    assert dock.id_of("web")[:12] in shown and str(port) in shown
    assert "dc-test/web:1" in shown


def test_events_and_history_tell_what_became_of_a_container(dock: Harbour) -> None:
    dock.deploy({"web": page(restart={"policy": "always", "backoff_seconds": 0.1})}).ok()
    dock.engine.api("POST", f"/containers/{dock.id_of('web')}/kill", signal="SIGKILL")
    dock.settled("web to be back", lambda: dock.project.status()["services"]["web"]["restarts"] == 1)
    said = dock.run("events", "--services", "web").ok().stdout
    assert "SIGKILL" in said or "137" in said
    assert [row["kind"] for row in history(dock.project)] == ["deploy"]


# --------------------------------------------------------------------------- labels


def test_docker_compose_sees_the_project_as_one_group(dock: Harbour) -> None:
    dock.deploy({"db": page(replicas=2), "api": page(2, "db")}).ok()
    written = {"version": "3", "services": {name: {"image": BUSYBOX} for name in ("db", "api")}}
    compose = dock.project.folder / "docker-compose.json"
    compose.write_text(json.dumps(written))
    command = ["docker-compose", "-p", dock.name, "-f", str(compose), "ps"]
    env = {**os.environ, **dock.engine.env}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    for name in dock.names():
        assert name in shown.stdout, shown.stdout
    assert shown.stdout.count("Up") == 3, shown.stdout


def test_containers_networks_and_volumes_carry_our_labels_and_composes(harbour: Harbour) -> None:
    harbour.deploy({"db": page(volumes=[{"name": "data", "mount_path": "/data"}], labels={"team": "payments"})}).ok()
    labels = harbour.inspect("db")["Config"]["Labels"]
    assert labels["team"] == "payments"
    assert (labels["deploy-code.service"], labels["deploy-code.revision"]) == ("db", "1")
    assert Path(labels["deploy-code.state"]) == harbour.project.state
    for key, value in {"project": harbour.name, "service": "db", "container-number": "1", "oneoff": "False"}.items():
        assert labels[f"com.docker.compose.{key}"] == value
    [network] = harbour.networks()
    assert network["Labels"]["com.docker.compose.project"] == harbour.name
    [volume] = harbour.volumes()
    assert volume == f"{harbour.name}_data"
    said = harbour.engine.api("GET", f"/volumes/{volume}")["Labels"]
    assert said["com.docker.compose.volume"] == "data"
    assert harbour.name_of(harbour.containers("db")[0]) == f"{harbour.name}-db-r1-0"
