"""Commands that only look: history, events, logs, status, health; over a real state, without agent and engine."""

import json
import os
import time

import pytest
import yaml

from deploy_code import events
from deploy_code.cli.logfiles import LogFile, labels, pick
from deploy_code.cli.main import run
from deploy_code.errors import ServiceError
from deploy_code.model import Content, Exit, Instance, Policy, ProbeResult, ServiceSpec
from deploy_code.orchestrator.report import FailureReport
from deploy_code.state.rows import MapEntry, NewDeployment
from deploy_code.state.store import Store, policy_digest
from deploy_code.state.trace import EventWriter

BEGAN = 1738324800.0  # 2025-01-31T12:00:00Z
SECRET = "hunter2-the-secret"
POLICY = Policy()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A project folder with a file that is broken beyond its identity."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    storage = f"{{data_dir: {tmp_path}/data, log_dir: {tmp_path}/logs}}"
    (tmp_path / "deploy-code.yaml").write_text(
        f"name: shop\nenvironment: production\ninfrastructure:\n  storage: {storage}\nservices: [broken, file]\n"
    )
    return tmp_path


def spec(name, **env):
    return ServiceSpec(name=name, content=Content(command="x", env=env), policy=POLICY, secrets=tuple(env.values()))


def entry(revision):
    return MapEntry(revision, policy_digest(POLICY), 1)


def open_state(folder):
    return Store.create(
        folder / "data" / "shop",
        name="shop",
        file=str(folder / "deploy-code.yaml"),
        environment="production",
        log_dir=str(folder / "logs" / "shop"),
    )


@pytest.fixture
def state(folder):
    """Deployment 1 completed and good; deployment 2 failed at api and was rolled back."""
    with open_state(folder) as store:
        first = NewDeployment(
            kind="deploy",
            who="ann@host pid 7",
            before={},
            after={"api": entry(1), "db": entry(1)},
            services=("api", "db"),
            origin="deploy-code deploy",
            plan="deploy shop: 2 to create\n  1. start db r1  new\n  2. start api r1  new",
            revisions=[(1, spec("api", API_KEY=SECRET)), (1, spec("db"))],
            policies=[POLICY],
            started_at=BEGAN,
        )
        number = store.begin_deployment(first)
        writer = EventWriter(store, "ann@host pid 7")
        writer.record_event(events.DeploymentStarted(at=BEGAN, deployment=1, kind="deploy", services=("api", "db")))
        writer.record_step_started(1, 1, "start db r1", "new", at=BEGAN)
        writer.record_step_finished(1, 1, at=BEGAN + 1.5)
        writer.record_step_started(1, 2, "start api r1", "new", at=BEGAN + 1.5)
        writer.record_event(events.WarningRaised(at=BEGAN + 2, deployment=1, service="api", message=f"leaks {SECRET}"))
        writer.flush()
        store.finish_deployment(number, status="completed", good=True, report={"success": True, "errors": []})
        second = first._replace(
            who="bob@host pid 8",
            before=first.after,
            after={"api": entry(2), "db": entry(1)},
            services=("api",),
            revisions=[(2, spec("api", API_KEY=SECRET, NEW="1"))],
            started_at=BEGAN + 60,
        )
        number = store.begin_deployment(second)
        failure = FailureReport(
            service="api",
            code="E006",
            message="api r2 #0 did not become ready.",
            instance="api r2 #0",
            exit=Exit(at=BEGAN, code=3),
            probe=ProbeResult(ok=False, kind="http", target="http://localhost/h", at=BEGAN, duration=0.1, status=500),
            log_lines=("no database",),
            log_path="/logs/api.log",
        )
        from deploy_code.codec import to_data

        report = {"failures": [to_data(failure)], "errors": [str(failure), "E007 DEPENDENCY_FAILED: web"]}
        store.finish_deployment(number, status="rolled_back", good=False, report=report)
    return folder


def shown(capsys, *args, code=0):
    assert run(list(args)) == code
    return capsys.readouterr().out


# --------------------------------------------------------------------------- history


def test_history_lists_deployments_newest_first(state, capsys):
    lines = shown(capsys, "history").splitlines()
    assert lines[0].split() == "NUMBER KIND STATUS GOOD WHEN TOOK WHO SERVICES CHANGED".split()
    assert lines[1].startswith("2       deploy  rolled back")
    assert lines[1].endswith("bob@host pid 8  api")
    assert lines[2].startswith("1       deploy  completed    yes   ")
    assert lines[2].endswith("ann@host pid 7  api, db")


def test_history_is_data_too(state, capsys):
    rows = json.loads(shown(capsys, "history", "--format", "json"))
    assert [(row["number"], row["status"], row["good"], row["services_changed"]) for row in rows] == [
        (2, "rolled_back", False, ["api"]),
        (1, "completed", True, ["api", "db"]),
    ]
    assert rows[1]["started_at"] == "2025-01-31T12:00:00.000+00:00"
    assert yaml.safe_load(shown(capsys, "--format", "yaml", "history")) == rows


def test_history_shows_no_more_than_asked_for(state, capsys):
    assert len(json.loads(shown(capsys, "history", "-n", "1", "--format", "json"))) == 1


def test_history_show_tells_plan_steps_and_what_failed(state, capsys):
    text = shown(capsys, "history", "show", "2")
    assert text.startswith("deploy 2: rolled back\n")
    assert "who      bob@host pid 8" in text
    assert "  2. start api r1  new" in text
    assert "E006 HEALTH_CHECK_FAILED: api r2 #0 did not become ready." in text
    assert "last probe: http http://localhost/h failed 500" in text
    assert "    | no database" in text
    assert "E007 DEPENDENCY_FAILED: web" in text
    assert text.count("E006") == 1


def test_a_number_alone_is_shown_too(state, capsys):
    assert shown(capsys, "history", "2") == shown(capsys, "history", "show", "2")


def test_history_show_tells_how_long_each_step_took(state, capsys):
    lines = [line.split() for line in shown(capsys, "history", "show", "1").splitlines()]
    assert ["start", "db", "r1", "1.5", "s", "new"] in lines
    assert ["start", "api", "r1", "not", "finished", "new"] in lines


def test_history_show_is_data_too(state, capsys):
    data = json.loads(shown(capsys, "history", "show", "2", "--format", "json"))
    assert (data["number"], data["services"]["api"]["revision"]) == (2, 1)
    assert data["report"]["failures"][0]["service"] == "api"


def test_a_deployment_that_never_was_is_wrong_usage(state, capsys):
    assert run(["history", "show", "9"]) == 2
    assert "there is no deployment 9" in capsys.readouterr().err


def test_before_the_first_deployment_every_command_says_so_and_creates_nothing(folder, capsys):
    assert shown(capsys, "history") == "No deployments yet.\n"
    assert shown(capsys, "history", "--format", "json") == "[]\n"
    assert shown(capsys, "events") == "Nothing happened yet.\n"
    assert "nothing was deployed yet" in shown(capsys, "status")
    assert shown(capsys, "logs") == ""
    assert not (folder / "data").exists()
    assert not (folder / "logs").exists()


def test_without_file_and_project_it_is_e001(folder, capsys):
    os.unlink(folder / "deploy-code.yaml")
    for command in ("status", "history", "events", "logs", "health"):
        assert run([command]) == 2
        assert "E001 CONFIG_NOT_FOUND" in capsys.readouterr().err


# --------------------------------------------------------------------------- events


def test_events_say_what_when_and_who_oldest_first(state, capsys):
    lines = shown(capsys, "events").splitlines()
    assert "deploy 1 of 2 services  (ann@host pid 7)" in lines[0]
    assert len(lines) == 2


def test_events_are_data_too(state, capsys):
    rows = json.loads(shown(capsys, "events", "--format", "json"))
    assert [(row["name"], row["deployment"], row["service"]) for row in rows] == [
        ("DeploymentStarted", 1, ""),
        ("WarningRaised", 1, "api"),
    ]


def test_events_of_some_services_and_since_a_moment(state, capsys):
    assert "leaks" in shown(capsys, "events", "--services", "api")
    assert shown(capsys, "events", "--services", "db") == "Nothing happened yet.\n"
    assert "deploy 1" not in shown(capsys, "events", "--since", "2025-01-31T12:00:01Z")
    assert "deploy 1" not in shown(capsys, "events", "--lines", "1")


@pytest.mark.parametrize("format", ["text", "json", "yaml"])
@pytest.mark.parametrize("command", ["events", "history", "status", "health", "logs"])
def test_no_secret_is_shown_in_any_format(state, capsys, command, format):
    write_log(state, "api", [f"my key is {SECRET}"])
    assert SECRET not in shown(capsys, command, "--format", format, code=4 if command == "health" else 0)


# --------------------------------------------------------------------------- logs


def write_log(folder, service, lines, index=0, age=0.0):
    path = folder / "logs" / "shop" / f"{service}.{index}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_logs_of_several_services_are_marked_and_merged_by_time(state, capsys):
    write_log(state, "api", ["second"], age=10)
    write_log(state, "db", ["first"], age=20)
    assert shown(capsys, "logs") == "db  | first\napi | second\n"


def test_logs_of_one_service_are_bare(state, capsys):
    write_log(state, "api", ["one", "", "three"])
    write_log(state, "db", ["other"])
    assert shown(capsys, "logs", "api") == "one\n\nthree\n"


def test_logs_show_the_last_lines_of_each_service_over_all_its_logs(state, capsys):
    write_log(state, "api", ["old 1", "old 2"], index=1, age=100)
    write_log(state, "api", ["new 1", "new 2"], index=0, age=1)
    assert shown(capsys, "logs", "api", "-n", "3") == "api.1 | old 2\napi.0 | new 1\napi.0 | new 2\n"


def test_logs_are_data_too(state, capsys):
    write_log(state, "api", ["hello"], index=1)
    (row,) = json.loads(shown(capsys, "logs", "--format", "json"))
    assert {key: row[key] for key in ("service", "instance", "text")} == {
        "service": "api",
        "instance": 1,
        "text": "hello",
    }


def test_logs_of_a_removed_service_are_shown_by_name_only(state, capsys):
    write_log(state, "gone", ["bye"])
    write_log(state, "api", ["here"])
    assert shown(capsys, "logs") == "here\n"
    assert shown(capsys, "logs", "gone") == "bye\n"


def test_an_unknown_service_is_s001(state, capsys):
    assert run(["logs", "nobody"]) == 2
    assert "S001 SERVICE_NOT_FOUND: there is no service nobody. There are api, db." in capsys.readouterr().err


def test_logs_since_a_moment(state, capsys):
    write_log(state, "api", ["old"], age=3600)
    write_log(state, "db", ["new"], age=1)
    assert shown(capsys, "logs", "--since", "10m").split() == ["db", "|", "new"]


def test_labels_name_only_what_is_needed_to_tell_logs_apart():
    files = [LogFile("a", 0, "/a.0.log"), LogFile("b", 0, "/b.0.log"), LogFile("b", 1, "/b.1.log")]
    assert list(labels(files).values()) == ["a", "b.0", "b.1"]


def test_pick_refuses_what_nobody_knows():
    with pytest.raises(ServiceError, match="S001"):
        pick([], ["x"], [])


# --------------------------------------------------------------------------- status and health


def test_status_works_with_a_broken_file_and_without_an_agent(state, capsys):
    text = shown(capsys, "status")
    assert text.startswith("shop (production): ")
    assert "deployment 2 rolled back" in text
    assert "api" in text


def test_status_is_the_mapping_of_the_python_api(state, capsys):
    data = json.loads(shown(capsys, "status", "--format", "json"))
    assert {"project", "environment", "overall_health", "total_services", "deployed_services"} < data.keys()
    assert {"running_services", "failed_services", "deployment_complete", "services"} < data.keys()
    assert {"status", "health"} < data["services"]["api"].keys()


def test_status_check_is_4_when_not_all_is_healthy(state, capsys):
    assert run(["status", "--check"]) == 4


def test_health_is_4_when_not_all_is_healthy(state, capsys):
    data = json.loads(shown(capsys, "health", "--format", "json", code=4))
    assert {"status", "score", "uptime_hours", "issues"} == data.keys()
    assert data["status"] != "healthy"


def test_an_interrupted_deployment_is_told_with_who_when_and_what_becomes_of_it(state, capsys):
    with open_state(state) as store:
        store.begin_deployment(
            NewDeployment(
                kind="deploy",
                who="eve@host pid 9",
                before={"api": entry(1)},
                after={"api": entry(2)},
                services=("api",),
            )
        )
    text = shown(capsys, "status")
    assert "note: deploy 3 (begun " in text
    assert "by eve@host pid 9) was interrupted: it will be undone by the agent" in text
    assert "'deploy-code recover'" in text


def test_project_instead_of_a_file(state, capsys, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = json.loads(shown(capsys, "status", "--project", "other", "--format", "json"))
    assert data["project"] == "other"


def test_instances_are_shown_in_detail(state, capsys):
    instance = Instance(uuid="u", service="api", revision=1, index=0, phase="ready", pid=os.getpid(), log_path="/l")
    import sqlite3

    from deploy_code.codec import to_data

    with sqlite3.connect(state / "data" / "shop" / "state.db") as db:
        row = ("u", "api", 1, json.dumps(to_data(instance)))
        db.execute("INSERT INTO instances (uuid, service, revision, state) VALUES (?, ?, ?, ?)", row)
    db.close()
    text = shown(capsys, "status", "--detailed")
    assert "api r1 #0: exited" in text  # its boot id is not ours: whatever has that pid now is somebody else
    assert "  log       /l" in text


# --------------------------------------------------------------------------- agent install


def test_agent_install_prints_a_unit_for_this_project(state, capsys):
    text = shown(capsys, "agent", "install", "--print")
    assert "Description=deploy-code agent of shop" in text
    assert f"-m deploy_code.agent {state}/data/shop" in text
    assert text == shown(capsys, "--dry-run", "agent", "install")


def test_agent_install_writes_the_unit_and_says_what_to_do_where_systemd_does_not_run(state, capsys, monkeypatch):
    monkeypatch.setattr("deploy_code.cli.install.SYSTEMD", str(state / "nowhere"))
    text = shown(capsys, "agent", "install", "--user")
    unit = state / "home" / ".config" / "systemd" / "user" / "deploy-code-shop.service"
    assert f"Wrote {unit}." in text
    assert "systemctl --user enable --now deploy-code-shop.service" in text
    assert "WantedBy=default.target" in unit.read_text()


def test_agent_install_needs_something_to_keep(folder, capsys):
    assert run(["agent", "install", "--user"]) == 2
    assert "nothing was deployed yet" in capsys.readouterr().err
